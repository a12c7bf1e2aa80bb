//! Directories: found and made part by part, without following symbolic links, and flushed into
//! their parents.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use karbor_plugin::BankError;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::error::{failure, failure_of, in_the_way};

/// How many directories stay open. The usual limit of a process is 1024 files.
const OPEN_DIRECTORIES: usize = 192;

/// The directories of a container.
pub(super) struct Dirs {
    container: Arc<OwnedFd>,
    path: PathBuf,
    /// Directories that are known to be durable, for as long as they are where they were: each is looked
    /// for by its path before it is used. They stay open, so that no other gets the number of one that is gone.
    durable: Mutex<HashMap<String, Arc<OwnedFd>>>,
}

/// Opens a directory in another; a symbolic link is refused.
pub(super) fn open_directory(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(|errno| match errno {
        // Which of the two a link gives is the system's choice; a plain file gives only this one.
        Errno::NOTDIR if kind(&parent, name) == Some(FileType::Symlink) => Errno::LOOP,
        other => other,
    })
}

/// What a name is, if it is anything.
pub(super) fn kind(parent: impl AsFd, name: &str) -> Option<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Makes a directory that only its owner may enter; true if it was not there.
pub(super) fn make_directory(parent: impl AsFd, name: &str) -> Result<bool, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Is the open directory the one that has the name in `parent`?
fn is_at(directory: impl AsFd, parent: impl AsFd, name: &str) -> Result<bool, Errno> {
    let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    is_same(&there, rustix::fs::fstat(directory))
}

