//! The service's side of its workers: starting one, handing it a directory, and ending it in time.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use karbor_fs::{Dir, Found};
use karbor_plugin::PluginError;
use rustix::{
    fs::{AtFlags, FileType, Stat, statat},
    process::Signal,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::command::ending,
    worker::{
        account::Account,
        protocol::{Answer, Inode, Limits, Request, Task, send},
        room::room,
    },
};

/// The argument that makes a program a worker: `karbor sqlite-worker`.
pub const SQLITE_WORKER: &str = "sqlite-worker";

/// A worker that says nothing for so long is stuck: longer than a lock may last.
const SILENCE: Duration = Duration::from_secs(90);
/// Between two looks whether the operation was cancelled.
const LOOK: Duration = Duration::from_millis(100);
/// For what depends on no size.
const MOMENT: u64 = 30;
/// More than any answer.
const LONGEST: usize = 1 << 16;

/// SQLite's memory, for the smallest database.
const HEAP: u64 = 64 << 20;
/// Bytes of a database for one more byte of memory: the check keeps a bit for each page, of 512 bytes at least.
const PER_BYTE: u64 = 4096;
/// Seconds of a check, for the smallest database.
const SECONDS: u64 = 60;
/// Bytes of a database for one more second: a slow disk, twice.
const PER_SECOND: u64 = 16 << 20;
/// A copy takes no longer than this by the clock, for the smallest database: others may have it locked again
/// and again.
const COPY: Duration = Duration::from_secs(60 * 60);
/// Bytes of a database for one more second of that: a network's disk.
const COPY_PER_SECOND: u64 = 1 << 20;
/// A file takes a sixteenth of its size at least, where the file system compresses.
const COMPRESSED: u64 = 16;

/// A database file that a declaration names: where it really is, held by its directory.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) dir: Dir,
    pub(super) name: OsString,
    pub(super) stat: Stat,
    shown: String,
}

/// Why a declared database is not one.
#[derive(Debug)]
pub(crate) enum NoDatabase {
    /// The way to it.
    Refused(karbor_fs::Refused),
    /// Something else than a file.
    NotAFile,
}

impl Database {
    /// Walks to it; nothing is opened but directories.
    pub(super) fn find(path: &Path) -> Result<Self, NoDatabase> {
        match Dir::find(path).map_err(NoDatabase::Refused)? {
            Found::Other(dir, name, stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
            {
                Ok(Self {
                    dir,
                    name,
                    stat,
                    shown: path.display().to_string(),
                })
            }
            Found::Missing(dir, rest) => {
                let name: PathBuf = rest.iter().collect();
                Err(NoDatabase::Refused(karbor_fs::Refused::System {
                    path: dir.path().join(name),
                    errno: rustix::io::Errno::NOENT,
                }))
            }
            Found::Dir(_) | Found::Other(..) => Err(NoDatabase::NotAFile),
        }
    }

    /// Its path without links.
    pub(super) fn resolved(&self) -> PathBuf {
        self.dir.path_of(&self.name)
    }

    /// Size with its log, as a copy would be, and how much of that may be there: a size is a claim, which a
    /// sparse file makes for nothing.
    fn size(&self) -> (u64, u64) {
        let mut log = self.name.clone();
        log.push("-wal");
        let log = statat(&self.dir, &log, AtFlags::SYMLINK_NOFOLLOW);
        let size = |stat: &Stat| {
            let claimed = u64::try_from(stat.st_size).unwrap_or(0);
            let stored = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            (claimed, claimed.min(stored.saturating_mul(COMPRESSED)))
        };
        let (database, log) = (size(&self.stat), log.map_or((0, 0), |stat| size(&stat)));
        (
            database.0.saturating_add(log.0),
            database.1.saturating_add(log.1),
        )
    }

    fn is(&self) -> Inode {
        Inode::from(&self.stat)
    }

    /// Whose rights it is opened with: its owner's. A file of root's in the directory of somebody else,
    /// who may have put it there, is opened with the rights of the latter.
    fn account(&self) -> io::Result<Option<Account>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let dir = rustix::fs::fstat(&self.dir)?;
        let owner = match self.stat.st_uid {
            0 => &dir,
            _ => &self.stat,
        };
        Ok(Some(Account::of(owner.st_uid, owner.st_gid)))
    }
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Good,
    /// The check was given up: why.
    NotChecked(String),
}

