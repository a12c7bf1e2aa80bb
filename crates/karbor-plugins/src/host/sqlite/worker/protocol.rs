//! What the service and a worker say to each other.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::Stat,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use super::account::Account;

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// What one worker may be handed.
const MOST_DIRS: usize = 2;

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Request {
    pub(in super::super) task: Task,
    /// The database's name in the first directory.
    pub(in super::super) name: OsString,
    /// The database, for messages.
    pub(in super::super) shown: String,
    /// Whose rights to take on; none if the service cannot become another account.
    pub(in super::super) account: Option<Account>,
    pub(in super::super) limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) enum Task {
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
pub(in super::super) struct Inode(pub(in super::super) u64, pub(in super::super) u64);

impl From<&Stat> for Inode {
    fn from(stat: &Stat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

/// What a worker may use.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in super::super) struct Limits {
    /// Seconds, of the processor and of the clock each.
    pub(in super::super) seconds: u64,
    /// Bytes of SQLite's memory.
    pub(in super::super) heap: u64,
    /// Bytes of the largest file it writes.
    pub(in super::super) file: u64,
}

/// What a worker answers. Everything but [`Alive`](Self::Alive) is its last word.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Answer {
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
    pub(super) text: String,
    pub(super) retryable: bool,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retryable: false,
        }
    }
}

pub(super) type Outcome = Result<Answer, Failure>;

/// The other end.
pub(super) struct Link {
    pub(super) socket: UnixStream,
    pub(super) last: Mutex<Instant>,
}

impl Link {
    pub(super) fn say(&self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        (&self.socket).write_all(&line)
    }

    /// Tells that there is progress, now and then; ends the process when nobody listens any more.
    pub(super) fn alive(&self) {
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

/// Sends a worker its task.
pub(in super::super) fn send(
    socket: &UnixStream,
    request: &Request,
    dirs: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DIRS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(dirs));
    sendmsg(
        socket,
        &[IoSlice::new(b"\n")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&*socket).write_all(&line)
}

/// Takes a task with its directories.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(Request, Vec<OwnedFd>)> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsFd as _;

    use super::*;

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
        send(&ours, &request, &[dir.as_fd(), dir.as_fd()]).unwrap();
        let (received, dirs) = receive(&theirs).unwrap();
        assert_eq!(dirs.len(), 2);
        assert_eq!(
            (received.name, received.account),
            (request.name, request.account)
        );
    }
}
