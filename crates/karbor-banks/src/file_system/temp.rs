//! Unfinished writes: `+tmp/<one per open bank>/<number>`, beside a file `lock` that is locked as
//! long as the bank is open. A process that can lock it knows that the owner is dead.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::dirs::{is_removed, make_directory, open_directory};
use super::rename::rename_new_at;

const TEMP: &str = "+tmp";
const LOCK: &str = "lock";

/// A directory for this bank's unfinished writes.
pub(super) struct TempArea {
    root: OwnedFd,
    directory: OwnedFd,
    name: String,
    next: AtomicU64,
    _lock: OwnedFd,
}

/// A file that is removed when dropped, unless it was moved to its place.
pub(super) struct TempFile {
    pub(super) file: File,
    name: String,
    area: Arc<TempArea>,
    moved: bool,
}

fn open_lock(directory: impl AsFd, create: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | create;
    rustix::fs::openat(directory, LOCK, flags, Mode::RUSR | Mode::WUSR)
}

impl TempArea {
    /// Makes an area in a container.
    pub(super) fn open(container: impl AsFd) -> Result<Self, Errno> {
        make_directory(&container, TEMP)?;
        let root = open_directory(&container, TEMP)?;
        loop {
            let name = uuid::Uuid::new_v4().to_string();
            make_directory(&root, &name)?;
            // Between any two of these steps a sweeper may take the area for a dead one.
            let directory = match open_directory(&root, &name) {
                Err(errno) if is_removed(errno) => continue,
                other => other?,
            };
            let lock = match open_lock(&directory, OFlags::CREATE) {
                Err(errno) if is_removed(errno) => continue,
                other => other?,
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                other => other?,
            }
            if rustix::fs::fstat(&lock)?.st_nlink == 0 {
                continue;
            }
            return Ok(Self {
                root,
                directory,
                name,
                next: AtomicU64::new(0),
                _lock: lock,
            });
        }
    }

    /// A new file. An error that [`is_removed`] means that somebody removed the whole area.
    pub(super) fn create(self: &Arc<Self>) -> Result<TempFile, Errno> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(TempFile {
            file: file.into(),
            name,
            area: self.clone(),
            moved: false,
        })
    }
}

impl Drop for TempArea {
    fn drop(&mut self) {
        // Every TempFile holds the area, so nothing is in it but the lock.
        let _ = rustix::fs::unlinkat(&self.directory, LOCK, AtFlags::empty());
        let _ = rustix::fs::unlinkat(&self.root, &self.name, AtFlags::REMOVEDIR);
    }
}

impl TempFile {
    /// Moves the file to `name` in `directory`, in place of what is there.
    pub(super) fn replace(&mut self, directory: impl AsFd, name: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.area.directory, &self.name, directory, name)?;
        self.moved = true;
        Ok(())
    }

    /// Moves the file to `name` in `directory`; `EEXIST` if there is something.
    pub(super) fn move_new(&mut self, directory: impl AsFd, name: &str) -> Result<(), Errno> {
        let area = self.area.directory.as_fd();
        rename_new_at(
            area,
            Path::new(&self.name),
            directory.as_fd(),
            Path::new(name),
        )?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.moved {
            let _ = rustix::fs::unlinkat(&self.area.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Removes the areas of dead processes; answers how many files were in them.
pub(super) fn sweep(container: impl AsFd) -> Result<usize, Errno> {
    let root = match open_directory(&container, TEMP) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let mut swept = 0;
    for area in names(&root)? {
        match sweep_area(&root, &area) {
            Ok(files) => swept += files,
            // Its owner lives, or another sweeper is at it.
            Err(Errno::WOULDBLOCK | Errno::NOTEMPTY) => {}
            Err(errno) if is_removed(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(swept)
}

fn sweep_area(root: &OwnedFd, area: &str) -> Result<usize, Errno> {
    let directory = open_directory(root, area)?;
    let lock = match open_lock(&directory, OFlags::empty()) {
        // Just made, or half swept: if it is empty it goes.
        Err(Errno::NOENT) => None,
        other => Some(other?),
    };
    let mut files = 0;
    if let Some(lock) = &lock {
        rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive)?;
        for name in names(&directory)? {
            if name != LOCK {
                rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?;
                files += 1;
            }
        }
        // Last: a sweeper that dies before leaves the rest to the next.
        rustix::fs::unlinkat(&directory, LOCK, AtFlags::empty())?;
    }
    rustix::fs::unlinkat(root, area, AtFlags::REMOVEDIR)?;
    Ok(files)
}

fn names(directory: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn a_living_area_is_not_swept_and_a_dead_one_is() {
        let (directory, fd) = container();
        let area = Arc::new(TempArea::open(&fd).unwrap());
        let file = area.create().unwrap();
        assert_eq!(sweep(&fd).unwrap(), 0);
        assert!(
            directory
                .path()
                .join("+tmp")
                .join(&area.name)
                .join("0")
                .exists()
        );
        drop(file);

        let dead = directory.path().join("+tmp/dead");
        std::fs::create_dir(&dead).unwrap();
        for name in ["0", "1", LOCK] {
            std::fs::write(dead.join(name), "x").unwrap();
        }
        std::fs::create_dir(directory.path().join("+tmp/empty")).unwrap();
        assert_eq!(sweep(&fd).unwrap(), 2);
        assert!(!dead.exists());
        drop(area);
        assert_eq!(
            std::fs::read_dir(directory.path().join("+tmp"))
                .unwrap()
                .count(),
            0
        );
    }
}
