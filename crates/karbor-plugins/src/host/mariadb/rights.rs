//! Whether the server answers, and what the declared account may do.
//!
//! An account sees what it has rights on. Without some of them, a dump lacks triggers, routines or tables and nothing
//! says so; a protect is refused then.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use async_trait::async_trait;
use karbor_plugin::PluginError;

use super::{
    client::{Client, unquoted},
    inventory::{Inventory, drawn_defaults, version},
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
pub(super) struct Grants {
    grants: Vec<Grant>,
    /// All rights on a database show its routines.
    all_shows_routines: bool,
}

/// To whom something is granted. What each of them may do in a database adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grantee {
    Account,
    /// The role in use, and those that it has, which count as one.
    Role,
    Everybody,
}

#[derive(Debug)]
struct Grant {
    to: Grantee,
    rights: Vec<String>,
    /// A pattern, as `LIKE` has them; all databases if none.
    database: Option<String>,
    /// One table only.
    table: Option<String>,
}

/// What a dump of all that is in a database takes.
const TO_READ: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// The right to see what routines consist of, which servers know from 11.3 on.
const SHOW_ROUTINES: &str = "SHOW CREATE ROUTINE";

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
        let answer = client
            .run(QUESTION, None, "SELECT VERSION(); SHOW GRANTS;")
            .await?;
        Ok(Self::of(&answer))
    }

    /// Those of the server's version, and the lines of `SHOW GRANTS`.
    fn of(answer: &str) -> Self {
        let version = version(answer.lines().next().unwrap_or_default());
        Self {
            grants: answer.lines().filter_map(grant).collect(),
            // Before, the right was not there, and all rights are without it.
            all_shows_routines: version >= (11, 3),
        }
    }

    /// May it do this with everything in a database?
    ///
    /// The server adds the rights on all databases to those on one. Of patterns that a database's name is like, it
    /// takes the one that says most, and that alone.
    fn may(&self, right: &str, database: &str) -> bool {
        let gives = |grant: &Grant| {
            grant.gives(right) && (right != SHOW_ROUTINES || self.shows_routines(grant))
        };
        let globally = |grant: &Grant| grant.database.is_none() && gives(grant);
        self.grants.iter().any(globally)
            || [Grantee::Account, Grantee::Role, Grantee::Everybody]
                .into_iter()
                .any(|to| {
                    let patterns = self.closest(to, database);
                    // Which of two that say the same the server takes is its own affair.
                    !patterns.is_empty()
                        && patterns.iter().all(|pattern| {
                            self.on_databases(to)
                                .any(|(of, grant)| of == *pattern && gives(grant))
                        })
                })
    }

    fn on_databases(&self, to: Grantee) -> impl Iterator<Item = (&str, &Grant)> {
        let grants = self.grants.iter();
        let grants = grants.filter(move |grant| grant.to == to && grant.table.is_none());
        grants.filter_map(|grant| Some((grant.database.as_deref()?, grant)))
    }

    /// The patterns that say most of a database's name.
    fn closest(&self, to: Grantee, database: &str) -> Vec<&str> {
        let patterns = self.on_databases(to).map(|(pattern, _)| pattern);
        let patterns: Vec<_> = patterns.filter(|pattern| like(pattern, database)).collect();
        let least = patterns.iter().map(|pattern| looseness(pattern)).min();
        let mut patterns = patterns;
        patterns.retain(|pattern| Some(looseness(pattern)) == least);
        patterns
    }

    fn shows_routines(&self, grant: &Grant) -> bool {
        self.all_shows_routines || grant.rights.iter().any(|right| right == SHOW_ROUTINES)
    }

    fn may_read_routines(&self, database: &str) -> bool {
        let of_proc = |grant: &Grant| {
            grant.gives("SELECT")
                && grant.database.as_deref() == Some("mysql")
                && grant.table.as_deref() == Some("proc")
        };
        self.may("SELECT", "mysql")
            || self.may(SHOW_ROUTINES, database)
            || self.grants.iter().any(of_proc)
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
            let mut all = self.grants.iter();
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
    if rights.contains('(') || rest.starts_with("PROCEDURE ") || rest.starts_with("FUNCTION ") {
        return None;
    }
    let (database, table, rest) = match rest.strip_prefix("*.*") {
        Some(rest) => (None, None, rest),
        None => {
            let (database, rest) = unquoted(rest)?;
            let rest = rest.strip_prefix('.')?;
            let (table, rest) = match rest.strip_prefix('*') {
                Some(rest) => (None, rest),
                None => unquoted(rest).map(|(table, rest)| (Some(table), rest))?,
            };
            (Some(database), table, rest)
        }
    };
    let to = rest.strip_prefix(" TO ")?;
    let to = match unquoted(to) {
        Some((_, rest)) if rest.starts_with('@') => Grantee::Account,
        Some((one, _)) if one != "PUBLIC" => Grantee::Role,
        _ => Grantee::Everybody,
    };
    Some(Grant {
        to,
        rights: rights.split(", ").map(str::to_owned).collect(),
        database,
        table,
    })
}

