//! The child process: whatever SQLite does with a database of somebody else happens here.
//!
//! A database is a program of sorts: its schema holds expressions that SQLite runs, its journal names
//! files that SQLite deletes, and the files beside it may be anything. So SQLite opens none in the service.
//! The service starts `karbor sqlite-worker`, hands it the directory that it holds open, and the worker
//!
//! 1. limits its memory, time, files and file sizes ([`confine::limit`]);
//! 2. opens what the service made itself (the copy to be written, the restored file to be checked): nobody
//!    else has to be able to reach it;
//! 3. makes the directory its root, takes on the account that the database belongs to, and gives up every
//!    capability ([`confine::enter`]): it can do what that account could do by itself, in that directory;
//! 4. does its task, telling from time to time that it is alive. One that falls silent is killed.
//!
//! The request comes through a socket at its standard input, first one byte with the descriptors, then a
//! line of JSON; the answers go back as such lines.

mod account;
mod check;
mod confine;
mod copy;
mod still;

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};
use rustix::{
    fs::{Stat, fstatvfs},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use serde::{Deserialize, Serialize};

pub(super) use account::Account;

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// What one worker may be handed.
const MOST_DIRS: usize = 2;

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) task: Task,
    /// The database's name in the first directory.
    pub(super) name: OsString,
    /// The database, for messages.
    pub(super) shown: String,
    /// Whose rights to take on; none if the service cannot become another account.
    pub(super) account: Option<Account>,
    pub(super) limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Is it a database that can be read?
    Look { is: Inode },
    /// Copies it into the second directory.
    Copy { is: Inode, to: OsString },
    /// Takes the log of a copy into the copy.
    Merge,
    /// Has SQLite look through a database that is the service's own and nobody writes to.
    Check,
}

/// What a file is, whatever it is called: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inode(pub(super) u64, pub(super) u64);

impl From<&Stat> for Inode {
    fn from(stat: &Stat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

/// What a worker may use.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Seconds, of the processor and of the clock each.
    pub(super) seconds: u64,
    /// Bytes of SQLite's memory.
    pub(super) heap: u64,
    /// Bytes of the largest file it writes.
    pub(super) file: u64,
}

/// What a worker answers. Everything but [`Alive`](Self::Alive) is its last word.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Alive,
    Done,
    /// The file that the copy was written to, and whether a log belongs to it.
    Copied {
        is: Inode,
        with_log: bool,
    },
    /// The check asked for more than was allowed: of what.
    TooMuch(String),
    /// It cannot be done, and perhaps another time.
    Failed {
        text: String,
        retryable: bool,
    },
}

/// Why a task cannot be done.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    retryable: bool,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retryable: false,
        }
    }
}

type Outcome = Result<Answer, Failure>;

/// The other end.
struct Link {
    socket: UnixStream,
    last: Mutex<Instant>,
}

impl Link {
    fn say(&self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        (&self.socket).write_all(&line)
    }

    /// Tells that there is progress, now and then; ends the process when nobody listens any more.
    fn alive(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < BEAT {
            return;
        }
        *last = Instant::now();
        if self.say(&Answer::Alive).is_err() {
            std::process::exit(1);
        }
    }
}

/// Runs a worker: the whole of `karbor sqlite-worker`, which the service alone starts.
#[must_use]
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (request, dirs) = receive(&socket)?;
    let link = std::sync::Arc::new(Link {
        socket,
        last: Mutex::new(Instant::now()),
    });
    let answer = perform(&link, &request, &dirs).unwrap_or_else(|failure| Answer::Failed {
        text: failure.text,
        retryable: failure.retryable,
    });
    link.say(&answer)
}

fn receive(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DIRS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0_u8; 1];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut first)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut dirs = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            dirs.extend(descriptors);
        }
    }
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok((serde_json::from_str(&line)?, dirs))
}

fn perform(link: &std::sync::Arc<Link>, request: &Request, dirs: &[OwnedFd]) -> Outcome {
    confine::limit(&request.limits)?;
    let Some(dir) = dirs.first() else {
        return Err(Failure::new("the worker was handed no directory"));
    };
    let shown = request.shown.as_str();
    match &request.task {
        Task::Check => check::check(link, request, dir),
        Task::Merge => {
            confine::enter(dir, request.account.as_ref(), shown, false)?;
            copy::merge(link, request)
        }
        Task::Look { is } => {
            confine::enter(dir, request.account.as_ref(), shown, false)?;
            check::look(link, request, *is)
        }
        Task::Copy { is, to } => {
            let Some(cell) = dirs.get(1) else {
                return Err(Failure::new(
                    "the worker was handed no directory to copy to",
                ));
            };
            copy::copy(link, request, *is, (dir, cell), to)
        }
    }
}

/// Has SQLite distrust what it reads, and stop when the time is over.
fn harden(
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

/// How much of a file system of so many bytes no copy takes: the service's own database lies in the scratch
/// directory's, too. A small one can spare no more than a twentieth.
fn reserve(total: u64) -> u64 {
    (total / 20).min(128 << 20)
}

/// How many bytes a copy in this directory may take.
pub(super) fn room(cell: impl AsFd) -> Result<u64, Errno> {
    let system = fstatvfs(cell)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let total = system.f_blocks.saturating_mul(system.f_frsize);
    Ok(free.saturating_sub(reserve(total)))
}

/// Refuses a copy that takes more than there is room for.
fn fits(cell: &OwnedFd, bytes: u64, shown: &str) -> Result<(), Failure> {
    let room = room(cell).map_err(|errno| {
        Failure::new(format!(
            "the scratch directory cannot be looked at: {errno}"
        ))
    })?;
    match bytes <= room {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "'{shown}' cannot be copied: the scratch directory has room for {} MiB, and the copy takes {} MiB more: free space there",
            room >> 20,
            bytes.div_ceil(1 << 20)
        ))),
    }
}

/// A name in the working directory, as SQLite takes it: never as an option or a URI.
fn here(name: &OsStr) -> std::path::PathBuf {
    std::path::Path::new(".").join(name)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_small_file_system_has_room_for_copies_too() {
        assert_eq!(reserve(1 << 40), 128 << 20);
        assert!(reserve(64 << 20) < 4 << 20);
        assert_eq!(reserve(0), 0);
    }

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

    #[test]
    fn a_request_comes_with_its_directories() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let dir = std::fs::File::open("/").unwrap();
        let request = Request {
            task: Task::Merge,
            name: OsString::from("s.db"),
            shown: "/srv/s.db".to_owned(),
            account: Some(Account::nobody()),
            limits: Limits {
                seconds: 1,
                heap: 2,
                file: 3,
            },
        };
        super::super::process::send(&ours, &request, &[dir.as_fd(), dir.as_fd()]).unwrap();
        let (received, dirs) = receive(&theirs).unwrap();
        assert_eq!(dirs.len(), 2);
        assert_eq!(
            (received.name, received.account),
            (request.name, request.account)
        );
    }
}
