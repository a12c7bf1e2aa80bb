//! `karbor-host-sqlite-plugin`: an SQLite database, copied through SQLite's online backup and never
//! as a file that somebody writes to: that copy would be a broken database.
//!
//! SQLite itself runs in processes of their own, with the rights of the database's owner and with limits
//! ([`worker`]); the service starts them ([`process`]), and reads and writes files by descriptors.
//!
//! **Protect** has a copy made in a directory of its own in the scratch directory and checked, and stores
//! it as `<name>.sqlite`. Nothing is left beside the database that was not there. A check that asks for
//! more memory or time than its size explains is given up, with a warning: a schema holds expressions, and
//! those of a hostile one never end.
//!
//! **Restore** writes a new file where nobody else can open or exchange it, has SQLite check it, gives it
//! owner and mode, makes it durable and renames it over the place: a program that had the old file open, or a link
//! to it, has nothing of the new one. A database that some process has open is refused, whatever `overwrite`
//! says: that process would go on writing to the file that was replaced, and its journal could be played
//! into the new one. `before_restore` is the place to stop it. The old `-wal`, `-shm` and `-journal`
//! are removed before the rename: a crash between the two leaves an old database without its last
//! transactions, which were to be overwritten anyway; the other way round it would leave a new
//! database that SQLite corrupts with an old log. With `overwrite` `never` the rename does not replace:
//! a restore that is run again takes a database for its own only if it is the same, byte by byte.

mod folders;
mod process;
mod replace;
pub(crate) mod worker;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use futures::StreamExt as _;
use karbor_fs::Dir;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{Overwrite, Snapshot, SnapshotWriter};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

pub use self::process::SQLITE_WORKER;
use self::{
    folders::{DatabasePlace, Folders},
    process::{Checked, Database, NoDatabase, Workers},
};
use super::{
    applications::{ComponentChecks, Finding, Look, Source},
    component::{Kind, Restoring, Saved},
    notes::{Mark, Marker, scratch},
    occupied::Place,
    parameters::REFUSED,
    places::{self, FilePlace},
    schemas,
    shared::{Declared, Host, blocking},
};

/// What a declaration says of an SQLite database.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqliteTable {
    name: String,
    id: Option<Uuid>,
    path: PathBuf,
}

/// An SQLite database: its file.
#[derive(Debug)]
pub(crate) struct SqliteSource(PathBuf);

impl Source for SqliteSource {
    fn path(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn exclusive_file(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn look(&self, look: &Look<'_>) -> Vec<Finding> {
        let workers = Workers::new(look.sqlite_worker.to_owned());
        let readable = Database::find(&self.0).map_err(|reason| told(&self.0, reason));
        let looked =
            readable.and_then(|database| workers.look(&database).map_err(|error| error.message));
        let finding = looked.map_err(|reason| Finding::error("path", reason));
        finding.err().into_iter().collect()
    }
}

/// What a restore may be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SqliteParameters {
    overwrite: Overwrite,
    dry_run: bool,
    restore_to: Option<String>,
}

/// SQLite databases.
pub(crate) struct SqliteKind;

/// The copy, in its own directory.
const COPY: &str = "copy.sqlite";

fn stored_as(name: &str) -> String {
    format!("{name}.sqlite")
}

fn told(path: &Path, reason: NoDatabase) -> String {
    match reason {
        NoDatabase::NotAFile => format!("'{}' is not a file", path.display()),
        NoDatabase::Refused(refused) if refused.is_missing() => {
            format!("'{}' is not there", path.display())
        }
        NoDatabase::Refused(refused) => refused.to_string(),
    }
}

/// Finds a declared database; nothing is opened.
fn find(path: &Path) -> Result<Database, PluginError> {
    Database::find(path).map_err(|reason| {
        let reason = match reason {
            NoDatabase::NotAFile => "it is not a file".to_owned(),
            NoDatabase::Refused(refused) if refused.is_missing() => {
                "it is not there: is its file system mounted?".to_owned()
            }
            NoDatabase::Refused(refused) => match refused.errno() {
                Some(Errno::ACCESS) => {
                    "the service may not read it: the operator has to give it access".to_owned()
                }
                _ => refused.to_string(),
            },
        };
        PluginError::new(format!(
            "'{}' cannot be protected: {reason}",
            path.display()
        ))
    })
}

/// The directory of a run's copy in the scratch directory; its repeat finds and removes it.
fn cell_name(context: &OperationContext) -> OsString {
    OsString::from(format!(
        "copy-{}-{}",
        context.operation_id, context.resource.id
    ))
}

fn no_scratch(error: &dyn std::fmt::Display) -> PluginError {
    PluginError::new(format!("the scratch directory cannot be used: {error}"))
}

/// Opens the scratch directory; it is made if it is not there.
fn scratch_dir(host: &Host) -> impl FnOnce() -> Result<Dir, PluginError> + Send + 'static {
    let path = host.scratch.clone();
    move || {
        scratch(&path).map_err(|error| no_scratch(&error))?;
        Dir::open(&path).map_err(|error| no_scratch(&error))
    }
}

