//! Walks a snapshot and decides what happens to every entry.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use karbor_fs::{Dir, Identity, Known, Refused, Staging, Trail, is_temp_name, shown_way};
use rustix::{
    fs::{FileType, Mode, Stat},
    io::Errno,
};

use super::{
    attributes::xattrs_of,
    compare::{Check, is_same_special, may_be_same},
    file::{Segment, Writing, temp_name},
    run::{Job, LinkKey, Restoring, is_refusal, link_key, refused},
};
use crate::{
    ChangeKind, Overwrite, RestoreOptions, RestoreSummary, VaultError,
    engine::Decoder,
    fsio,
    id::Id,
    node::{Node, NodeKind},
};

/// What to restore.
pub(super) enum Start {
    /// What this tree holds; the node of its directory, if it has one.
    Tree(Id, Option<Node>),
    /// This one thing.
    Single(Node),
}

pub(super) struct Planner {
    pub(super) run: Arc<Restoring>,
    pub(super) decoder: Decoder,
    /// Where we are in the target; `None`: it is not there, and this is a dry run.
    trail: Option<Trail>,
    pub(super) root: Option<Dir>,
    root_device: u64,
    /// The device that the snapshot's directory was on.
    stored_device: Option<u64>,
    target_is_new: bool,
    /// Of one file, nothing else in the target is known.
    is_single: bool,
    /// The names on the way to where we are, also if they are not there.
    names: Vec<OsString>,
    /// Of files with several names: what had the first of them in the target.
    linked: HashMap<LinkKey, Option<Identity>>,
    /// Directories that were gone through, each before those in it.
    pub(super) dirs: Vec<Visited>,
    pub(super) summary: RestoreSummary,
}

/// A directory of the target that is to be finished.
pub(super) struct Visited {
    pub(super) depth: usize,
    pub(super) name: OsString,
    pub(super) known: Known,
    /// What its attributes should be, if they are to be set.
    pub(super) node: Option<Node>,
    /// It was made here, and nobody else has been in it.
    pub(super) is_new: bool,
    /// So much is in it that the snapshot does not have.
    pub(super) more: usize,
    /// Names of those that are to be removed.
    pub(super) extras: Vec<OsString>,
    pub(super) links: Vec<Link>,
}

/// A hard link to be made at the end.
pub(super) struct Link {
    pub(super) key: LinkKey,
    pub(super) node: Node,
}

/// A directory to go through.
struct Pending {
    depth: usize,
    name: OsString,
    node: Option<Node>,
    tree: Id,
    /// Is it there? Only in a dry run it may not be.
    exists: bool,
    /// The one that was made.
    made: Option<Known>,
}

/// Where a directory that is gone through comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was there.
    Old,
    /// It was made here, but others can have been in it: where a file system has no owners, anybody may enter it.
    Open,
    /// It was made here, and nobody else has been in it.
    Closed,
}

impl Origin {
    /// Of a directory that was entered, where one was made.
    fn of(dir: &Dir, made: Option<Known>) -> Result<Self, Refused> {
        Ok(match made {
            Some(made) if !made.is(dir.known()?) => Self::Old,
            Some(_) if dir.is_own()? => Self::Closed,
            Some(_) => Self::Open,
            None => Self::Old,
        })
    }

    /// Does it keep the attributes that it has, whatever the snapshot says?
    fn stays(self, options: &RestoreOptions) -> bool {
        self == Self::Old && options.overwrite == Overwrite::Never && !options.goes_on
    }
}

/// A directory of the target.
struct Open {
    /// For messages.
    path: PathBuf,
    /// `None`: it is not there, and this is a dry run.
    staging: Option<Arc<Staging>>,
    /// For links and special files.
    apart: Option<Staging>,
}

impl Open {
    fn missing(path: PathBuf) -> Self {
        Self {
            path,
            staging: None,
            apart: None,
        }
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        match &self.staging {
            Some(staging) => staging.place().path_of(name),
            None => self.path.join(name),
        }
    }
}

/// What happens to an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Create,
    Replace,
    Skip,
    /// All of it is right.
    Keep,
    /// Its content is to be compared.
    Check,
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Without what is needed no more once it was gone through.
fn attributes_of(mut node: Node) -> Node {
    node.content = Vec::new();
    node
}

