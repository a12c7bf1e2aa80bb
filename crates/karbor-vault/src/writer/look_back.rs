//! The look back, when all of a tree was read: what was moved into a directory that had been read already,
//! from one that had not, is in neither listing.
//!
//! Each directory gone through is asked for its times, which costs a call or three. One that may have been
//! changed since it was listed is listed again, and what is new in it is read; its tree and those above it
//! are made anew, from what was stored of them. That is done again as long as something new is found, but
//! not for ever: the last look reads nothing, it only names what is new and was there before the walk began.
//! What was made since belongs to the next snapshot.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, Stat, StatxFlags},
    io::Errno,
};

use super::{
    dir::{Dir, Parent, Root},
    parent::COARSEST,
    trail::identity,
    walk::{
        DIRECTORY, Entry, HELD, LISTINGS, Level, Lost, Pending, Walker, Way, is_gone, is_ours,
        reopen, truncate,
    },
};
use crate::{
    TreeSummary, VaultError, fsio,
    id::Id,
    node::{Node, NodeKind},
    time::Time,
};

/// So often changed directories are listed when all was read, the last time only to name what is new.
pub(super) const LOOKS_BACK: u32 = 4;

/// A directory on the way down.
struct Step {
    number: u32,
    /// `None` if it is far above.
    fd: Option<OwnedFd>,
    /// The next one in it.
    next: Option<u32>,
    /// The length of its path.
    length: usize,
}

impl Walker {
    /// Marks the directories that may have been changed since they were listed. Says whether there are any.
    pub(super) fn look_back(&mut self) -> Result<bool, VaultError> {
        self.trail.clear_marks();
        // There will be no snapshot.
        if self.is_lost() {
            return Ok(false);
        }
        let (stat, fd) = self.open_root()?;
        let Some(root) = self.trail.get(0) else {
            return Ok(false);
        };
        // What is there now is not what was read, and that is an error in the end.
        if identity(&stat) != root.id {
            return Ok(false);
        }
        let mut steps = vec![Step {
            number: 0,
            fd: Some(fd),
            next: root.inner,
            length: 0,
        }];
        let mut found = self.trail.mark(0, &stat, std::iter::empty());
        let mut at = PathBuf::new();
        while let Some(step) = steps.last_mut() {
            self.intake.writer.check()?;
            let Some((number, past)) = step
                .next
                .and_then(|next| Some((next, self.trail.get(next)?)))
            else {
                let done = steps.pop();
                if let (Some(above), Some(done)) = (steps.last_mut(), done) {
                    truncate(&mut at, above.length);
                    if above.fd.is_none() {
                        let id = self.trail.get(above.number).map(|past| past.id);
                        let back = id.ok_or(Errno::NOENT);
                        let back = back.and_then(|id| self.reach(id, done.fd.as_ref(), &at));
                        above.fd = self.seen_again(&at, back)?;
                    }
                }
                continue;
            };
            step.next = past.beside;
            // It was moved away: what is in it was stored as it was.
            let Some(above) = &step.fd else { continue };
            let (name, id, inner) = (past.name.clone(), past.id, past.inner);
            at.push(&*name);
            let looked = look(above.as_fd(), &name, inner.is_some());
            let (stat, fd) = match self.seen_again(&at, looked)? {
                Some((stat, fd)) if identity(&stat) == id => (stat, fd),
                _ => {
                    truncate(&mut at, step.length);
                    continue;
                }
            };
            let way = steps.iter().map(|step| step.number);
            found |= self.trail.mark(number, &stat, way);
            match fd {
                Some(fd) => {
                    steps.push(Step {
                        number,
                        fd: Some(fd),
                        next: inner,
                        length: at.as_os_str().len(),
                    });
                    if let Some(above) = steps.len().checked_sub(HELD + 1) {
                        steps[above].fd = None;
                    }
                }
                None => {
                    let length = steps.last().map_or(0, |step| step.length);
                    truncate(&mut at, length);
                }
            }
        }
        Ok(found)
    }

    /// What was seen of a directory that had been read; one that is not there any more is no trouble.
    pub(super) fn seen_again<T>(
        &mut self,
        at: &Path,
        seen: Result<T, Errno>,
    ) -> Result<Option<T>, VaultError> {
        match seen {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if is_ours(error) => Err(self.error(at, error)),
            Err(error) if is_gone(error) || matches!(error, Errno::NOTDIR | Errno::LOOP) => {
                Ok(None)
            }
            Err(error) => {
                self.warn(
                    at,
                    format!("it cannot be looked at again, so what was moved into it since it was read is not stored: {error}"),
                );
                Ok(None)
            }
        }
    }

