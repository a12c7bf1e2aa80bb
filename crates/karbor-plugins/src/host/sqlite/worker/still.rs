//! A database that nobody writes to at the moment, copied as a file.
//!
//! SQLite cannot read a database in WAL mode without an index (`-shm`) beside it, and makes one, with a
//! log, if there is none. Where there is no index nobody has the database open (or one process has it for
//! itself alone), so the file and its log are read as they are; if they are the same afterwards as they
//! were before, they were of one moment.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    ops::Range,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::{
    protocol::{Answer, Failure, Inode, Link, Outcome, Request},
    room::fits,
};

/// So often it is tried.
const TRIES: usize = 3;
/// Between two looks whether there is progress to tell of.
const PIECE: u64 = 16 << 20;
/// A file that was changed less than this ago is not looked at yet: a second change could have the same time.
const GRAIN: Duration = Duration::from_millis(50);
/// So long is waited for a file that is changed all the time; then somebody writes to it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What every database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// What the name of a log ends in.
const LOG: &str = "-wal";

/// A database and what lies beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) is: Inode,
    /// `-journal`
    pub(super) journal: bool,
    /// `-wal`
    pub(super) log: bool,
    /// `-shm`
    pub(super) index: bool,
}

impl Files {
    /// Looks at a database in the working directory. A FIFO or a device among its files would make SQLite
    /// wait or act; a link would lead elsewhere.
    pub(super) fn look(name: &OsStr, shown: &str) -> Result<Self, Failure> {
        let there = |suffix| Ok(Seen::of(name, suffix, shown)?.is_some());
        let database = Seen::of(name, "", shown)?
            .ok_or_else(|| Failure::new(format!("'{shown}' cannot be read: it is not there")))?;
        Ok(Self {
            is: database.is,
            journal: there("-journal")?,
            log: there(LOG)?,
            index: there("-shm")?,
        })
    }
}

/// A file as it is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    is: Inode,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(name: &OsStr, suffix: &str, shown: &str) -> Result<Option<Self>, Failure> {
        match statat(CWD, beside(name, suffix), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failure::new(format!(
                "'{shown}{suffix}' cannot be read: {errno}"
            ))),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Ok(Some(Self::from(&stat))),
                _ => Err(Failure::new(format!(
                    "'{shown}{suffix}' is not a file but a link, a FIFO or the like: remove it"
                ))),
            },
        }
    }

    /// Is the last change so long ago that another one would show?
    fn is_settled(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let at = Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // A time to come says nothing about how long ago it was.
        now.is_ok_and(|now| now < at || now - at > GRAIN)
    }
}

impl From<&Stat> for Seen {
    fn from(stat: &Stat) -> Self {
        Self {
            is: Inode::from(stat),
            size: stat.st_size,
            modified: (
                stat.st_mtime,
                i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            changed: (
                stat.st_ctime,
                i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
            ),
        }
    }
}

/// The name of a file beside a database.
pub(super) fn beside(name: &OsStr, suffix: &str) -> OsString {
    let mut beside = name.to_owned();
    beside.push(suffix);
    beside
}

pub(super) fn exchanged(shown: &str) -> Failure {
    Failure::new(format!(
        "'{shown}' was exchanged for another file while it was being opened"
    ))
}

/// Opens a file of the database for reading; nothing that could wait or lead elsewhere.
fn open(name: &OsStr, shown: &str) -> Result<File, Failure> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(CWD, name, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| match errno {
            Errno::ACCESS | Errno::PERM => Failure::new(format!(
                "'{shown}' cannot be read: its owner (the service's account, if the service is not root) may not"
            )),
            errno => Failure::new(format!("'{shown}' cannot be read: {errno}")),
        })
}

/// Is the database in WAL mode? (<https://www.sqlite.org/fileformat.html>: bytes 18 and 19.) Asked before
/// SQLite opens it: closing a file lets go of the locks that the process has on it.
pub(super) fn is_wal(name: &OsStr, is: Inode, shown: &str) -> Result<bool, Failure> {
    let file = open(name, shown)?;
    let stat = fstat(&file).map_err(|errno| cannot_read(shown, &errno))?;
    if Inode::from(&stat) != is {
        return Err(exchanged(shown));
    }
    let mut header = [0; 20];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(header[18] == 2 && header[19] == 2),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(cannot_read(shown, &error)),
    }
}

fn cannot_read(shown: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("'{shown}' cannot be read: {error}"))
}

/// A copy of a file that was of one moment, under names of its own beside the one that it is to get: that is
/// the online backup's, which has it open.
#[derive(Debug)]
pub(super) struct Still {
    is: Inode,
    with_log: bool,
}

impl Still {
    /// Gives the copy its name, and its log.
    pub(super) fn finish(self, cell: &OwnedFd, to: &OsStr) -> Outcome {
        let still = stilled(to);
        let put = |suffix| {
            let (from, to) = (beside(&still, suffix), beside(to, suffix));
            renameat(cell, from, cell, to).map_err(|errno| cannot_write(&errno))
        };
        if self.with_log {
            put(LOG)?;
        }
        put("")?;
        Ok(Answer::Copied {
            is: self.is,
            with_log: self.with_log,
        })
    }
}

/// The name of the copy until it is certain that it is of one moment.
fn stilled(to: &OsStr) -> OsString {
    beside(to, ".still")
}