#[async_trait]
impl Kind for SqliteKind {
    const PLUGIN: &'static str = "karbor-host-sqlite-plugin";
    const TYPE: &'static str = "Host::SQLite::Database";
    const TITLE: &'static str = "Host SQLite Database";

    type Table = SqliteTable;
    type Source = SqliteSource;
    type Parameters = SqliteParameters;

    fn identity(table: &SqliteTable) -> (&str, Option<Uuid>) {
        (&table.name, table.id)
    }

    fn declare(table: SqliteTable, checks: &mut ComponentChecks<'_>) -> SqliteSource {
        checks.path("path", &table.path);
        SqliteSource(table.path)
    }

    fn restore_schema() -> Value {
        json!({
            "overwrite": schemas::overwrite(),
            "dry_run": schemas::dry_run(),
            "restore_to": schemas::restore_to(),
        })
    }

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let path = declared.source::<SqliteSource>()?.0.clone();
        let place = blocking(move || {
            let database = find(&path)?;
            let above = folders::above(&database.dir).map_err(|errno| {
                let path = path.display();
                PluginError::new(format!("'{path}' cannot be protected: its folder: {errno}"))
            })?;
            let file = FilePlace {
                resolved: database.resolved(),
                path,
                mode: Some(database.stat.st_mode & 0o777),
                owner: Some((database.stat.st_uid, database.stat.st_gid)),
            };
            Ok(DatabasePlace { file, above })
        })
        .await?;
        Ok(json!(place))
    }

    async fn save(
        host: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Saved, PluginError> {
        let name = declared.component.name.clone();
        let from = declared.source::<SqliteSource>()?.0.clone();
        let (open, cell) = (scratch_dir(host), cell_name(context));
        let (workers, cancel) = (
            Workers::new(host.sqlite_worker.clone()),
            context.cancel.clone(),
        );
        let made = blocking(move || {
            let scratch = open()?;
            let made = (|| {
                let failed = |error| no_scratch(&error);
                scratch.remove_all(&cell).map_err(failed)?;
                let dir = scratch.make_dir(&cell).map_err(failed)?;
                let database = find(&from)?;
                let file = workers.copy(&database, &dir, COPY.as_ref(), &cancel)?;
                let size = u64::try_from(file.stat.st_size).unwrap_or(0);
                let owner = Some((database.stat.st_uid, database.stat.st_gid));
                let checked = workers.check(&dir, COPY.as_ref(), size, owner, &cancel)?;
                Ok((file.file, size, checked))
            })();
            if made.is_err() {
                let _ = scratch.remove_all(&cell);
            }
            made
        });
        let (file, size, checked) = made.await?;
        context.progress.expect_bytes(size);
        let file = tokio::fs::File::from_std(file);
        let stored = writer.add_stream(&stored_as(&name), file).await;
        Self::discard_save(host, context).await?;
        match stored? == size {
            true => Ok(Saved {
                warnings: warning(checked).into_iter().collect(),
                left_out: None,
            }),
            false => Err(PluginError::new(
                "the temporary copy was changed while it was read",
            )),
        }
    }

    fn item(_: &Snapshot, name: &str) -> Result<String, PluginError> {
        Ok(stored_as(name))
    }

    async fn restore(run: &Restoring<'_, SqliteParameters>) -> Result<HookReport, PluginError> {
        let parameters = &run.parameters;
        let place = places::FilePlace::of(run.kept)?;
        let leaf = place
            .path
            .file_name()
            .ok_or_else(|| PluginError::new("the place has no name"))?;
        let restore_to = parameters.restore_to.as_deref();
        let target =
            places::target(run.host, run.context, run.kept, restore_to, Some(leaf)).await?;
        if !parameters.dry_run {
            let place = Place::Path(target.path.clone());
            run.host.occupied.take(run.context, place)?;
        }
        let path = target.path.clone();
        let there = blocking(move || replace::there(&path)).await?;
        let kind = match (there, parameters.overwrite) {
            (false, _) => "create",
            (true, Overwrite::Never) => "skip",
            (true, _) => "overwrite",
        };
        if parameters.dry_run {
            return Ok(dry(run, leaf, kind));
        }
        let mark = Mark {
            target: target.path.to_string_lossy().into_owned(),
            made: !there,
            loaded: false,
        };
        let noted = run.marker.read().await?;
        let ours = noted.is_some_and(|mine| mine.target == mark.target);
        if parameters.overwrite == Overwrite::Never && there && !ours {
            return Err(refusal(run));
        }
        if !ours {
            run.marker.set(&mark).await?;
        }
        write(run, &target).await
    }

    async fn discard_save(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
        let (open, cell) = (scratch_dir(host), cell_name(context));
        blocking(move || {
            open()?
                .remove_all(&cell)
                .map_err(|e| PluginError::new(format!("the temporary copy cannot be removed: {e}")))
        })
        .await
    }

    async fn discard_restore(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
        let Some(mark) = Marker::of(host, context).read().await? else {
            return Ok(());
        };
        let path = PathBuf::from(mark.target);
        let temporary = replace::temporary(path.file_name().unwrap_or_default(), context);
        blocking(move || replace::discard(&path, &temporary)).await
    }
}

