//! A directory that is held open, and what lies below it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    Refused,
    walk::{Parents, readable, trusted, walk},
};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory that is held open. What is done through it happens in that directory, whatever becomes of
/// its path.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    movers: Movers,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A regular file that was opened for reading.
#[derive(Debug)]
pub struct File {
    /// The file.
    pub file: fs::File,
    /// What it is.
    pub stat: Stat,
    /// Its directory.
    pub dir: Dir,
    /// Its name in that directory.
    pub name: OsString,
}

/// Where a path leads.
#[derive(Debug)]
pub enum Found {
    /// To a directory.
    Dir(Dir),
    /// To something else in this directory, of this name: a file, a FIFO, a device. It was not opened.
    Other(Dir, OsString, Stat),
    /// To nothing: these components are not in this directory.
    Missing(Dir, Vec<OsString>),
}

impl Dir {
    /// Walks an absolute path from `/`, past links of trusted accounts only, and opens the last directory
    /// on it.
    ///
    /// # Errors
    /// [`Refused`]: a link that another account could have put there, something on the way that is no
    /// directory, or the system's error.
    pub fn find(path: &Path) -> Result<Found, Refused> {
        let arrived = walk(path, Parents::Refused)?;
        let dir = Self {
            fd: Arc::new(readable(&arrived.fd, &arrived.path)?),
            path: arrived.path,
            movers: arrived.movers,
        };
        let mut rest = arrived.rest;
        Ok(match arrived.found {
            Some(stat) => Found::Other(dir, rest.pop().unwrap_or_default(), stat),
            None if rest.is_empty() => Found::Dir(dir),
            None => Found::Missing(dir, rest),
        })
    }

    /// Opens a directory by its absolute path, as [`find`](Self::find) does.
    ///
    /// # Errors
    /// [`Refused`], also when nothing is there, or no directory.
    pub fn open(path: &Path) -> Result<Self, Refused> {
        match Self::find(path)? {
            Found::Dir(dir) => Ok(dir),
            Found::Missing(..) => Err(Refused::system(path, Errno::NOENT)),
            Found::Other(..) => Err(Refused::Kind {
                path: path.to_owned(),
                wanted: "a directory",
            }),
        }
    }

    /// Its path when it was opened, without links. For messages: it may have been renamed since.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below. No link is followed.
    ///
    /// # Errors
    /// [`Refused`]: `relative` is not a plain relative path, or the system's error (`ELOOP` or `ENOTDIR` for a link).
    pub fn open_dir(&self, relative: &Path) -> Result<Self, Refused> {
        let mut dir = self.clone();
        for component in relative.components() {
            let Component::Normal(name) = component else {
                return Err(Refused::Path {
                    path: relative.to_owned(),
                    reason: "is not a path below a directory",
                });
            };
            dir = dir.step(name)?;
        }
        Ok(dir)
    }

    /// Opens a directory in this one, or the one above it: `name` is one component.
    pub(crate) fn step(&self, name: &OsStr) -> Result<Self, Refused> {
        let path = shown(&self.path, name);
        let failed = |errno| Refused::system(&path, errno);
        let fd = rustix::fs::openat(self, name, DIRECTORY, Mode::empty()).map_err(failed)?;
        let movers = match self.movers {
            Movers::Many => Movers::Many,
            movers => {
                let (above, stat) = (rustix::fs::fstat(self), rustix::fs::fstat(&fd));
                movers.and(Movers::in_dir(
                    &above.map_err(failed)?,
                    &stat.map_err(failed)?,
                ))
            }
        };
        Ok(Self {
            fd: Arc::new(fd),
            path,
            movers,
        })
    }

    /// Who can have put this directory where it is, or exchanged it.
    #[must_use]
    pub fn movers(&self) -> Movers {
        self.movers
    }

    /// The same directory, under another path in messages.
    pub(crate) fn named(mut self, path: PathBuf, movers: Movers) -> Self {
        (self.path, self.movers) = (path, movers);
        self
    }

    /// Opens a regular file in this directory for reading. Anything else is refused without being opened
    /// in a way that could wait or act: a FIFO, a device, a link.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open_file(&self, name: &OsStr) -> Result<File, Refused> {
        let path = self.path.join(name);
        let system = |errno| Refused::system(&path, errno);
        // It neither waits for a FIFO's other end nor makes a terminal ours.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let seen = rustix::fs::statat(self, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(system)?;
        is_file(&seen, &path)?;
        let fd = rustix::fs::openat(self, name, flags, Mode::empty()).map_err(system)?;
        let stat = rustix::fs::fstat(&fd).map_err(system)?;
        is_file(&stat, &path)?;
        Ok(File {
            file: fs::File::from(fd),
            stat,
            dir: self.clone(),
            name: name.to_owned(),
        })
    }
}