/// Starts workers.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    program: PathBuf,
}

/// Why a worker ended without an answer.
#[derive(Debug)]
enum Ended {
    Cancelled,
    /// It was silent for too long.
    Silent(Duration),
    /// It took too long.
    TooLong(Duration),
    Died(String),
    NotStarted(io::Error),
}

impl Ended {
    fn explain(self, shown: &str) -> PluginError {
        let text = match self {
            Self::Cancelled => return PluginError::cancelled(),
            Self::NotStarted(error) => {
                return PluginError::new(
                    "the process that reads SQLite databases cannot be started",
                )
                .with_cause(error);
            }
            Self::Silent(after) => format!(
                "'{shown}' cannot be read: nothing moved for {} s (is its file system there?)",
                after.as_secs()
            ),
            Self::TooLong(after) => format!(
                "'{shown}' cannot be read within {} s: is its disk slow, or is it locked again and again?",
                after.as_secs()
            ),
            Self::Died(how) => {
                format!("'{shown}' cannot be read: the process that reads it ended with {how}")
            }
        };
        PluginError::retryable(text)
    }
}

impl Workers {
    /// `program` becomes a worker when it is run with [`SQLITE_WORKER`].
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Looks whether a database can be read.
    pub(super) fn look(&self, database: &Database) -> Result<(), PluginError> {
        let request = self.request(database, Task::Look { is: database.is() }, MOMENT)?;
        let whole = Duration::from_secs(MOMENT);
        let never = CancellationToken::new();
        match self.ask(&request, &[database.dir.as_fd()], whole, &never) {
            Ok(answer) => done(answer),
            Err(ended) => Err(ended.explain(&database.shown)),
        }
    }

    /// Copies a database to `to` in `cell`, which the account that it belongs to may write to, and nobody
    /// else can reach; answers with the copy, opened.
    pub(super) fn copy(
        &self,
        database: &Database,
        cell: &Dir,
        to: &OsStr,
        cancel: &CancellationToken,
    ) -> Result<karbor_fs::File, PluginError> {
        let (claimed, there) = database.size();
        let whole = COPY + Duration::from_secs(there / COPY_PER_SECOND);
        let task = Task::Copy {
            is: database.is(),
            to: to.to_owned(),
        };
        let seconds = SECONDS + there / PER_SECOND * 4;
        let mut request = self.request(database, task, seconds)?;
        let room = room(cell).map_err(|errno| {
            PluginError::new(format!(
                "the scratch directory cannot be looked at: {errno}"
            ))
        })?;
        // It may grow while it is copied.
        request.limits.file = claimed.saturating_mul(2).saturating_add(HEAP).min(room);
        if let Some(account) = &request.account {
            let user = rustix::fs::Uid::from_raw(account.user);
            rustix::fs::fchown(cell, Some(user), None).map_err(|errno| {
                PluginError::new(format!("the temporary copy cannot be made: {errno}"))
            })?;
        }
        let explain = |ended: Ended| ended.explain(&database.shown);
        let dirs = [database.dir.as_fd(), cell.as_fd()];
        let (is, with_log) = match self.ask(&request, &dirs, whole, cancel).map_err(explain)? {
            Answer::Copied { is, with_log } => (is, with_log),
            other => return Err(refusal(other)),
        };
        if with_log {
            request.task = Task::Merge;
            request.name = to.to_owned();
            done(
                self.ask(&request, &[cell.as_fd()], whole, cancel)
                    .map_err(explain)?,
            )?;
        }
        let copy = cell.open_file(to).map_err(|error| {
            PluginError::new(format!("the temporary copy cannot be read: {error}"))
        })?;
        match Inode::from(&copy.stat) == is {
            true => Ok(copy),
            false => Err(PluginError::new(format!(
                "the temporary copy of '{}' is not the file that was written: keep others from the scratch directory, then protect again",
                database.shown
            ))),
        }
    }

