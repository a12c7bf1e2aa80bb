//! The copy: SQLite's online backup, a few pages at a time.
//!
//! A database in WAL mode is copied within one read transaction: writers go on, the copy is of one
//! moment. In the older journal modes such a transaction keeps writers from committing; so it is
//! first tried without. Then a commit of somebody else makes SQLite start the copy again; after a
//! few of these the transaction is taken after all, and writers wait for the rest.
//!
//! A database in WAL mode that nobody has open is not opened by SQLite at all ([`still`]): that would
//! leave a log and an index beside it, and those of another account lock the application out.

use std::{
    ffi::OsStr,
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};
use rustix::{
    fs::{AtFlags, statat},
    process::fchdir,
};

use super::{
    confine,
    hardened::{harden, here, is_busy},
    protocol::{Answer, Failure, Inode, Link, Outcome, Request},
    room::fits,
    still::{self, Files},
};

/// Pages in one step: 1 MiB of the usual size.
const STEP: i32 = 256;
/// So often may a commit of somebody else start the copy again.
const RESTARTS: u32 = 3;
/// So long may somebody keep the database locked.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it is still locked.
const PAUSE: Duration = Duration::from_millis(2);

/// Copies the database in the first directory to a new file in the second.
pub(super) fn copy(
    link: &Arc<Link>,
    request: &Request,
    is: Inode,
    (dir, cell): (&OwnedFd, &OwnedFd),
    to: &OsStr,
) -> Outcome {
    // From here nobody but the service can reach the second directory: what is opened there is opened now.
    let (mut copy, copy_is) = empty(cell, to)?;
    confine::enter(dir, request.account.as_ref(), &request.shown, false)?;
    let name = request.name.as_os_str();
    let files = Files::look(name, &request.shown)?;
    if files.is != is {
        return Err(still::exchanged(&request.shown));
    }
    let wal = still::is_wal(name, is, &request.shown)?;
    if wal
        && !files.index
        && let Some(still) = still::copy(link, request, is, cell, to)?
    {
        drop(copy);
        return still.finish(cell, to);
    }
    let copied = online(link, request, is, &mut copy, cell);
    if wal && !(files.index && files.log) {
        leave_as_it_was(name, &files, &request.shown)?;
    }
    copied.map(|()| Answer::Copied {
        is: copy_is,
        with_log: false,
    })
}

/// A new database, and which file it is. It has no journal, for there is no use for a half copy if the
/// machine dies.
fn empty(cell: &OwnedFd, to: &OsStr) -> Result<(Connection, Inode), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("the temporary copy cannot be made: {error}"))
    };
    fchdir(cell).map_err(|error| failed(&error))?;
    let open = || {
        let copy = Connection::open(here(to))?;
        copy.execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF",
        )?;
        Ok(copy)
    };
    let copy = open().map_err(|error: rusqlite::Error| failed(&error))?;
    let stat = statat(cell, to, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(&error))?;
    Ok((copy, Inode::from(&stat)))
}

/// Copies by SQLite's online backup.
fn online(
    link: &Arc<Link>,
    request: &Request,
    is: Inode,
    copy: &mut Connection,
    cell: &OwnedFd,
) -> Result<(), Failure> {
    let shown = request.shown.as_str();
    let failed = |error: rusqlite::Error| explain(shown, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(here(&request.name), flags).map_err(failed)?;
    // We wait ourselves: SQLite's pauses grow to 100 ms, and against somebody who writes all the time
    // those who look seldom never find it unlocked.
    source.busy_timeout(Duration::ZERO).map_err(failed)?;
    harden(link, &source, &request.limits).map_err(failed)?;
    let mode: String = patiently(link, shown, || {
        source.pragma_query_value(None, "journal_mode", |row| row.get(0))
    })?;
    // Asks for the first page: what is no database is found out here.
    patiently(link, shown, || first_page(&source))?;
    opened(is, shown)?;
    let mut held = mode == "wal";
    if held {
        hold(link, shown, &source)?;
    }
    let pragma = |name| {
        source
            .pragma_query_value(None, name, |row| row.get::<_, u32>(0))
            .map(u64::from)
    };
    let page = pragma("page_size").map_err(failed)?;
    let pages = patiently(link, shown, || pragma("page_count"))?;
    fits(cell, pages.saturating_mul(page), shown)?;
    let backup = Backup::new(&source, copy).map_err(failed)?;
    let mut remaining = i32::MAX;
    let mut restarted = 0;
    let mut moved = Instant::now();
    loop {
        link.alive();
        fits(cell, page * u64::from(STEP.unsigned_abs()), shown)?;
        match backup.step(STEP).map_err(failed)? {
            StepResult::Done => return Ok(()),
            StepResult::More => moved = Instant::now(),
            _ => {
                pause(link, shown, moved)?;
                continue;
            }
        }
        let left = backup.progress().remaining;
        if left > remaining {
            restarted += 1;
        }
        if restarted > RESTARTS && !held {
            hold(link, shown, &source)?;
            held = true;
        }
        remaining = left;
    }
}

fn first_page(source: &Connection) -> rusqlite::Result<()> {
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Begins a read transaction, which lasts as long as the connection.
fn hold(link: &Link, shown: &str, source: &Connection) -> Result<(), Failure> {
    source
        .execute_batch("BEGIN")
        .map_err(|error| explain(shown, &error))?;
    patiently(link, shown, || first_page(source))
}

/// Did SQLite open what the service looked at? Only a worker that is not confined to the directory has to
/// ask: it cannot see `/proc` otherwise.
fn opened(is: Inode, shown: &str) -> Result<(), Failure> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return Ok(());
    };
    let mut found = descriptors
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok());
    match found.any(|file| Inode(file.dev(), file.ino()) == is) {
        true => Ok(()),
        false => Err(still::exchanged(shown)),
    }
}