impl Planner {
    pub(super) fn new(
        run: Arc<Restoring>,
        root: Option<Dir>,
        target_is_new: bool,
        decoder: Decoder,
    ) -> Result<Self, VaultError> {
        let failed = |error| refused(&run.target, &error);
        let trail = root.clone().map(Trail::new).transpose().map_err(failed)?;
        let device = match &root {
            Some(root) => root.stat().map_err(failed)?.st_dev,
            None => 0,
        };
        Ok(Self {
            run,
            decoder,
            trail,
            root,
            root_device: device,
            stored_device: None,
            target_is_new,
            is_single: false,
            names: Vec::new(),
            linked: HashMap::new(),
            dirs: Vec::new(),
            summary: RestoreSummary::default(),
        })
    }

    fn is_dry(&self) -> bool {
        self.run.is_dry()
    }

    pub(super) fn plan(&mut self, start: Start) -> Result<(), VaultError> {
        let (tree, node) = match start {
            Start::Tree(tree, node) => (tree, node),
            Start::Single(_) if self.run.options.delete_extra => {
                return Err(VaultError::Invalid(
                    "what lies beside a single file is no extra: restore it without 'delete_extra'"
                        .to_owned(),
                ));
            }
            Start::Single(node) => {
                self.is_single = true;
                let open = self.top(None, std::slice::from_ref(&node))?;
                return self.entry(&open, node).map(|_| ());
            }
        };
        if self.target_is_new {
            self.summary.dirs += 1;
        }
        self.stored_device = node.as_ref().map(|node| node.device_id);
        let nodes = self.tree(&tree)?;
        let open = self.top(node, &nodes)?;
        let mut pending = self.entries(&open, nodes)?;
        while let Some(mut next) = pending.pop() {
            self.names.truncate(next.depth - 1);
            self.names.push(next.name.clone());
            let nodes = self.tree(&next.tree)?;
            let open = self.open(&mut next, &nodes)?;
            pending.extend(self.entries(&open, nodes)?);
        }
        Ok(())
    }

    fn tree(&mut self, tree: &Id) -> Result<Vec<Node>, VaultError> {
        let nodes = self.run.reader.tree(tree, &mut self.decoder);
        nodes.map_err(|error| error.for_file(&self.path().to_string_lossy()))
    }

    /// Answers with the directories among them, the last one first.
    fn entries(&mut self, open: &Open, nodes: Vec<Node>) -> Result<Vec<Pending>, VaultError> {
        let mut subdirs = Vec::new();
        for node in nodes {
            self.run.check()?;
            subdirs.extend(self.entry(open, node)?);
        }
        subdirs.reverse();
        Ok(subdirs)
    }

    /// Where we are, for messages.
    fn path(&self) -> PathBuf {
        self.run
            .target
            .join(shown_way(self.names.iter().map(OsString::as_os_str)))
    }

    fn top(&mut self, node: Option<Node>, nodes: &[Node]) -> Result<Open, VaultError> {
        let Some(root) = self.root.clone() else {
            return Ok(Open::missing(self.path()));
        };
        let origin = match self.target_is_new {
            true => {
                let known = root.known().map(Some);
                let origin = known.and_then(|known| Origin::of(&root, known));
                origin.map_err(|error| refused(&self.run.target, &error))?
            }
            false => Origin::Old,
        };
        self.visit(root, node, nodes, origin)
    }

    /// Goes to a directory.
    fn open(&mut self, next: &mut Pending, nodes: &[Node]) -> Result<Open, VaultError> {
        let path = self.path();
        let (Some(trail), true) = (&mut self.trail, next.exists) else {
            return Ok(Open::missing(path));
        };
        let failed = |error| refused(&path, &error);
        while trail.depth() >= next.depth {
            trail.leave().map_err(failed)?;
        }
        trail.enter(&next.name, None).map_err(failed)?;
        let dir = trail.dir().clone();
        let origin = Origin::of(&dir, next.made).map_err(failed)?;
        self.visit(dir, next.node.take(), nodes, origin)
    }

