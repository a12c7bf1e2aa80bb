//! Bringing a database back.
//!
//! 1. The tables and their rows are loaded into a database of this operation's own, `karbor-…`. Nobody knows it, so a
//!    restore that fails or dies up to here has changed nothing.
//! 2. **Exchange.** What the database has of the names in the checkpoint gives way: its tables move to a second database
//!    of the operation's own, and the new ones into their place, by one `RENAME TABLE`, which does all or nothing.
//!    Triggers keep tables from moving, so they go before; they, and all views, routines and events, were written to a
//!    file in the scratch directory first. What the checkpoint does not have stays.
//! 3. Triggers, routines, events and views of the checkpoint are made, and what is there is compared with what the
//!    checkpoint says it has.
//!
//! An undo moves the tables back and makes triggers, views, routines and events as they are in that file. So does a run
//! that finds the note of one that died on its way; then it begins anew. The operation's databases are signed by their
//! comments, and none without the sign is dropped.

use std::{
    fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, process::Stdio, sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use karbor_plugin::{HookReport, NoProgress, OperationContext, PluginError};
use karbor_vault::{Control, Overwrite, VaultError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{
    client::{Client, QUIET, SLOW, named, not_started, quoted, text},
    dump,
    inventory::{Inventory, MOST, Routine, STORED_AS},
    messages::{failure, shown, some},
    rights::Grants,
    source::{MariadbSource, OWN, database_name},
};
use crate::host::{
    command::{Group, drain},
    component::Restoring,
    notes::{Note, scratch},
    occupied::Place,
    parameters::{LISTED, REFUSED},
    shared::{Host, blocking},
};

/// Triggers, routines and events, in the snapshot.
pub(super) const CODE: &str = "code.sql";
/// Views, in the snapshot.
pub(super) const VIEWS: &str = "views.sql";

/// What a restore may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MariadbParameters {
    pub(super) overwrite: Overwrite,
    pub(super) dry_run: bool,
    pub(super) restore_to: Option<String>,
    pub(super) database: Option<String>,
    keep_missing_definers: bool,
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// The operation's own database is filled.
    Loading,
    /// The tables give way to each other, and the rest is made.
    Exchanging,
    /// All is there.
    Complete,
}

/// What a restore notes before it changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// The name of the database.
    target: String,
    /// This run makes it, so undo may drop it.
    made: bool,
    /// Its own comment, for which the sign gives way when the restore is complete.
    comment: String,
    /// The character set and collation for new tables of the one that is there.
    text: Option<(String, String)>,
    stage: Stage,
    /// The tables that come.
    new: Vec<String>,
    /// The tables that give way.
    old: Vec<String>,
    /// What is made besides tables and was not there.
    added: Added,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    views: Vec<String>,
    routines: Vec<Routine>,
    events: Vec<String>,
}

/// The names that one operation on one resource uses.
struct Names {
    /// The database that is filled.
    new: String,
    /// The database for the tables that give way.
    old: String,
    /// The comment of its databases.
    sign: String,
    /// Triggers, routines, events and views as they were.
    file: PathBuf,
}

impl Names {
    fn of(host: &Host, context: &OperationContext) -> Self {
        let (operation, resource) = (context.operation_id, context.resource.id.to_string());
        let short = resource.chars().filter(char::is_ascii_alphanumeric);
        let short: String = short.take(16).collect();
        Self {
            new: format!("{OWN}{operation}-{short}"),
            old: format!("{OWN}old-{operation}-{short}"),
            sign: format!(
                "karbor: restore not complete, operation {operation}, resource {resource}"
            ),
            file: host
                .scratch
                .join(format!("mariadb-{operation}-{short}.sql")),
        }
    }
}

fn note(host: &Host, context: &OperationContext) -> Note<Noted> {
    Note::named("restore", host, context)
}

/// One restore.
struct Job<'a> {
    run: &'a Restoring<'a, MariadbParameters>,
    client: Client<'a>,
    name: &'a str,
    names: Names,
    /// The database as the checkpoint has it.
    kept: Inventory,
    /// As it is now, if it is there.
    present: Option<Inventory>,
}

