//! Reads a tree of files.
//!
//! What a snapshot may claim of a tree that changes while it is read:
//!
//! * A file is stored as long as it was when it was opened. What is appended later belongs to the next
//!   snapshot. (A file of size 0 is read to its end: files of `/proc` claim that size.) One that was written
//!   to or cut meanwhile is read once more; if that happens again, it is stored as it was read the last time,
//!   and named in `changed`.
//! * What cannot be read at all is left out and named in `unreadable`; whether there is a snapshot all the
//!   same, the options say. Metadata that cannot be read are named in `warnings`. Where it is the process that
//!   lacks something (descriptors, memory), that is an error: the entry may well be readable.
//! * A directory that changed while it and what is below it was read is listed again, and what was not known
//!   there is read too: what was renamed meanwhile is not lost under both names. What vanished, and was not
//!   met under another name, is named in `left_out`.
//!
//! Everything is opened by its name in its open directory, and no link is followed, so a tree whose owner
//! swaps a directory for a link while we read (as root, perhaps) gets the link stored, not another's files. A
//! few directories of the way down stay open; one above them is found again through `..`, if that still is
//! the directory that it was.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    dir::{Dir, Parent},
    file::patience,
    intake::Intake,
    parent::{COARSEST, ParentTrees},
};
use crate::{
    Mishaps, OnUnreadable, TreeOptions, TreeSummary, VaultError,
    fsio::{self, Names},
    id::Id,
    node::{Kind, Node},
    time::Time,
};

/// How often an entry that changes its kind between two looks is looked at.
const LOOKS: u32 = 3;
/// How often a directory that changes all the time is listed.
const LISTINGS: u32 = 4;
/// So many directories of the way down are kept open.
const HELD: usize = 64;

/// What a walk needs.
pub(super) struct Walker {
    pub(super) intake: Intake,
    pub(super) names: Arc<Names>,
    pub(super) options: TreeOptions,
    pub(super) parent: Option<ParentTrees>,
    pub(super) source: karbor_fs::Dir,
    pub(super) summary: TreeSummary,
    pub(super) buffer: Vec<u8>,
    /// How long it may wait for leases, in all.
    pub(super) patience: Duration,
    /// The file system that the tree begins on.
    device: u64,
    moves: Moves,
}

/// What was not found any more, and what may be the same under another name: by inode.
#[derive(Default)]
struct Moves {
    vanished: HashMap<u64, (PathBuf, bool)>,
    /// What was read and has been changed or renamed since the walk began.
    met: HashSet<u64>,
    begun: Time,
}

/// A directory to be read.
pub(super) struct Pending {
    name: OsString,
    /// Its node in its parent.
    node: usize,
    inode: u64,
    tree: Option<Id>,
}

/// A directory whose entries are being read, or what is below it.
struct Level {
    /// `None` if it is far above; then it is opened again in its turn.
    fd: Option<OwnedFd>,
    /// Device and inode.
    id: (u64, u64),
    /// Its times when it was listed last.
    listed: (Time, Time),
    listings: u32,
    /// Something in it was not there any more, or was something else.
    stirred: bool,
    dir: Arc<Dir>,
    pending: Vec<Pending>,
    /// The length of its path.
    length: usize,
}

impl Level {
    fn new(stat: &Stat, dir: Arc<Dir>, length: usize) -> Self {
        Self {
            fd: None,
            id: identity(stat),
            listed: times(stat),
            listings: 0,
            stirred: false,
            dir,
            pending: Vec::new(),
            length,
        }
    }
}

/// An open directory.
pub(super) struct Open<'a> {
    pub(super) fd: BorrowedFd<'a>,
    pub(super) relative: &'a Path,
    pub(super) dir: Arc<Dir>,
    /// What the parent snapshot had here.
    pub(super) before: Vec<Node>,
}

/// An entry of a directory as it was listed.
struct Listed {
    name: OsString,
    kind: FileType,
    inode: u64,
}

/// What became of an entry.
pub(super) enum Look {
    Done,
    /// It was deleted or renamed meanwhile.
    Gone,
    /// It is something else than it seemed.
    Again,
    /// A subdirectory, to be read later.
    Later(Pending),
}

/// Is this how an entry that was just deleted looks?
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE)
}

