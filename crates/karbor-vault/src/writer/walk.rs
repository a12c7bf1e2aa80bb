//! Reads a tree of files.
//!
//! What a snapshot may claim of a tree that changes while it is read:
//!
//! * An entry that is deleted between the listing of its directory and its opening is left out, and counted.
//! * A file is stored as long as it was when it was opened. What is appended later belongs to the next
//!   snapshot; a file that turns out shorter is an error. (A file of size 0 is read to its end: files
//!   of `/proc` claim that size.)
//! * Every other failure to read is an error and poisons the writer.
//! * Files whose time stamps or size changed between opening and the last byte are counted as `changed`: they
//!   are stored as they were read, part old, part new.
//!
//! Everything is opened relative to the root without following links, so a tree whose owner swaps a
//! directory for a link while we read (as root, perhaps) gets an error, not another's files.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{AtFlags, FileType, Stat},
    io::Errno,
};

use super::{
    dir::{Dir, Parent},
    intake::Intake,
    parent::ParentTrees,
};
use crate::{
    TreeOptions, TreeSummary, VaultError,
    fsio::{self, Names, Root},
    id::Id,
    node::{Kind, Node},
};

/// How often an entry that changes its kind between two looks is looked at.
const LOOKS: u32 = 3;

/// What a walk needs.
pub(super) struct Walker {
    pub(super) intake: Intake,
    pub(super) names: Arc<Names>,
    pub(super) options: TreeOptions,
    pub(super) parent: Option<ParentTrees>,
    pub(super) root_path: PathBuf,
    pub(super) summary: TreeSummary,
    pub(super) buffer: Vec<u8>,
}

/// A directory to be read.
struct Pending {
    relative: PathBuf,
    /// Its node in its parent; `None` for the root.
    place: Option<(Arc<Dir>, usize)>,
    tree: Option<Id>,
}

/// An open directory.
pub(super) struct Open<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) relative: &'a Path,
    pub(super) dir: Arc<Dir>,
    /// What the parent snapshot had here.
    pub(super) before: Vec<Node>,
}

/// What became of an entry.
pub(super) enum Look {
    Done,
    /// It was deleted meanwhile.
    Gone,
    /// It is something else than it seemed.
    Again,
}

/// Is this how an entry that was just deleted looks?
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE)
}

impl Walker {
    /// An error about an entry of the tree.
    pub(super) fn error(&self, relative: &Path, reason: impl ToString) -> VaultError {
        let path = match relative.as_os_str().is_empty() {
            true => self.root_path.clone(),
            false => self.root_path.join(relative),
        };
        VaultError::source(path.to_string_lossy(), reason)
    }

    /// Reads the directory at the root path and all below. Its tree's id goes into `result`.
    pub(super) fn walk(
        &mut self,
        tree_before: Option<Id>,
        result: Arc<Mutex<Option<Id>>>,
    ) -> Result<Node, VaultError> {
        let path = self.root_path.clone();
        let root = Root::open(&path).map_err(|error| self.error(Path::new(""), error))?;
        let stat =
            rustix::fs::fstat(root.fd()).map_err(|error| self.error(Path::new(""), error))?;
        let mut top = self.dir_node(path.file_name().unwrap_or_default(), &stat);
        top.xattrs = self.fd_xattrs(root.fd(), Path::new(""))?;
        self.summary.dirs += 1;
        let device = stat.st_dev;
        let mut pending = vec![Pending {
            relative: PathBuf::new(),
            place: None,
            tree: tree_before,
        }];
        while let Some(next) = pending.pop() {
            let dir = match &next.place {
                None => Dir::new(Parent::Root(result.clone())),
                Some((parent, node)) => Dir::new(Parent::Dir(parent.clone(), *node)),
            };
            let found = self.read_dir(&root, &next, dir, device)?;
            pending.extend(found.into_iter().rev());
        }
        self.root_is_there(&stat)?;
        Ok(top)
    }

    /// If the root went away while it was read, "everything in it was deleted" is not the truth.
    fn root_is_there(&self, before: &Stat) -> Result<(), VaultError> {
        let now = rustix::fs::stat(&self.root_path);
        let now = now.map_err(|error| self.error(Path::new(""), error))?;
        match (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino) {
            true => Ok(()),
            false => Err(self.error(Path::new(""), "it was replaced while it was read")),
        }
    }