pub(super) async fn restore(
    run: &Restoring<'_, MariadbParameters>,
) -> Result<HookReport, PluginError> {
    let declared = run.host.declared_component(run.context).await?;
    let source = declared.source::<MariadbSource>()?;
    let parameters = &run.parameters;
    let client = Client::new(source);
    let name = parameters.database.as_deref().unwrap_or(&source.database);
    database_name(name).map_err(PluginError::new)?;
    let names = Names::of(run.host, run.context);
    let note = note(run.host, run.context);
    if !parameters.dry_run {
        let place = Place::Database {
            server: source.server(),
            name: name.to_owned(),
        };
        run.host.occupied.take(run.context, place)?;
        if let Some(noted) = note.read().await? {
            if noted.stage == Stage::Complete {
                // The application may have written to it since.
                return Ok(report(0, Vec::new()));
            }
            put_back(&client, &names, &noted).await?;
        }
    }
    let job = Job {
        kept: kept(run).await?,
        present: Inventory::find(&client, name).await?,
        run,
        client,
        name,
        names,
    };
    let refused = job.refused(name == source.database).await?;
    if parameters.dry_run {
        return Ok(job.would(&refused));
    }
    match refused.is_empty() {
        true => job.go(&note).await,
        false => Err(PluginError::new(refused.join(". "))),
    }
}

/// Reads what the checkpoint says of the database.
async fn kept(run: &Restoring<'_, MariadbParameters>) -> Result<Inventory, PluginError> {
    let corrupt = |reason: String| {
        PluginError::new(format!("the checkpoint's {STORED_AS} is corrupt: {reason}"))
    };
    // It is no progress of the restore.
    let aside = Control {
        progress: Arc::new(NoProgress),
        cancel: run.context.cancel.clone(),
    };
    let snapshot = &run.kept.snapshot;
    let mut stream = run.vault.read_stream(snapshot, STORED_AS, aside).await?;
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        text.extend_from_slice(&piece?);
        if text.len() > MOST {
            return Err(corrupt("it is too long".to_owned()));
        }
    }
    serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))
}

