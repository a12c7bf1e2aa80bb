//! Files of a host that local users share.
//!
//! The service may run as root, and the places that it protects and restores belong to others, who may
//! rename a directory or put a symbolic link in its place at any moment. A path that was checked says
//! nothing a moment later. So a place is opened once, component by component from `/`, and from then on
//! everything happens relative to that descriptor: [`Dir`].
//!
//! On the way from `/` a symbolic link is followed only where nobody but a *trusted* account, root or the
//! service's own, could have put it (`/var/run` is one): each directory that leads to it belongs to such an
//! account and is closed to others, and so does the link itself. Below a [`Dir`] no link is followed at all.
//!
//! What is written in a directory that others may change is made in a [`Staging`] directory, which is closed
//! to them, and gets its name when it is whole: nobody can exchange or open it before. A [`Trail`] goes
//! through deep trees with few descriptors, and notices where a directory was exchanged.
//!
//! [`closed`] asks the same of a file that the service obeys: a declaration, a program, a state directory.

mod closed;
mod dir;
mod identity;
mod staging;
mod stale;
mod temp_name;
mod trail;
mod walk;
mod write;

use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use closed::{closed, make_closed, without_parents};
pub use dir::{Dir, File, Found, Movers, shown, shown_way};
pub use identity::{Identity, Known};
pub use staging::{Access, NotGiven, Staging};
pub use temp_name::{is_temp_name, temp_name};
pub use trail::Trail;
pub use walk::resolve;
pub use write::Replace;

/// Why a path is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A symbolic link that somebody else than root or the service's account could have put there.
    #[error("'{}' is a symbolic link that other accounts could have put there", .0.display())]
    Link(PathBuf),
    /// Another account may change what is there.
    #[error("'{}' {reason}", .path.display())]
    Open {
        /// The file or directory that others may change.
        path: PathBuf,
        /// What lets them.
        reason: String,
    },
    /// It is something else than what was asked for: a FIFO where a file should be.
    #[error("'{}' is not {wanted}", .path.display())]
    Kind {
        /// What is not as it should be.
        path: PathBuf,
        /// What it should be: "a directory".
        wanted: &'static str,
    },
    /// Another directory is there now than before.
    #[error("'{}' was exchanged while it was in use", .0.display())]
    Exchanged(PathBuf),
    /// The path itself: relative, with `..` in it, empty.
    #[error("'{}' {reason}", .path.display())]
    Path {
        /// The path that was asked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system says no.
    #[error("'{}': {errno}", .path.display())]
    System {
        /// What was being opened.
        path: PathBuf,
        /// The system's error.
        errno: Errno,
    },
}

impl Refused {
    pub(crate) fn system(path: &Path, errno: Errno) -> Self {
        Self::System {
            path: path.to_owned(),
            errno,
        }
    }

    /// Is there nothing at the path?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::System {
                errno: Errno::NOENT,
                ..
            }
        )
    }

    /// The system's error, where it is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