fn refusal(run: &Restoring<'_, SqliteParameters>) -> PluginError {
    PluginError::new(format!(
        "there is a database at the place of '{}': restore with overwrite 'if-changed' or 'always', or give 'restore_to'",
        run.kept.name
    ))
}

fn dry(run: &Restoring<'_, SqliteParameters>, leaf: &std::ffi::OsStr, kind: &str) -> HookReport {
    let mut report = HookReport::new();
    let change = json!({"path": leaf.to_string_lossy(), "kind": kind});
    report.insert("changes".to_owned(), json!([change]));
    report.insert("changes_total".to_owned(), json!(1));
    if kind == "skip" {
        let reason = refusal(run).message;
        report.insert("warnings".to_owned(), json!([reason]));
        report.insert(REFUSED.to_owned(), json!(reason));
    }
    report
}

/// What a person should know of a check that was given up.
fn warning(checked: Checked) -> Option<String> {
    match checked {
        Checked::Good => None,
        Checked::NotChecked(why) => Some(format!(
            "whether the database is whole is not known, {why}: look for generated columns or indexes on expressions that cost that much"
        )),
    }
}

/// Fetches the database where nobody else can open it, then puts it into its place.
async fn write(
    run: &Restoring<'_, SqliteParameters>,
    target: &places::Target,
) -> Result<HookReport, PluginError> {
    let path = target.path.clone();
    let temporary = replace::temporary(path.file_name().unwrap_or_default(), run.context);
    let place: DatabasePlace = serde_json::from_value(run.kept.place.clone())
        .map_err(|e| PluginError::new(format!("the checkpoint's metadata are corrupt: {e}")))?;
    let goes_back = run.parameters.restore_to.is_none() && path == place.file.resolved;
    let folders = Folders::of(&place, goes_back);
    let (spot, lost) = blocking(move || replace::Spot::prepare(&path, temporary, &folders)).await?;
    let mut stream = run
        .vault
        .read_stream(&run.kept.snapshot, &run.kept.item, run.control())
        .await?;
    let mut file = tokio::fs::File::from_std(spot.create()?);
    let mut bytes = 0_u64;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        file.write_all(&piece)
            .await
            .map_err(|e| replace::unusable(&e))?;
    }
    file.flush().await.map_err(|e| replace::unusable(&e))?;
    let file = file.into_std().await;
    let (place, overwrite) = (target.place.clone(), run.parameters.overwrite);
    let (workers, cancel) = (
        Workers::new(run.host.sqlite_worker.clone()),
        run.context.cancel.clone(),
    );
    let replaced = blocking(move || {
        let given = spot.given(&place)?;
        let checked = spot.check(&workers, bytes, given, &cancel)?;
        Ok((spot.replace(&file, given, overwrite)?, checked))
    });
    let (replaced, checked) = replaced.await?;
    let replaced = replaced.ok_or_else(|| refusal(run))?;
    let mut report = HookReport::new();
    report.insert("files".to_owned(), json!(u64::from(replaced)));
    report.insert("bytes".to_owned(), json!(if replaced { bytes } else { 0 }));
    report.insert("unchanged".to_owned(), json!(u64::from(!replaced)));
    let warnings: Vec<_> = warning(checked).into_iter().chain(lost).collect();
    if !warnings.is_empty() {
        report.insert("warnings".to_owned(), json!(warnings));
    }
    Ok(report)
}