impl Job<'_> {
    /// Why it may not be brought back.
    async fn refused(&self, is_declared: bool) -> Result<Vec<String>, PluginError> {
        let name = shown(self.name);
        let mut refused = Vec::new();
        match &self.present {
            None => {}
            Some(_) if !is_declared => refused.push(format!(
                "there is already a database '{name}', and it is not the declared one: give 'database' with a name that is free"
            )),
            Some(present) if present.is_empty() => {}
            Some(_) if self.run.parameters.overwrite == Overwrite::Never => refused.push(format!(
                "the database '{name}' is not empty: restore with overwrite 'always', or give 'database' with a new name"
            )),
            Some(present) => refused.extend(self.in_the_way(present).await?),
        }
        let grants = Grants::read(&self.client).await?;
        refused.extend(grants.unwritable(self.name));
        refused.extend(self.unknown_engines().await?);
        refused.extend(self.definers(&grants).await?);
        Ok(refused)
    }

    /// Tables that stay, or are in other databases, and refer to one that gives way: their keys would lead nowhere.
    async fn in_the_way(&self, present: &Inventory) -> Result<Option<String>, PluginError> {
        let old = self.old(present);
        let sql = format!(
            "SELECT JSON_ARRAY(CONSTRAINT_SCHEMA, TABLE_NAME, REFERENCED_TABLE_NAME)
                FROM information_schema.REFERENTIAL_CONSTRAINTS
                WHERE BINARY UNIQUE_CONSTRAINT_SCHEMA = BINARY {};",
            text(self.name)
        );
        let keys = self.client.ask::<(String, String, String)>(&sql).await?;
        let stays = |(database, table, referred): &(String, String, String)| {
            old.contains(referred) && (database != self.name || !old.contains(table))
        };
        let keys = keys.into_iter().filter(stays);
        let keys: Vec<_> = keys
            .map(|(database, table, referred)| format!("{database}.{table} refers to {referred}"))
            .collect();
        Ok((!keys.is_empty()).then(|| {
            format!(
                "it cannot be replaced: tables that are not in the checkpoint have foreign keys to tables that are: {}. Drop these keys first, or restore under a new name with 'database'",
                some(&keys)
            )
        }))
    }

    /// The tables that give way: those with the name of a table or view of the checkpoint.
    fn old(&self, present: &Inventory) -> Vec<String> {
        let comes = |name: &String| self.kept.has_table(name) || self.kept.views.contains(name);
        let tables = present.tables.iter().map(|table| table.name.clone());
        tables.filter(|name| comes(name)).collect()
    }

    async fn unknown_engines(&self) -> Result<Option<String>, PluginError> {
        let sql = "SELECT JSON_QUOTE(ENGINE) FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT');";
        let known = self.client.ask::<String>(sql).await?;
        let engines = self
            .kept
            .tables
            .iter()
            .filter_map(|table| table.engine.clone());
        let mut unknown: Vec<_> = engines.filter(|engine| !known.contains(engine)).collect();
        unknown.sort();
        unknown.dedup();
        Ok((!unknown.is_empty()).then(|| {
            format!(
                "the server does not have the storage engine {}. Install it first",
                some(&unknown)
            )
        }))
    }

    /// Accounts with whose rights something runs.
    async fn definers(&self, grants: &Grants) -> Result<Option<String>, PluginError> {
        let sql = "SELECT JSON_QUOTE(CURRENT_USER());";
        let mine = self.client.ask::<String>(sql).await?;
        let others = self.kept.definers.iter().filter(|one| !mine.contains(one));
        let others: Vec<_> = others.cloned().collect();
        if others.is_empty() {
            return Ok(None);
        }
        if !grants.sets_definers() {
            return Ok(Some(format!(
                "views, triggers, routines or events run with the rights of {}, and the account may not make such: grant it SET USER on *.*",
                some(&others)
            )));
        }
        let missing = self.missing_definers(&others).await;
        Ok(match missing {
            Some(missing) if !self.run.parameters.keep_missing_definers => Some(format!(
                "views, triggers, routines or events run with the rights of {}, which the server does not have. Make the account first (accounts.sql of the checkpoint has it if accounts = true was declared), or restore with 'keep_missing_definers'",
                some(&missing)
            )),
            _ => None,
        })
    }

    /// Those that are not on the server, if that can be known.
    async fn missing_definers(&self, definers: &[String]) -> Option<Vec<String>> {
        let sql = "SELECT JSON_QUOTE(CONCAT(User, '@', Host)) FROM mysql.user;";
        let known = self.client.ask::<String>(sql).await.ok()?;
        // A role has no host.
        let is_there = |one: &String| {
            known.contains(one) || known.contains(&format!("{one}@")) || one.is_empty()
        };
        let missing: Vec<_> = definers
            .iter()
            .filter(|one| !is_there(one))
            .cloned()
            .collect();
        (!missing.is_empty()).then_some(missing)
    }

    /// What a restore would do.
    fn would(&self, refused: &[String]) -> HookReport {
        let listed = self.kept.listed();
        let present = self.present.clone().unwrap_or_default();
        let new = self.kept.lacking(&present);
        let changes: Vec<_> = listed
            .iter()
            .take(LISTED)
            .map(|one| {
                let kind = match (refused.is_empty(), new.contains(one)) {
                    (false, _) => "skip",
                    (true, true) => "create",
                    (true, false) => "overwrite",
                };
                json!({"path": one, "kind": kind})
            })
            .collect();
        let mut report = HookReport::new();
        report.insert("changes".to_owned(), json!(changes));
        report.insert("changes_total".to_owned(), json!(listed.len()));
        if !refused.is_empty() {
            report.insert("warnings".to_owned(), json!(refused));
            report.insert(REFUSED.to_owned(), json!(refused.join(". ")));
        }
        report
    }

    async fn go(&self, note: &Note<Noted>) -> Result<HookReport, PluginError> {
        let present = self.present.clone().unwrap_or_default();
        let added = |mine: &[String], theirs: &[String]| -> Vec<String> {
            mine.iter()
                .filter(|one| !theirs.contains(one))
                .cloned()
                .collect()
        };
        let routines = self.kept.routines.iter();
        let routines = routines.filter(|one| !present.routines.contains(one));
        let mut noted = Noted {
            target: self.name.to_owned(),
            made: self.present.is_none(),
            comment: self.kept.comment.clone(),
            text: self
                .present
                .as_ref()
                .map(|present| (present.charset.clone(), present.collation.clone())),
            stage: Stage::Loading,
            new: self
                .kept
                .tables
                .iter()
                .map(|table| table.name.clone())
                .collect(),
            old: self.old(&present),
            added: Added {
                views: added(&self.kept.views, &present.views),
                routines: routines.cloned().collect(),
                events: added(&self.kept.events, &present.events),
            },
        };
        note.set(&noted).await?;
        let bytes = self.load_tables(&mut noted).await?;
        if self.present.is_some() {
            self.save_code(&present).await?;
        }
        noted.stage = Stage::Exchanging;
        note.set(&noted).await?;
        self.exchange(&noted, &present).await?;
        self.load(CODE, self.name).await?;
        if !self.kept.views.is_empty() {
            self.load(VIEWS, self.name).await?;
        }
        let Inventory {
            charset, collation, ..
        } = &self.kept;
        set_text(&self.client, self.name, charset, collation).await?;
        let now = Inventory::read(&self.client, self.name).await?;
        let lacking = self.kept.lacking(&now);
        if !lacking.is_empty() {
            return Err(PluginError::new(format!(
                "of what the checkpoint should have, this is not in its dumps: {}; restore another checkpoint, or as files with 'restore_to'",
                some(&lacking)
            )));
        }
        noted.stage = Stage::Complete;
        note.set(&noted).await?;
        Ok(report(bytes, self.warnings().await))
    }

    async fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let definers: Vec<_> = self.kept.definers.iter().cloned().collect();
        if let Some(missing) = self.missing_definers(&definers).await {
            warnings.push(format!(
                "views, triggers, routines or events run with the rights of {}, which the server does not have: they fail until somebody makes the account",
                some(&missing)
            ));
        }
        let since = self
            .present
            .iter()
            .flat_map(|present| present.lacking(&self.kept));
        let since: Vec<_> = since.collect();
        if !since.is_empty() {
            warnings.push(format!(
                "what was made since is not in the checkpoint and stays: {}",
                some(&since)
            ));
        }
        warnings
    }

    /// Fills the operation's own database with the tables. Answers with the size of their dump.
    async fn load_tables(&self, noted: &mut Noted) -> Result<u64, PluginError> {
        let new = &self.names.new;
        drop_signed(&self.client, new, &self.names.sign).await?;
        self.make_database(new).await?;
        let bytes = self.load(&self.run.kept.item, new).await?;
        let loaded = Inventory::read(&self.client, new).await?;
        let lacking = self.kept.lacking_tables(&loaded);
        if !lacking.is_empty() {
            return Err(PluginError::new(format!(
                "the checkpoint's dump lacks {}: restore another checkpoint",
                some(&lacking)
            )));
        }
        // One that was made while the rest was asked for is in the dump.
        noted.new = loaded.tables.into_iter().map(|table| table.name).collect();
        let unforeseen = self.present.iter().flat_map(|present| &present.tables);
        let unforeseen = unforeseen.map(|table| &table.name);
        let unforeseen =
            unforeseen.filter(|name| noted.new.contains(name) && !noted.old.contains(name));
        let unforeseen: Vec<_> = unforeseen.cloned().collect();
        noted.old.extend(unforeseen);
        Ok(bytes)
    }

    async fn make_database(&self, name: &str) -> Result<(), PluginError> {
        let sql = format!(
            "CREATE DATABASE {} {} COMMENT {};",
            named(name),
            text_of(&self.kept.charset, &self.kept.collation)?,
            quoted(&self.names.sign)
        );
        self.client.run(SLOW, None, &sql).await.map(|_| ())
    }

    /// Writes triggers, routines, events and views as they are to the scratch directory.
    async fn save_code(&self, present: &Inventory) -> Result<(), PluginError> {
        let mut saved = Vec::new();
        let mut dumps = vec![dump::code(self.name)];
        if !present.views.is_empty() {
            dumps.push(dump::views(self.name, &present.views));
        }
        for arguments in dumps {
            let take = async |mut output| {
                let mut text = Vec::new();
                let read = tokio::io::AsyncReadExt::read_to_end(&mut output, &mut text).await;
                let read =
                    read.map_err(|e| PluginError::new("mariadb-dump was lost").with_cause(e));
                (output, read.map(|_| text))
            };
            let cancel = &self.run.context.cancel;
            let (text, _) = dump::dump(&self.client, &arguments, cancel, take).await?;
            saved.extend(text);
        }
        let file = self.names.file.clone();
        blocking(move || {
            let write = || {
                let dir = file.parent().unwrap_or(std::path::Path::new("/"));
                scratch(dir)?;
                let mut to = fs::OpenOptions::new();
                let to = to.write(true).create(true).truncate(true).mode(0o600);
                let mut to = to.open(&file)?;
                to.write_all(&saved)?;
                to.sync_all()?;
                fs::File::open(dir)?.sync_all()
            };
            write().map_err(|error: std::io::Error| {
                PluginError::new("the service's scratch directory cannot be used").with_cause(error)
            })
        })
        .await
    }

    /// Lets the tables that are there give way to those that were loaded.
    async fn exchange(&self, noted: &Noted, present: &Inventory) -> Result<(), PluginError> {
        if noted.made {
            self.make_database(self.name).await?;
        }
        let Names { new, old, .. } = &self.names;
        // Whose note is lost: nobody knows any more that they are not wanted.
        let left = Inventory::find(&self.client, old).await?;
        if left.is_some_and(|left| !left.is_empty()) {
            return Err(PluginError::new(format!(
                "the database '{old}' holds tables that gave way to a run of this restore that nothing is known of any more: move them back, or drop it, and restore again"
            )));
        }
        drop_signed(&self.client, old, &self.names.sign).await?;
        if !noted.old.is_empty() {
            self.make_database(old).await?;
        }
        let mut sql = String::new();
        let triggers = present.triggers.iter();
        for trigger in triggers.filter(|trigger| noted.old.contains(&trigger.table)) {
            let trigger = named(&trigger.name);
            sql.push_str(&format!("DROP TRIGGER {}.{trigger};\n", named(self.name)));
        }
        for view in present.views.iter().filter(|view| noted.new.contains(view)) {
            sql.push_str(&format!(
                "DROP VIEW {}.{};\n",
                named(self.name),
                named(view)
            ));
        }
        sql.push_str(&moves(&[
            (&noted.old, self.name, old),
            (&noted.new, new, self.name),
        ]));
        self.client.run(SLOW, None, &sql).await.map(|_| ())
    }

    /// Feeds a dump of the snapshot to `mariadb`. Answers with its size.
    async fn load(&self, item: &str, database: &str) -> Result<u64, PluginError> {
        let run = self.run;
        let read = run
            .vault
            .read_stream(&run.kept.snapshot, item, run.control())
            .await;
        let mut stream = match read {
            Err(VaultError::NoSuchPath { .. }) => {
                return Err(PluginError::new(format!(
                    "the checkpoint has no {item}: restore another checkpoint"
                )));
            }
            read => read?,
        };
        let other = self.other_name().filter(|_| item == CODE);
        let fed = async {
            let Some(dumped) = other else {
                return feed(&self.client, database, &mut stream).await;
            };
            let mut code = Vec::new();
            while let Some(piece) = stream.next().await {
                code.extend_from_slice(&piece?);
            }
            let code = Ok::<_, PluginError>(Bytes::from(of_database(&code, dumped, database)));
            feed(&self.client, database, &mut futures::stream::iter([code])).await
        };
        tokio::select! {
            bytes = fed => bytes,
            () = run.context.cancel.cancelled() => Err(PluginError::cancelled()),
        }
    }

    /// The name that the database had when it was dumped, if it gets another.
    fn other_name(&self) -> Option<&str> {
        let dumped = self.run.kept.place["database"].as_str()?;
        (dumped != self.name).then_some(dumped)
    }
}

