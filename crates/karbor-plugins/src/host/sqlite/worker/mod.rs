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

pub(super) mod account;
mod check;
mod confine;
mod copy;
mod hardened;
pub(super) mod protocol;
pub(super) mod room;
mod still;

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use protocol::{Answer, Failure, Link, Outcome, Request, Task, receive};

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