    /// Notes what is to be done with a directory in the end.
    fn visit(
        &mut self,
        dir: Dir,
        node: Option<Node>,
        nodes: &[Node],
        origin: Origin,
    ) -> Result<Open, VaultError> {
        let path = dir.path().to_owned();
        let failed = |error| refused(&path, &error);
        let stat = dir.stat().map_err(failed)?;
        let is_new = origin == Origin::Closed;
        let leaves = origin.stays(&self.run.options);
        // What was mounted when it was stored may be an ordinary directory by now.
        let was_elsewhere = node.as_ref().is_some_and(|node| {
            let top = self.stored_device;
            top.is_some_and(|device| device != node.device_id)
        });
        let node = node.filter(|_| !leaves);
        let known = dir.known().map_err(failed)?;
        let mut visited = Visited {
            depth: self.names.len(),
            name: self.names.last().cloned().unwrap_or_default(),
            known: match origin {
                Origin::Old => known.of_old(),
                Origin::Open | Origin::Closed => known,
            },
            node,
            is_new,
            more: 0,
            extras: Vec::new(),
            links: Vec::new(),
        };
        if !is_new {
            let names = dir.names().map_err(failed)?;
            if !self.is_dry()
                && let Err(error) = dir.remove_stale(&names)
            {
                tracing::warn!(path = %path.display(), %error, "what a dead restore left stays");
            }
            let is_elsewhere = was_elsewhere || stat.st_dev != self.root_device;
            if !leaves && !self.is_single {
                self.extras(&dir, is_elsewhere, names, nodes, &mut visited);
            }
            if let Some(node) = &visited.node {
                let xattrs = xattrs_of(dir.as_fd());
                if self.run.attributes_differ(node, &stat, &xattrs) {
                    self.run.note(&path, ChangeKind::Metadata);
                }
            }
        }
        self.dirs.push(visited);
        let apart = Staging::apart(dir.clone(), temp_name(&self.run));
        let staging = Staging::of(dir, temp_name(&self.run));
        Ok(Open {
            path,
            staging: Some(Arc::new(staging)),
            apart: Some(apart),
        })
    }

    /// What is there that the snapshot does not have.
    fn extras(
        &mut self,
        dir: &Dir,
        is_elsewhere: bool,
        names: Vec<OsString>,
        nodes: &[Node],
        visited: &mut Visited,
    ) {
        let is_known = |name: &OsString| {
            let found = nodes.binary_search_by(|node| node.name.as_slice().cmp(name.as_bytes()));
            found.is_ok() || is_temp_name(name)
        };
        let mut names: Vec<_> = names.into_iter().filter(|name| !is_known(name)).collect();
        visited.more = names.len();
        let is_elsewhere = self.run.options.one_file_system && is_elsewhere;
        let was_cache = || {
            let tag = fsio::CACHE_TAG.0.as_bytes();
            nodes.iter().any(|node| node.name == tag) || fsio::is_cache(dir.as_fd())
        };
        let is_cache = self.run.options.exclude_caches && !self.names.is_empty() && was_cache();
        if is_elsewhere || is_cache || self.run.options.overwrite == Overwrite::Never {
            return;
        }
        names.sort_unstable();
        for name in names {
            let path = dir.path_of(&name);
            let found = match dir.look(&name) {
                Ok(found) => found,
                // A mount that is dead, or another user's.
                Err(error) => {
                    if self.was_wanted(&name, true) || self.was_wanted(&name, false) {
                        self.extra(&path);
                        let error = refused(&path, &error);
                        let reason = format!(
                            "it is not in the checkpoint, cannot be looked at and stays: {error}"
                        );
                        self.run.tell(&path, &reason);
                    }
                    continue;
                }
            };
            let Some(found) = found.filter(|found| self.was_wanted(&name, is_dir(found))) else {
                continue;
            };
            // A mount point: what is mounted there is none of the place's.
            if self.run.options.one_file_system && found.st_dev != self.root_device {
                continue;
            }
            self.extra(&path);
            if self.run.options.delete_extra {
                self.run.note(&path, ChangeKind::Delete);
                visited.extras.push(name);
            }
        }
    }

    fn extra(&mut self, path: &Path) {
        self.summary.extra += 1;
        if self.summary.extras.len() < RestoreSummary::MAX_NAMED {
            self.summary.extras.push(self.run.relative(path));
        }
    }

    fn was_wanted(&self, name: &OsStr, is_dir: bool) -> bool {
        let Some(filter) = &self.run.options.filter else {
            return true;
        };
        let mut path: PathBuf = self.names.iter().collect();
        path.push(name);
        filter(&path, is_dir)
    }

    /// What is at a place now.
    fn look(open: &Open, name: &OsStr) -> Result<Option<Stat>, VaultError> {
        let Some(staging) = &open.staging else {
            return Ok(None);
        };
        let found = staging.place().look(name);
        found.map_err(|error| refused(&open.path_of(name), &error))
    }