/// Accounts that can have moved something to where it is found, besides those that are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movers {
    /// None.
    Nobody,
    /// This one.
    One(u32),
    /// More than one.
    Many,
}

impl Movers {
    /// Who can have put an entry into a directory. The sticky bit keeps others from what is not theirs; but a link
    /// of a trusted account may have been moved in from a directory of theirs, as a directory cannot be: that
    /// takes the right to write in it (rename(2)). An access list that lets somebody write shows in the group's bits (acl(5)).
    pub(crate) fn in_dir(dir: &Stat, entry: &Stat) -> Self {
        let one = |user| match trusted(user) {
            true => Self::Nobody,
            false => Self::One(user),
        };
        let owner = one(dir.st_uid);
        match (dir.st_mode & 0o022 != 0, dir.st_mode & 0o1000 != 0) {
            (false, _) => owner,
            (true, true) if !is_link(entry) => owner.and(one(entry.st_uid)),
            (true, _) => Self::Many,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, movers) | (movers, Self::Nobody) => movers,
            (one, other) if one == other => one,
            _ => Self::Many,
        }
    }
}

/// Longer paths are shortened in the middle.
const LONGEST_PATH: usize = 4096;
/// So much of the beginning is shown then.
const SHOWN: usize = 1024;

/// A path below another, for people. No longer than a path that the system would take, for directories can be nested much
/// deeper, and to carry all their names along would cost the square of the depth.
#[must_use]
pub fn shown(path: &Path, name: &OsStr) -> PathBuf {
    if path.as_os_str().len() + name.len() < LONGEST_PATH {
        return path.join(name);
    }
    shortened(path).join("…").join(name)
}

/// As [`shown`], of the names on a way. It costs the same however many there are.
#[must_use]
pub fn shown_way<'a>(names: impl DoubleEndedIterator<Item = &'a OsStr>) -> PathBuf {
    let mut names = names;
    let last = names.next_back().unwrap_or_default();
    let mut path = PathBuf::new();
    for name in names {
        path.push(name);
        if path.as_os_str().len() + last.len() >= LONGEST_PATH {
            return shortened(&path).join("…").join(last);
        }
    }
    match last.is_empty() {
        true => path,
        false => path.join(last),
    }
}

