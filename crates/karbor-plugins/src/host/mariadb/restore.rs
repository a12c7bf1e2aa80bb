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
//!
//! **The tables as they were are dropped in one place**, by [`keep`], after the note says that they may go. An undo looks
//! where each table is, for a server before 10.6 may die in the middle of a `RENAME TABLE`, and never drops the
//! database for the old ones unless it is empty. `target` is the restored database, `new` and `old` are the operation's:
//!
//! | note | a table that gives way is in | an undo, or a run that begins again |
//! |---|---|---|
//! | `Loading` | `target` | drops `new` |
//! | `Loading` | `old` has something | refuses: the note does not know of an exchange |
//! | `Exchanging`, `Complete` | any, but `old` is empty and `new` has all that was loaded | moves nothing; drops `new` |
//! | | `target` | leaves it; drops `new` |
//! | | `target`, `old` | moves the one in `target` to `new`, the one in `old` to `target` |
//! | | `old` | moves it to `target` |
//! | | `target`, `new`, `old` | refuses: somebody has made one of them |
//! | | neither `target` nor `old` | refuses |
//! | | any, `new` is gone | refuses, unless all is in `target` and nothing else of the checkpoint is |
//! | `Kept` | any | drops `old` and `new`; an undo fails, for it comes too late |
//! | lost or unreadable | any, and `old`, the file or a signed `target` is there | refuses |
//! | lost or unreadable | `target` | begins anew; there is nothing to undo |
//!
//! A refusal leaves everything in place and names the databases. When the tables are back and the rest is made,
//! the note says `Loading` again, before anything is dropped.
//!
//! A client program may outlive the service, and its session outlives the client. So a session that fills a database or
//! moves tables holds a lock by name, and looks under it whether the comment of `new` names its own try. An undo, or a
//! run that begins again, ends the session that holds the lock, takes it, and writes a try of its own into that comment.
//! A session that comes late then fails, also when `new` is gone.

