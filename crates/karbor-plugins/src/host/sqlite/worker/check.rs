//! Having SQLite look a database through, with an end to its patience.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::process::fchdir;

use super::{
    confine,
    hardened::{harden, here},
    protocol::{Answer, Failure, Inode, Link, Outcome, Request},
    still,
};

/// Looks whether there is a database that can be read; nothing is made beside it.
pub(super) fn look(link: &Arc<Link>, request: &Request, is: Inode) -> Outcome {
    let (name, shown) = (request.name.as_os_str(), request.shown.as_str());
    let files = still::Files::look(name, shown)?;
    if files.is != is {
        return Err(still::exchanged(shown));
    }
    let wal = still::is_wal(name, is, shown)?;
    let open = || {
        let database = match wal && !(files.log && files.index) {
            true => unchanging(name)?,
            false => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(here(name), flags)?
            }
        };
        database.busy_timeout(Duration::from_secs(5))?;
        harden(link, &database, &request.limits)?;
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    match open() {
        Ok(()) => Ok(Answer::Done),
        Err(error) => Err(Failure::new(format!(
            "'{shown}' cannot be read as an SQLite database: {error}"
        ))),
    }
}

/// Opens what nobody writes to: SQLite neither locks nor looks for journals.
fn unchanging(name: &OsStr) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:./");
    for byte in name.as_bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// Checks a database that the service has for itself. It is opened before the worker gives up its rights,
/// so that nobody else has to have any on it; nothing of it is read before.
pub(super) fn check(link: &Arc<Link>, request: &Request, dir: &OwnedFd) -> Outcome {
    let unopened = |error: &dyn std::fmt::Display| {
        Failure::new(format!("what is to be checked cannot be opened: {error}"))
    };
    fchdir(dir).map_err(|errno| unopened(&errno))?;
    let database = unchanging(&request.name).map_err(|error| unopened(&error))?;
    confine::enter(dir, request.account.as_ref(), &request.shown, true)?;
    let checked = harden(link, &database, &request.limits).and_then(|()| {
        database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    let limits = &request.limits;
    match checked {
        Ok(text) if text == "ok" => Ok(Answer::Done),
        Ok(text) => Err(damaged(&text)),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                Ok(Answer::TooMuch(format!("{} s", limits.seconds)))
            }
            Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => Ok(Answer::TooMuch(format!(
                "{} MiB of memory",
                limits.heap >> 20
            ))),
            _ => Err(damaged(&error.to_string())),
        },
    }
}

fn damaged(found: &str) -> Failure {
    // The text has names out of the database in it.
    let mut shown = String::new();
    for character in found.chars().take(300) {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Failure::new(format!(
        "the database is damaged (quick_check: {shown}): repair it (sqlite3's .recover) or restore an earlier checkpoint"
    ))
}
