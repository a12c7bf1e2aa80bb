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

use super::remove_database;

/// Pages in one step: 1 MiB of the usual size. A cancel is noticed between steps.
const STEP: i32 = 256;
/// So often may a commit of somebody else start the copy again.
const RESTARTS: u32 = 3;
/// So long may somebody keep the database locked.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is still locked.
const PAUSE: Duration = Duration::from_millis(2);

/// Copies the database and checks the copy. Answers with the copy's size.
pub(super) fn copy(from: &Path, to: &Path, cancel: &CancellationToken) -> Result<u64, PluginError> {
    let failed = |error: rusqlite::Error| explain(from, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(failed)?;
    // We wait ourselves: SQLite's pauses grow to 100 ms, and against somebody who writes all the time
    // those who look seldom never find it unlocked.
    source.busy_timeout(Duration::ZERO).map_err(failed)?;
    let mode: String = patiently(from, cancel, || {
        source.pragma_query_value(None, "journal_mode", |row| row.get(0))
    })?;
    // Asks for the first page: what is no database is found out here.
    let look = || source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    patiently(from, cancel, look)?;
    let gentle = mode != "wal" && attempt(from, &source, to, Some(RESTARTS), cancel)?;
    if !gentle {
        source.execute_batch("BEGIN").map_err(failed)?;
        patiently(from, cancel, look)?;
        attempt(from, &source, to, None, cancel)?;
    }
    let size = std::fs::metadata(to).map(|found| found.len());
    size.map_err(|e| PluginError::new(format!("the temporary copy cannot be read: {e}")))
}

/// Does it as soon as nobody has the database locked.
fn patiently<T>(
    from: &Path,
    cancel: &CancellationToken,
    action: impl Fn() -> rusqlite::Result<T>,
) -> Result<T, PluginError> {
    let since = Instant::now();
    loop {
        match action() {
            Err(error) if is_busy(&error) => pause(from, since, cancel)?,
            done => return done.map_err(|e| explain(from, &e)),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Waits a moment for whoever has had the database locked since then.
fn pause(from: &Path, since: Instant, cancel: &CancellationToken) -> Result<(), PluginError> {
    if cancel.is_cancelled() {
        return Err(PluginError::cancelled());
    }
    if since.elapsed() > PATIENCE {
        return Err(PluginError::retryable(format!(
            "'{}' stayed locked for {} s: somebody holds a transaction open",
            from.display(),
            PATIENCE.as_secs()
        )));
    }
    thread::sleep(PAUSE);
    Ok(())
}

/// Copies into a new file and checks it; `false` if the copy was started again too often.
fn attempt(
    from: &Path,
    source: &Connection,
    to: &Path,
    restarts: Option<u32>,
    cancel: &CancellationToken,
) -> Result<bool, PluginError> {
    let mut copy = empty(to)?;
    if !run(from, source, &mut copy, restarts, cancel)? {
        return Ok(false);
    }
    check(&copy)?;
    Ok(true)
}

/// A new database. It has no journal, for there is no use for a half copy if the machine dies; so
/// what an attempt left when it was given up cannot be rolled back and has to go.
fn empty(to: &Path) -> Result<Connection, PluginError> {
    remove_database(to)
        .map_err(|e| PluginError::new(format!("the temporary copy cannot be removed: {e}")))?;
    let open = || {
        let copy = Connection::open(to)?;
        copy.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF")?;
        Ok(copy)
    };
    open().map_err(|e: rusqlite::Error| {
        PluginError::new(format!("the temporary copy cannot be made: {e}")).with_cause(e)
    })
}

/// The steps of a copy; `false` if it was started again too often.
fn run(
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
            _ => {
                pause(from, moved, cancel)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_given_up_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let source = Connection::open(&from).unwrap();
        // More than fits into the cache of the copy's connection: pages were written to the file.
        source
            .execute_batch(
                "CREATE TABLE a (filler BLOB);
                 WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 8000)
                 INSERT INTO a SELECT randomblob(1000) FROM c;",
            )
            .unwrap();
        let mut given_up = empty(&to).unwrap();
        let backup = Backup::new(&source, &mut given_up).unwrap();
        assert_eq!(backup.step(1500).unwrap(), StepResult::More);
        drop(backup);
        drop(given_up);
        assert!(std::fs::metadata(&to).unwrap().len() > 0);
        assert!(attempt(&from, &source, &to, None, &CancellationToken::new()).unwrap());
        let rows = |path: &Path| -> i64 {
            let database = Connection::open(path).unwrap();
            database
                .query_row("SELECT count(*) FROM a", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(rows(&to), 8000);
    }
}
