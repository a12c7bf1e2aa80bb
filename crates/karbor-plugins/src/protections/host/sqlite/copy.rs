//! The copy: SQLite's online backup, a few pages at a time.
//!
//! A database in WAL mode is copied within one read transaction: writers go on, the copy is of one
//! moment. In the older journal modes such a transaction keeps writers from committing; so it is
//! first tried without. Then a commit of somebody else makes SQLite start the copy again; after a
//! few of these the transaction is taken after all, and writers wait for the rest.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use karbor_plugin::PluginError;
use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};
use tokio_util::sync::CancellationToken;

/// Pages in one step: 1 MiB of the usual size. A cancel is noticed between steps.
const STEP: i32 = 256;
/// So often may a commit of somebody else start the copy again.
const RESTARTS: u32 = 3;
/// So long may somebody keep the database locked.
const PATIENCE: Duration = Duration::from_secs(60);

/// Copies the database and checks the copy. Answers with the copy's size.
pub(super) fn copy(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<u64, PluginError> {
    let failed = |error: rusqlite::Error| explain(from, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(failed)?;
    source.busy_timeout(PATIENCE).map_err(failed)?;
    let mode: String = source
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(failed)?;
    // Asks for the first page: what is no database is found out here.
    source
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(failed)?;
    let mut copy = Connection::open(to).map_err(failed)?;
    // If the machine dies there is no use for a half copy.
    copy.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF")
        .map_err(failed)?;
    let gentle = mode != "wal" && attempt(from, &source, &mut copy, Some(RESTARTS), cancel)?;
    if !gentle {
        source
            .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
            .map_err(failed)?;
        attempt(from, &source, &mut copy, None, cancel)?;
    }
    check(&copy)?;
    drop(copy);
    let size = std::fs::metadata(to).map(|found| found.len());
    size.map_err(|e| PluginError::new(format!("the temporary copy cannot be read: {e}")))
}

/// Copies; `false` if it was started again too often.
fn attempt(
    from: &Path,
    source: &Connection,
    copy: &mut Connection,
    restarts: Option<u32>,
    cancel: &CancellationToken,
) -> Result<bool, PluginError> {
    let failed = |error: rusqlite::Error| explain(from, &error);
    let backup = Backup::new(source, copy).map_err(failed)?;
    let mut remaining = i32::MAX;
    let mut restarted = 0;
    let mut moved = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err(PluginError::cancelled());
        }
        match backup.step(STEP).map_err(failed)? {
            StepResult::Done => return Ok(true),
            StepResult::More => moved = Instant::now(),
            _ if moved.elapsed() > PATIENCE => {
                return Err(PluginError::retryable(format!(
                    "'{}' stayed locked for {} s: somebody holds a transaction open",
                    from.display(),
                    PATIENCE.as_secs()
                )));
            }
            _ => {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        }
        let left = backup.progress().remaining;
        if left > remaining {
            restarted += 1;
            if restarts.is_some_and(|most| restarted > most) {
                return Ok(false);
            }
        }
        remaining = left;
    }
}

/// Has SQLite look the whole database through.
pub(super) fn check(database: &Connection) -> Result<(), PluginError> {
    let found: Result<String, _> =
        database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match found {
        Ok(text) if text == "ok" => Ok(()),
        Ok(text) => Err(damaged(&text)),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

fn damaged(found: &str) -> PluginError {
    PluginError::new(format!(
        "the database is damaged (quick_check: {found}): repair it (sqlite3's .recover) or restore an earlier checkpoint"
    ))
}

fn explain(path: &Path, error: &rusqlite::Error) -> PluginError {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not an SQLite database (or an encrypted one)",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged: repair it (sqlite3's .recover) or restore an earlier checkpoint"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "somebody holds a transaction open on it"
        }
        Some(ErrorCode::DiskFull) => {
            "the scratch directory has no room for a copy of it: free space there"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "the service may not open it, or not write beside it (a database in WAL mode asks for that)"
        }
        Some(ErrorCode::ReadOnly) => {
            "a crash left it in the middle of a write: open it once with its application"
        }
        _ => "",
    };
    let text = match advice {
        "" => format!("'{}' cannot be copied: {error}", path.display()),
        advice => format!("'{}' cannot be copied: {advice}", path.display()),
    };
    PluginError::new(text).with_cause(error)
}