/// Does the process lack something, rather than the entry?
pub(super) fn is_ours(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn times(stat: &Stat) -> (Time, Time) {
    (fsio::mtime(stat), fsio::ctime(stat))
}

impl Walker {
    pub(super) fn new(
        intake: Intake,
        names: Arc<Names>,
        options: TreeOptions,
        parent: Option<ParentTrees>,
        source: karbor_fs::Dir,
    ) -> Self {
        let mut begun = Time::from(chrono::Utc::now());
        begun.secs -= COARSEST;
        Self {
            intake,
            names,
            options,
            parent,
            source,
            summary: TreeSummary::default(),
            buffer: Vec::new(),
            patience: patience(),
            device: 0,
            moves: Moves {
                begun,
                ..Moves::default()
            },
        }
    }

    /// The path of an entry, for people.
    fn path(&self, relative: &Path) -> String {
        let path = match relative.as_os_str().is_empty() {
            true => self.source.path().to_owned(),
            false => self.source.path().join(relative),
        };
        path.to_string_lossy().into_owned()
    }

    /// An error about an entry of the tree.
    pub(super) fn error(&self, relative: &Path, reason: impl ToString) -> VaultError {
        VaultError::source(self.path(relative), reason)
    }

    /// An entry that cannot be read: it is named, and left out.
    pub(super) fn unreadable(&mut self, relative: &Path, reason: impl ToString) {
        let (path, reason) = (self.path(relative), reason.to_string());
        tracing::warn!(?path, reason, "a file cannot be read");
        self.summary.unreadable.note(path, reason);
    }

    /// As [`unreadable`](Self::unreadable), for an error of the system.
    pub(super) fn refused(&mut self, relative: &Path, error: Errno) -> Result<(), VaultError> {
        if is_ours(error) {
            return Err(self.error(relative, error));
        }
        self.unreadable(relative, error);
        Ok(())
    }

    /// Something about an entry that is stored all the same.
    pub(super) fn warn(&mut self, relative: &Path, reason: impl ToString) {
        let (path, reason) = (self.path(relative), reason.to_string());
        tracing::warn!(?path, reason, "a file is stored with something missing");
        self.summary.warnings.note(path, reason);
    }

    /// An entry that somebody writes to all the time.
    pub(super) fn unsteady(&mut self, relative: &Path, reason: impl ToString) {
        let path = self.path(relative);
        self.summary.changed.note(path, reason.to_string());
    }

    /// Is there no snapshot in the end, so that contents need not be read?
    pub(super) fn is_lost(&self) -> bool {
        self.options.on_unreadable == OnUnreadable::Fail && self.summary.unreadable.total > 0
    }

    /// Reads the directory and all below. Its tree's id goes into `result`.
    pub(super) fn walk(&mut self, result: Arc<Mutex<Option<Id>>>) -> Result<Node, VaultError> {
        let nowhere = Path::new("");
        let path = self.source.path().to_owned();
        let tree_before = self.tree_before(&path)?;
        let source = self.source.clone();
        let stat = rustix::fs::fstat(&source).map_err(|error| self.error(nowhere, error))?;
        let fd = reopen(source.as_fd()).map_err(|error| self.error(nowhere, error))?;
        let mut top = self.dir_node(path.file_name().unwrap_or_default(), &stat);
        top.xattrs = self.fd_xattrs(fd.as_fd(), nowhere, &mut top.ctime);
        self.summary.dirs += 1;
        self.device = stat.st_dev;
        let dir = Dir::new(Parent::Root(result));
        let mut at = PathBuf::new();
        let first = Level::new(&stat, dir, 0);
        let mut levels = vec![self.read_dir(first, fd, &at, tree_before)?];
        while let Some(level) = levels.last_mut() {
            if let Some(next) = level.pending.pop() {
                at.push(&next.name);
                match self.enter(level, next, &at)? {
                    Some(below) => {
                        levels.push(below);
                        if let Some(above) = levels.len().checked_sub(HELD + 1) {
                            levels[above].fd = None;
                        }
                    }
                    None => truncate(&mut at, level.length),
                }
            } else if !self.list_again(level, &at)? {
                let Some(done) = levels.pop() else { break };
                self.arrive(done.dir.clone())?;
                if let Some(above) = levels.last_mut() {
                    truncate(&mut at, above.length);
                    self.come_back(above, done.fd.as_ref(), &at)?;
                }
            }
        }
        self.root_is_there(&stat)?;
        self.settle()?;
        Ok(top)
    }

    /// If the root was exchanged while it was read, what was read is not what is declared.
    fn root_is_there(&self, before: &Stat) -> Result<(), VaultError> {
        let nowhere = Path::new("");
        let now = karbor_fs::Dir::open(self.source.path())
            .map_err(|error| self.error(nowhere, error))
            .and_then(|now| rustix::fs::fstat(now).map_err(|error| self.error(nowhere, error)))?;
        match identity(&now) == identity(before) {
            true => Ok(()),
            false => Err(self.error(nowhere, "it was replaced while it was read")),
        }
    }

    /// What is left to say when all was read.
    fn settle(&mut self) -> Result<(), VaultError> {
        let moves = std::mem::take(&mut self.moves);
        let lost = moves.vanished.into_iter();
        let mut lost: Vec<_> = lost
            .filter(|(inode, _)| !moves.met.contains(inode))
            .map(|(_, lost)| lost)
            .collect();
        lost.sort_unstable();
        for (path, is_dir) in lost {
            let what = match is_dir {
                true => "the directory vanished, with all that was in it",
                false => "it vanished",
            };
            let path = self.path(&path);
            self.summary.left_out.note(path, what.to_owned());
        }
        let Mishaps { total, .. } = self.summary.unreadable;
        if total > 0 && (self.is_lost() || self.summary.files == 0) {
            return Err(VaultError::Unreadable(self.summary.unreadable.clone()));
        }
        Ok(())
    }

    /// The tree that the parent snapshot has at a path.
    fn tree_before(&mut self, path: &Path) -> Result<Option<Id>, VaultError> {
        let Some(parent) = &mut self.parent else {
            return Ok(None);
        };
        match path.file_name() {
            None => Ok(Some(parent.root())),
            Some(_) => Ok(parent.find(path)?.and_then(|node| node.subtree)),
        }
    }

    /// Opens a subdirectory and reads its entries; `None` if there is nothing to read in it.
    fn enter(
        &mut self,
        above: &mut Level,
        next: Pending,
        at: &Path,
    ) -> Result<Option<Level>, VaultError> {
        let opened = match &above.fd {
            Some(fd) => rustix::fs::openat(fd, &next.name, DIRECTORY, Mode::empty()),
            None => Err(Errno::NOENT),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(error @ (Errno::NOENT | Errno::STALE | Errno::NOTDIR | Errno::LOOP)) => {
                if is_gone(error) {
                    self.vanished(next.inode, at, true);
                }
                above.stirred = true;
                above.dir.drop_node(next.node);
                self.arrive(above.dir.clone())?;
                return Ok(None);
            }
            // Known by name only.
            Err(error) => {
                self.refused(at, error)?;
                let empty = Dir::new(Parent::Dir(above.dir.clone(), next.node));
                self.arrive(empty)?;
                return Ok(None);
            }
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(at, error))?;
        let mut fresh = self.dir_node(&next.name, &stat);
        fresh.xattrs = self.fd_xattrs(fd.as_fd(), at, &mut fresh.ctime);
        above.dir.update(next.node, |node| *node = fresh);
        self.summary.dirs += 1;
        self.met(&stat);
        let dir = Dir::new(Parent::Dir(above.dir.clone(), next.node));
        let level = Level::new(&stat, dir, at.as_os_str().len());
        self.read_dir(level, fd, at, next.tree).map(Some)
    }

    /// Reads the entries of an open directory.
    fn read_dir(
        &mut self,
        mut level: Level,
        fd: OwnedFd,
        relative: &Path,
        tree: Option<Id>,
    ) -> Result<Level, VaultError> {
        if self.options.one_file_system && level.id.0 != self.device {
            // Stored empty, and not looked at again.
            level.listings = LISTINGS;
        } else {
            let before = match (&mut self.parent, &tree) {
                (Some(parent), Some(tree)) => parent.load_or_nothing(tree)?,
                _ => Vec::new(),
            };
            let listed = self.list(fd.as_fd(), relative)?;
            self.take_in(&mut level, fd.as_fd(), relative, before, listed)?;
        }
        level.fd = Some(fd);
        Ok(level)
    }

    /// Takes in entries of a directory.
    fn take_in(
        &mut self,
        level: &mut Level,
        fd: BorrowedFd<'_>,
        relative: &Path,
        before: Vec<Node>,
        listed: Vec<Listed>,
    ) -> Result<(), VaultError> {
        level.listings += 1;
        let open = Open {
            fd,
            relative,
            dir: level.dir.clone(),
            before,
        };
        let mut found = Vec::new();
        for entry in listed {
            self.intake.writer.check()?;
            match self.entry(&open, &entry)? {
                Look::Later(pending) => found.push(pending),
                Look::Gone => {
                    level.stirred = true;
                    self.vanished(entry.inode, &relative.join(&entry.name), false);
                }
                Look::Done | Look::Again => {}
            }
        }
        found.reverse();
        level.pending = found;
        Ok(())
    }

    /// Looks whether a directory was changed since it was listed, and takes in what is new in it. Says
    /// whether there is something to read below.
    fn list_again(&mut self, level: &mut Level, at: &Path) -> Result<bool, VaultError> {
        while level.listings < LISTINGS
            && let Some(fd) = level.fd.take()
        {
            let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(at, error))?;
            if !level.stirred && times(&stat) == level.listed {
                level.fd = Some(fd);
                break;
            }
            level.stirred = false;
            level.listed = times(&stat);
            let mut listed = self.list(fd.as_fd(), at)?;
            let known = level.dir.known();
            listed.retain(|entry| match known.get(entry.name.as_bytes()) {
                None => true,
                // Another took the name after it had been read.
                Some((node, inode)) => {
                    let moved =
                        *inode != entry.inode && self.moves.vanished.contains_key(&entry.inode);
                    if moved {
                        level.dir.drop_node(*node);
                    }
                    moved
                }
            });
            self.take_in(level, fd.as_fd(), at, Vec::new(), listed)?;
            level.fd = Some(fd);
            if !level.pending.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens a directory again that was far above, from the one below it.
    fn come_back(
        &mut self,
        level: &mut Level,
        below: Option<&OwnedFd>,
        at: &Path,
    ) -> Result<(), VaultError> {
        if level.fd.is_some() {
            return Ok(());
        }
        let is_it = |fd: OwnedFd| {
            let stat = rustix::fs::fstat(&fd)?;
            match identity(&stat) == level.id {
                true => Ok(fd),
                false => Err(Errno::NOENT),
            }
        };
        let up = below
            .ok_or(Errno::NOENT)
            .and_then(|below| rustix::fs::openat(below, "..", DIRECTORY, Mode::empty()));
        let found = up.and_then(is_it).or_else(|_| {
            // What was below was moved away, or could not be opened.
            let dir = self.source.open_dir(at);
            let dir = dir.map_err(|error| error.errno().unwrap_or(Errno::NOENT))?;
            is_it(reopen(dir.as_fd())?)
        });
        match found {
            Ok(fd) => level.fd = Some(fd),
            Err(error) if is_ours(error) => return Err(self.error(at, error)),
            // It was moved itself: what was not read in it is gone.
            Err(_) => {
                for lost in std::mem::take(&mut level.pending) {
                    self.vanished(lost.inode, &at.join(&lost.name), true);
                    level.dir.drop_node(lost.node);
                    self.arrive(level.dir.clone())?;
                }
            }
        }
        Ok(())
    }

    /// One thing less is missing in a directory.
    fn arrive(&self, dir: Arc<Dir>) -> Result<(), VaultError> {
        let nothing = Id([0; 32]);
        self.intake
            .shared
            .submit_known(nothing, dir, Dir::close_slot(), &self.intake.writer)
    }

    fn vanished(&mut self, inode: u64, relative: &Path, is_dir: bool) {
        self.moves
            .vanished
            .insert(inode, (relative.to_owned(), is_dir));
    }

    /// Something was read that may have had another name before.
    pub(super) fn met(&mut self, stat: &Stat) {
        if fsio::ctime(stat) >= self.moves.begun {
            self.moves.met.insert(stat.st_ino);
        }
    }

    /// The entries of a directory, by name; as many as can be read.
    fn list(&mut self, fd: BorrowedFd<'_>, relative: &Path) -> Result<Vec<Listed>, VaultError> {
        let mut entries = Vec::new();
        let read = rustix::fs::Dir::read_from(fd).and_then(|listing| {
            for entry in listing {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    entries.push(Listed {
                        name: OsString::from_vec(name.to_vec()),
                        kind: entry.file_type(),
                        inode: entry.ino(),
                    });
                }
            }
            Ok(())
        });
        match read {
            Err(error) if !is_gone(error) => {
                if relative.as_os_str().is_empty() && entries.is_empty() {
                    return Err(self.error(relative, error));
                }
                self.refused(relative, error)?;
            }
            _ => {}
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if self.options.exclude_caches && !relative.as_os_str().is_empty() && fsio::is_cache(fd) {
            entries.retain(|entry| entry.name == fsio::CACHE_TAG.0);
        }
        Ok(entries)
    }

    /// Takes in one entry of a directory.
    fn entry(&mut self, open: &Open<'_>, listed: &Listed) -> Result<Look, VaultError> {
        let name = listed.name.as_os_str();
        let relative = open.relative.join(name);
        let before = open
            .before
            .binary_search_by(|node| node.name.as_slice().cmp(name.as_bytes()));
        let before = before.ok().and_then(|at| open.before.get(at));
        let mut kind = listed.kind;
        for _ in 0..LOOKS {
            // A regular file without a past is opened at once, which saves a look.
            let stat = match (kind, before) {
                (FileType::RegularFile, None) => None,
                _ => match rustix::fs::statat(open.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Some(stat),
                    Err(error) if is_gone(error) => return Ok(Look::Gone),
                    Err(error) => {
                        let is_dir = kind == FileType::Directory;
                        if self.is_wanted(&relative, is_dir) {
                            self.refused(&relative, error)?;
                        }
                        return Ok(Look::Done);
                    }
                },
            };
            let now = match &stat {
                None => Some(Kind::File),
                Some(stat) => fsio::kind_of(stat),
            };
            if !self.is_wanted(&relative, now == Some(Kind::Dir)) {
                return Ok(Look::Done);
            }
            let look = match (now, stat) {
                (Some(Kind::Dir), Some(stat)) => self.subdir(open, name, &stat, before),
                (Some(Kind::File), stat) => self.file(open, &relative, name, stat, before)?,
                (Some(other), Some(stat)) => self.special(open, &relative, name, other, &stat)?,
                (_, None) => Look::Again,
                (None, Some(_)) => {
                    self.unreadable(&relative, "it is of an unknown kind");
                    return Ok(Look::Done);
                }
            };
            match look {
                // By the time we opened it, it was something else.
                Look::Again => kind = FileType::Unknown,
                look => return Ok(look),
            }
        }
        self.unreadable(&relative, "it changes its kind while it is read");
        Ok(Look::Done)
    }

    fn is_wanted(&self, relative: &Path, is_dir: bool) -> bool {
        self.options
            .filter
            .as_ref()
            .is_none_or(|filter| filter(relative, is_dir))
    }

    fn subdir(&self, open: &Open<'_>, name: &OsStr, stat: &Stat, before: Option<&Node>) -> Look {
        let node = open.dir.add_dir(self.dir_node(name, stat));
        Look::Later(Pending {
            name: name.to_owned(),
            node,
            inode: stat.st_ino,
            tree: before.and_then(|node| node.subtree),
        })
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
                Err(error) => {
                    self.refused(relative, error)?;
                    return Ok(Look::Done);
                }
            };
        }
        let path = fsio::proc_path(open.fd, name);
        let (xattrs, trouble) = fsio::read_xattrs(
            |buffer| rustix::fs::llistxattr(&path, buffer),
            |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
        );
        node.xattrs = xattrs;
        if let Some(reason) = trouble {
            self.warn(relative, reason);
        }
        self.met(stat);
        open.dir.add(node);
        self.summary.files += 1;
        Ok(Look::Done)
    }

    /// The extended attributes that can be read. Where some cannot, the entry's `ctime` is forgotten, so
    /// that the next snapshot does not take them over as all there are.
    pub(super) fn fd_xattrs(
        &mut self,
        fd: BorrowedFd<'_>,
        relative: &Path,
        ctime: &mut Time,
    ) -> Vec<(String, Vec<u8>)> {
        let (xattrs, trouble) = fsio::read_xattrs(
            |buffer| rustix::fs::flistxattr(fd, buffer),
            |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
        );
        if let Some(reason) = trouble {
            *ctime = Time::default();
            self.warn(relative, reason);
        }
        xattrs
    }

    /// How long a file that somebody holds a lease on may be waited for.
    pub(super) fn spend_patience(&mut self, since: Instant) {
        self.patience = self.patience.saturating_sub(since.elapsed());
    }
}

/// Opens once more what is open, with a position of its own.
fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(fd, ".", DIRECTORY, Mode::empty())
}

/// Cuts a path back to what it was when it was so long.
fn truncate(path: &mut PathBuf, length: usize) {
    while path.as_os_str().len() > length && path.pop() {}
}
