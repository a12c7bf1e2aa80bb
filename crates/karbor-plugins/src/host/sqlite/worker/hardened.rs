//! SQLite, as a worker lets it look at what somebody else has made.

use std::{
    ffi::OsStr,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use super::protocol::{Limits, Link};

/// Has SQLite distrust what it reads, and stop when the time is over.
pub(super) fn harden(
    link: &std::sync::Arc<Link>,
    database: &Connection,
    limits: &Limits,
) -> rusqlite::Result<()> {
    use rusqlite::config::DbConfig;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    let until = Instant::now() + Duration::from_secs(limits.seconds);
    let link = link.clone();
    let beat = move || {
        link.alive();
        Instant::now() > until
    };
    database.progress_handler(1000, Some(beat))?;
    // A row that breaks a CHECK is no damage, and what a CHECK says is its author's program.
    database.execute_batch(
        "PRAGMA cell_size_check=ON; PRAGMA ignore_check_constraints=ON;
         PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0",
    )
}

/// A name in the working directory, as SQLite takes it: never as an option or a URI.
pub(super) fn here(name: &OsStr) -> std::path::PathBuf {
    std::path::Path::new(".").join(name)
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{os::unix::net::UnixStream, sync::Mutex};

    use super::*;

    fn link() -> (std::sync::Arc<Link>, UnixStream) {
        let (socket, other) = UnixStream::pair().unwrap();
        let last = Mutex::new(Instant::now());
        (std::sync::Arc::new(Link { socket, last }), other)
    }

    #[test]
    fn sqlite_stops_when_the_time_is_over() {
        let (link, _other) = link();
        let database = Connection::open_in_memory().unwrap();
        let limits = Limits {
            seconds: 0,
            heap: 0,
            file: 0,
        };
        harden(&link, &database, &limits).unwrap();
        let endless = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT count(*) FROM c";
        let error = database.query_row(endless, [], |_| Ok(())).unwrap_err();
        let code = error.sqlite_error_code();
        assert_eq!(code, Some(ErrorCode::OperationInterrupted), "{error}");
    }
}
