//! Whether the server answers, and what the declared account may do.
//!
//! An account sees what it has rights on. Without some of them, a dump lacks triggers, routines or tables and nothing
//! says so; a protect is refused then.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use async_trait::async_trait;
use karbor_plugin::PluginError;

use super::{
    client::Client,
    inventory::Inventory,
    messages::shown,
    source::{MariadbSource, OWN},
};
use crate::host::{
    applications::{Finding, Source},
    command::QUESTION,
    places::describe,
};

/// What an account was granted.
#[derive(Debug, Default)]
pub(super) struct Grants(Vec<Grant>);

#[derive(Debug)]
struct Grant {
    rights: Vec<String>,
    /// A pattern, as `LIKE` has them; all databases if none.
    database: Option<String>,
    /// One table only.
    table: Option<String>,
}

/// What a dump of all that is in a database takes.
const TO_READ: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// What it takes to fill a database.
const TO_WRITE: [&str; 13] = [
    "SELECT",
    "INSERT",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "LOCK TABLES",
    "CREATE VIEW",
    "TRIGGER",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
];

impl Grants {
    /// Those of the declared account and its role.
    pub(super) async fn read(client: &Client<'_>) -> Result<Self, PluginError> {
        let answer = client.run(QUESTION, None, "SHOW GRANTS;").await?;
        Ok(Self(answer.lines().filter_map(grant).collect()))
    }

    /// May it do this with everything in a database?
    fn may(&self, right: &str, database: &str) -> bool {
        self.0.iter().any(|grant| {
            grant.table.is_none()
                && grant.gives(right)
                && grant
                    .database
                    .as_deref()
                    .is_none_or(|of| like(of, database))
        })
    }

    fn may_read_routines(&self, database: &str) -> bool {
        let of_proc = |grant: &Grant| {
            grant.gives("SELECT")
                && grant.database.as_deref() == Some("mysql")
                && grant.table.as_deref() == Some("proc")
        };
        self.may("SELECT", "mysql")
            || self.may("SHOW CREATE ROUTINE", database)
            || self.0.iter().any(of_proc)
    }

    /// Why not all of a database can be dumped.
    pub(super) fn unreadable(&self, database: &str) -> Option<String> {
        let lacking = TO_READ.iter().filter(|right| !self.may(right, database));
        let mut lacking: Vec<_> = lacking
            .map(|right| format!("{right} on {}.*", shown(database)))
            .collect();
        if !self.may_read_routines(database) {
            lacking.push("SELECT on mysql.proc".to_owned());
        }
        (!lacking.is_empty()).then(|| {
            format!(
                "the account does not see all of the database, and a checkpoint would lack things without a word: grant it {}",
                lacking.join(", ")
            )
        })
    }

    /// Why a database cannot be restored.
    pub(super) fn unwritable(&self, database: &str) -> Option<String> {
        let own = format!("{OWN}x");
        let lacking = |of: &str| {
            let lacking = TO_WRITE.iter().filter(|right| !self.may(right, of));
            let lacking: Vec<_> = lacking.copied().collect();
            lacking.join(", ")
        };
        let (own, there) = (lacking(&own), lacking(database));
        let told = |rights: &str, of: &str| format!("{rights} on {of}");
        let mut needed = Vec::new();
        if !own.is_empty() {
            needed.push(told(
                &own,
                &format!("`{OWN}%`.* (databases that a restore makes for itself)"),
            ));
        }
        if !there.is_empty() {
            needed.push(told(&there, &format!("{}.*", shown(database))));
        }
        (!needed.is_empty()).then(|| format!("grant the account {}", needed.join(", and ")))
    }

    /// May it make views and routines that run with others' rights?
    pub(super) fn sets_definers(&self) -> bool {
        ["SUPER", "SET USER"].iter().any(|right| {
            let mut all = self.0.iter();
            all.any(|grant| grant.database.is_none() && grant.gives(right))
        })
    }
}

impl Grant {
    fn gives(&self, right: &str) -> bool {
        let mut rights = self.rights.iter();
        rights.any(|given| given == right || given == "ALL PRIVILEGES")
    }
}

/// Of a line of `SHOW GRANTS`; one that gives a role or a part of a table's columns says nothing here.
fn grant(line: &str) -> Option<Grant> {
    let rest = line.strip_prefix("GRANT ")?;
    let (rights, rest) = rest.split_once(" ON ")?;
    let target = rest.split_once(" TO ").map_or(rest, |(target, _)| target);
    if rights.contains('(') || target.starts_with("PROCEDURE ") || target.starts_with("FUNCTION ") {
        return None;
    }
    let (database, table) = match target {
        "*.*" => (None, None),
        target => {
            let (database, rest) = name(target)?;
            let table = match rest {
                ".*" => None,
                rest => Some(name(rest.strip_prefix('.')?)?.0),
            };
            (Some(database), table)
        }
    };
    Some(Grant {
        rights: rights.split(", ").map(str::to_owned).collect(),
        database,
        table,
    })
}

