//! Making, renaming and removing in a directory that is held open.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

use crate::{
    Dir, Identity, Movers, Refused, Trail, dir::shown, temp_name::is_temp_name, walk::trusted,
};

/// What happens to what has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It stays, and renaming fails with `EEXIST`.
    No,
    /// It goes, unless it is a directory.
    Yes,
}

impl Dir {
    fn system(&self, name: &OsStr, errno: Errno) -> Refused {
        Refused::system(&shown(self.path(), name), errno)
    }

    /// Does it belong to the service's account, and may nobody else enter it?
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn is_own(&self) -> Result<bool, Refused> {
        let stat = self.stat()?;
        Ok(stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0)
    }

    /// What has this name in the directory, if anything. No link is followed.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn look(&self, name: &OsStr) -> Result<Option<Stat>, Refused> {
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.system(name, errno)),
        }
    }

    /// Can nobody but root and the service's account add, rename or remove anything in it? An access list
    /// that lets somebody shows in the group's bits (acl(5)).
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn is_closed(&self) -> Result<bool, Refused> {
        let stat = self.stat()?;
        Ok(trusted(stat.st_uid) && stat.st_mode & 0o022 == 0)
    }

    /// The names in it, in no order.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn names(&self) -> Result<Vec<OsString>, Refused> {
        let failed = |errno| Refused::system(self.path(), errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    /// Makes a directory, for nobody else to look into (0700), and opens it. In a directory that is not
    /// [closed](Self::is_closed) another may be in its place when it is opened: make it in a
    /// [`Staging`](crate::Staging) there.
    ///
    /// # Errors
    /// [`Refused::System`], `EEXIST` among them.
    pub fn make_dir(&self, name: &OsStr) -> Result<Self, Refused> {
        rustix::fs::mkdirat(self, name, Mode::RWXU).map_err(|errno| self.system(name, errno))?;
        self.step(name)
    }

    /// A directory that was made elsewhere and has got this name here.
    pub(crate) fn adopt(&self, made: Self, name: &OsStr) -> Result<Self, Refused> {
        let movers = Movers::in_dir(&self.stat()?, &made.stat()?).and(self.movers());
        Ok(made.named(shown(self.path(), name), movers))
    }

    /// Makes an empty file for writing, which nobody else may open (0600). It is locked (flock(2)) as
    /// long as it is open, where the file system has locks.
    ///
    /// # Errors
    /// [`Refused::System`]: `EEXIST`, `EAGAIN` if somebody else locked or removed it in between.
    pub fn create_file(&self, name: &OsStr) -> Result<fs::File, Refused> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.system(name, errno))?;
        // Not every file system has locks.
        let locked = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.system(name, errno))?;
        // Somebody who cleans up may be faster. Not every file system counts names.
        let is_gone = || match stat.st_nlink {
            0 => self.look(name).map(|named| !is_named(&stat, named)),
            _ => Ok(false),
        };
        match locked == Err(Errno::AGAIN) || is_gone()? {
            true => {
                self.remove_file(name)?;
                Err(self.system(name, Errno::AGAIN))
            }
            false => Ok(fs::File::from(fd)),
        }
    }

    /// Gives what is here another name, in this directory or another of the same file system.
    ///
    /// # Errors
    /// [`Refused::System`]: `EEXIST` with [`Replace::No`], `EISDIR` if a directory has the name.
    pub fn rename(
        &self,
        name: &OsStr,
        to: &Self,
        new: &OsStr,
        replace: Replace,
    ) -> Result<(), Refused> {
        let renamed = match replace {
            Replace::Yes => rustix::fs::renameat(self, name, to, new),
            Replace::No => rename_new(self, name, to, new),
        };
        renamed.map_err(|errno| to.system(new, errno))
    }

    /// Gives an open file one more name.
    ///
    /// # Errors
    /// [`Refused::System`], also where files can have one name only.
    pub fn link_file(&self, file: impl AsFd, name: &OsStr) -> Result<(), Refused> {
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        rustix::fs::linkat(CWD, path, self, name, AtFlags::SYMLINK_FOLLOW)
            .map_err(|errno| self.system(name, errno))
    }

    /// Gives what is here one more name, in this directory or another.
    ///
    /// # Errors
    /// [`Refused::System`], also where files can have one name only.
    pub fn link(&self, name: &OsStr, to: &Self, new: &OsStr) -> Result<(), Refused> {
        rustix::fs::linkat(self, name, to, new, AtFlags::empty())
            .map_err(|errno| to.system(new, errno))
    }

    /// Removes what has this name, unless it is a directory. That there is nothing is no error.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn remove_file(&self, name: &OsStr) -> Result<(), Refused> {
        self.unlink(name, AtFlags::empty())
    }

    /// Removes an empty directory. That there is none is no error.
    ///
    /// # Errors
    /// [`Refused::System`], `ENOTEMPTY` among them.
    pub fn remove_dir(&self, name: &OsStr) -> Result<(), Refused> {
        self.unlink(name, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<(), Refused> {
        match rustix::fs::unlinkat(self, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.system(name, errno)),
        }
    }

    /// Removes what has this name and, if it is a directory, all that is in it. No link is followed, and
    /// nothing is entered that is mounted there, be it a directory of the same file system. What a run that is alive is
    /// [making](crate::temp_name) in it stays, with the directories that lead to it.
    ///
    /// # Errors
    /// [`Refused`]: the first that could not be removed (`EXDEV`: where something is mounted);
    /// others are left then, too.
    pub fn remove_all(&self, name: &OsStr) -> Result<(), Refused> {
        self.remove_wanted(name, |_, _| true)
    }

    /// As [`remove_all`](Self::remove_all), but leaves what `is_wanted` does not take, with the directories that
    /// lead to it. It is asked with the path from this directory, and whether that is a directory.
    ///
    /// # Errors
    /// As [`remove_all`](Self::remove_all).
    pub fn remove_wanted(
        &self,
        name: &OsStr,
        is_wanted: impl Fn(&Path, bool) -> bool,
    ) -> Result<(), Refused> {
        match self.look(name)? {
            None => return Ok(()),
            Some(stat) if !is_dir(&stat) => {
                return match is_wanted(name.as_ref(), false) {
                    true => self.remove_file(name),
                    false => Ok(()),
                };
            }
            Some(_) if !is_wanted(name.as_ref(), true) => return Ok(()),
            Some(_) => {}
        }
        let here = self.mount()?;
        let mut trail = Trail::new(self.clone())?;
        let mut path = PathBuf::new();
        // Of each directory on the way: those in it that are still to be removed.
        let mut left = vec![vec![name.to_owned()]];
        while let Some(names) = left.last_mut() {
            match names.pop() {
                Some(name) => {
                    trail.enter(&name, None)?;
                    if trail.dir().mount()? != here {
                        return Err(Refused::system(trail.dir().path(), Errno::XDEV));
                    }
                    path.push(&name);
                    left.push(remove_files(trail.dir(), &mut path, &is_wanted)?);
                }
                None => {
                    left.pop();
                    path.pop();
                    if let Some(name) = trail.leave()? {
                        match trail.dir().remove_dir(&name) {
                            // Something in it was not wanted.
                            Err(left) if left.errno() == Some(Errno::NOTEMPTY) => {}
                            done => done?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Which file system it is on, and which mount: a directory of the same file system can be mounted, too.
    fn mount(&self) -> Result<(u64, Option<String>), Refused> {
        let told = format!("/proc/self/fdinfo/{}", self.as_fd().as_raw_fd());
        let told = fs::read_to_string(told).unwrap_or_default();
        let mut lines = told.lines();
        let mount = lines.find_map(|line| line.strip_prefix("mnt_id:"));
        Ok((self.stat()?.st_dev, mount.map(str::to_owned)))
    }

    /// Puts what was made in it, and its names, on stable storage.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn sync(&self) -> Result<(), Refused> {
        rustix::fs::fsync(self).map_err(|errno| Refused::system(self.path(), errno))
    }

    /// The path of an entry, for messages.
    #[must_use]
    pub fn path_of(&self, name: &OsStr) -> PathBuf {
        shown(self.path(), name)
    }
}

/// Answers with the directories that are to be gone through. `path` is that of the directory.
fn remove_files(
    dir: &Dir,
    path: &mut PathBuf,
    is_wanted: impl Fn(&Path, bool) -> bool,
) -> Result<Vec<OsString>, Refused> {
    let mut dirs = Vec::new();
    for name in dir.names()? {
        if is_temp_name(&name) {
            dir.remove_if_stale(&name)?;
            continue;
        }
        let Some(stat) = dir.look(&name)? else {
            continue;
        };
        let is_dir = is_dir(&stat);
        path.push(&name);
        let takes = is_wanted(path, is_dir);
        path.pop();
        match takes {
            false => {}
            true if is_dir => dirs.push(name),
            true => dir.remove_file(&name)?,
        }
    }
    Ok(dirs)
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Is what was opened what has its name?
fn is_named(opened: &Stat, named: Option<Stat>) -> bool {
    named.is_some_and(|named| Identity::of(&named) == Identity::of(opened))
}

fn rename_new(from: &Dir, name: &OsStr, to: &Dir, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        // Not every file system can (NFS cannot); those that cannot can link.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        done => return done,
    }
    match rustix::fs::linkat(from, name, to, new, AtFlags::empty()) {
        Ok(()) => rustix::fs::unlinkat(from, name, AtFlags::empty()),
        // A directory, or a file system without hard links either (FUSE): what comes between looking and
        // renaming is replaced, if it is no directory with something in it.
        Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => {
            match rustix::fs::statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, new),
                Ok(_) => Err(Errno::EXIST),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}
