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
//!   there is read too. When all is read, every directory is looked at once more ([`super::look_back`]): what
//!   was moved from where it had not been read to where all had been read is not lost under both names. What
//!   vanished, and was not met under another name, is named in `left_out`, and so is what was moved about until
//!   the last look. (Something that is moved again while that look goes on can escape it.)
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
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    dir::{Dir, Parent, Root},
    file::patience,
    intake::Intake,
    look_back::Counts,
    parent::{COARSEST, ParentTrees},
    trail::{Listed, Trail, identity},
    unreadable::Unreadable,
};
use crate::{
    OnUnreadable, TreeOptions, TreeSummary, VaultError,
    engine::Decoder,
    fsio::{self, Names},
    id::Id,
    node::{Node, NodeKind},
    reader::BlobReader,
    time::Time,
};

/// How often an entry that changes its kind between two looks is looked at.
const LOOKS: u32 = 3;
/// How often a directory that changes all the time is listed.
pub(super) const LISTINGS: u32 = 4;
/// So many directories of the way down are kept open.
pub(super) const HELD: usize = 64;

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
    pub(super) moves: Moves,
    pub(super) trail: Trail,
    pub(super) unreadable: Unreadable,
    /// Reads what was stored of the tree.
    pub(super) stored: BlobReader,
    pub(super) decoder: Decoder,
    /// What is new is not read any more.
    pub(super) is_last_look: bool,
    /// Something was taken in since this was last set to `false`.
    pub(super) has_new: bool,
    /// The file system that the tree begins on.
    device: u64,
}

/// What was not found any more, and what may be the same under another name: by inode.
#[derive(Default)]
pub(super) struct Moves {
    pub(super) vanished: HashMap<u64, (PathBuf, Lost)>,
    /// What was read and has been changed or renamed since the walk began.
    met: HashSet<u64>,
    /// When the walk began, by the slowest clock.
    pub(super) begun: Time,
}

/// How something came to be in no listing that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    Vanished,
    /// As `Vanished`, a directory.
    DirVanished,
    /// It came to a directory after the last look that reads.
    Late,
}

impl Lost {
    fn reason(self) -> &'static str {
        match self {
            Self::Vanished => "it vanished",
            Self::DirVanished => "the directory vanished, with all that was in it",
            Self::Late => {
                "it was moved here after the directory had been read; what is stored of it has its former name"
            }
        }
    }
}

/// A directory to be read.
pub(super) struct Pending {
    pub(super) name: OsString,
    /// Its node in its parent.
    pub(super) node: usize,
    pub(super) inode: u64,
    pub(super) way: Way,
}

/// How a directory is read.
pub(super) enum Way {
    /// All of it; the tree is that of the parent snapshot.
    Whole(Option<Id>),
    /// What is new since the directory of this number was stored as this tree.
    Again(u32, Id),
}

/// A directory whose entries are being read, or what is below it.
pub(super) struct Level {
    /// `None` if it is far above; then it is opened again in its turn.
    pub(super) fd: Option<OwnedFd>,
    /// Device and inode.
    id: (u64, u64),
    /// Its number in the trail.
    pub(super) number: Option<u32>,
    /// What it looked like when it was listed last.
    pub(super) listed: Listed,
    pub(super) listings: u32,
    /// Something in it was not there any more, or was something else.
    stirred: bool,
    pub(super) dir: Arc<Dir>,
    pub(super) pending: Vec<Pending>,
    /// What had been counted before, if it was counted already.
    pub(super) counted: Option<Counts>,
    /// The length of its path.
    length: usize,
}