use std::{
    collections::BTreeSet, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf,
    process::Stdio, sync::Arc, time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use karbor_plugin::{HookReport, NoProgress, OperationContext, PluginError};
use karbor_vault::{Control, Overwrite, VaultError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    client::{Client, QUIET, SLOW, named, not_started, quoted, text},
    dump,
    inventory::{Inventory, MOST, Routine, STORED_AS, Trigger},
    messages::{failure, shown, some},
    rights::Grants,
    source::{MariadbSource, OWN, database_name},
};
use crate::host::{
    command::{Group, QUESTION, drain},
    component::Restoring,
    notes::{Note, scratch},
    occupied::Place,
    parameters::{self, LISTED, REFUSED},
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
    /// All is there, and what gave way too.
    Complete,
    /// What gave way is dropped.
    Kept,
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

/// How the comments of databases begin that belong to a restore.
const SIGN: &str = "karbor: restore not complete";

/// The names that one operation on one resource uses.
struct Names {
    /// The database that is filled.
    new: String,
    /// The database for the tables that give way.
    old: String,
    /// How the comments of its databases begin.
    sign: String,
    /// The comment of the database that is filled, while this try may work.
    of_try: String,
    /// Triggers, routines, events and views as they were.
    file: PathBuf,
}

impl Names {
    fn of(host: &Host, context: &OperationContext) -> Self {
        let (operation, resource) = (context.operation_id, context.resource.id.to_string());
        let short = short(&resource);
        let sign = format!("{SIGN}, operation {operation}, resource {resource}");
        Self {
            new: format!("{OWN}{operation}-{short}"),
            old: format!("{OWN}old-{operation}-{short}"),
            of_try: format!("{sign}, try {}", Uuid::new_v4()),
            sign,
            file: host
                .scratch
                .join(format!("mariadb-{operation}-{short}.sql")),
        }
    }

    /// Where everything is, for people who have to put it back by hand.
    fn by_hand(&self, target: &str) -> String {
        let Self { new, old, file, .. } = self;
        format!(
            "everything is left in place. Look at it by hand: '{old}' has the tables of '{}' as they were, if any (RENAME TABLE moves them back), '{new}' what was loaded, and '{}' triggers, routines, events and views as they were. Remove these when nothing in them is needed, and restore again",
            shown(target),
            file.display()
        )
    }

    /// What a run left that nothing is known of: its note is lost. Fails if there is something, for it may be the
    /// only copy.
    async fn lost(&self, client: &Client<'_>, target: &str) -> Result<(), PluginError> {
        let what = if Inventory::find(client, &self.old).await?.is_some() {
            format!("the database '{}' is there", self.old)
        } else if self.file.exists() {
            format!("'{}' is there", self.file.display())
        } else if is_signed(client, target, &self.sign).await? {
            format!("the database '{}' is its own", shown(target))
        } else {
            return Ok(());
        };
        Err(PluginError::new(format!(
            "an earlier run of this restore came to its exchange ({what}), and its note is lost: {}",
            self.by_hand(target)
        )))
    }
}

/// A resource's id in names that have room for no more: ids may differ in any of their digits.
fn short(resource: &str) -> String {
    let digest = Sha256::digest(resource);
    let bytes = digest.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
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
    is_declared: bool,
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
        match note.read().await? {
            // The application may have written to it since.
            Some(noted) if matches!(noted.stage, Stage::Complete | Stage::Kept) => {
                return Ok(report(0, Vec::new()));
            }
            Some(noted) => put_back(&client, &names, noted, &note).await?,
            None => names.lost(&client, name).await?,
        }
    }
    let job = Job {
        kept: kept(run).await?,
        present: Inventory::find(&client, name).await?,
        is_declared: name == source.database,
        run,
        client,
        name,
        names,
    };
    let refused = job.refused().await?;
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
    async fn refused(&self) -> Result<Vec<String>, PluginError> {
        let name = shown(self.name);
        let mut refused = Vec::new();
        match &self.present {
            None => {}
            Some(_) if !self.is_declared => refused.push(format!(
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
        let others = |definers: &BTreeSet<String>| -> Vec<String> {
            let others = definers.iter().filter(|one| !mine.contains(one));
            others.cloned().collect()
        };
        // An undo makes again what is there.
        let mut made: Vec<_> = self
            .present
            .iter()
            .flat_map(|present| others(&present.definers))
            .collect();
        let others = others(&self.kept.definers);
        made.extend_from_slice(&others);
        made.sort();
        made.dedup();
        if !made.is_empty() && !grants.sets_definers() {
            return Ok(Some(format!(
                "views, triggers, routines or events run with the rights of {}, and the account may not make such: grant it SET USER on *.*",
                some(&made)
            )));
        }
        if others.is_empty() {
            return Ok(None);
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

    async fn go(mut self, note: &Note<Noted>) -> Result<HookReport, PluginError> {
        let mut noted = self.noted(Vec::new());
        note.set(&noted).await?;
        let (bytes, loaded) = self.load_tables().await?;
        self.look_again().await?;
        let present = self.present.clone().unwrap_or_default();
        noted = self.noted(loaded);
        let mut warnings = Vec::new();
        if self.present.is_some() {
            warnings.extend(self.save_code(&present).await?);
        }
        noted.stage = Stage::Exchanging;
        note.set(&noted).await?;
        self.exchange(&noted, &present).await?;
        self.load(CODE, self.name).await?;
        if !self.kept.views.is_empty() {
            let sql = without_views(self.name, &self.kept.views);
            self.client.run(SLOW, None, &sql).await?;
            self.load(VIEWS, self.name).await?;
        }
        self.set_properties(&present).await?;
        let now = Inventory::read(&self.client, self.name).await?;
        let lacking = self.kept.lacking_but_events(&now);
        if !lacking.is_empty() {
            return Err(PluginError::new(format!(
                "of what the checkpoint should have, this is not in its dumps: {}; restore another checkpoint, or as files with 'restore_to'",
                some(&lacking)
            )));
        }
        self.keys_elsewhere().await?;
        noted.stage = Stage::Complete;
        note.set(&noted).await?;
        let passed = self.kept.lacking_events(&now);
        if !passed.is_empty() {
            warnings.push(format!(
                "the server does not keep events whose time is over: {}. Make them anew if they are wanted",
                some(&passed)
            ));
        }
        warnings.extend(self.warnings().await);
        Ok(report(bytes, warnings))
    }

    /// Looks at the database as it is after the load, which may have taken hours: what came meanwhile gives way too, or
    /// is in the way.
    async fn look_again(&mut self) -> Result<(), PluginError> {
        let now = Inventory::find(&self.client, self.name).await?;
        if now.is_some() != self.present.is_some() {
            return Err(PluginError::retryable(format!(
                "somebody made or dropped the database '{}' during the restore: nothing was changed, restore again",
                shown(self.name)
            )));
        }
        self.present = now;
        let refused = self.refused().await?;
        match refused.is_empty() {
            true => Ok(()),
            false => Err(PluginError::new(refused.join(". "))),
        }
    }

    /// Gives the database the character set that it had, and its comment if it is a restore's that came to no end.
    async fn set_properties(&self, present: &Inventory) -> Result<(), PluginError> {
        let Inventory {
            charset,
            collation,
            comment,
            ..
        } = &self.kept;
        set_text(&self.client, self.name, charset, collation).await?;
        if !present.comment.starts_with(SIGN) {
            return Ok(());
        }
        let (name, comment) = (named(self.name), quoted(comment));
        let sql = format!("ALTER DATABASE {name} COMMENT = {comment};");
        self.client.run(SLOW, None, &sql).await.map(|_| ())
    }

    /// The note of a restore that has loaded these tables.
    fn noted(&self, new: Vec<String>) -> Noted {
        let present = self.present.clone().unwrap_or_default();
        let comes = |name: &String| new.contains(name) || self.kept.views.contains(name);
        let old = present.tables.iter().map(|table| table.name.clone());
        let old = old.filter(comes).collect();
        let added = |mine: &[String], theirs: &[String]| -> Vec<String> {
            mine.iter()
                .filter(|one| !theirs.contains(one))
                .cloned()
                .collect()
        };
        let routines = self.kept.routines.iter();
        let routines = routines.filter(|one| !present.routines.contains(one));
        Noted {
            target: self.name.to_owned(),
            made: self.present.is_none(),
            comment: self.kept.comment.clone(),
            text: self
                .present
                .as_ref()
                .map(|present| (present.charset.clone(), present.collation.clone())),
            stage: Stage::Loading,
            new,
            old,
            added: Added {
                views: added(&self.kept.views, &present.views),
                routines: routines.cloned().collect(),
                events: added(&self.kept.events, &present.events),
            },
        }
    }

    /// Fails if tables that the account may not see have foreign keys to those that gave way: a key goes with its table.
    async fn keys_elsewhere(&self) -> Result<(), PluginError> {
        let old = self.names.old.replace('-', "@002d");
        let sql = format!(
            "SELECT JSON_QUOTE(CONVERT(FOR_NAME USING utf8mb4)) FROM information_schema.INNODB_SYS_FOREIGN
                WHERE REF_NAME LIKE '{old}/%' AND FOR_NAME NOT LIKE '{old}/%';"
        );
        match self.client.ask::<String>(&sql).await {
            Ok(keys) if keys.is_empty() => Ok(()),
            Ok(keys) => Err(PluginError::new(format!(
                "it cannot be replaced: tables of other databases have foreign keys to its tables: {}. Drop these keys first, or restore under a new name with 'database'",
                some(&keys)
            ))),
            // The right is PROCESS. Without it the server refuses to drop what a key leads to, and `keep` warns.
            Err(error) if error.message.contains("PROCESS") => Ok(()),
            Err(error) => Err(error),
        }
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
        let sql = format!(
            "SELECT JSON_QUOTE(SCHEMA_NAME) FROM information_schema.SCHEMATA
                WHERE SCHEMA_NAME LIKE '{OWN}old-%-{}' AND SCHEMA_NAME <> '{}';",
            short(&self.run.context.resource.id.to_string()),
            self.names.old
        );
        match self.client.ask::<String>(&sql).await {
            Ok(earlier) if earlier.is_empty() => {}
            Ok(earlier) => warnings.push(format!(
                "earlier restores came to no end and left tables as they were before them, perhaps the only copy: {}. Drop these databases when nothing in them is needed",
                some(&earlier)
            )),
            Err(error) => warnings.push(format!(
                "whether earlier restores left something could not be asked: {}",
                error.message
            )),
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

    /// Fills the operation's own database with the tables. Answers with the size of their dump, and their names: one
    /// that was made while the rest was asked for is in the dump alone.
    async fn load_tables(&self) -> Result<(u64, Vec<String>), PluginError> {
        let new = &self.names.new;
        drop_signed(&self.client, new, &self.names.sign).await?;
        self.make_database(new, &self.names.of_try).await?;
        let bytes = self.load(&self.run.kept.item, new).await?;
        let loaded = Inventory::read(&self.client, new).await?;
        let lacking = self.kept.lacking_tables(&loaded);
        if !lacking.is_empty() {
            return Err(PluginError::new(format!(
                "the checkpoint's dump lacks {}: restore another checkpoint",
                some(&lacking)
            )));
        }
        let tables = loaded.tables.into_iter().map(|table| table.name);
        Ok((bytes, tables.collect()))
    }

    async fn make_database(&self, name: &str, comment: &str) -> Result<(), PluginError> {
        let sql = format!(
            "CREATE DATABASE {} {} COMMENT {};",
            named(name),
            text_of(&self.kept.charset, &self.kept.collation)?,
            quoted(comment)
        );
        self.client.run(SLOW, None, &sql).await.map(|_| ())
    }

    /// Writes triggers, routines, events and views as they are to the scratch directory. Answers with a warning of
    /// views that could not be made again in any case.
    async fn save_code(&self, present: &Inventory) -> Result<Option<String>, PluginError> {
        let cancel = &self.run.context.cancel;
        let (saved, broken) = code_of(&self.client, self.name, present, cancel).await?;
        if !broken.is_empty() {
            self.log_views(&broken).await?;
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
        .await?;
        Ok((!broken.is_empty()).then(|| {
            format!(
                "views could not be read before, e.g. because a table of theirs was gone, and an undo would not bring back those that the checkpoint replaces: {}; their text is in the service's log",
                some(&broken)
            )
        }))
    }

    /// Writes the text of views that nobody can read into the service's log, for those who want them again.
    async fn log_views(&self, broken: &[String]) -> Result<(), PluginError> {
        let sql = format!(
            "SELECT JSON_ARRAY(TABLE_NAME, DEFINER, COALESCE(VIEW_DEFINITION, '')) FROM information_schema.VIEWS
                WHERE TABLE_SCHEMA = {0} AND BINARY TABLE_SCHEMA = BINARY {0};",
            text(self.name)
        );
        let views = self.client.ask::<(String, String, String)>(&sql).await?;
        for (view, definer, definition) in views.iter().filter(|one| broken.contains(&one.0)) {
            tracing::warn!(database = self.name, %view, %definer, %definition, "a view cannot be read; a restore replaces it if the checkpoint has it");
        }
        Ok(())
    }

    /// Lets the tables that are there give way to those that were loaded.
    async fn exchange(&self, noted: &Noted, present: &Inventory) -> Result<(), PluginError> {
        if noted.made {
            self.make_database(self.name, &self.names.sign).await?;
        }
        let Names { new, old, .. } = &self.names;
        drop_empty(&self.client, &self.names, self.name).await?;
        self.make_database(old, &self.names.sign).await?;
        let mut sql = guarded(&self.names, self.client.lock_timeout());
        let triggers = present.triggers.iter();
        let triggers = triggers.filter(|trigger| noted.old.contains(&trigger.table));
        sql.push_str(&drop_triggers(self.name, triggers, &noted.old));
        let views = present.views.iter().filter(|view| noted.new.contains(view));
        let views: Vec<_> = views.cloned().collect();
        sql.push_str(&without_views(self.name, &views));
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
                return feed(&self.client, &self.names, database, &mut stream).await;
            };
            let mut code = Vec::new();
            while let Some(piece) = stream.next().await {
                code.extend_from_slice(&piece?);
            }
            let code = Ok::<_, PluginError>(Bytes::from(of_database(&code, dumped, database)));
            let mut pieces = futures::stream::iter([code]);
            feed(&self.client, &self.names, database, &mut pieces).await
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

/// What the server fails at when it comes to it.
const TWO_ROWS: &str = "(SELECT 1 UNION SELECT 2)";

/// Feeds SQL to `mariadb`, which ends with the first statement that fails. Answers with its size.
async fn feed<E: Send>(
    client: &Client<'_>,
    names: &Names,
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
            // No session begins without the lock, or after another try: no server takes two rows for a number, as it
            // takes NULL.
            "--init-command=SET SESSION lock_wait_timeout = IF(GET_LOCK({}, {wait}) = 1, IF({} = 1, {wait}, {TWO_ROWS}), {TWO_ROWS})",
            text(&names.new),
            is_ours(names)
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
            WHERE SCHEMA_NAME = {0} AND BINARY SCHEMA_NAME = BINARY {0}
            AND (SCHEMA_COMMENT = {1} OR SCHEMA_COMMENT LIKE CONCAT({1}, ', try %'));",
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
    let sql = format!("DROP DATABASE {};", named(name));
    client.run(SLOW, None, &sql).await.map(|_| ())
}

/// Drops the database for the tables that give way, which has to be empty.
async fn drop_empty(client: &Client<'_>, names: &Names, target: &str) -> Result<(), PluginError> {
    let left = Inventory::find(client, &names.old).await?;
    if left.is_some_and(|left| !left.is_empty()) {
        return Err(PluginError::new(format!(
            "the database '{}' still holds tables that gave way: {}",
            names.old,
            names.by_hand(target)
        )));
    }
    drop_signed(client, &names.old, &names.sign).await
}

/// Triggers, routines, events and views of a database as SQL that makes them again, and the views that nobody can
/// read, which are not in it.
async fn code_of(
    client: &Client<'_>,
    database: &str,
    present: &Inventory,
    cancel: &CancellationToken,
) -> Result<(Vec<u8>, Vec<String>), PluginError> {
    let broken = present.broken_views(client, database).await?;
    let views = present.views.iter().filter(|view| !broken.contains(view));
    let views: Vec<_> = views.cloned().collect();
    let mut code = Vec::new();
    let mut dumps = vec![(String::new(), dump::code(database))];
    if !views.is_empty() {
        let dropped = without_views(database, &views);
        dumps.push((dropped, dump::views(database, &views)));
    }
    for (before, arguments) in dumps {
        let take = async |mut output| {
            let mut text = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut output, &mut text).await;
            let read = read.map_err(|e| PluginError::new("mariadb-dump was lost").with_cause(e));
            (output, read.map(|_| text))
        };
        let (text, _) = dump::dump(client, &arguments, cancel, take).await?;
        code.extend(before.into_bytes());
        code.extend(text);
    }
    Ok((code, broken))
}

/// The statements that drop views. A table of such a name stays, and then the view cannot be made.
fn without_views(database: &str, views: &[String]) -> String {
    let database = named(database);
    let drops = views
        .iter()
        .map(|view| format!("DROP VIEW IF EXISTS {database}.{};\n", named(view)));
    drops.collect()
}

/// Fails, by way of the server, unless a number is 1.
fn asserted(number: &str, reason: &str) -> String {
    let signal = format!(
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {}",
        quoted(reason)
    );
    format!(
        "SET @one = {number};\nEXECUTE IMMEDIATE IF(@one = 1, 'DO 0', {});\n",
        text(&signal)
    )
}

/// "The operation's databases are this try's", as a number.
fn is_ours(names: &Names) -> String {
    format!(
        "(SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {} AND SCHEMA_COMMENT = {})",
        text(&names.new),
        text(&names.of_try)
    )
}

/// What a session that moves tables does first: it takes the operation's lock, and makes sure that it is the one that
/// may still do it.
fn guarded(names: &Names, wait: Duration) -> String {
    locked(names, wait)
        + &asserted(
            &is_ours(names),
            "another run of this restore has taken over",
        )
}

fn locked(names: &Names, wait: Duration) -> String {
    let lock = format!("GET_LOCK({}, {})", text(&names.new), wait.as_secs().max(1));
    asserted(
        &lock,
        "another run of this restore still works on the server",
    )
}

/// Ends the session of an earlier run, and keeps such from doing anything from now on.
async fn take_over(client: &Client<'_>, names: &Names) -> Result<(), PluginError> {
    let holder = format!("SELECT COALESCE(IS_USED_LOCK({}), 0);", text(&names.new));
    for session in client.ask::<u64>(&holder).await? {
        // It may have ended by itself.
        if session != 0
            && let Err(error) = client
                .run(QUESTION, None, &format!("KILL {session};"))
                .await
        {
            tracing::warn!(%error, session, "a session of an earlier run could not be ended");
        }
    }
    let mut sql = locked(names, client.lock_timeout());
    if is_signed(client, &names.new, &names.sign).await? {
        let (new, words) = (named(&names.new), quoted(&names.of_try));
        sql.push_str(&format!("ALTER DATABASE {new} COMMENT = {words};\n"));
    }
    client.run(SLOW, None, &sql).await.map(|_| ())
}

/// The statements that drop triggers. They wait for all tables of the move before the first trigger goes.
fn drop_triggers<'a>(
    database: &str,
    triggers: impl Iterator<Item = &'a Trigger>,
    tables: &[String],
) -> String {
    let database = named(database);
    let drops: String = triggers
        .map(|trigger| {
            format!(
                "DROP TRIGGER IF EXISTS {database}.{};\n",
                named(&trigger.name)
            )
        })
        .collect();
    if drops.is_empty() {
        return drops;
    }
    let tables = tables
        .iter()
        .map(|table| format!("{database}.{} WRITE", named(table)));
    let tables: Vec<_> = tables.collect();
    format!(
        "LOCK TABLES {};\n{drops}UNLOCK TABLES;\n",
        tables.join(", ")
    )
}

/// Makes everything as it was before the restore. Can be repeated, wherever it was interrupted.
async fn put_back(
    client: &Client<'_>,
    names: &Names,
    mut noted: Noted,
    note: &Note<Noted>,
) -> Result<(), PluginError> {
    take_over(client, names).await?;
    if noted.stage != Stage::Loading {
        if noted.made {
            drop_signed(client, &noted.target, &names.sign).await?;
        } else {
            give_back(client, names, &noted).await?;
        }
        noted.stage = Stage::Loading;
        note.set(&noted).await?;
    }
    drop_empty(client, names, &noted.target).await?;
    forget_code(names).await?;
    drop_signed(client, &names.new, &names.sign)
        .await
        .map_err(|mut error| {
            error.message = format!(
                "the database '{}' is as it was before the restore, but the database '{}' with what was loaded is still there: drop it by hand if no further run does so: {}",
                shown(&noted.target),
                names.new,
                error.message
            );
            error
        })
}

/// Lets the database have its own tables, triggers, views, routines and events again.
async fn give_back(client: &Client<'_>, names: &Names, noted: &Noted) -> Result<(), PluginError> {
    let target = noted.target.as_str();
    let now = Inventory::read(client, target).await?;
    let new = Inventory::find(client, &names.new).await?;
    let old = Inventory::find(client, &names.old)
        .await?
        .unwrap_or_default();
    let moved = Moved::find(noted, &now, new.as_ref(), &old).map_err(|reason| {
        PluginError::new(format!(
            "the restore of '{}' cannot be undone: {reason}: {}",
            shown(target),
            names.by_hand(target)
        ))
    })?;
    if new.is_none() {
        // Somebody dropped it; its comment says that this try may work.
        let (name, words) = (named(&names.new), quoted(&names.of_try));
        let sql = format!("CREATE DATABASE {name} COMMENT {words};");
        client.run(SLOW, None, &sql).await?;
    }
    let sql = guarded(names, client.lock_timeout()) + &back(names, noted, &now, &moved);
    client.run(SLOW, None, &sql).await?;
    let text = fs::read(&names.file).map_err(|error| {
        PluginError::new(format!(
            "triggers, routines, events and views of the database '{}' as they were cannot be read from '{}': make them again by hand, from an earlier checkpoint",
            shown(target),
            names.file.display()
        ))
        .with_cause(error)
    })?;
    // What kept the exchange from its locks may keep this from them too, and there may be nothing to do.
    let now = Inventory::read(client, target).await?;
    let (code, _) = code_of(client, target, &now, &CancellationToken::new()).await?;
    if code != text {
        // Two dumps, the second of which begins anew.
        let text = Bytes::from(text);
        let mut pieces = futures::stream::iter([Ok::<_, PluginError>(text)]);
        feed(client, names, target, &mut pieces).await?;
    }
    if let Some((charset, collation)) = &noted.text {
        set_text(client, target, charset, collation).await?;
    }
    Ok(())
}

/// The tables that an exchange has moved.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moved {
    /// That came, and are in their places.
    came: Vec<String>,
    /// That gave way.
    gone: Vec<String>,
}

impl Moved {
    /// Looks where each table is. Fails with the reason where that leaves a doubt.
    fn find(
        noted: &Noted,
        now: &Inventory,
        new: Option<&Inventory>,
        old: &Inventory,
    ) -> Result<Self, String> {
        let mut moved = Self::default();
        let loaded = |table: &str| new.is_some_and(|new| new.has_table(table));
        if new.is_some() && old.tables.is_empty() && noted.new.iter().all(|table| loaded(table)) {
            // Somebody may have made or dropped tables since the note: nothing has moved.
            return Ok(moved);
        }
        if let Some(table) = old
            .tables
            .iter()
            .find(|table| !noted.old.contains(&table.name))
        {
            return Err(format!(
                "the table '{}' is with those that gave way, and is not known to be one",
                shown(&table.name)
            ));
        }
        for table in &noted.old {
            match (now.has_table(table), old.has_table(table)) {
                (true, false) => {}
                (false, true) => moved.gone.push(table.clone()),
                (true, true) if noted.new.contains(table) && !loaded(table) => {
                    moved.gone.push(table.clone());
                    moved.came.push(table.clone());
                }
                (true, true) => {
                    return Err(format!(
                        "the table '{}' is there, and one of its name gave way",
                        shown(table)
                    ));
                }
                (false, false) => {
                    return Err(format!(
                        "the table '{}' is neither there nor with those that gave way",
                        shown(table)
                    ));
                }
            }
        }
        let others = noted.new.iter().filter(|table| !noted.old.contains(table));
        let others = others.filter(|table| now.has_table(table) && !loaded(table));
        moved.came.extend(others.cloned());
        if new.is_none() && moved != Self::default() {
            return Err("the database with what was loaded is gone".to_owned());
        }
        Ok(moved)
    }
}

/// The statements that let the old tables have their places again.
fn back(names: &Names, noted: &Noted, now: &Inventory, moved: &Moved) -> String {
    let target = named(&noted.target);
    let triggers = now.triggers.iter();
    let triggers = triggers.filter(|trigger| moved.came.contains(&trigger.table));
    let mut sql = drop_triggers(&noted.target, triggers, &moved.came);
    let Added {
        views,
        routines,
        events,
    } = &noted.added;
    // One may have the name of a table that comes back.
    sql.push_str(&without_views(&noted.target, views));
    sql.push_str(&moves(&[
        (&moved.came, &noted.target, &names.new),
        (&moved.gone, &names.old, &noted.target),
    ]));
    for event in events {
        sql.push_str(&format!(
            "DROP EVENT IF EXISTS {target}.{};\n",
            named(event)
        ));
    }
    for Routine { kind, name } in routines {
        let mode = match kind.as_str() {
            "PROCEDURE" | "FUNCTION" => "",
            // Nothing else knows the word.
            "PACKAGE" | "PACKAGE BODY" => "ORACLE",
            _ => continue,
        };
        sql.push_str(&format!(
            "SET SESSION sql_mode = '{mode}'; DROP {kind} IF EXISTS {target}.{};\n",
            named(name)
        ));
    }
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
        let lost = lost(host, context).await.err();
        return Ok(lost.map(|error| error.message).into_iter().collect());
    };
    let names = Names::of(host, context);
    let mut warnings = Vec::new();
    if let Err(error) = tidy(host, context, &names, noted.clone()).await {
        tracing::warn!(%error, database = noted.target, "a database that is restored was not tidied up after");
        warnings.push(format!(
            "the database '{}' is restored, but what the restore made for itself is still there: drop the databases '{}' and '{}' by hand when nothing in them is needed: {}",
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
    mut noted: Noted,
) -> Result<(), PluginError> {
    let declared = host.declared_component(context).await?;
    let client = Client::new(declared.source::<MariadbSource>()?);
    if !matches!(noted.stage, Stage::Complete | Stage::Kept) {
        return Err(PluginError::new("the restore is not complete"));
    }
    if noted.stage == Stage::Complete {
        let now = Inventory::find(&client, &noted.target).await?;
        let now = now.unwrap_or_default();
        let gone: Vec<_> = noted.new.iter().filter(|one| !now.has_table(one)).collect();
        if !gone.is_empty() {
            return Err(PluginError::new(format!(
                "tables that were restored are gone, so those that gave way to them are kept: {}",
                some(&gone)
            )));
        }
        // From here on it cannot be undone.
        noted.stage = Stage::Kept;
        note(host, context).set(&noted).await?;
    }
    if noted.made && is_signed(&client, &noted.target, &names.sign).await? {
        let (target, comment) = (named(&noted.target), quoted(&noted.comment));
        let sql = format!("ALTER DATABASE {target} COMMENT = {comment};");
        client.run(SLOW, None, &sql).await?;
    }
    for name in [&names.new, &names.old] {
        drop_signed(&client, name, &names.sign).await?;
    }
    Ok(())
}

/// As [`Names::lost`], when there is no note. A declaration or server that cannot be asked is no evidence.
async fn lost(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let Ok(parameters) = parameters::read::<MariadbParameters>(&context.parameters) else {
        return Ok(());
    };
    if parameters.restore_to.is_some() && parameters.database.is_none() {
        return Ok(());
    }
    let names = Names::of(host, context);
    let Ok(declared) = host.declared_component(context).await else {
        return Ok(());
    };
    let source = declared.source::<MariadbSource>()?;
    let client = Client::new(source);
    let target = parameters.database.as_deref().unwrap_or(&source.database);
    if !names.file.exists() && Inventory::find(&client, &names.old).await.is_err() {
        return Ok(());
    }
    names.lost(&client, target).await
}

/// Undoes a restore.
pub(super) async fn discard(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
    let note = note(host, context);
    let Some(noted) = note.read().await? else {
        return lost(host, context).await;
    };
    if noted.stage == Stage::Kept {
        return Err(PluginError::new(format!(
            "the restore of '{}' was complete, and what gave way is dropped: it cannot be undone",
            shown(&noted.target)
        )));
    }
    let declared = host.declared_component(context).await?;
    let client = Client::new(declared.source::<MariadbSource>()?);
    put_back(&client, &Names::of(host, context), noted, &note).await
}

#[cfg(test)]
mod tests {
    use super::{super::inventory::Table, *};

    fn with(tables: &str) -> Inventory {
        let tables = tables.split_whitespace().map(|name| Table {
            name: name.to_owned(),
            kind: "BASE TABLE".to_owned(),
            engine: None,
            transactional: true,
        });
        Inventory {
            tables: tables.collect(),
            ..Inventory::default()
        }
    }

    #[test]
    fn an_undo_looks_where_each_table_is() {
        let names =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        // A table `a` that is replaced, `n` that is new, `v` in the place of which a view comes.
        let noted = Noted {
            target: "shop".to_owned(),
            made: false,
            comment: String::new(),
            text: None,
            stage: Stage::Exchanging,
            new: names("a n"),
            old: names("a v"),
            added: Added::default(),
        };
        for (now, new, old, wanted) in [
            // Nothing has moved, whatever others did.
            ("a v", Some("a n"), "", Some(("", ""))),
            ("v", Some("a n"), "", Some(("", ""))),
            ("a v n", Some("a n"), "", Some(("", ""))),
            // All has, or some.
            ("a n", Some(""), "a v", Some(("a n", "a v"))),
            ("n", Some("a"), "a v", Some(("n", "a v"))),
            ("v", Some("a n"), "a", Some(("", "a"))),
            ("a", Some("n"), "a v", Some(("a", "a v"))),
            // All is back, and what was loaded is on its way out.
            ("a v", None, "", Some(("", ""))),
            // In doubt.
            ("a n", Some("a"), "a v", None),
            ("a n v", Some(""), "a v", None),
            ("n", Some(""), "a", None),
            ("a n", None, "a v", None),
            ("a v n", None, "", None),
            ("", None, "", None),
            ("a v", Some("a n"), "x", None),
        ] {
            let found = Moved::find(&noted, &with(now), new.map(with).as_ref(), &with(old));
            let wanted = wanted.map(|(came, gone)| (names(came), names(gone)));
            let found = found.map(|mut moved| {
                moved.came.sort();
                (moved.came, moved.gone)
            });
            assert_eq!(
                found.clone().ok(),
                wanted,
                "{now}; {new:?}; {old}: {found:?}"
            );
        }
    }

    #[test]
    fn resources_have_names_of_their_own() {
        let [one, other] =
            ["a", "b"].map(|end| short(&format!("11111111-2222-4333-8444-55555555555{end}")));
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
    }
}