    /// Has SQLite look through a database that the service has for itself in `dir`. `size` bounds what
    /// that may cost; a check that costs more is given up. `owner` is who it belongs to or will belong to.
    pub(super) fn check(
        &self,
        dir: &Dir,
        name: &OsStr,
        size: u64,
        owner: Option<(u32, u32)>,
        cancel: &CancellationToken,
    ) -> Result<Checked, PluginError> {
        let seconds = SECONDS + size / PER_SECOND;
        let account = match owner {
            // It is open already, so it takes no rights.
            Some((0, _)) | None => Account::nobody(),
            Some((user, group)) => Account::of(user, group),
        };
        let request = Request {
            task: Task::Check,
            name: name.to_owned(),
            shown: dir.path_of(name).display().to_string(),
            account: rustix::process::geteuid().is_root().then_some(account),
            limits: limits(seconds, size),
        };
        // SQLite is asked to stop in time; one step of its own may take longer than that.
        let whole = Duration::from_secs(seconds + 10);
        match self.ask(&request, &[dir.as_fd()], whole, cancel) {
            Ok(Answer::TooMuch(what)) => Ok(Checked::NotChecked(format!(
                "its check takes more than {what}"
            ))),
            Ok(answer) => done(answer).map(|()| Checked::Good),
            Err(Ended::Cancelled) => Err(PluginError::cancelled()),
            Err(error @ Ended::NotStarted(_)) => Err(error.explain(&request.shown)),
            Err(Ended::Silent(after) | Ended::TooLong(after)) => Ok(Checked::NotChecked(format!(
                "its check takes more than {} s",
                after.as_secs()
            ))),
            Err(Ended::Died(how)) => Ok(Checked::NotChecked(format!(
                "the process that checked it ended with {how}"
            ))),
        }
    }

    fn request(
        &self,
        database: &Database,
        task: Task,
        seconds: u64,
    ) -> Result<Request, PluginError> {
        let shown = database.shown.clone();
        let account = database
            .account()
            .map_err(|error| PluginError::new(format!("'{shown}' cannot be read: {error}")))?;
        Ok(Request {
            task,
            name: database.name.clone(),
            shown,
            account,
            limits: limits(seconds, database.size().1),
        })
    }

