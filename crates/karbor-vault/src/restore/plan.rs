//! Walks a snapshot and decides what happens to every entry.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    Run, Start,
    file::{Segment, Writing, remove_stale, temp_name},
    open_target,
};
use crate::{
    Change, ChangeKind, Overwrite, RestoreSummary, VaultError,
    engine::Decoder,
    fsio::{self, Root},
    id::Id,
    node::{Kind, Node},
};

pub(super) struct Planner {
    run: Arc<Run>,
    decoder: Decoder,
    /// `None`: it is not there, and this is a dry run.
    root: Option<Root>,
    target: PathBuf,
    target_is_new: bool,
    /// Of files with several links: where the first is. By content too, for a file may change between the
    /// reading of one name and the other.
    linked: HashMap<(u64, u64, Id), PathBuf>,
    links: Vec<Link>,
    /// Directories whose attributes are to be set.
    dirs: Vec<(PathBuf, Node)>,
    pub(super) summary: RestoreSummary,
}

/// A hard link to be made at the end.
struct Link {
    first: PathBuf,
    dir: PathBuf,
    name: OsString,
}

/// A directory to go through.
struct Pending {
    relative: PathBuf,
    tree: Id,
    /// Is it there? Only in a dry run it may not be.
    exists: bool,
}

/// A directory of the target.
struct Open {
    relative: PathBuf,
    /// `None`: it is not there, and this is a dry run.
    fd: Option<Arc<OwnedFd>>,
}

/// What happens to an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Create,
    Replace,
    Skip,
    /// Its content is right.
    Keep,
}

impl Planner {
    pub(super) fn new(run: Arc<Run>, target: &Path, decoder: Decoder) -> Result<Self, VaultError> {
        let (root, target_is_new) = open_target(target, run.options.dry_run)?;
        Ok(Self {
            run,
            decoder,
            root,
            target: target.to_owned(),
            target_is_new,
            linked: HashMap::new(),
            links: Vec::new(),
            dirs: Vec::new(),
            summary: RestoreSummary::default(),
        })
    }

    fn error(&self, relative: &Path, reason: impl ToString) -> VaultError {
        VaultError::target(self.target.join(relative).to_string_lossy(), reason)
    }

    fn is_dry(&self) -> bool {
        self.run.options.dry_run
    }

    pub(super) fn plan(&mut self, start: Start) -> Result<(), VaultError> {
        let top = PathBuf::new();
        let (tree, node) = match start {
            Start::Tree(tree, node) => (tree, node),
            Start::Single(node) => {
                let open = self.open(top, self.root.is_some())?;
                return self.entry(&open, node).map(|_| ());
            }
        };
        if self.target_is_new {
            self.summary.dirs += 1;
        }
        if let Some(node) = node
            && (self.target_is_new || !self.run.leaves_all())
        {
            self.dirs.push((top.clone(), node));
        }
        let mut pending = vec![Pending {
            relative: top,
            tree,
            exists: self.root.is_some(),
        }];
        while let Some(Pending {
            relative,
            tree,
            exists,
        }) = pending.pop()
        {
            let nodes = self.run.reader.tree(&tree, &mut self.decoder);
            let nodes = nodes.map_err(|error| error.for_file(&relative.to_string_lossy()))?;
            let open = self.open(relative, exists)?;
            let mut subdirs = Vec::new();
            for node in nodes {
                self.run.check()?;
                subdirs.extend(self.entry(&open, node)?);
            }
            pending.extend(subdirs.into_iter().rev());
        }
        Ok(())
    }

    fn open(&self, relative: PathBuf, exists: bool) -> Result<Open, VaultError> {
        let fd = match &self.root {
            Some(root) if exists => {
                let fd = root.dir(&relative);
                let fd = fd.map_err(|error| self.error(&relative, error))?;
                if !self.is_dry()
                    && let Err(error) = remove_stale(fd.as_fd())
                {
                    let path = self.target.join(&relative);
                    tracing::warn!(path = %path.display(), %error, "what a dead restore left stays");
                }
                Some(Arc::new(fd))
            }
            _ => None,
        };
        Ok(Open { relative, fd })
    }

