//! What a database consists of. It is kept in the snapshot as `database.json`: what MariaDB lets an account see is
//! what it has rights on, so a dump may lack things without a word; a restore compares what it brought back.

use std::collections::BTreeSet;

use karbor_plugin::PluginError;
use serde::{Deserialize, Serialize};

use super::{
    client::{Client, text},
    messages::some,
};

/// Its name in the snapshot.
pub(super) const STORED_AS: &str = "database.json";

/// Most that is read of it, in bytes.
pub(super) const MOST: usize = 64 * 1024 * 1024;

/// A database, without its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inventory {
    pub(super) server_version: String,
    pub(super) charset: String,
    pub(super) collation: String,
    pub(super) comment: String,
    pub(super) tables: Vec<Table>,
    pub(super) views: Vec<String>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) routines: Vec<Routine>,
    pub(super) events: Vec<String>,
    /// The accounts, `user@host`, with whose rights views, triggers, routines and events run.
    pub(super) definers: BTreeSet<String>,
}

/// A table or sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) name: String,
    /// As the server calls it, e.g. `BASE TABLE`.
    pub(super) kind: String,
    pub(super) engine: Option<String>,
    /// One transaction shows all its rows as they were at one time.
    pub(super) transactional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) table: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Routine {
    /// `PROCEDURE`, `FUNCTION`, `PACKAGE` or `PACKAGE BODY`.
    pub(super) kind: String,
    pub(super) name: String,
}

/// One row of what the server tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    Database(String, String, String, String),
    Table(String, String, Option<String>, u8),
    View(String, String),
    Trigger(String, String, String),
    Routine(String, String, String),
    Event(String, String),
}