/// Code for a database with another name. Where a database's collation was changed after a routine was made, a dump
/// changes it for that routine and back, by name: that of another database is none of this restore's business.
fn of_database(code: &[u8], dumped: &str, name: &str) -> Vec<u8> {
    let change = |name: &str| format!("ALTER DATABASE {} CHARACTER SET ", named(name)).into_bytes();
    let (from, to) = (change(dumped), change(name));
    let lines = code.split(|byte| *byte == b'\n');
    let lines: Vec<_> = lines
        .map(|line| match line.strip_prefix(from.as_slice()) {
            Some(rest) => [to.as_slice(), rest].concat(),
            None => line.to_vec(),
        })
        .collect();
    lines.join(&b'\n')
}

/// Feeds SQL to `mariadb`, which ends with the first statement that fails. Answers with its size.
async fn feed<E: Send>(
    client: &Client<'_>,
    database: &str,
    stream: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin + Send),
) -> Result<u64, PluginError>
where
    PluginError: From<E>,
{
    let wait = client.lock_timeout().as_secs().max(1);
    let mut program = client.program("mariadb")?;
    let mut child = program
        .command
        .args(QUIET)
        .arg(format!(
            "--init-command=SET SESSION lock_wait_timeout = {wait}"
        ))
        .arg(format!("--database={database}"))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| not_started("mariadb", &e))?;
    let group = Group::of(&child);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else {
        return Err(PluginError::new("mariadb has no input or output"));
    };
    let write = async {
        let mut bytes = 0_u64;
        while let Some(piece) = stream.next().await {
            // Killed before its input ends: it must not take half a dump for a whole one.
            let piece = piece.inspect_err(|_| group.kill())?;
            bytes += piece.len() as u64;
            if input.write_all(&piece).await.is_err() {
                break; // It has failed: its exit status tells.
            }
        }
        drop(input);
        Ok::<u64, PluginError>(bytes)
    };
    let (written, _, said, status) =
        tokio::join!(write, drain(output), drain(errors), child.wait());
    let bytes = written?;
    let status = status.map_err(|e| PluginError::new("mariadb was lost").with_cause(e))?;
    group.done();
    match status.success() {
        true => Ok(bytes),
        false => Err(failure("mariadb", status, &said)),
    }
}