    /// Reads one directory; answers with its subdirectories.
    fn read_dir(
        &mut self,
        root: &Root,
        pending: &Pending,
        dir: Arc<Dir>,
        device: u64,
    ) -> Result<Vec<Pending>, VaultError> {
        let relative = &pending.relative;
        let fd = match root.dir(relative) {
            Ok(fd) => fd,
            Err(error) if is_gone(error) && pending.place.is_some() => {
                return self.dir_is_gone(pending);
            }
            Err(error) => return Err(self.error(relative, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(relative, error))?;
        if let Some((parent, node)) = &pending.place {
            let xattrs = self.fd_xattrs(fd.as_fd(), relative)?;
            let mut fresh = self.dir_node(relative.file_name().unwrap_or_default(), &stat);
            fresh.xattrs = xattrs;
            parent.update(*node, |node| *node = fresh);
            self.summary.dirs += 1;
        }
        let mut subdirs = Vec::new();
        if !self.options.one_file_system || stat.st_dev == device {
            let before = match (&mut self.parent, &pending.tree) {
                (Some(parent), Some(tree)) => parent.load_or_nothing(tree)?,
                _ => Vec::new(),
            };
            let open = Open {
                fd: fd.as_fd(),
                relative,
                dir: dir.clone(),
                before,
            };
            for (name, kind) in self.list(&open)? {
                self.intake.writer.check()?;
                subdirs.extend(self.entry(&open, &name, kind)?);
            }
        }
        self.arrive(dir)?;
        Ok(subdirs)
    }

    fn dir_is_gone(&mut self, pending: &Pending) -> Result<Vec<Pending>, VaultError> {
        self.summary.left_out += 1;
        if let Some((parent, node)) = &pending.place {
            parent.drop_dir(*node);
            self.arrive(parent.clone())?;
        }
        Ok(Vec::new())
    }

    /// One thing less is missing in a directory.
    fn arrive(&self, dir: Arc<Dir>) -> Result<(), VaultError> {
        let nothing = Id([0; 32]);
        self.intake
            .shared
            .submit_known(nothing, dir, Dir::close_slot(), &self.intake.writer)
    }

    fn list(&self, open: &Open<'_>) -> Result<Vec<(OsString, FileType)>, VaultError> {
        let failed = |error| self.error(open.relative, error);
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(open.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsString::from_vec(name.to_vec());
                entries.push((name, entry.file_type()));
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Takes in one entry of a directory; a subdirectory comes back, to be read later.
    fn entry(
        &mut self,
        open: &Open<'_>,
        name: &OsStr,
        kind: FileType,
    ) -> Result<Option<Pending>, VaultError> {
        let relative = open.relative.join(name);
        let before = open
            .before
            .binary_search_by(|node| node.name.as_slice().cmp(name.as_bytes()));
        let before = before.ok().and_then(|at| open.before.get(at));
        let mut kind = kind;
        for _ in 0..LOOKS {
            // A regular file without a past is opened at once, which saves a look.
            let stat = match (kind, before) {
                (FileType::RegularFile, None) => None,
                _ => match rustix::fs::statat(open.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Some(stat),
                    Err(error) if is_gone(error) => return self.is_gone(),
                    Err(error) => return Err(self.error(&relative, error)),
                },
            };
            let now = match &stat {
                None => Some(Kind::File),
                Some(stat) => fsio::kind_of(stat),
            };
            let now = now.ok_or_else(|| self.error(&relative, "it is of an unknown kind"))?;
            if !self.is_wanted(&relative, now == Kind::Dir) {
                return Ok(None);
            }
            match (now, stat) {
                (Kind::Dir, Some(stat)) => {
                    return Ok(Some(self.subdir(open, relative, &stat, before)));
                }
                (Kind::File, stat) => match self.file(open, &relative, name, stat, before)? {
                    Look::Done => return Ok(None),
                    Look::Gone => return self.is_gone(),
                    // By the time we opened it, it was something else.
                    Look::Again => kind = FileType::Unknown,
                },
                (_, Some(stat)) => match self.special(open, &relative, name, now, &stat)? {
                    Look::Done => return Ok(None),
                    Look::Gone => return self.is_gone(),
                    Look::Again => kind = FileType::Unknown,
                },
                (_, None) => kind = FileType::Unknown,
            }
        }
        Err(self.error(&relative, "it changes its kind while it is read"))
    }

    fn is_gone(&mut self) -> Result<Option<Pending>, VaultError> {
        self.summary.left_out += 1;
        Ok(None)
    }

    fn is_wanted(&self, relative: &Path, is_dir: bool) -> bool {
        self.options
            .filter
            .as_ref()
            .is_none_or(|filter| filter(relative, is_dir))
    }

    fn subdir(
        &self,
        open: &Open<'_>,
        relative: PathBuf,
        stat: &Stat,
        before: Option<&Node>,
    ) -> Pending {
        let node = self.dir_node(relative.file_name().unwrap_or_default(), stat);
        let node = open.dir.add_dir(node);
        Pending {
            relative,
            place: Some((open.dir.clone(), node)),
            tree: before.and_then(|node| node.subtree),
        }
    }

    fn dir_node(&self, name: &OsStr, stat: &Stat) -> Node {
        fsio::node_of(name, Kind::Dir, stat, &self.names)
    }

    /// Links, devices, pipes and sockets.
    fn special(
        &mut self,
        open: &Open<'_>,
        relative: &Path,
        name: &OsStr,
        kind: Kind,
        stat: &Stat,
    ) -> Result<Look, VaultError> {
        let mut node = fsio::node_of(name, kind, stat, &self.names);
        if kind == Kind::Symlink {
            node.target = match rustix::fs::readlinkat(open.fd, name, Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(error) if is_gone(error) => return Ok(Look::Gone),
                Err(Errno::INVAL) => return Ok(Look::Again),
                Err(error) => return Err(self.error(relative, error)),
            };
        }
        let path = fsio::proc_path(open.fd, name);
        node.xattrs = fsio::xattrs(
            |buffer| rustix::fs::llistxattr(&path, buffer),
            |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
        )
        .map_err(|reason| self.error(relative, reason))?;
        open.dir.add(node);
        self.summary.files += 1;
        Ok(Look::Done)
    }

    pub(super) fn fd_xattrs(
        &self,
        fd: BorrowedFd<'_>,
        relative: &Path,
    ) -> Result<Vec<(String, Vec<u8>)>, VaultError> {
        fsio::xattrs(
            |buffer| rustix::fs::flistxattr(fd, buffer),
            |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
        )
        .map_err(|reason| self.error(relative, reason))
    }
}