    /// What is at a place now.
    fn look(&self, open: &Open, name: &OsStr) -> Result<Option<Stat>, VaultError> {
        let Some(fd) = &open.fd else {
            return Ok(None);
        };
        match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error(&open.relative.join(name), error)),
        }
    }

    fn entry(&mut self, open: &Open, node: Node) -> Result<Option<Pending>, VaultError> {
        let name = node.os_name();
        let relative = open.relative.join(&name);
        let present = self.look(open, &name)?;
        if node.kind == Kind::Dir {
            return self.dir(open, node, relative, present);
        }
        let fate = self.fate(open, &node, &relative, present.as_ref())?;
        match fate {
            Fate::Skip => {
                self.note(&relative, ChangeKind::Skip);
                self.summary.skipped += 1;
                return Ok(None);
            }
            Fate::Keep => {
                let stat = present.as_ref();
                let differs = stat.is_some_and(|stat| self.run.attributes_differ(&node, stat));
                self.keep(open, &node, &relative, differs)?;
            }
            Fate::Create | Fate::Replace => {
                self.note(
                    &relative,
                    match fate {
                        Fate::Create => ChangeKind::Create,
                        _ => ChangeKind::Overwrite,
                    },
                );
            }
        }
        self.make(open, node, relative, fate)?;
        Ok(None)
    }

    fn note(&mut self, relative: &Path, kind: ChangeKind) {
        if !self.is_dry() {
            return;
        }
        if kind != ChangeKind::Skip {
            self.summary.changes_total += 1;
        }
        if self.summary.changes.len() < RestoreSummary::MAX_CHANGES {
            let path = relative.to_owned();
            self.summary.changes.push(Change { path, kind });
        }
    }

    fn fate(
        &self,
        open: &Open,
        node: &Node,
        relative: &Path,
        present: Option<&Stat>,
    ) -> Result<Fate, VaultError> {
        let Some(present) = present else {
            return Ok(Fate::Create);
        };
        if self.run.leaves_all() {
            return Ok(Fate::Skip);
        }
        let overwrite = self.run.options.overwrite;
        if overwrite != Overwrite::Never
            && FileType::from_raw_mode(present.st_mode) == FileType::Directory
        {
            return Err(self.error(
                relative,
                "a directory is in its place; move it away and restore again",
            ));
        }
        if overwrite == Overwrite::Always {
            return Ok(Fate::Replace);
        }
        let same = fsio::kind_of(present) == Some(node.kind)
            && match node.kind {
                Kind::File => {
                    fsio::size_of(present) == node.size && fsio::mtime(present) == node.mtime
                }
                Kind::Symlink => open.fd.as_ref().is_some_and(|dir| {
                    rustix::fs::readlinkat(dir, node.os_name(), Vec::new())
                        .is_ok_and(|target| target.as_bytes() == node.target)
                }),
                Kind::Dev | Kind::Chardev => present.st_rdev == node.device,
                Kind::Fifo | Kind::Socket => true,
                Kind::Dir => false,
            };
        Ok(match same {
            true => Fate::Keep,
            // Whatever has its name is whole, so this is somebody else's.
            false if overwrite == Overwrite::Never => Fate::Skip,
            false => Fate::Replace,
        })
    }

    /// The content is right; are the attributes?
    fn keep(
        &mut self,
        open: &Open,
        node: &Node,
        relative: &Path,
        differs: bool,
    ) -> Result<(), VaultError> {
        self.summary.unchanged += 1;
        self.run.control.progress.add_bytes(node.size);
        if !differs {
            return Ok(());
        }
        self.note(relative, ChangeKind::Metadata);
        let (Some(dir), false) = (&open.fd, self.is_dry()) else {
            return Ok(());
        };
        let (name, path) = (node.os_name(), self.target.join(relative));
        if node.kind != Kind::File {
            return self.run.set_attributes_at(dir.as_fd(), &name, node, &path);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, &name, flags, Mode::empty())
            .map_err(|error| self.error(relative, error))?;
        self.run.set_attributes(fd.as_fd(), node, &path)
    }

    fn make(
        &mut self,
        open: &Open,
        node: Node,
        relative: PathBuf,
        fate: Fate,
    ) -> Result<(), VaultError> {
        if node.kind == Kind::File && node.links > 1 {
            let key = (node.inode, node.device_id, content_id(&node));
            match self.linked.get(&key) {
                Some(_) if fate == Fate::Keep => return Ok(()),
                Some(first) => {
                    self.links.push(Link {
                        first: first.clone(),
                        dir: open.relative.clone(),
                        name: node.os_name(),
                    });
                    return Ok(());
                }
                None => {
                    self.linked.insert(key, relative.clone());
                }
            }
        }
        let (Some(dir), false) = (&open.fd, self.is_dry() || fate == Fate::Keep) else {
            return Ok(());
        };
        let path = self.target.join(&relative);
        if node.kind != Kind::File {
            return self.special(dir.as_fd(), &node, &path);
        }
        for segment in Writing::begin(&self.run, dir.clone(), node, path)? {
            let pushed = self
                .run
                .queue
                .push(Segment::weight(), segment, || self.run.is_stopped());
            if pushed.is_err() {
                self.run.check()?;
                return Err(VaultError::Internal(
                    "the restore's threads are gone".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Links, pipes and devices.
    fn special(&mut self, dir: BorrowedFd<'_>, node: &Node, path: &Path) -> Result<(), VaultError> {
        let name = node.os_name();
        let temp = temp_name(&self.run);
        let mode = Mode::RUSR | Mode::WUSR;
        let node_of = |kind, device| rustix::fs::mknodat(dir, &temp, kind, mode, device);
        let made = match node.kind {
            Kind::Symlink => rustix::fs::symlinkat(OsStr::from_bytes(&node.target), dir, &temp),
            Kind::Fifo => node_of(FileType::Fifo, 0),
            Kind::Dev => node_of(FileType::BlockDevice, node.device),
            Kind::Chardev => node_of(FileType::CharacterDevice, node.device),
            // A socket is made by whoever listens on it.
            Kind::Socket | Kind::File | Kind::Dir => Err(Errno::NOTSUP),
        };
        match made {
            Ok(()) => {}
            Err(error @ (Errno::PERM | Errno::NOTSUP)) if node.kind != Kind::Symlink => {
                self.run.warn(path, "a device or socket", error);
                return Ok(());
            }
            Err(error) => return Err(VaultError::target(path.to_string_lossy(), error)),
        }
        let placed = self
            .run
            .set_attributes_at(dir, &temp, node, path)
            .and_then(|()| self.run.rename(dir, &temp, &name, path));
        if placed.is_err() {
            // The error that is told is the first.
            rustix::fs::unlinkat(dir, &temp, AtFlags::empty()).ok();
        }
        self.summary.files += u64::from(placed.is_ok());
        placed
    }

    fn dir(
        &mut self,
        open: &Open,
        node: Node,
        relative: PathBuf,
        present: Option<Stat>,
    ) -> Result<Option<Pending>, VaultError> {
        let never = self.run.options.overwrite == Overwrite::Never;
        let leaves = self.run.leaves_all();
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let tree = node.subtree.ok_or_else(|| {
            VaultError::damaged("the tree of the snapshot", "a directory has no tree")
        })?;
        let exists = match present {
            Some(stat) if is_dir(&stat) => {
                if !leaves && self.run.attributes_differ(&node, &stat) {
                    self.note(&relative, ChangeKind::Metadata);
                }
                true
            }
            Some(_) if never => {
                self.note(&relative, ChangeKind::Skip);
                self.summary.skipped += 1;
                return Ok(None);
            }
            present => {
                self.note(
                    &relative,
                    match present {
                        Some(_) => ChangeKind::Overwrite,
                        None => ChangeKind::Create,
                    },
                );
                self.make_dir(open, &node.os_name(), &relative, present.is_some())?;
                self.summary.dirs += 1;
                !self.is_dry()
            }
        };
        if !(leaves && present.is_some()) {
            self.dirs.push((relative.clone(), node));
        }
        Ok(Some(Pending {
            relative,
            tree,
            exists: exists && !(self.is_dry() && present.is_none_or(|stat| !is_dir(&stat))),
        }))
    }

    fn make_dir(
        &self,
        open: &Open,
        name: &OsStr,
        relative: &Path,
        replaces: bool,
    ) -> Result<(), VaultError> {
        let (Some(dir), false) = (&open.fd, self.is_dry()) else {
            return Ok(());
        };
        let failed = |error| self.error(relative, error);
        if replaces {
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(failed)?;
        }
        rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(failed)
    }

    /// When all files are there: hard links, attributes of directories, and all on stable storage.
    pub(super) fn finish(&mut self) -> Result<(), VaultError> {
        let (links, dirs) = (
            std::mem::take(&mut self.links),
            std::mem::take(&mut self.dirs),
        );
        let (Some(root), false) = (&self.root, self.is_dry()) else {
            return Ok(());
        };
        for link in &links {
            self.run.check()?;
            self.link(root, link)?;
            self.summary.files += 1;
        }
        // Innermost first: an outer one may become unreadable.
        for (relative, node) in dirs.iter().rev() {
            self.run.check()?;
            let fd = root
                .dir(relative)
                .map_err(|error| self.error(relative, error))?;
            self.run
                .set_attributes(fd.as_fd(), node, &self.target.join(relative))?;
        }
        rustix::fs::syncfs(root.fd()).map_err(|error| self.error(Path::new(""), error))
    }

    fn link(&self, root: &Root, link: &Link) -> Result<(), VaultError> {
        let relative = link.dir.join(&link.name);
        let failed = |error| self.error(&relative, error);
        let no_parent = || self.error(&link.first, "it has no directory");
        let first_dir = link.first.parent().ok_or_else(no_parent)?;
        let first_name = link.first.file_name().ok_or_else(no_parent)?;
        let from = root.dir(first_dir).map_err(failed)?;
        let dir = root.dir(&link.dir).map_err(failed)?;
        let temp = temp_name(&self.run);
        rustix::fs::linkat(&from, first_name, &dir, &temp, AtFlags::empty()).map_err(failed)?;
        let path = self.target.join(&relative);
        let renamed = self.run.rename(dir.as_fd(), &temp, &link.name, &path);
        // If both names were one file already, renaming does nothing and leaves the other name.
        let removed = rustix::fs::unlinkat(&dir, &temp, AtFlags::empty());
        renamed?;
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Equal for files of equal content.
fn content_id(node: &Node) -> Id {
    let blobs: Vec<u8> = node.content.iter().flat_map(|blob| blob.0).collect();
    Id::of(&blobs)
}