fn shortened(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for component in path.components() {
        if short.as_os_str().len() + component.as_os_str().len() > SHOWN {
            break;
        }
        short.push(component);
    }
    short
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

fn is_file(stat: &Stat, path: &Path) -> Result<(), Refused> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Refused::Kind {
            path: path.to_owned(),
            wanted: "a regular file",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic)]

    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;
    use crate::resolve;

    const ALICE: u32 = 12_345;

    /// `<top>/alice`, which belongs to an account that is not trusted, and in it `data` with a file.
    fn place() -> Option<(tempfile::TempDir, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make files of another account");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        let home = top.join("alice");
        fs::create_dir_all(home.join("data")).unwrap();
        fs::write(home.join("data/file"), "hers").unwrap();
        chown(&home, Some(ALICE), Some(ALICE)).unwrap();
        Some((dir, top))
    }

    #[test]
    fn a_link_of_a_trusted_account_is_followed_and_one_of_another_is_not() {
        let Some((_keep, top)) = place() else { return };
        let data = top.join("alice/data");
        assert_eq!(Dir::open(&data).unwrap().path(), data);
        // Root's link, in root's closed directory.
        symlink("alice", top.join("run")).unwrap();
        assert_eq!(Dir::open(&top.join("run/data")).unwrap().path(), data);
        assert_eq!(
            resolve(&top.join("run/data/file")).unwrap(),
            data.join("file")
        );
        // Root's own link, but she can put another there at any time.
        symlink("data", top.join("alice/link")).unwrap();
        let refused = Dir::open(&top.join("alice/link")).unwrap_err();
        assert_eq!(refused, Refused::Link(top.join("alice/link")));
        // A directory of root's that lies in hers: it may have been moved there.
        fs::create_dir(top.join("alice/moved")).unwrap();
        symlink("/etc", top.join("alice/moved/etc")).unwrap();
        let refused = Dir::open(&top.join("alice/moved/etc")).unwrap_err();
        assert_eq!(refused, Refused::Link(top.join("alice/moved/etc")));
    }

    /// She may have moved there what root made elsewhere.
    #[test]
    fn in_a_sticky_directory_no_link_is_followed_and_directories_of_trusted_accounts_count() {
        let Some((_keep, top)) = place() else { return };
        fs::set_permissions(&top, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("alice", top.join("ours")).unwrap();
        symlink("alice", top.join("hers")).unwrap();
        std::os::unix::fs::lchown(top.join("hers"), Some(ALICE), None).unwrap();
        for link in ["ours", "hers"] {
            let refused = Dir::open(&top.join(link)).unwrap_err();
            assert_eq!(refused, Refused::Link(top.join(link)));
        }
        fs::create_dir(top.join("root")).unwrap();
        let opened = Dir::open(&top.join("root")).unwrap();
        assert_eq!(opened.movers(), Movers::Nobody);
    }

    #[test]
    fn a_directory_that_is_held_is_where_things_happen_though_its_path_leads_elsewhere() {
        let Some((_keep, top)) = place() else { return };
        let dir = Dir::open(&top.join("alice")).unwrap();
        fs::rename(top.join("alice"), top.join("away")).unwrap();
        symlink("/etc", top.join("alice")).unwrap();
        assert!(dir.open_dir("data".as_ref()).is_ok());
        assert!(dir.open_file("passwd".as_ref()).unwrap_err().is_missing());
    }

    #[test]
    fn who_can_have_moved_a_directory_is_known() {
        let Some((_keep, top)) = place() else { return };
        let at = |path: &str| Dir::open(&top.join(path)).unwrap();
        assert_eq!(at("alice").movers(), Movers::Nobody);
        assert_eq!(at("alice/data").movers(), Movers::One(ALICE));
        let below = at("").open_dir("alice/data".as_ref()).unwrap();
        assert_eq!(below.movers(), Movers::One(ALICE));
        fs::create_dir(top.join("alice/data/inner")).unwrap();
        assert_eq!(at("alice/data/inner").movers(), Movers::One(ALICE));
        chown(top.join("alice/data"), Some(ALICE + 1), None).unwrap();
        assert_eq!(at("alice/data/inner").movers(), Movers::Many);
        fs::set_permissions(&top, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(at("alice").movers(), Movers::Many);
        fs::set_permissions(&top, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(at("alice").movers(), Movers::One(ALICE));
    }

    #[test]
    fn below_a_directory_no_link_is_followed() {
        let Some((_keep, top)) = place() else { return };
        // Though it is root's.
        symlink("alice", top.join("run")).unwrap();
        symlink("alice/data/file", top.join("file")).unwrap();
        let dir = Dir::open(&top).unwrap();
        assert!(dir.open_dir("alice/data".as_ref()).is_ok());
        assert_eq!(
            dir.open_dir("run/data".as_ref()).unwrap_err().errno(),
            Some(Errno::NOTDIR)
        );
        assert!(dir.open_dir("../etc".as_ref()).is_err());
        let refused = dir.open_file("file".as_ref()).unwrap_err();
        assert!(matches!(refused, Refused::Kind { .. }), "{refused}");
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_what_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::write(top.join("file"), "").unwrap();
        let missing = Dir::find(&top.join("a/b")).unwrap();
        assert!(
            matches!(missing, Found::Missing(at, rest) if at.path() == top && rest == ["a", "b"])
        );
        let other = Dir::find(&top.join("file")).unwrap();
        assert!(matches!(other, Found::Other(at, name, _) if at.path() == top && name == "file"));
        let through = Dir::find(&top.join("file/below")).unwrap_err();
        assert!(matches!(through, Refused::Kind { .. }), "{through}");
        assert!(Dir::open(&top.join("a")).unwrap_err().is_missing());
        assert!(Dir::open(Path::new("relative")).is_err());
        assert!(Dir::open(&top.join("a/../b")).is_err());
    }

    #[test]
    fn a_fifo_or_a_link_is_no_file_and_nothing_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let fifo = FileType::Fifo;
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, top.join("fifo"), fifo, mode, 0).unwrap();
        let dir = Dir::open(&top).unwrap();
        let refused = dir.open_file("fifo".as_ref()).unwrap_err();
        assert!(matches!(refused, Refused::Kind { .. }), "{refused}");
        fs::write(top.join("file"), "content").unwrap();
        assert_eq!(dir.open_file("file".as_ref()).unwrap().stat.st_size, 7);
    }
}