/// How little a pattern says of the names that are like it, as the server orders them: without `%` before those with;
/// then by how many characters may be any, and by how many `%`.
fn looseness(pattern: &str) -> (bool, usize, usize) {
    const LONGEST: usize = 64;
    let (mut fixed, mut any, mut many) = (0_usize, 0_usize, 0_usize);
    let mut last = None;
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '%' if last == Some('%') => {}
            '%' => many += 1,
            '_' => any += 1,
            '\\' => fixed += characters.next().unwrap_or(c).len_utf8(),
            c => fixed += c.len_utf8(),
        }
        last = Some(c);
    }
    match many {
        0 => (false, any, 0),
        many => (true, LONGEST.saturating_sub(fixed + any), many),
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
    let drawn = drawn_defaults(client, &source.database).await?;
    for reason in drawn.into_iter().chain(inventory.undumpable()) {
        findings.push(Finding::error("database", reason));
    }
    if let Some(warning) = inventory.history_left_out() {
        findings.push(Finding::warning("database", warning));
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
        let read = |lines: &[&str]| Grants::of(&lines.join("\n"));
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

    /// The server adds up what is granted on all databases and by the closest pattern, and nothing else.
    #[test]
    fn the_closest_pattern_counts_alone() {
        let read = |lines: &[&str]| Grants::of(&lines.join("\n"));
        let to_all =
            "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, SHOW CREATE ROUTINE ON `sh%`.* TO `k`@`%`";
        let closer = "GRANT SELECT, SHOW VIEW, EVENT, SHOW CREATE ROUTINE ON `shop`.* TO `k`@`%`";
        let lacks = |lines: &[&str]| read(lines).unreadable("shop").unwrap_or_default();
        assert_eq!(lacks(&[to_all]), "");
        let lacking = lacks(&[to_all, closer]);
        assert!(lacking.ends_with("grant it TRIGGER on shop.*"), "{lacking}");
        assert_eq!(lacks(&[closer, "GRANT TRIGGER ON *.* TO `k`@`%`"]), "");
        // What a role or everybody may is added, each by its own closest pattern.
        assert_eq!(lacks(&[closer, "GRANT TRIGGER ON `sho_`.* TO `r`"]), "");
        assert_eq!(lacks(&[closer, "GRANT TRIGGER ON `%`.* TO PUBLIC"]), "");
        let narrow = [
            closer,
            "GRANT TRIGGER ON `sho_`.* TO `r`",
            "GRANT SELECT ON `shop`.* TO `s`",
        ];
        assert_ne!(lacks(&narrow), "");
        // Which of these the server takes is not known.
        let equal = [
            "GRANT ALL PRIVILEGES ON `sho_`.* TO `k`@`%`",
            "GRANT SELECT ON `_hop`.* TO `k`@`%`",
        ];
        assert_ne!(lacks(&equal), "");
        // A name may have words of the statement in it.
        let odd = read(&["GRANT ALL PRIVILEGES ON `a TO b`.* TO `k`@`%`"]);
        assert!(odd.may("TRIGGER", "a TO b"));
    }

    #[test]
    fn all_rights_show_routines_from_11_3_on() {
        let all = "GRANT ALL PRIVILEGES ON `shop`.* TO `k`@`%`";
        for (version, shows) in [
            ("10.11.19-MariaDB-0+deb12u1", false),
            ("11.2.6-MariaDB", false),
            ("11.3.2-MariaDB", true),
            ("12.0.1-MariaDB-log", true),
        ] {
            let lacking = Grants::of(&format!("{version}\n{all}")).unreadable("shop");
            assert_eq!(lacking.is_none(), shows, "{version} {lacking:?}");
        }
        let literal = all.replace(
            "ALL PRIVILEGES",
            &format!("{}, {SHOW_ROUTINES}", TO_READ.join(", ")),
        );
        assert_eq!(
            Grants::of(&format!("11.3.2\n{literal}")).unreadable("shop"),
            None
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