    fn entry(&mut self, open: &Open, node: Node) -> Result<Option<Pending>, VaultError> {
        let name = node.os_name();
        let present = Self::look(open, &name)?;
        if node.kind == NodeKind::Dir {
            return self.dir(open, node, present);
        }
        let path = open.path_of(&name);
        let fate = self.fate(open, &node, &path, present.as_ref())?;
        if node.kind == NodeKind::File && node.links > 1 && fate != Fate::Skip {
            let identity = present.as_ref().map(Identity::of);
            match self.linked.get(&link_key(&node)) {
                Some(first) => {
                    let is_same = identity.is_some() && *first == identity;
                    self.link(open, node, &path, fate, is_same)?;
                    return Ok(None);
                }
                None => {
                    self.linked.insert(link_key(&node), identity);
                }
            }
        }
        match fate {
            Fate::Skip => {
                self.run.skip(&path);
                return Ok(None);
            }
            Fate::Keep => {
                self.summary.unchanged += 1;
                return Ok(None);
            }
            Fate::Check => {}
            Fate::Create => self.run.note(&path, ChangeKind::Create),
            Fate::Replace => self.run.note(&path, ChangeKind::Overwrite),
        }
        self.make(open, node, &path, fate)?;
        Ok(None)
    }

    fn fate(
        &self,
        open: &Open,
        node: &Node,
        path: &Path,
        present: Option<&Stat>,
    ) -> Result<Fate, VaultError> {
        let (Some(present), Some(staging)) = (present, &open.staging) else {
            return Ok(Fate::Create);
        };
        if self.run.leaves_all() {
            return Ok(Fate::Skip);
        }
        let overwrite = self.run.options.overwrite;
        if overwrite != Overwrite::Never && is_dir(present) {
            return Err(VaultError::target(
                path.to_string_lossy(),
                "a directory is in its place; move it away and restore again",
            ));
        }
        if overwrite == Overwrite::Always {
            return Ok(Fate::Replace);
        }
        let same = match node.kind {
            NodeKind::File if may_be_same(node, present) => return Ok(Fate::Check),
            NodeKind::File => false,
            _ => is_same_special(&self.run, staging.place(), node, present),
        };
        Ok(match same {
            true => Fate::Keep,
            // Whatever has its name is whole, so this is somebody else's.
            false if overwrite == Overwrite::Never => Fate::Skip,
            false => Fate::Replace,
        })
    }

    /// Another name of a file that comes before. `is_same`: it is one with that file already.
    fn link(
        &mut self,
        open: &Open,
        node: Node,
        path: &Path,
        fate: Fate,
        is_same: bool,
    ) -> Result<(), VaultError> {
        if !self.is_dry() {
            let key = link_key(&node);
            if let Some(visited) = self.dirs.last_mut() {
                visited.links.push(Link { key, node });
            }
            return Ok(());
        }
        match fate {
            Fate::Create => self.run.note(path, ChangeKind::Create),
            Fate::Check if is_same => self.make(open, node, path, fate)?,
            _ => self.run.note(path, ChangeKind::Overwrite),
        }
        Ok(())
    }

    fn make(&mut self, open: &Open, node: Node, path: &Path, fate: Fate) -> Result<(), VaultError> {
        let (Some(staging), Some(apart)) = (&open.staging, &open.apart) else {
            return Ok(());
        };
        let staging = staging.clone();
        if fate == Fate::Check {
            return self.push(Box::new(Check { staging, node }));
        }
        if self.is_dry() {
            return Ok(());
        }
        if node.kind != NodeKind::File {
            return self.special(apart, &node, path);
        }
        for segment in Writing::begin(&self.run, staging, node, false)? {
            self.push(Box::new(segment))?;
        }
        Ok(())
    }

    fn push(&self, job: Box<dyn Job>) -> Result<(), VaultError> {
        let stop = || self.run.is_stopped();
        if self.run.queue.push(Segment::weight(), job, stop).is_err() {
            self.run.check()?;
            return Err(VaultError::Internal(
                "the restore's threads are gone".to_owned(),
            ));
        }
        Ok(())
    }