/// The words that give a database its character set and collation.
fn text_of(charset: &str, collation: &str) -> Result<String, PluginError> {
    let plain = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match plain(charset) && plain(collation) {
        true => Ok(format!("CHARACTER SET {charset} COLLATE {collation}")),
        false => Err(PluginError::new(format!(
            "the checkpoint's {STORED_AS} is corrupt: it names no character set"
        ))),
    }
}

async fn set_text(
    client: &Client<'_>,
    database: &str,
    charset: &str,
    collation: &str,
) -> Result<(), PluginError> {
    let words = text_of(charset, collation)?;
    let sql = format!("ALTER DATABASE {} {words};", named(database));
    client.run(SLOW, None, &sql).await.map(|_| ())
}

/// One statement that moves tables between databases, all or none; nothing when there are none.
fn moves(moved: &[(&[String], &str, &str)]) -> String {
    let each = moved.iter().flat_map(|(tables, from, to)| {
        let (from, to) = (named(from), named(to));
        tables.iter().map(move |table| {
            let table = named(table);
            format!("{from}.{table} TO {to}.{table}")
        })
    });
    let each: Vec<_> = each.collect();
    match each.is_empty() {
        true => String::new(),
        false => format!("RENAME TABLE {};\n", each.join(", ")),
    }
}