impl Inventory {
    /// Reads that of a database; none if it is not there.
    pub(super) async fn find(
        client: &Client<'_>,
        database: &str,
    ) -> Result<Option<Self>, PluginError> {
        // The catalog compares without regard to case, databases' names may differ in it.
        let of = |column: &str| {
            format!(
                "{column} = {0} AND BINARY {column} = BINARY {0}",
                text(database)
            )
        };
        let sql = format!(
            "SELECT JSON_OBJECT('database', JSON_ARRAY(VERSION(), DEFAULT_CHARACTER_SET_NAME,
                    DEFAULT_COLLATION_NAME, SCHEMA_COMMENT))
                FROM information_schema.SCHEMATA WHERE {};
            SELECT JSON_OBJECT('table', JSON_ARRAY(t.TABLE_NAME, t.TABLE_TYPE, t.ENGINE,
                    IF(e.TRANSACTIONS = 'YES' OR t.TABLE_TYPE = 'SEQUENCE', 1, 0)))
                FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
                WHERE {} AND t.TABLE_TYPE NOT IN ('VIEW', 'TEMPORARY');
            SELECT JSON_OBJECT('view', JSON_ARRAY(TABLE_NAME, DEFINER)) FROM information_schema.VIEWS WHERE {};
            SELECT JSON_OBJECT('trigger', JSON_ARRAY(TRIGGER_NAME, EVENT_OBJECT_TABLE, DEFINER))
                FROM information_schema.TRIGGERS WHERE {};
            SELECT JSON_OBJECT('routine', JSON_ARRAY(ROUTINE_TYPE, ROUTINE_NAME, DEFINER))
                FROM information_schema.ROUTINES WHERE {};
            SELECT JSON_OBJECT('event', JSON_ARRAY(EVENT_NAME, DEFINER)) FROM information_schema.EVENTS WHERE {};",
            of("SCHEMA_NAME"),
            of("t.TABLE_SCHEMA"),
            of("TABLE_SCHEMA"),
            of("TRIGGER_SCHEMA"),
            of("ROUTINE_SCHEMA"),
            of("EVENT_SCHEMA"),
        );
        let mut found = Self::default();
        let mut is_there = false;
        for row in client.ask::<Row>(&sql).await? {
            match row {
                Row::Database(version, charset, collation, comment) => {
                    is_there = true;
                    found.server_version = version;
                    found.charset = charset;
                    found.collation = collation;
                    found.comment = comment;
                }
                Row::Table(name, kind, engine, transactional) => found.tables.push(Table {
                    name,
                    kind,
                    engine,
                    transactional: transactional == 1,
                }),
                Row::View(name, definer) => {
                    found.views.push(name);
                    found.definers.insert(definer);
                }
                Row::Trigger(name, table, definer) => {
                    found.triggers.push(Trigger { name, table });
                    found.definers.insert(definer);
                }
                Row::Routine(kind, name, definer) => {
                    found.routines.push(Routine { kind, name });
                    found.definers.insert(definer);
                }
                Row::Event(name, definer) => {
                    found.events.push(name);
                    found.definers.insert(definer);
                }
            }
        }
        Ok(is_there.then_some(found))
    }

    /// Reads that of a database that has to be there.
    pub(super) async fn read(client: &Client<'_>, database: &str) -> Result<Self, PluginError> {
        Self::find(client, database).await?.ok_or_else(|| {
            PluginError::new(format!(
                "the server has no database '{database}', or the declared user has no right on it"
            ))
        })
    }

    /// Nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.views.is_empty()
            && self.routines.is_empty()
            && self.events.is_empty()
    }

    pub(super) fn has_table(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.name == name)
    }

    /// Leaves out what is not there any more. The accounts stay.
    pub(super) fn keep_what_is_in(&mut self, later: &Self) {
        self.tables.retain(|table| later.has_table(&table.name));
        self.views.retain(|name| later.views.contains(name));
        self.triggers.retain(|one| later.triggers.contains(one));
        self.routines.retain(|one| later.routines.contains(one));
        self.events.retain(|name| later.events.contains(name));
    }

    /// Its views that cannot be read, e.g. because a table of theirs is gone. The catalog has no columns of such.
    pub(super) async fn broken_views(
        &self,
        client: &Client<'_>,
        database: &str,
    ) -> Result<Vec<String>, PluginError> {
        if self.views.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT DISTINCT JSON_QUOTE(TABLE_NAME) FROM information_schema.COLUMNS
                WHERE TABLE_SCHEMA = {0} AND BINARY TABLE_SCHEMA = BINARY {0};",
            text(database)
        );
        let whole = client.ask::<String>(&sql).await?;
        let broken = self.views.iter().filter(|view| !whole.contains(view));
        Ok(broken.cloned().collect())
    }

    /// What of it another database does not have, for people.
    pub(super) fn lacking(&self, there: &Self) -> Vec<String> {
        let mut lacking = self.lacking_but_events(there);
        lacking.extend(self.lacking_events(there));
        lacking
    }

    /// Events pass: the server drops one whose time is over, if it was not made to stay.
    pub(super) fn lacking_events(&self, there: &Self) -> Vec<String> {
        let events = self.events.iter();
        let events = events.filter(|name| !there.events.contains(name));
        events.map(|name| format!("event {name}")).collect()
    }

    pub(super) fn lacking_but_events(&self, there: &Self) -> Vec<String> {
        let mut lacking = self.lacking_tables(there);
        let views = self.views.iter().filter(|name| !there.views.contains(name));
        lacking.extend(views.map(|name| format!("view {name}")));
        let triggers = self.triggers.iter();
        let triggers = triggers.filter(|one| !there.triggers.contains(one));
        lacking.extend(triggers.map(|one| format!("trigger {}", one.name)));
        let routines = self.routines.iter();
        let routines = routines.filter(|one| !there.routines.contains(one));
        lacking.extend(routines.map(|one| format!("{} {}", one.kind.to_lowercase(), one.name)));
        lacking
    }

    pub(super) fn lacking_tables(&self, there: &Self) -> Vec<String> {
        let tables = self
            .tables
            .iter()
            .filter(|table| !there.has_table(&table.name));
        tables
            .map(|table| format!("table {}", table.name))
            .collect()
    }

    /// Everything in it, as a dry run lists it.
    pub(super) fn listed(&self) -> Vec<String> {
        self.lacking(&Self::default())
    }

    /// Tables that are not as they were at one time.
    pub(super) fn torn(&self) -> Option<String> {
        let torn = self.tables.iter().filter(|table| !table.transactional);
        let torn: Vec<_> = torn
            .map(|table| match &table.engine {
                Some(engine) => format!("{} ({engine})", table.name),
                None => table.name.clone(),
            })
            .collect();
        (!torn.is_empty()).then(|| {
            format!(
                "tables without transactions are not as they were at one time, if something wrote to them meanwhile: {}: quiesce the application, or give them an engine with transactions (ALTER TABLE … ENGINE = InnoDB)",
                some(&torn)
            )
        })
    }

    /// Does one table keep its history, and can a server of this version take it back?
    pub(super) fn has_history(&self) -> bool {
        self.takes_history() && !self.versioned().is_empty()
    }

    /// Histories that are not in a dump.
    pub(super) fn history_left_out(&self) -> Option<String> {
        let versioned = self.versioned();
        (!self.takes_history() && !versioned.is_empty()).then(|| {
            format!(
                "the checkpoint has the rows of system-versioned tables as they are, and not their history, which no server before 10.11 takes back: {}",
                some(&versioned)
            )
        })
    }

    fn takes_history(&self) -> bool {
        version(&self.server_version) >= (10, 11)
    }

    fn versioned(&self) -> Vec<&str> {
        let tables = self.tables.iter();
        let tables = tables.filter(|table| table.kind == "SYSTEM VERSIONED");
        tables.map(|table| table.name.as_str()).collect()
    }

    /// Why it cannot be dumped so that it can be restored, if that is so.
    pub(super) fn undumpable(&self) -> Option<String> {
        let elsewhere = self.tables.iter().filter_map(|table| {
            let engine = table.engine.as_deref()?;
            let is_own = ENGINES.iter().any(|own| own.eq_ignore_ascii_case(engine));
            (!is_own).then(|| format!("{} ({engine})", table.name))
        });
        let elsewhere: Vec<_> = elsewhere.collect();
        if !elsewhere.is_empty() {
            return Some(format!(
                "tables have their rows elsewhere, or in an engine that dumps are not known to bring back, and a restore could change what it should not: {}. Keep such tables in another database",
                some(&elsewhere)
            ));
        }
        // `mariadb-dump` leaves out what has a view's name in any case.
        let alike = self.views.iter().filter(|view| {
            let same = |table: &Table| table.name.to_lowercase() == view.to_lowercase();
            self.tables.iter().any(same)
        });
        let alike: Vec<_> = alike.collect();
        (!alike.is_empty()).then(|| {
            format!(
                "tables have the names of views but for upper and lower case, and mariadb-dump would leave them out without a word: {}. Rename the views",
                some(&alike)
            )
        })
    }
}