/// Is what the open directory says of itself said of the one that is there? A server (NFS) or a daemon (FUSE) that
/// does not know the descriptor any more has lost or removed what it was of, so it is another one.
fn is_same(there: &Stat, open: Result<Stat, Errno>) -> Result<bool, Errno> {
    match open {
        Ok(open) => Ok((there.st_dev, there.st_ino) == (open.st_dev, open.st_ino)),
        Err(Errno::STALE | Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Does the error of a step in an open directory say that the directory was removed? NFS says it in its own word when
/// another host removed it.
pub(super) fn is_removed(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::STALE)
}

impl Dirs {
    /// Opens the directory `container` in `path`; makes it if need be and allowed.
    pub(super) fn open(path: &Path, container: &str, make: bool) -> Result<Self, BankError> {
        let full = path.join(container);
        let open = |at: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(at, flags, Mode::empty())
        };
        let directory = match open(&full) {
            Ok(directory) => directory,
            Err(Errno::NOENT) if !make => return Err(absent(&full)),
            Err(Errno::NOENT) => {
                make_all(&full).map_err(|e| failure_of("making its directory", &full, e))?;
                open(&full).map_err(|e| failure_of("opening its directory", &full, e))?
            }
            Err(e) => return Err(failure_of("opening its directory", &full, e)),
        };
        Ok(Self {
            container: Arc::new(directory),
            path: full,
            durable: Mutex::default(),
        })
    }

    /// Is the open container the one at its path?
    ///
    /// # Errors
    /// When nothing is there.
    pub(super) fn is_in_place(&self) -> Result<bool, BankError> {
        let looking = |errno| failure_of("looking for its directory", &self.path, errno);
        let there = match rustix::fs::stat(&self.path) {
            // The last: a daemon (FUSE) died, and its mount is still there.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTCONN) => return Err(away(&self.path)),
            other => other.map_err(looking)?,
        };
        is_same(&there, rustix::fs::fstat(&self.container)).map_err(looking)
    }

    /// Is there nothing but what is ours?
    pub(super) fn is_empty(&self) -> Result<bool, BankError> {
        let reading = |errno| failure_of("reading its directory", &self.path, errno);
        for entry in Dir::read_from(&self.container).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            if !matches!(entry.file_name().to_bytes(), [b'.' | b'+', ..]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The container's directory.
    pub(super) fn container(&self) -> &OwnedFd {
        &self.container
    }

    /// Where the container is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory at `path` (parts joined by `/`; empty for the container), if there is one.
    pub(super) fn find(&self, path: &str) -> Result<Option<Arc<OwnedFd>>, Errno> {
        let mut directory = self.container.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match open_directory(&directory, part) {
                Ok(next) => directory = Arc::new(next),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(directory))
    }

    /// The directory at `path`, made if need be and durable. An error that [`is_removed`] means that
    /// somebody removed a part of it meanwhile: [`forget`](Self::forget) and try again.
    pub(super) fn ensure(&self, path: &str) -> Result<Arc<OwnedFd>, Refusal> {
        if path.is_empty() {
            return Ok(self.container.clone());
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.ensure(above)?;
        let known = self.durable().get(path).cloned();
        if let Some(directory) = known {
            if is_at(&directory, &parent, name)? {
                return Ok(directory);
            }
            // Somebody moved or removed it: what is written into it would go where it went.
            self.forget(path);
        }
        make_directory(&parent, name)?;
        let directory = match open_directory(&parent, name) {
            Ok(directory) => Arc::new(directory),
            Err(Errno::NOTDIR) => return Err(Refusal::InTheWay(path.to_owned())),
            Err(errno) => return Err(errno.into()),
        };
        // Also when it was there already: its maker may have died before this line.
        rustix::fs::fsync(&parent)?;
        let mut durable = self.durable();
        if durable.len() >= OPEN_DIRECTORIES {
            let any = durable.keys().next().cloned();
            any.and_then(|path| durable.remove(&path));
        }
        durable.insert(path.to_owned(), directory.clone());
        Ok(directory)
    }

    /// Forgets what is known of `path` and what it lies in. What lies in it is found out when it is used.
    pub(super) fn forget(&self, path: &str) {
        let mut durable = self.durable();
        durable.retain(|known, _| {
            let rest = path.strip_prefix(known.as_str());
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    }

    /// Removes `path`, and what it lies in, as far as they are empty.
    pub(super) fn prune(&self, path: &str) {
        let mut path = path;
        while !path.is_empty() {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            let Ok(Some(parent)) = self.find(above) else {
                return;
            };
            match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => self.forget(path),
                Err(_) => return,
            }
            path = above;
        }
    }

    fn durable(&self) -> MutexGuard<'_, HashMap<String, Arc<OwnedFd>>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bank that was there, and is not.
pub(super) fn away(container: &Path) -> BankError {
    BankError::Gone(format!(
        "'{}' was moved, removed or unmounted: bring it back (the service need not be restarted)",
        container.display()
    ))
}

fn absent(container: &Path) -> BankError {
    BankError::Other {
        message: "its directory is not there, and file_system_bank_must_exist forbids to make it: mount its file \
                  system; for a new bank, make the directory (mkdir -m 700)"
            .to_owned(),
        at: Some(container.display().to_string()),
        retryable: false,
    }
}

/// Makes a directory and what it lies in, each flushed into its parent.
fn make_all(path: &Path) -> Result<(), std::io::Error> {
    use std::os::unix::fs::DirBuilderExt;

    let missing: Vec<&Path> = path.ancestors().take_while(|at| !at.exists()).collect();
    for at in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(at) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = at.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Why a directory could not be made.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The system said so.
    Errno(Errno),
    /// This is an object.
    InTheWay(String),
}

impl Refusal {
    pub(super) fn into_error(self, key: &str) -> BankError {
        match self {
            Self::Errno(errno) => failure(format_args!("writing '{key}'"), errno),
            Self::InTheWay(object) => in_the_way(&object, key),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_descriptor_that_its_server_does_not_know_is_of_another_directory() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stat = |directory: &tempfile::TempDir| rustix::fs::stat(directory.path()).unwrap();
        let there = stat(&one);
        assert_eq!(is_same(&there, Ok(stat(&one))), Ok(true));
        assert_eq!(is_same(&there, Ok(stat(&other))), Ok(false));
        assert_eq!(is_same(&there, Err(Errno::STALE)), Ok(false));
        assert_eq!(is_same(&there, Err(Errno::NOTCONN)), Ok(false));
        assert_eq!(is_same(&there, Err(Errno::IO)), Err(Errno::IO));
    }

    #[test]
    fn a_directory_that_another_host_removed_is_made_anew() {
        assert!(is_removed(Errno::NOENT) && is_removed(Errno::STALE));
        assert!(!is_removed(Errno::NOTCONN) && !is_removed(Errno::IO));
    }
}