async fn is_signed(client: &Client<'_>, name: &str, sign: &str) -> Result<bool, PluginError> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.SCHEMATA
            WHERE SCHEMA_NAME = {0} AND BINARY SCHEMA_NAME = BINARY {0} AND SCHEMA_COMMENT = {1};",
        text(name),
        text(sign)
    );
    Ok(client.ask::<u64>(&sql).await? != [0])
}

/// Drops a database if it has this sign.
async fn drop_signed(client: &Client<'_>, name: &str, sign: &str) -> Result<(), PluginError> {
    if !is_signed(client, name, sign).await? {
        return Ok(());
    }
    // Keys between its own tables are in the way of none of them.
    let sql = format!(
        "SET SESSION foreign_key_checks = 0; DROP DATABASE {};",
        named(name)
    );
    client.run(SLOW, None, &sql).await.map(|_| ())
}

/// Makes everything as it was before the restore. Can be repeated, wherever it was interrupted.
async fn put_back(client: &Client<'_>, names: &Names, noted: &Noted) -> Result<(), PluginError> {
    let target = noted.target.as_str();
    let new = Inventory::find(client, &names.new).await?;
    if noted.made {
        drop_signed(client, target, &names.sign).await?;
    } else if let (Some(new), Stage::Exchanging | Stage::Complete) = (new, noted.stage) {
        let now = Inventory::read(client, target).await?;
        let is_exchanged = match noted.new.is_empty() {
            false => !noted.new.iter().any(|table| new.has_table(table)),
            true => noted.old.iter().any(|table| !now.has_table(table)),
        };
        if is_exchanged {
            client.run(SLOW, None, &back(names, noted, &now)).await?;
        }
        let text = fs::read(&names.file).map_err(|error| {
            PluginError::new(format!(
                "triggers, routines, events and views of the database '{}' as they were cannot be read from '{}': make them again by hand, from an earlier checkpoint",
                shown(target),
                names.file.display()
            ))
            .with_cause(error)
        })?;
        // Two dumps, the second of which begins anew.
        let text = Bytes::from(text);
        let mut pieces = futures::stream::iter([Ok::<_, PluginError>(text)]);
        feed(client, target, &mut pieces).await?;
        if let Some((charset, collation)) = &noted.text {
            set_text(client, target, charset, collation).await?;
        }
        drop_signed(client, &names.old, &names.sign).await?;
    }
    drop_signed(client, &names.new, &names.sign).await?;
    forget_code(names).await
}