/// Copies the file, and its log if there is one. `None`: somebody writes to it after all, and nothing is
/// left of the copy.
pub(super) fn copy(
    link: &Link,
    request: &Request,
    is: Inode,
    cell: &OwnedFd,
    to: &OsStr,
) -> Result<Option<Still>, Failure> {
    let until = Instant::now() + PATIENCE;
    let still = stilled(to);
    let (name, shown) = (request.name.as_os_str(), request.shown.as_str());
    for _ in 0..TRIES {
        let Some(before) = settled(link, name, shown, until)? else {
            return Ok(None);
        };
        if before.database.is != is {
            return Err(exchanged(shown));
        }
        let log = before.log.filter(|log| log.size > 0);
        let mut taken = take(link, name, &before.database, cell, &still, shown)?;
        if let Some(log) = log {
            let (from, to) = (beside(name, LOG), beside(&still, LOG));
            taken = take(link, &from, &log, cell, &to, shown)?.and(taken);
        }
        if let Some(is) = taken
            && Basis::of(name, shown)? == before
        {
            let with_log = log.is_some();
            return Ok(Some(Still { is, with_log }));
        }
        remove(cell, &beside(&still, LOG))?;
        remove(cell, &still)?;
    }
    Ok(None)
}

/// All that a copy depends on.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    database: Seen,
    log: Option<Seen>,
    index: bool,
}

impl Basis {
    fn of(name: &OsStr, shown: &str) -> Result<Self, Failure> {
        Ok(Self {
            database: Seen::of(name, "", shown)?.ok_or_else(|| exchanged(shown))?,
            log: Seen::of(name, LOG, shown)?,
            index: Seen::of(name, "-shm", shown)?.is_some(),
        })
    }
}

/// Waits until the last change is long enough ago. `None`: somebody has the database open, or changes it all
/// the time.
fn settled(
    link: &Link,
    name: &OsStr,
    shown: &str,
    until: Instant,
) -> Result<Option<Basis>, Failure> {
    loop {
        let state = Basis::of(name, shown)?;
        if state.index {
            return Ok(None);
        }
        if state.database.is_settled() && state.log.as_ref().is_none_or(Seen::is_settled) {
            return Ok(Some(state));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        link.alive();
        thread::sleep(GRAIN / 10);
    }
}

/// Copies one file; answers with the one that was made, `None` if the original is not as it was seen.
fn take(
    link: &Link,
    name: &OsStr,
    seen: &Seen,
    cell: &OwnedFd,
    to: &OsStr,
    shown: &str,
) -> Result<Option<Inode>, Failure> {
    let mut from = open(name, shown)?;
    let is = |file: &File| fstat(file.as_fd()).is_ok_and(|stat| Seen::from(&stat) == *seen);
    if !is(&from) {
        return Ok(None);
    }
    remove(cell, to)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(cell, to, flags, Mode::from_raw_mode(0o600));
    let mut made = File::from(made.map_err(|errno| cannot_write(&errno))?);
    let length = length(&from, seen).map_err(|error| cannot_read(shown, &error))?;
    fits(cell, length, shown)?;
    let mut at = 0;
    while let Some(data) = data(&from, at, length).map_err(|error| cannot_read(shown, &error))? {
        link.alive();
        let end = data.end.min(data.start.saturating_add(PIECE));
        fits(cell, end - data.start, shown)?;
        let seek = |file: &mut File| file.seek(SeekFrom::Start(data.start));
        seek(&mut from).map_err(|error| cannot_read(shown, &error))?;
        seek(&mut made).map_err(|error| cannot_write(&error))?;
        let copied = io::copy(&mut from.by_ref().take(end - data.start), &mut made);
        match copied.map_err(|error| cannot_write(&error))? {
            // It has become shorter.
            0 => break,
            copied => at = data.start + copied,
        }
    }
    // A hole at the end.
    made.set_len(length).map_err(|error| cannot_write(&error))?;
    let stat = fstat(&made).map_err(|errno| cannot_write(&errno))?;
    Ok(is(&from).then(|| Inode::from(&stat)))
}

/// How much of a file is the database or the log. A database says itself how many pages it has
/// (<https://www.sqlite.org/fileformat.html>: bytes 28 to 31, which count if bytes 24 to 27 and 92 to 95 are
/// the same); what comes after them is nothing, however large its owner has made the file.
fn length(file: &File, seen: &Seen) -> io::Result<u64> {
    let size = u64::try_from(seen.size).unwrap_or_default();
    let mut header = [0; 100];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(size),
        read => read?,
    }
    let number = |at: usize| {
        header[at..at + 4]
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    let page = match u64::from(header[16]) << 8 | u64::from(header[17]) {
        1 => 65_536,
        page => page,
    };
    let length = page * number(28);
    let counts = header.starts_with(MAGIC) && number(24) == number(92);
    Ok(match counts && length > 0 && length <= size {
        true => length,
        false => size,
    })
}

/// The next part of a file that is no hole, up to there.
fn data(file: &File, at: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    if at >= end {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL) => return Ok(Some(at..end)),
        Err(errno) => return Err(errno.into()),
    };
    if start >= end {
        return Ok(None);
    }
    let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?;
    Ok(Some(start..hole.min(end)))
}

fn remove(cell: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
    match unlinkat(cell, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(cannot_write(&errno)),
    }
}

fn cannot_write(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!(
        "the temporary copy cannot be written: {error}; is there room in the scratch directory?"
    ))
}