impl Level {
    pub(super) fn new(stat: &Stat, dir: Arc<Dir>, length: usize) -> Self {
        Self {
            fd: None,
            id: identity(stat),
            number: None,
            listed: Listed::now(stat),
            listings: 0,
            stirred: false,
            dir,
            pending: Vec::new(),
            counted: None,
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
pub(super) struct Entry {
    pub(super) name: OsString,
    kind: FileType,
    pub(super) inode: u64,
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

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Walker {
    pub(super) fn new(
        intake: Intake,
        names: Arc<Names>,
        options: TreeOptions,
        parent: Option<ParentTrees>,
        source: karbor_fs::Dir,
    ) -> Result<Self, VaultError> {
        let mut begun = Time::from(chrono::Utc::now());
        begun.secs -= COARSEST;
        Ok(Self {
            stored: BlobReader::new(intake.shared.repository.clone()),
            decoder: Decoder::new()?,
            intake,
            names,
            options,
            parent,
            source,
            summary: TreeSummary::default(),
            buffer: Vec::new(),
            patience: patience(),
            moves: Moves {
                begun,
                ..Moves::default()
            },
            trail: Trail::default(),
            unreadable: Unreadable::default(),
            is_last_look: false,
            has_new: false,
            device: 0,
        })
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
        self.unreadable.note(relative, reason);
    }

    /// An entry is looked at again: what was said of it before does not hold any more. Where that is why no
    /// snapshot is made, contents were passed over since, and it does.
    fn look_again(&mut self, relative: &Path) {
        if self.options.on_unreadable != OnUnreadable::Fail {
            self.unreadable.forget(relative);
        }
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
        self.options.on_unreadable == OnUnreadable::Fail && !self.unreadable.is_empty()
    }

    /// Reads the directory and all below. Its tree's id goes into `result`.
    pub(super) fn walk(&mut self, result: Arc<Root>) -> Result<Node, VaultError> {
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
        let first = Level::new(&stat, dir, 0);
        let name = top.os_name();
        let first = self.read_dir(first, fd, Path::new(""), tree_before, None, &name)?;
        self.go_through(first)?;
        Ok(top)
    }

    /// Reads what is in a directory and below.
    pub(super) fn go_through(&mut self, first: Level) -> Result<(), VaultError> {
        let mut at = PathBuf::new();
        let mut levels = vec![first];
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
                if let Some(counted) = done.counted {
                    counted.put_back(&mut self.summary);
                }
                let past = done.number.and_then(|number| self.trail.get_mut(number));
                if let Some(past) = past {
                    past.listed = done.listed;
                }
                self.arrive(done.dir.clone())?;
                if let Some(above) = levels.last_mut() {
                    truncate(&mut at, above.length);
                    self.come_back(above, done.fd.as_ref(), &at)?;
                }
            }
        }
        Ok(())
    }

    /// If the root was exchanged while it was read, what was read is not what is declared.
    fn root_is_there(&self) -> Result<(), VaultError> {
        let nowhere = Path::new("");
        let now = karbor_fs::Dir::open(self.source.path())
            .map_err(|error| self.error(nowhere, error))
            .and_then(|now| rustix::fs::fstat(now).map_err(|error| self.error(nowhere, error)))?;
        match self
            .trail
            .get(0)
            .is_none_or(|root| root.id == identity(&now))
        {
            true => Ok(()),
            false => Err(self.error(nowhere, "it was replaced while it was read")),
        }
    }

    /// What is left to say when all was read.
    pub(super) fn settle(mut self) -> Result<TreeSummary, VaultError> {
        self.root_is_there()?;
        let moves = std::mem::take(&mut self.moves);
        let lost = moves.vanished.into_iter();
        let mut lost: Vec<_> = lost
            .filter(|(inode, _)| !moves.met.contains(inode))
            .map(|(_, lost)| lost)
            .collect();
        lost.sort_unstable();
        for (path, lost) in lost {
            let path = self.path(&path);
            self.summary.left_out.note(path, lost.reason().to_owned());
        }
        let is_lost = self.is_lost();
        let unreadable = std::mem::take(&mut self.unreadable);
        let unreadable = unreadable.into_mishaps(|relative| self.path(relative));
        if unreadable.total > 0 && (is_lost || self.summary.files == 0) {
            return Err(VaultError::Unreadable(unreadable));
        }
        self.summary.unreadable = unreadable;
        Ok(self.summary)
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
            // What it held is stored as it was.
            Err(error) if matches!(next.way, Way::Again(..)) => {
                self.seen_again(at, Err::<(), _>(error))?;
                self.arrive(above.dir.clone())?;
                return Ok(None);
            }
            Err(error @ (Errno::NOENT | Errno::STALE | Errno::NOTDIR | Errno::LOOP)) => {
                if is_gone(error) {
                    self.lost(next.inode, at, Lost::DirVanished);
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
        let parent = Parent::Dir(above.dir.clone(), next.node);
        let tree = match next.way {
            Way::Whole(tree) => tree,
            Way::Again(number, tree) => {
                let past = self.trail.get(number);
                if past.is_none_or(|past| past.id != identity(&stat)) {
                    self.arrive(above.dir.clone())?;
                    return Ok(None);
                }
                return self
                    .dir_again(number, tree, parent, fd, &stat, at)
                    .map(Some);
            }
        };
        let mut fresh = self.dir_node(&next.name, &stat);
        fresh.xattrs = self.fd_xattrs(fd.as_fd(), at, &mut fresh.ctime);
        above.dir.update(next.node, |node| *node = fresh);
        self.summary.dirs += 1;
        self.met(&stat);
        let level = Level::new(&stat, Dir::new(parent), at.as_os_str().len());
        self.read_dir(level, fd, at, tree, above.number, &next.name)
            .map(Some)
    }

    /// Reads the entries of an open directory.
    fn read_dir(
        &mut self,
        mut level: Level,
        fd: OwnedFd,
        relative: &Path,
        tree: Option<Id>,
        above: Option<u32>,
        name: &OsStr,
    ) -> Result<Level, VaultError> {
        if self.options.one_file_system && level.id.0 != self.device {
            // Stored empty, and not looked at again.
            level.listings = LISTINGS;
        } else {
            let before = match (&mut self.parent, &tree) {
                (Some(parent), Some(tree)) => parent.load_or_nothing(tree)?,
                _ => Vec::new(),
            };
            level.number = self.trail.add(above, name, level.id, level.listed);
            let listed = self.list(fd.as_fd(), relative)?;
            self.take_in(&mut level, fd.as_fd(), relative, before, listed)?;
        }
        level.fd = Some(fd);
        Ok(level)
    }

    /// Takes in entries of a directory.
    pub(super) fn take_in(
        &mut self,
        level: &mut Level,
        fd: BorrowedFd<'_>,
        relative: &Path,
        before: Vec<Node>,
        listed: Vec<Entry>,
    ) -> Result<(), VaultError> {
        level.listings += 1;
        let open = Open {
            fd,
            relative,
            dir: level.dir.clone(),
            before,
        };
        let nodes = level.dir.len();
        let mut found = Vec::new();
        for entry in listed {
            self.intake.writer.check()?;
            match self.entry(&open, &entry)? {
                Look::Later(pending) => found.push(pending),
                Look::Gone => {
                    level.stirred = true;
                    self.lost(entry.inode, &relative.join(&entry.name), Lost::Vanished);
                }
                Look::Done | Look::Again => {}
            }
        }
        self.has_new |= level.dir.len() > nodes;
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
            if !level.stirred && !level.listed.is_before(&stat) {
                level.fd = Some(fd);
                break;
            }
            level.stirred = false;
            level.listed = Listed::now(&stat);
            let mut listed = self.list(fd.as_fd(), at)?;
            self.retain_new(level, fd.as_fd(), &mut listed);
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
        match self.reach(level.id, below, at) {
            Ok(fd) => level.fd = Some(fd),
            Err(error) if is_ours(error) => return Err(self.error(at, error)),
            // It was moved itself: what was not read in it is gone.
            Err(_) => {
                for lost in std::mem::take(&mut level.pending) {
                    if let Way::Whole(_) = lost.way {
                        self.lost(lost.inode, &at.join(&lost.name), Lost::DirVanished);
                        level.dir.drop_node(lost.node);
                    }
                    self.arrive(level.dir.clone())?;
                }
            }
        }
        Ok(())
    }

    /// Opens the directory of this identity, which is above another, and was at this path.
    pub(super) fn reach(
        &self,
        id: (u64, u64),
        below: Option<&OwnedFd>,
        at: &Path,
    ) -> Result<OwnedFd, Errno> {
        let is_it = |fd: OwnedFd| {
            let stat = rustix::fs::fstat(&fd)?;
            match identity(&stat) == id {
                true => Ok(fd),
                false => Err(Errno::NOENT),
            }
        };
        let up = below
            .ok_or(Errno::NOENT)
            .and_then(|below| rustix::fs::openat(below, "..", DIRECTORY, Mode::empty()));
        up.and_then(is_it).or_else(|_| {
            // What was below was moved away, or could not be opened.
            let dir = self.source.open_dir(at);
            let dir = dir.map_err(|error| error.errno().unwrap_or(Errno::NOENT))?;
            is_it(reopen(dir.as_fd())?)
        })
    }

    /// One thing less is missing in a directory.
    fn arrive(&self, dir: Arc<Dir>) -> Result<(), VaultError> {
        let nothing = Id([0; 32]);
        self.intake
            .shared
            .submit_known(nothing, dir, Dir::close_slot(), &self.intake.writer)
    }

    /// An entry is in no listing that counts, unless it is met under another name.
    pub(super) fn lost(&mut self, inode: u64, relative: &Path, how: Lost) {
        self.moves
            .vanished
            .insert(inode, (relative.to_owned(), how));
    }

    /// Something was read that may have had another name before.
    pub(super) fn met(&mut self, stat: &Stat) {
        if fsio::ctime(stat) >= self.moves.begun {
            self.moves.met.insert(stat.st_ino);
        }
    }

    /// The entries of a directory, by name; as many as can be read.
    pub(super) fn list(
        &mut self,
        fd: BorrowedFd<'_>,
        relative: &Path,
    ) -> Result<Vec<Entry>, VaultError> {
        self.look_again(relative);
        let mut entries = Vec::new();
        let read = rustix::fs::Dir::read_from(fd).and_then(|listing| {
            for entry in listing {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    entries.push(Entry {
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
    fn entry(&mut self, open: &Open<'_>, listed: &Entry) -> Result<Look, VaultError> {
        let name = listed.name.as_os_str();
        let relative = open.relative.join(name);
        let before = open
            .before
            .binary_search_by(|node| node.name.as_slice().cmp(name.as_bytes()));
        let before = before.ok().and_then(|at| open.before.get(at));
        let mut kind = listed.kind;
        let was_refused = self.unreadable.contains(&relative);
        self.look_again(&relative);
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
                None => Some(NodeKind::File),
                Some(stat) => fsio::kind_of(stat),
            };
            if !self.is_wanted(&relative, now == Some(NodeKind::Dir)) {
                return Ok(Look::Done);
            }
            let look = match (now, stat) {
                (Some(NodeKind::Dir), Some(stat)) => self.subdir(open, name, &stat, before),
                (Some(NodeKind::File), stat) => {
                    self.file(open, &relative, name, stat, before, was_refused)?
                }
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

    pub(super) fn is_wanted(&self, relative: &Path, is_dir: bool) -> bool {
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
            way: Way::Whole(before.and_then(|node| node.subtree)),
        })
    }

    fn dir_node(&self, name: &OsStr, stat: &Stat) -> Node {
        fsio::node_of(name, NodeKind::Dir, stat, &self.names)
    }

    /// Links, devices, pipes and sockets.
    fn special(
        &mut self,
        open: &Open<'_>,
        relative: &Path,
        name: &OsStr,
        kind: NodeKind,
        stat: &Stat,
    ) -> Result<Look, VaultError> {
        let mut node = fsio::node_of(name, kind, stat, &self.names);
        if kind == NodeKind::Symlink {
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
pub(super) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(fd, ".", DIRECTORY, Mode::empty())
}

/// Cuts a path back to what it was when it was so long.
pub(super) fn truncate(path: &mut PathBuf, length: usize) {
    while path.as_os_str().len() > length && path.pop() {}
}
