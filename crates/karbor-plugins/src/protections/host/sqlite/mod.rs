//! `karbor-host-sqlite-plugin`: an SQLite database, copied through SQLite's online backup and never
//! as a file: a file that is copied while somebody writes is a broken database.
//!
//! **Protect** makes a copy in the scratch directory ([`copy`]), has SQLite check it, and stores it as
//! `<name>.sqlite`.
//!
//! **Restore** writes beside the place, has SQLite check what it wrote, makes it durable and renames
//! it over the place. A database that some process has open is refused, whatever `overwrite` says:
//! that process would go on writing to the file that was replaced, and its journal could be played
//! into the new one. `before_restore` is the place to stop it. The old `-wal`, `-shm` and `-journal`
//! are removed before the rename: a crash between the two leaves an old database without its last
//! transactions, which were to be overwritten anyway; the other way round it would leave a new
//! database that SQLite corrupts with an old log. With `overwrite` `never` the rename does not replace:
//! a restore that is run again takes a database for its own only if it is the same, byte by byte.

mod copy;
mod replace;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use futures::StreamExt as _;
use karbor_plugin::{HookReport, OperationContext, PluginError};
use karbor_vault::{Overwrite, Snapshot, SnapshotWriter};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{
    Declared, Host, SQLITE_PLUGIN, blocking,
    component::{Kind, Restoring},
    directory::{look, make_dirs, unusable},
    marker::{Mark, scratch},
    occupied::Place,
    parameters::REFUSED,
    places,
};
use crate::applications::{SQLITE, Source};

/// SQLite databases.
pub(crate) struct SqliteKind;

fn source(declared: &Declared) -> Result<&Path, PluginError> {
    match &declared.component.source {
        Source::Sqlite(path) => Ok(path),
        _ => Err(PluginError::new("the component is not an SQLite database")),
    }
}

fn stored_as(name: &str) -> String {
    format!("{name}.sqlite")
}

/// The temporary copy of a run; its repeat finds and removes it.
fn copy_path(host: &Host, context: &OperationContext) -> PathBuf {
    let name = format!(
        "copy-{}-{}.sqlite",
        context.operation_id, context.resource.id
    );
    host.scratch.join(name)
}

/// Removes a database and what SQLite may have left beside it.
fn remove_database(path: &Path) -> io::Result<()> {
    remove_logs(path)?;
    remove(path)
}

fn remove_logs(path: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        remove(Path::new(&beside))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[async_trait]
impl Kind for SqliteKind {
    const PLUGIN: &'static str = SQLITE_PLUGIN;
    const TYPE: &'static str = SQLITE;

    async fn place(_: &Host, declared: &Declared) -> Result<Value, PluginError> {
        let path = source(declared)?.to_owned();
        let place = blocking(move || {
            let place = look(&path)?;
            match place.resolved.is_file() {
                true => Ok(place),
                false => Err(PluginError::new(format!(
                    "'{}' cannot be protected: it is not a file",
                    path.display()
                ))),
            }
        })
        .await?;
        Ok(json!(place))
    }

    async fn save(
        host: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Vec<String>, PluginError> {
        let name = declared.component.name.clone();
        let from = source(declared)?.to_owned();
        let (copy, cancel) = (copy_path(host, context), context.cancel.clone());
        let dir = host.scratch.clone();
        let to = copy.clone();
        let size = blocking(move || {
            let made = scratch(&dir)
                .map_err(|e| PluginError::new(format!("the scratch directory cannot be used: {e}")))
                .and_then(|()| copy::copy(&from, &to, &cancel));
            if made.is_err() {
                let _ = remove_database(&to);
            }
            made
        })
        .await?;
        context.progress.expect_bytes(size);
        let stored: Result<u64, PluginError> = async {
            let file = tokio::fs::File::open(&copy)
                .await
                .map_err(|e| PluginError::new(format!("the temporary copy cannot be read: {e}")))?;
            Ok(writer.add_stream(&stored_as(&name), file).await?)
        }
        .await;
        Self::discard_save(host, context).await?;
        match stored? == size {
            true => Ok(Vec::new()),
            false => Err(PluginError::new(
                "the temporary copy was changed while it was read",
            )),
        }
    }

    fn item(_: &Snapshot, name: &str) -> Result<String, PluginError> {
        Ok(stored_as(name))
    }

    async fn restore(run: &Restoring<'_>) -> Result<HookReport, PluginError> {
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
        if parameters.overwrite == Overwrite::Never {
            let ours = run
                .marker
                .read()
                .await?
                .is_some_and(|mine| mine.target == mark.target);
            if there && !ours {
                return Err(refusal(run));
            }
            if !ours {
                run.marker.set(&mark).await?;
            }
        }
        let temporary = replace::beside(&target.path, run.context)?;
        let written = write(run, &target, &temporary).await;
        let removed = temporary.clone();
        blocking(move || remove_database(&removed).map_err(|e| unusable(&e))).await?;
        written
    }

    async fn discard_save(host: &Host, context: &OperationContext) -> Result<(), PluginError> {
        let copy = copy_path(host, context);
        blocking(move || {
            remove_database(&copy)
                .map_err(|e| PluginError::new(format!("the temporary copy cannot be removed: {e}")))
        })
        .await
    }
}

fn refusal(run: &Restoring<'_>) -> PluginError {
    PluginError::new(format!(
        "there is a database at the place of '{}': restore with overwrite 'if-changed' or 'always', or give 'restore_to'",
        run.kept.name
    ))
}

fn dry(run: &Restoring<'_>, leaf: &std::ffi::OsStr, kind: &str) -> HookReport {
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

/// Fetches the database beside its place, then puts it there.
async fn write(
    run: &Restoring<'_>,
    target: &places::Target,
    temporary: &Path,
) -> Result<HookReport, PluginError> {
    let to = temporary.to_owned();
    blocking(move || {
        let parent = to.parent().unwrap_or(Path::new("/"));
        make_dirs(parent)?;
        remove_database(&to).map_err(|e| unusable(&e))
    })
    .await?;
    let mut stream = run
        .vault
        .read_stream(&run.kept.snapshot, &run.kept.item, run.control())
        .await?;
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .await
        .map_err(|e| unusable(&e))?;
    let mut bytes = 0_u64;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        file.write_all(&piece).await.map_err(|e| unusable(&e))?;
    }
    file.flush().await.map_err(|e| unusable(&e))?;
    drop(file);
    let (target, temporary) = (target.clone(), temporary.to_owned());
    let overwrite = run.parameters.overwrite;
    let replaced = blocking(move || replace::replace(&temporary, &target, overwrite)).await?;
    let replaced = replaced.ok_or_else(|| refusal(run))?;
    let mut report = HookReport::new();
    report.insert("files".to_owned(), json!(u64::from(replaced)));
    report.insert("bytes".to_owned(), json!(if replaced { bytes } else { 0 }));
    report.insert("unchanged".to_owned(), json!(u64::from(!replaced)));
    Ok(report)
}