/// Takes away the log and the index that reading has made: they may be another account's, and nobody could
/// write to the database any more. SQLite does it itself, with the last connection that may write.
fn leave_as_it_was(name: &OsStr, before: &Files, shown: &str) -> Result<(), Failure> {
    let now = Files::look(name, shown)?;
    let made = (now.log && !before.log) || (now.index && !before.index);
    if !made || now.journal {
        return Ok(());
    }
    let close = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(here(name), flags)?;
        first_page(&database)
    };
    close().map_err(|error: rusqlite::Error| explain(shown, &error))
}

/// Takes the log of a copy into it: the log is not kept beside it.
pub(super) fn merge(link: &Arc<Link>, request: &Request) -> Outcome {
    let failed = |error: rusqlite::Error| explain(&request.shown, &error);
    let name = request.name.as_os_str();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(here(name), flags).map_err(failed)?;
    harden(link, &copy, &request.limits).map_err(failed)?;
    copy.execute_batch("PRAGMA synchronous=OFF")
        .map_err(failed)?;
    let busy: i64 = copy
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(failed)?;
    copy.close().map_err(|(_, error)| failed(error))?;
    match busy == 0 && !Files::look(name, &request.shown)?.log {
        true => Ok(Answer::Done),
        false => Err(Failure::new(format!(
            "the log of '{}' cannot be taken into its copy",
            request.shown
        ))),
    }
}

/// Does it as soon as nobody has the database locked.
fn patiently<T>(
    link: &Link,
    shown: &str,
    action: impl Fn() -> rusqlite::Result<T>,
) -> Result<T, Failure> {
    let since = Instant::now();
    loop {
        match action() {
            Err(error) if is_busy(&error) => pause(link, shown, since)?,
            done => return done.map_err(|e| explain(shown, &e)),
        }
    }
}

/// Waits a moment for the one who has had the database locked since then.
fn pause(link: &Link, shown: &str, since: Instant) -> Result<(), Failure> {
    link.alive();
    if since.elapsed() > PATIENCE {
        return Err(Failure {
            text: format!(
                "'{shown}' stayed locked for {} s: somebody holds a transaction open",
                PATIENCE.as_secs()
            ),
            retryable: true,
        });
    }
    thread::sleep(PAUSE);
    Ok(())
}

fn explain(shown: &str, error: &rusqlite::Error) -> Failure {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not an SQLite database (or an encrypted one)",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged: repair it (sqlite3's .recover) or restore an earlier checkpoint"
        }
        Some(ErrorCode::DiskFull) => {
            "the scratch directory has no room for a copy of it: free space there"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "its owner (the service's account, if the service is not root) may not open it, or not write beside it (a database in WAL mode asks for that)"
        }
        Some(ErrorCode::ReadOnly) => {
            "a crash left it in the middle of a write: open it once with its application"
        }
        Some(ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted) => {
            "reading its schema takes more memory or time than any real one"
        }
        _ => "",
    };
    Failure::new(match advice {
        "" => format!("'{shown}' cannot be copied: {error}"),
        advice => format!("'{shown}' cannot be copied: {advice}"),
    })
}
