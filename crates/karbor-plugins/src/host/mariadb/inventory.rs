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

    /// What of it another database does not have, for people.
    pub(super) fn lacking(&self, there: &Self) -> Vec<String> {
        let mut lacking = self.lacking_tables(there);
        let views = self.views.iter().filter(|name| !there.views.contains(name));
        lacking.extend(views.map(|name| format!("view {name}")));
        let triggers = self.triggers.iter();
        let triggers = triggers.filter(|one| !there.triggers.contains(one));
        lacking.extend(triggers.map(|one| format!("trigger {}", one.name)));
        let routines = self.routines.iter();
        let routines = routines.filter(|one| !there.routines.contains(one));
        lacking.extend(routines.map(|one| format!("{} {}", one.kind.to_lowercase(), one.name)));
        let events = self
            .events
            .iter()
            .filter(|name| !there.events.contains(name));
        lacking.extend(events.map(|name| format!("event {name}")));
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

    /// Does one table keep its history?
    pub(super) fn has_history(&self) -> bool {
        self.tables
            .iter()
            .any(|table| table.kind == "SYSTEM VERSIONED")
    }
}