/// The engines whose tables a dump brings back: rows are their own, or in other tables of the server.
const ENGINES: [&str; 12] = [
    "InnoDB",
    "MyISAM",
    "MRG_MyISAM",
    "Aria",
    "MEMORY",
    "CSV",
    "ARCHIVE",
    "BLACKHOLE",
    "ROCKSDB",
    "TokuDB",
    "Mroonga",
    "Columnstore",
];

/// Of what a server calls its version, the first two numbers.
pub(super) fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let mut part = || parts.next().and_then(|part| part.parse::<u32>().ok());
    (part().unwrap_or(0), part().unwrap_or(0))
}

/// Why a database cannot be restored, whatever else is there: columns that draw their default from a sequence. The
/// server writes that sequence's database into the table, so the table can be filled in no other.
pub(super) async fn drawn_defaults(
    client: &Client<'_>,
    database: &str,
) -> Result<Option<String>, PluginError> {
    // Without the texts in it, which may say anything. A view has the defaults of its tables, and is made without.
    let sql = format!(
        r"SELECT JSON_QUOTE(CONCAT(TABLE_NAME, '.', COLUMN_NAME)) FROM information_schema.COLUMNS
            WHERE TABLE_SCHEMA = {0} AND BINARY TABLE_SCHEMA = BINARY {0}
            AND TABLE_NAME NOT IN (SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {0})
            AND REGEXP_REPLACE(COLUMN_DEFAULT, '\'([^\'\\\\]|\\\\.)*\'', '') REGEXP '(next|last|set)val[(]';",
        text(database)
    );
    let columns = client.ask::<String>(&sql).await?;
    Ok((!columns.is_empty()).then(|| {
        format!(
            "columns have the next value of a sequence as their default, and a checkpoint with them could not be restored: {}. Make them AUTO_INCREMENT, or set them in a trigger: CREATE TRIGGER … BEFORE INSERT ON … FOR EACH ROW SET NEW.… = COALESCE(NEW.…, NEXTVAL(…))",
            some(&columns)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(server_version: &str, kind: &str, engine: &str, view: &str) -> Inventory {
        Inventory {
            server_version: server_version.to_owned(),
            tables: vec![Table {
                name: "items".to_owned(),
                kind: kind.to_owned(),
                engine: Some(engine.to_owned()),
                transactional: true,
            }],
            views: vec![view.to_owned()],
            ..Inventory::default()
        }
    }

    #[test]
    fn what_a_dump_does_not_bring_back_is_refused() {
        let refused =
            |engine, view| with("10.11.6-MariaDB", "BASE TABLE", engine, view).undumpable();
        assert_eq!(refused("InnoDB", "dear"), None);
        assert_eq!(refused("aria", "dear"), None);
        for engine in ["CONNECT", "SPIDER", "FEDERATED", "S3"] {
            let refused = refused(engine, "dear").unwrap_or_default();
            assert!(refused.contains(&format!("items ({engine})")), "{refused}");
        }
        let refused = refused("InnoDB", "Items").unwrap_or_default();
        assert!(refused.contains("'Items'"), "{refused}");
    }

    #[test]
    fn a_history_that_the_server_takes_not_back_is_warned_of() {
        let versioned = |version| with(version, "SYSTEM VERSIONED", "InnoDB", "dear");
        let (old, new) = (
            versioned("10.6.18-MariaDB-log"),
            versioned("10.11.6-MariaDB"),
        );
        assert!(new.has_history() && !old.has_history());
        assert_eq!(new.history_left_out(), None);
        let told = old.history_left_out().unwrap_or_default();
        assert!(told.contains("'items'"), "{told}");
        assert!(!with("11.4.2", "BASE TABLE", "InnoDB", "dear").has_history());
    }
}