    /// Links, pipes and devices.
    fn special(&mut self, staging: &Staging, node: &Node, path: &Path) -> Result<(), VaultError> {
        let failed = |error| refused(path, &error);
        let dir = staging.dir().map_err(failed)?;
        let temp = temp_name(&self.run);
        let mode = Mode::RUSR | Mode::WUSR;
        let node_of = |kind, device| rustix::fs::mknodat(&dir, &temp, kind, mode, device);
        let (what, made) = match node.kind {
            NodeKind::Symlink => (
                "a symbolic link",
                rustix::fs::symlinkat(OsStr::from_bytes(&node.target), &dir, &temp),
            ),
            NodeKind::Fifo => ("a FIFO", node_of(FileType::Fifo, 0)),
            NodeKind::Dev => ("a device", node_of(FileType::BlockDevice, node.device)),
            NodeKind::Chardev => ("a device", node_of(FileType::CharacterDevice, node.device)),
            // A socket is made by the process that listens on it.
            NodeKind::Socket | NodeKind::File | NodeKind::Dir => ("a socket", Err(Errno::NOTSUP)),
        };
        match made {
            Ok(()) => {}
            Err(error) if is_refusal(error) => {
                self.run.warn(path, what, error);
                return Ok(());
            }
            Err(error) => return Err(VaultError::target(path.to_string_lossy(), error)),
        }
        let placed = self
            .attributes_of_special(staging, &dir, &temp, node, path)
            .and_then(|()| {
                self.run
                    .rename(staging, &dir, &temp, &node.os_name(), false)
            });
        if placed.is_err() {
            // The error that is told is the first.
            dir.remove_file(&temp).ok();
        }
        self.run
            .files
            .fetch_add(u64::from(placed.is_ok()), Ordering::Relaxed);
        placed
    }

    fn attributes_of_special(
        &self,
        staging: &Staging,
        dir: &Dir,
        temp: &OsStr,
        node: &Node,
        path: &Path,
    ) -> Result<(), VaultError> {
        if staging
            .is_private()
            .map_err(|error| refused(path, &error))?
        {
            return self.run.set_attributes_at(dir, temp, node, path);
        }
        self.run
            .warn(path, "owner and mode", "this file system has no owners");
        Ok(())
    }

    fn dir(
        &mut self,
        open: &Open,
        node: Node,
        present: Option<Stat>,
    ) -> Result<Option<Pending>, VaultError> {
        let name = node.os_name();
        let path = open.path_of(&name);
        let tree = node.subtree.ok_or_else(|| {
            VaultError::damaged("the tree of the snapshot", "a directory has no tree")
        })?;
        let mut next = Pending {
            depth: self.names.len() + 1,
            name,
            node: Some(attributes_of(node)),
            tree,
            exists: true,
            made: None,
        };
        match present {
            Some(stat) if is_dir(&stat) => return Ok(Some(next)),
            Some(_) if self.run.options.overwrite == Overwrite::Never => {
                self.run.skip(&path);
                return Ok(None);
            }
            Some(_) => self.run.note(&path, ChangeKind::Overwrite),
            None => self.run.note(&path, ChangeKind::Create),
        }
        self.summary.dirs += 1;
        let (Some(staging), false) = (&open.staging, self.is_dry()) else {
            next.exists = false;
            return Ok(Some(next));
        };
        let failed = |error| refused(&path, &error);
        if present.is_some() {
            staging.place().remove_file(&next.name).map_err(failed)?;
        }
        let temp = temp_name(&self.run);
        let made = staging.make_dir(&temp, &next.name).map_err(failed)?;
        next.made = Some(made.known().map_err(failed)?);
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A file system without owners and modes, such as vfat, has none that is closed.
    #[test]
    fn a_directory_that_was_made_gets_its_attributes_also_where_none_can_be_closed() {
        let keep = tempfile::tempdir().unwrap();
        let top = Dir::open(&keep.path().canonicalize().unwrap()).unwrap();
        let (dir, other) = (top.make_dir("dir".as_ref()), top.make_dir("other".as_ref()));
        let (dir, other) = (dir.unwrap(), other.unwrap());
        let made = Some(dir.known().unwrap());
        assert_eq!(Origin::of(&dir, made).unwrap(), Origin::Closed);
        let bits = fs::Permissions::from_mode(0o755);
        fs::set_permissions(keep.path().join("dir"), bits).unwrap();
        let open = Origin::of(&dir, made).unwrap();
        assert_eq!(open, Origin::Open);
        let never = RestoreOptions {
            overwrite: Overwrite::Never,
            ..Default::default()
        };
        assert!(!open.stays(&never) && !Origin::Closed.stays(&never));
        for was_there in [Origin::of(&other, made), Origin::of(&other, None)] {
            let was_there = was_there.unwrap();
            assert!(was_there == Origin::Old && was_there.stays(&never));
        }
        assert!(!Origin::Old.stays(&RestoreOptions {
            goes_on: true,
            ..never
        }));
    }
}