    /// Starts a worker, gives it its task, and waits for its answer, as long as it shows signs of life.
    fn ask(
        &self,
        request: &Request,
        dirs: &[BorrowedFd<'_>],
        whole: Duration,
        cancel: &CancellationToken,
    ) -> Result<Answer, Ended> {
        if cancel.is_cancelled() {
            return Err(Ended::Cancelled);
        }
        let (ours, theirs) = UnixStream::pair().map_err(Ended::NotStarted)?;
        let mut worker = Running(
            Command::new(&self.program)
                .arg0("karbor")
                .arg(SQLITE_WORKER)
                .env_clear()
                .current_dir("/")
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // The terminal's signals are for the service.
                .process_group(0)
                .spawn()
                .map_err(Ended::NotStarted)?,
        );
        // If it has died already, reading tells.
        let _ = send(&ours, request, dirs);
        // SQLite takes a log into its database without a sign of life.
        let silence = match request.task {
            Task::Merge => SILENCE.max(Duration::from_secs(request.limits.seconds)),
            _ => SILENCE,
        };
        worker.listen(&ours, (whole, silence), cancel)
    }
}

fn limits(seconds: u64, size: u64) -> Limits {
    Limits {
        seconds,
        heap: HEAP + size / PER_BYTE,
        file: HEAP,
    }
}

fn done(answer: Answer) -> Result<(), PluginError> {
    match answer {
        Answer::Done => Ok(()),
        other => Err(refusal(other)),
    }
}

/// Why a task was not done.
fn refusal(answer: Answer) -> PluginError {
    match answer {
        Answer::Failed { text, retryable } => match retryable {
            true => PluginError::retryable(text),
            false => PluginError::new(text),
        },
        other => {
            PluginError::new("the process that reads SQLite databases answered something else")
                .with_cause(format!("{other:?}"))
        }
    }
}

/// A worker, which goes with the one who waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn listen(
        &mut self,
        mut socket: &UnixStream,
        (whole, silence): (Duration, Duration),
        cancel: &CancellationToken,
    ) -> Result<Answer, Ended> {
        socket
            .set_read_timeout(Some(LOOK))
            .map_err(Ended::NotStarted)?;
        let begun = Instant::now();
        let mut heard = Instant::now();
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            if cancel.is_cancelled() {
                return Err(Ended::Cancelled);
            }
            if begun.elapsed() > whole {
                return Err(Ended::TooLong(whole));
            }
            match socket.read(&mut buffer) {
                Ok(0) => return Err(self.died()),
                Ok(read) => {
                    heard = Instant::now();
                    text.extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if heard.elapsed() > silence {
                        return Err(Ended::Silent(silence));
                    }
                }
                Err(_) => return Err(self.died()),
            }
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(Answer::Alive) => {}
                    Ok(answer) => return Ok(answer),
                    Err(error) => return Err(Ended::Died(format!("a wrong answer ({error})"))),
                }
            }
            if text.len() > LONGEST {
                return Err(Ended::Died("an answer without an end".to_owned()));
            }
        }
    }

    /// It closed its end; it is ending, or told to.
    fn died(&mut self) -> Ended {
        let over = Instant::now() + Duration::from_secs(1);
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => {
                    return Ended::Died("its time used up".to_owned());
                }
                Ok(Some(status)) if status.signal() == Some(Signal::XFSZ.as_raw()) => {
                    return Ended::Died(
                        "no room in the scratch directory: free space there".to_owned(),
                    );
                }
                Ok(Some(status)) => return Ended::Died(ending(status)),
                Ok(None) if Instant::now() < over => std::thread::sleep(LOOK / 20),
                _ => return Ended::Died("no answer".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request() -> Request {
        Request {
            task: Task::Check,
            name: OsString::from("s.db"),
            shown: "/srv/s.db".to_owned(),
            account: None,
            limits: limits(1, 0),
        }
    }

    /// One step of SQLite's, such as a search in a long text, can take minutes: it is not waited for.
    #[test]
    fn a_worker_that_never_answers_is_killed_when_its_time_is_over_and_on_a_cancel() {
        // It takes any argument, and goes on for ever.
        let workers = Workers::new(PathBuf::from("/usr/bin/yes"));
        let cancel = CancellationToken::new();
        let whole = Duration::from_millis(300);
        let begun = Instant::now();
        let ended = workers.ask(&request(), &[], whole, &cancel).unwrap_err();
        assert!(
            matches!(ended, Ended::TooLong(after) if after == whole),
            "{ended:?}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| workers.ask(&request(), &[], Duration::MAX, &cancel));
            cancel.cancel();
            let ended = waiting.join().unwrap().unwrap_err();
            assert!(matches!(ended, Ended::Cancelled), "{ended:?}");
        });
    }

    #[test]
    fn a_worker_that_dies_or_talks_nonsense_is_told_of() {
        let never = CancellationToken::new();
        let ask = |program: &str| {
            let workers = Workers::new(PathBuf::from(program));
            let ended = workers
                .ask(&request(), &[], Duration::MAX, &never)
                .unwrap_err();
            ended.explain("/srv/s.db").message
        };
        let told = ask("/bin/false");
        assert!(
            told.contains("'/srv/s.db'") && told.contains("exit status 1"),
            "{told}"
        );
        assert!(ask("/no/such/program").contains("cannot be started"));
    }
}