/// The statements that let the old tables have their places again.
fn back(names: &Names, noted: &Noted, now: &Inventory) -> String {
    let target = named(&noted.target);
    let mut sql = String::new();
    let here = noted.new.iter().filter(|table| now.has_table(table));
    let here: Vec<_> = here.cloned().collect();
    let triggers = now.triggers.iter();
    for trigger in triggers.filter(|trigger| here.contains(&trigger.table)) {
        sql.push_str(&format!(
            "DROP TRIGGER IF EXISTS {target}.{};\n",
            named(&trigger.name)
        ));
    }
    let Added {
        views,
        routines,
        events,
    } = &noted.added;
    for view in views {
        sql.push_str(&format!("DROP VIEW IF EXISTS {target}.{};\n", named(view)));
    }
    for Routine { kind, name } in routines {
        let known = ["PROCEDURE", "FUNCTION", "PACKAGE", "PACKAGE BODY"];
        if known.contains(&kind.as_str()) {
            sql.push_str(&format!(
                "DROP {kind} IF EXISTS {target}.{};\n",
                named(name)
            ));
        }
    }
    for event in events {
        sql.push_str(&format!(
            "DROP EVENT IF EXISTS {target}.{};\n",
            named(event)
        ));
    }
    sql.push_str(&moves(&[
        (&here, &noted.target, &names.new),
        (&noted.old, &names.old, &noted.target),
    ]));
    sql
}

async fn forget_code(names: &Names) -> Result<(), PluginError> {
    let file = names.file.clone();
    blocking(move || match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PluginError::new(
            "the service's scratch directory cannot be used",
        )
        .with_cause(error)),
        _ => Ok(()),
    })
    .await
}

fn report(bytes: u64, warnings: Vec<String>) -> HookReport {
    let mut report = HookReport::new();
    report.insert("bytes".to_owned(), json!(bytes));
    report.insert("files".to_owned(), json!(1));
    if !warnings.is_empty() {
        report.insert("warnings".to_owned(), json!(warnings));
    }
    report
}

/// Drops what gave way, and gives a database that was made its own comment. Answers with what could not be done: the
/// data are back, so that is no reason to fail.
pub(super) async fn keep(
    host: &Host,
    context: &OperationContext,
) -> Result<Vec<String>, PluginError> {
    let Some(noted) = note(host, context).read().await? else {
        return Ok(Vec::new());
    };
    let names = Names::of(host, context);
    let mut warnings = Vec::new();
    if let Err(error) = tidy(host, context, &names, &noted).await {
        tracing::warn!(%error, database = noted.target, "a database that is restored was not tidied up after");
        warnings.push(format!(
            "the database '{}' is complete, but what the restore made for itself is still there: drop the databases '{}' and '{}' by hand: {}",
            shown(&noted.target), names.new, names.old, error.message
        ));
    }
    forget_code(&names).await?;
    Ok(warnings)
}

async fn tidy(
    host: &Host,
    context: &OperationContext,
    names: &Names,
    noted: &Noted,
) -> Result<(), PluginError> {
    let declared = host.declared_component(context).await?;
    let client = Client::new(declared.source::<MariadbSource>()?);
    if noted.made && is_signed(&client, &noted.target, &names.sign).await? {
        let (target, comment) = (named(&noted.target), quoted(&noted.comment));
        let sql = format!("ALTER DATABASE {target} COMMENT = {comment};");
        client.run(SLOW, None, &sql).await?;
    }
    for name in [&names.old, &names.new] {
        drop_signed(&client, name, &names.sign).await?;
    }
    Ok(())
}

/// Undoes a restore.
pub(super) async fn discard(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Some(noted) = note(host, context).read().await? else {
        return Ok(());
    };
    let declared = host.declared_component(context).await?;
    let client = Client::new(declared.source::<MariadbSource>()?);
    put_back(&client, &Names::of(host, context), &noted).await
}