    /// What was left out of directories that are larger than any tree may be.
    pub(super) fn note_cut(&mut self, root: &Root) {
        for (relative, left) in root.take_cut() {
            self.unreadable(
                &relative,
                format!(
                    "it is too large for one tree: {left} of its entries are left out; divide it up"
                ),
            );
        }
    }

    /// Reads what is new in the directories that are marked, and makes their trees and those above anew from
    /// what is stored of them, the root's from `tree`. Where it is the last look, what is new is only named.
    /// Says whether anything new was read.
    pub(super) fn read_again(
        &mut self,
        tree: Id,
        result: Arc<Root>,
        is_last: bool,
    ) -> Result<bool, VaultError> {
        (self.is_last_look, self.has_new) = (is_last, false);
        let (stat, fd) = self.open_root()?;
        let nowhere = Path::new("");
        let first = self.dir_again(0, tree, Parent::Root(result), fd, &stat, nowhere)?;
        self.go_through(first)?;
        Ok(self.has_new)
    }

    fn open_root(&self) -> Result<(Stat, OwnedFd), VaultError> {
        let failed = |error: Errno| self.error(Path::new(""), error);
        let fd = reopen(self.source.as_fd()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        Ok((stat, fd))
    }

    /// A directory that was gone through, as it was stored; if it is marked, what is new in it is taken in.
    pub(super) fn dir_again(
        &mut self,
        number: u32,
        tree: Id,
        parent: Parent,
        fd: OwnedFd,
        stat: &Stat,
        at: &Path,
    ) -> Result<Level, VaultError> {
        let Self {
            intake,
            stored,
            decoder,
            ..
        } = self;
        let nodes = match intake.stored_tree(&tree, stored, decoder) {
            Err(error @ VaultError::Damaged { .. }) => {
                tracing::warn!(path = %at.display(), %error, "a stored directory cannot be read; reading the files again");
                return self.dir_anew(number, parent, fd, stat, at);
            }
            nodes => nodes?,
        };
        let dir = Dir::stored(parent, nodes);
        let mut level = Level::new(stat, dir, at.as_os_str().len());
        level.number = Some(number);
        let past = self.trail.get(number);
        let listed = past.filter(|past| !past.is_changed).map(|past| past.listed);
        match listed {
            // It is on the way only.
            Some(listed) => (level.listed, level.listings) = (listed, LISTINGS),
            // Only a part of it can be stored, and that is so.
            None if self.unreadable.contains(at) => level.listings = LISTINGS,
            None => {
                let mut found = self.list(fd.as_fd(), at)?;
                self.retain_new(&level, fd.as_fd(), &mut found);
                if self.is_last_look {
                    self.name_left(fd.as_fd(), at, &found)?;
                    level.listings = LISTINGS;
                } else {
                    self.take_in(&mut level, fd.as_fd(), at, Vec::new(), found)?;
                }
            }
        }
        let known = level.dir.known();
        let marked = self.trail.inside(number);
        let marked = marked.filter(|(_, past)| past.is_changed || past.leads_to_changed);
        for (number, past) in marked {
            let node = known.get(past.name.as_bytes());
            if let Some((node, inode)) = node
                && let Some(tree) = level.dir.await_again(*node)
            {
                level.pending.push(Pending {
                    name: past.name.clone().into(),
                    node: *node,
                    inode: *inode,
                    way: Way::Again(number, tree),
                });
            }
        }
        level.fd = Some(fd);
        Ok(level)
    }

    /// A directory that was gone through, but what is stored of it is damaged: all of it is read and stored once more. It
    /// was counted already.
    fn dir_anew(
        &mut self,
        number: u32,
        parent: Parent,
        fd: OwnedFd,
        stat: &Stat,
        at: &Path,
    ) -> Result<Level, VaultError> {
        let mut level = Level::new(stat, Dir::new(parent), at.as_os_str().len());
        level.number = Some(number);
        level.counted = Some(Counts::of(&self.summary));
        self.trail.begin_again(number);
        let listed = self.list(fd.as_fd(), at)?;
        self.take_in(&mut level, fd.as_fd(), at, Vec::new(), listed)?;
        level.fd = Some(fd);
        Ok(level)
    }

    /// Keeps of a listing what is not stored. What is stored under a name that another took since, is not to
    /// be in the tree.
    pub(super) fn retain_new(
        &mut self,
        level: &Level,
        fd: BorrowedFd<'_>,
        listed: &mut Vec<Entry>,
    ) {
        let known = level.dir.known();
        listed.retain(|entry| {
            let Some((node, inode)) = known.get(entry.name.as_bytes()) else {
                return true;
            };
            let is_other = *inode != entry.inode && self.is_other(fd, entry, *inode);
            if is_other && !self.is_last_look {
                let dropped = level.dir.drop_node(*node);
                self.summary.discount(dropped.as_ref());
            }
            is_other
        });
    }

    /// Did an entry that was there before take the name of the one with this inode? (Mounts and layered file
    /// systems list other inodes than they have.)
    fn is_other(&self, fd: BorrowedFd<'_>, entry: &Entry, inode: u64) -> bool {
        if self.moves.vanished.contains_key(&entry.inode) {
            return true;
        }
        let stat = rustix::fs::statat(fd, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| {
            stat.st_ino != inode
                && fsio::ctime(&stat) >= self.moves.begun
                && self.may_be_older(fd, entry, &stat)
        })
    }

    /// May an entry have been there before the walk began, here or elsewhere? A directory that was not can hold
    /// what was.
    fn may_be_older(&self, fd: BorrowedFd<'_>, entry: &Entry, stat: &Stat) -> bool {
        let mut begun = self.moves.begun;
        begun.secs += 2 * COARSEST;
        let born = || {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let born = rustix::fs::statx(fd, &entry.name, flags, StatxFlags::BTIME).ok()?;
            let is_known = born.stx_mask & StatxFlags::BTIME.bits() != 0;
            let (secs, nanos) = (born.stx_btime.tv_sec, born.stx_btime.tv_nsec);
            is_known.then(|| Time::new(secs, nanos.into()))
        };
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            || fsio::mtime(stat) < begun
            || born().is_none_or(|born| born < begun)
    }

    /// Names what is new in a directory, and was there before the walk began.
    fn name_left(
        &mut self,
        fd: BorrowedFd<'_>,
        at: &Path,
        found: &[Entry],
    ) -> Result<(), VaultError> {
        for entry in found {
            self.intake.writer.check()?;
            let relative = at.join(&entry.name);
            if self.unreadable.contains(&relative) {
                continue;
            }
            let stat = rustix::fs::statat(fd, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
            let Ok(stat) = stat else { continue };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if self.is_wanted(&relative, is_dir) && self.may_be_older(fd, entry, &stat) {
                self.lost(stat.st_ino, &relative, Lost::Late);
            }
        }
        Ok(())
    }
}

/// What had been counted at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    files: u64,
    dirs: u64,
    bytes: u64,
    unmodified: u64,
}

impl Counts {
    fn of(summary: &TreeSummary) -> Self {
        Self {
            files: summary.files,
            dirs: summary.dirs,
            bytes: summary.bytes,
            unmodified: summary.unmodified,
        }
    }

    /// What was counted since counts no more.
    pub(super) fn put_back(self, summary: &mut TreeSummary) {
        (summary.files, summary.dirs) = (self.files, self.dirs);
        (summary.bytes, summary.unmodified) = (self.bytes, self.unmodified);
    }
}

impl TreeSummary {
    /// A node is not in the tree after all. What is below a directory stays counted.
    fn discount(&mut self, node: Option<&Node>) {
        let Some(node) = node else { return };
        match node.kind {
            NodeKind::Dir => self.dirs = self.dirs.saturating_sub(1),
            _ => self.files = self.files.saturating_sub(1),
        }
        self.bytes = self.bytes.saturating_sub(node.size);
    }
}

/// Looks at a directory by its name, and opens it if there is more to look at in it.
fn look(above: BorrowedFd<'_>, name: &OsStr, open: bool) -> Result<(Stat, Option<OwnedFd>), Errno> {
    if !open {
        let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        return Ok((stat, None));
    }
    let fd = rustix::fs::openat(above, name, DIRECTORY, Mode::empty())?;
    Ok((rustix::fs::fstat(&fd)?, Some(fd)))
}
