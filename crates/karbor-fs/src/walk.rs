//! From `/` to a place, one component at a time.

use std::{
    collections::VecDeque,
    ffi::OsString,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{Refused, dir::Movers};

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory on the way.
struct Step {
    fd: OwnedFd,
    /// Who can have put it there, or what leads to it.
    movers: Movers,
    stat: Stat,
}

/// Is it an account that the service trusts: root, or its own?
pub(crate) fn trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Where a walk ended.
pub(crate) struct Arrived {
    /// The last directory; for passing through only.
    pub(crate) fd: OwnedFd,
    /// Its path without links.
    pub(crate) path: PathBuf,
    /// The components below it: nothing if the path leads to this directory.
    pub(crate) rest: Vec<OsString>,
    /// Who can have put the last directory there.
    pub(crate) movers: Movers,
    /// What the only component below it is, if it is there: no directory, and no link.
    pub(crate) found: Option<Stat>,
    /// Directories that the walk was in and went up from.
    pub(crate) left: Vec<PathBuf>,
}

/// Whether a path may have `..` in it. A name on the way to one may be exchanged, and all that comes after with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parents {
    /// It may not.
    Refused,
    /// It may: what is walked is in [`Arrived::left`] too, and to be looked at.
    Walked,
}

/// Walks to a path, or as far as there are directories on it.
pub(crate) fn walk(path: &Path, parents: Parents) -> Result<Arrived, Refused> {
    let mut ahead = components(path, parents)?;
    let mut left = Vec::new();
    let root = rustix::fs::openat(CWD, "/", STEP | OFlags::DIRECTORY, Mode::empty())
        .map_err(|errno| Refused::system(Path::new("/"), errno))?;
    let stat = rustix::fs::fstat(&root).map_err(|errno| Refused::system(Path::new("/"), errno))?;
    let mut steps = vec![Step {
        fd: root,
        movers: Movers::Nobody,
        stat,
    }];
    let mut names: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if steps.len() > 1 {
                if parents == Parents::Walked {
                    left.push(joined(&names));
                }
                steps.pop();
                names.pop();
            }
            continue;
        }
        let Some(step) = steps.last() else {
            return Err(Refused::system(path, Errno::NOENT));
        };
        let here = || joined(&names).join(&name);
        let fd = match rustix::fs::openat(&step.fd, &name, STEP, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                let mut rest = vec![name];
                rest.extend(ahead);
                if rest.iter().any(|name| name == "..") {
                    return Err(Refused::system(path, Errno::NOENT));
                }
                return arrived(steps, &names, rest, None, left, path);
            }
            Err(errno) => return Err(Refused::system(&here(), errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| Refused::system(&here(), errno))?;
        let movers = step.movers.and(Movers::in_dir(&step.stat, &stat));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                steps.push(Step { fd, movers, stat });
                names.push(name);
            }
            FileType::Symlink if movers != Movers::Nobody => return Err(Refused::Link(here())),
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Refused::system(path, Errno::LOOP));
                }
                let to = rustix::fs::readlinkat(&fd, "", Vec::new())
                    .map_err(|errno| Refused::system(&here(), errno))?;
                let to = PathBuf::from(OsString::from_vec(to.into_bytes()));
                if to.is_absolute() {
                    steps.truncate(1);
                    names.clear();
                }
                for component in to.components().rev() {
                    match component {
                        Component::Normal(part) => ahead.push_front(part.to_owned()),
                        Component::ParentDir => ahead.push_front(OsString::from("..")),
                        _ => {}
                    }
                }
            }
            _ if ahead.is_empty() => {
                return arrived(steps, &names, vec![name], Some(stat), left, path);
            }
            _ => {
                return Err(Refused::Kind {
                    path: here(),
                    wanted: "a directory",
                });
            }
        }
    }
    arrived(steps, &names, Vec::new(), None, left, path)
}

fn arrived(
    mut steps: Vec<Step>,
    names: &[OsString],
    rest: Vec<OsString>,
    found: Option<Stat>,
    left: Vec<PathBuf>,
    path: &Path,
) -> Result<Arrived, Refused> {
    let step = steps
        .pop()
        .ok_or_else(|| Refused::system(path, Errno::NOENT))?;
    Ok(Arrived {
        fd: step.fd,
        path: joined(names),
        rest,
        movers: step.movers,
        found,
        left,
    })
}

fn joined(names: &[OsString]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(names);
    path
}

/// The components of an absolute path.
fn components(path: &Path, parents: Parents) -> Result<VecDeque<OsString>, Refused> {
    let refuse = |reason| Refused::Path {
        path: path.to_owned(),
        reason,
    };
    if !path.is_absolute() {
        return Err(refuse("does not begin with '/'"));
    }
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir if parents == Parents::Walked => {
                names.push_back(OsString::from(".."));
            }
            _ => return Err(refuse("has a '..' in it")),
        }
    }
    Ok(names)
}

/// The path without symbolic links, as far as it exists.
///
/// # Errors
/// [`Refused`], when a link on the way could be another account's.
pub fn resolve(path: &Path) -> Result<PathBuf, Refused> {
    let arrived = walk(path, Parents::Refused)?;
    let mut found = arrived.path;
    found.extend(arrived.rest);
    Ok(found)
}

/// Opens once more, for reading, what was opened for passing through.
pub(crate) fn readable(fd: impl AsFd, path: &Path) -> Result<OwnedFd, Refused> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(fd, ".", flags, Mode::empty()).map_err(|errno| Refused::system(path, errno))
}