/// A name in backquotes, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let (part, after) = rest.split_once('`')?;
        found.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                found.push('`');
                rest = more;
            }
            None => return Some((found, after)),
        }
    }
}

/// SQL's `LIKE`: `%` is any text, `_` one character, `\` takes the meaning from what follows.
fn like(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = pattern.as_str();
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| like(rest, &text[at..]))
        }
        Some(meant) => {
            let (any, wanted) = match meant {
                '_' => (true, '_'),
                '\\' => (false, pattern.next().unwrap_or('\\')),
                other => (false, other),
            };
            let mut text = text.chars();
            text.next().is_some_and(|c| any || c == wanted) && like(pattern.as_str(), text.as_str())
        }
    }
}

#[async_trait]
impl Source for MariadbSource {
    fn trusted_files(&self) -> Vec<(&'static str, &Path)> {
        self.files()
    }

    /// Does the server answer, are its programs there, and may the account do what is asked of it?
    async fn ask(&self) -> Vec<Finding> {
        let client = Client::new(self);
        for program in ["mariadb", "mariadb-dump"] {
            if let Err(error) = client.find(program) {
                return vec![Finding::error("bin_dir", error.message)];
            }
        }
        for (field, file) in self.files() {
            match fs::metadata(file) {
                Err(error) if field != "bin_dir" => {
                    return vec![Finding::error(field, describe(file, &error))];
                }
                Ok(found) if field == "password_file" && found.mode() & 0o077 != 0 => {
                    let message = format!("others may read '{}': chmod 600", file.display());
                    return vec![Finding::error(field, message)];
                }
                _ => {}
            }
        }
        match asked(&client, self).await {
            Ok(findings) => findings,
            Err(error) => vec![Finding::error("", error.message)],
        }
    }
}

async fn asked(client: &Client<'_>, source: &MariadbSource) -> Result<Vec<Finding>, PluginError> {
    let inventory = Inventory::read(client, &source.database).await?;
    let grants = Grants::read(client).await?;
    let mut findings = Vec::new();
    if let Some(reason) = grants.unreadable(&source.database) {
        findings.push(Finding::error("user", reason));
    }
    if source.accounts && !grants.may("SELECT", "mysql") {
        let message = "the account may not read the server's accounts: grant it SELECT on mysql.*, or leave accounts out";
        findings.push(Finding::error("accounts", message));
    }
    if let Some(reason) = grants.unwritable(&source.database) {
        let message = format!("it can be protected, but not restored: {reason}");
        findings.push(Finding::warning("user", message));
    }
    if !inventory.definers.is_empty() && !grants.sets_definers() {
        let message = "it can be protected, but not restored, unless all its views, triggers, routines and events are the account's own: grant it SET USER on *.*";
        findings.push(Finding::warning("user", message));
    }
    if let Some(warning) = inventory.torn() {
        findings.push(Finding::warning("database", warning));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_understood() {
        let read = |lines: &[&str]| Grants(lines.iter().filter_map(|line| grant(line)).collect());
        let all = read(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert_eq!(all.unreadable("shop"), None);
        assert_eq!(all.unwritable("shop"), None);
        assert!(all.sets_definers());
        let some = read(&[
            "GRANT USAGE ON *.* TO `k`@`%` IDENTIFIED BY PASSWORD 'x'",
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `sh\\_p`.* TO `k`@`%`",
            "GRANT SELECT ON `mysql`.`proc` TO `k`@`%`",
            "GRANT ALL PRIVILEGES ON `karbor-%`.* TO `k`@`%`",
        ]);
        assert_eq!(some.unreadable("sh_p"), None);
        assert!(
            some.unreadable("shop")
                .is_some_and(|reason| reason.contains("TRIGGER on shop.*"))
        );
        let needed = some.unwritable("sh_p").unwrap_or_default();
        assert!(
            needed.contains("INSERT") && !needed.contains(OWN),
            "{needed}"
        );
        assert!(!some.sets_definers());
        // Of one table, or of some columns, is not of all.
        let part = read(&[
            "GRANT SELECT, SHOW VIEW, TRIGGER ON `shop`.`a``b` TO `k`@`%`",
            "GRANT SELECT (`x`) ON `shop`.* TO `k`@`%`",
        ]);
        let lacking = part.unreadable("shop").unwrap_or_default();
        assert!(
            lacking.contains("SELECT on shop.*") && lacking.contains("mysql.proc"),
            "{lacking}"
        );
    }

    #[test]
    fn patterns_are_those_of_sql() {
        for (pattern, text, is) in [
            ("shop", "shop", true),
            ("shop", "shops", false),
            ("sh_p", "shop", true),
            ("sh\\_p", "shop", false),
            ("sh\\_p", "sh_p", true),
            ("karbor-%", "karbor-", true),
            ("%a%", "banana", true),
            ("%", "", true),
            ("", "x", false),
        ] {
            assert_eq!(like(pattern, text), is, "{pattern} {text}");
        }
    }
}
