//! Restores files.
//!
//! One thread walks the snapshot, decides what happens to every entry, and makes directories, links and
//! special files; as many as there are cores read blobs, check them, compare and write files. A file is written
//! under a name of ours and renamed when it is whole and has all its attributes, so at any
//! moment there is the old one or the new one, and it is on stable storage before it has its name. At
//! the end hard links are made, then directories get their attributes, and the file
//! system is synced. What dies half-way leaves files and directories named `.karbor-restore-…`; the next restore
//! into the same directories removes them. Those of a restore that is alive are locked, so several restores may
//! run into one place; what cannot be locked, such as links, is made in directories that are.
//!
//! # Beside others who may write there
//!
//! The target may belong to a user who renames, links and exchanges what is in it while a restore runs as root.
//! So no path is used after the target was opened, no link is followed below it, and:
//!
//! * What is made is made in a [`Staging`]: where nobody else can open, link or exchange it.
//! * A file that is there is never changed, neither content nor attributes: somebody may have it open, or it may
//!   be another one than it seems. One that differs in anything is replaced by a new one. What runs with its
//!   owner's rights, or with capabilities, is replaced even where it does not differ.
//! * A new directory is closed (0700) until everything is restored. It then gets its attributes only if it is
//!   the same that was made ([`karbor_fs::Known`]). One that was there gets them too, unless that would give away what
//!   the snapshot does not have to somebody who could have moved it there; and one that was made counts as such if
//!   another was put in its place, or it was opened to others, by the time that it is entered again.
//!   Where another directory is in the place of one that something was restored to, the restore fails in the end.
//! * A hard link leads to the file that was written or compared, by a name in a closed directory.
//!
//! Names such as `..` or `a/b` are refused when a tree is read. Where the snapshot has a directory and
//! the target a link or file, it counts as a file that is there already.
//!
//! Memory: 32 MiB of windows into packs, a blob (8 MiB at worst, 1 MiB usually) in two forms for each
//! thread, and for each directory and hard link of the snapshot its attributes until the end. Depth costs
//! nothing more ([`karbor_fs::Trail`]).

mod attributes;
mod compare;
mod file;
mod finish;
mod plan;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use karbor_fs::{Access, Dir, Found, Identity, NotGiven, Refused, Replace, Staging};
use rustix::io::Errno;

use crate::{
    Change, ChangeKind, Control, Overwrite, RestoreOptions, RestoreSummary, Snapshot, SnapshotId,
    Vault, VaultError, crypto,
    engine::{Decoder, Queue, worker_count},
    id::Id,
    node::{Kind, Node},
    reader::BlobReader,
    repository::{blocking, lock},
};
use attributes::is_refusal;
use compare::Check;
use file::{Batch, Segment, temp_name};
use plan::Planner;

/// So much of files waits for a worker; it is their number that matters, for each keeps two files open.
const QUEUE_LIMIT: usize = 128;

/// Work for a thread.
enum Job {
    Write(Segment),
    Check(Box<Check>),
}

/// What the threads of a restore share.
pub(crate) struct Run {
    reader: BlobReader,
    options: RestoreOptions,
    control: Control,
    queue: Queue<Job>,
    failure: Mutex<Option<VaultError>>,
    failed: AtomicBool,
    is_root: bool,
    /// Random, for names that no other restore uses.
    id: u64,
    temps: AtomicU64,
    /// The target's path, for messages.
    target: PathBuf,
    stash: Mutex<Option<Stash>>,
    files: AtomicU64,
    bytes: AtomicU64,
    unchanged: AtomicU64,
    skipped: AtomicU64,
    warnings: AtomicU64,
    notes: Mutex<Notes>,
}

/// What is told by name.
#[derive(Default)]
struct Notes {
    changes: Vec<Change>,
    changes_total: u64,
    warned: Vec<String>,
}

/// One file of the snapshot, whatever its names. By content too, for a file may change between the reading
/// of one name and the other.
type LinkKey = (u64, u64, Id);

fn link_key(node: &Node) -> LinkKey {
    let blobs: Vec<u8> = node.content.iter().flat_map(|blob| blob.0).collect();
    (node.inode, node.device_id, Id::of(&blobs))
}

/// Files with several names have one more here, until the end: the one that the others are made from, since
/// nobody else can exchange it.
struct Stash {
    staging: Staging,
    files: HashMap<LinkKey, Stashed>,
}

#[derive(Clone)]
struct Stashed {
    name: OsString,
    identity: Identity,
}

impl Drop for Stash {
    fn drop(&mut self) {
        for stashed in self.files.values() {
            let dir = self.staging.dir();
            if let Err(error) = dir.and_then(|dir| dir.remove_file(&stashed.name)) {
                tracing::warn!(%error, "a name of a restored file stays behind");
            }
        }
    }
}

/// An error about a file of the target.
fn refused(path: &Path, error: &Refused) -> VaultError {
    let reason = match error {
        Refused::System { errno, .. } => errno.to_string(),
        other => other.to_string(),
    };
    VaultError::target(path.to_string_lossy(), reason)
}

impl Run {
    fn is_stopped(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.control.cancel.is_cancelled()
    }

    fn fail(&self, error: VaultError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        // Files that were begun go as their segments do.
        self.queue.clear();
    }

    fn check(&self) -> Result<(), VaultError> {
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        match self.control.cancel.is_cancelled() {
            true => Err(VaultError::Cancelled),
            false => Ok(()),
        }
    }

    /// Is everything that is there left as it is?
    fn leaves_all(&self) -> bool {
        self.options.overwrite == Overwrite::Never && !self.options.goes_on
    }

    fn is_dry(&self) -> bool {
        self.options.dry_run
    }

    /// What was made under a name of ours gets its own.
    fn rename(
        &self,
        staging: &Staging,
        within: &Dir,
        temp: &OsStr,
        name: &OsStr,
        replaces: bool,
    ) -> Result<(), VaultError> {
        let is_never = self.options.overwrite == Overwrite::Never && !replaces;
        let replace = match is_never {
            true => Replace::No,
            false => Replace::Yes,
        };
        let done = staging.finish(within, temp, name, replace);
        done.map_err(|error| {
            let path = staging.place().path_of(name);
            let reason = match error.errno() {
                Some(Errno::EXIST) if is_never => "somebody made it while it was being restored",
                Some(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                    "a directory is in its place"
                }
                _ => return refused(&path, &error),
            };
            VaultError::target(path.to_string_lossy(), reason)
        })
    }

    /// Keeps an open file for the hard links to it. Where files can have one name only, each is written.
    fn stash(&self, file: impl AsFd, node: &Node) -> Result<(), VaultError> {
        let mut stash = lock(&self.stash);
        let Some(stash) = &mut *stash else {
            return Ok(());
        };
        let path = stash.staging.place().path_of(&node.os_name());
        let name = temp_name(self);
        let dir = stash.staging.dir();
        match dir.and_then(|dir| dir.link_file(&file, &name)) {
            Ok(()) => {}
            Err(error) if error.errno().is_some_and(has_no_links) => return Ok(()),
            Err(error) => return Err(refused(&path, &error)),
        }
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| VaultError::target(path.to_string_lossy(), error))?;
        let identity = Identity::of(&stat);
        let stashed = Stashed { name, identity };
        // One that can have no more names is written again, and the next are made from that.
        let full = stash.files.insert(link_key(node), stashed);
        if let Some(full) = full {
            let removed = stash
                .staging
                .dir()
                .and_then(|dir| dir.remove_file(&full.name));
            removed.map_err(|error| refused(&path, &error))?;
        }
        Ok(())
    }

    /// What hard links are made from: the directory, and the file in it.
    fn stashed(&self, key: &LinkKey) -> Result<Option<(Dir, Stashed)>, Refused> {
        let stash = lock(&self.stash);
        let Some(stash) = &*stash else {
            return Ok(None);
        };
        let Some(stashed) = stash.files.get(key) else {
            return Ok(None);
        };
        Ok(Some((stash.staging.dir()?, stashed.clone())))
    }

    fn relative(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.target) {
            Ok(top) if top.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        }
    }

    /// In a dry run: what would happen to a path.
    fn note(&self, path: &Path, kind: ChangeKind) {
        if !self.is_dry() {
            return;
        }
        let mut notes = lock(&self.notes);
        if kind != ChangeKind::Skip {
            notes.changes_total += 1;
        }
        if notes.changes.len() < RestoreSummary::MAX_CHANGES {
            let path = self.relative(path);
            notes.changes.push(Change { path, kind });
        }
    }

    fn skip(&self, path: &Path) {
        self.note(path, ChangeKind::Skip);
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    fn warn(&self, path: &Path, what: &str, error: impl std::fmt::Display) {
        self.tell(path, &format!("{what} could not be restored: {error}"));
    }

    /// Warns of a path; the first are named.
    fn tell(&self, path: &Path, what: &str) {
        tracing::debug!(path = %path.display(), "{what}");
        self.warnings.fetch_add(1, Ordering::Relaxed);
        let mut notes = lock(&self.notes);
        if notes.warned.len() < RestoreSummary::MAX_NAMED {
            let relative = self.relative(path);
            notes
                .warned
                .push(format!("'{}': {what}", relative.display()));
        }
    }

    fn work(&self, workers: usize) {
        let mut batch = Batch::new(workers);
        let done = Decoder::new().and_then(|mut decoder| {
            while let Some(job) = self.queue.pop() {
                self.check()?;
                match job {
                    Job::Write(segment) => {
                        if let Some(file) = segment.write(self, &mut decoder)? {
                            batch.add(self, file)?;
                        }
                    }
                    Job::Check(check) => check.run(self, &mut batch, &mut decoder)?,
                }
            }
            self.check()?;
            batch.place(self)
        });
        if let Err(error) = done {
            self.fail(error);
        }
    }
}

impl Vault {
    /// Restores the files of a snapshot below `target` ([`Dir::find`]), which is made if it is not there, and
    /// what is missing above it. What is made above it gets owner and mode as the snapshot has them if
    /// it goes back to where it was, else mode 0755. The target itself stays closed (0700) until all is restored,
    /// if it was made here.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] names the object and the file that needs it, [`VaultError::Target`] a file
    /// that cannot be written, [`VaultError::NoSuchSnapshot`], [`VaultError::NoSuchPath`],
    /// [`VaultError::Cancelled`]. Files that were restored until then stay; none is half-written.
    pub async fn restore_tree(
        &self,
        id: &SnapshotId,
        target: Found,
        options: RestoreOptions,
        control: Control,
    ) -> Result<RestoreSummary, VaultError> {
        let repository = &self.inner.repository;
        let held = self.inner.locks.for_reading(repository).await?;
        // In this order: once a snapshot is seen, its index files are there.
        let snapshot = self.snapshot(id).await?;
        repository.refresh_index().await?;
        expect(&snapshot, &options, &control);
        let mut run_id = [0; 8];
        crypto::random(&mut run_id)?;
        let run = Run {
            reader: BlobReader::new(repository.clone()),
            options,
            control,
            queue: Queue::new(QUEUE_LIMIT),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            is_root: rustix::process::geteuid().is_root(),
            id: u64::from_le_bytes(run_id),
            temps: AtomicU64::new(0),
            target: path_of(&target),
            stash: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            warnings: AtomicU64::new(0),
            notes: Mutex::default(),
        };
        let workers = worker_count(repository.options.workers);
        let done = blocking(move || restore(&Arc::new(run), &snapshot, &target, workers)).await;
        if let Some(held) = held {
            held.release().await;
        }
        done
    }
}

/// Tells how much there is, if the snapshot says so.
fn expect(snapshot: &Snapshot, options: &RestoreOptions, control: &Control) {
    let is_all = match (&options.subpath, &snapshot.paths[..]) {
        (None, _) => true,
        (Some(subpath), [path]) => subpath.trim_matches('/') == path.trim_matches('/'),
        _ => false,
    };
    if let Some(numbers) = snapshot.numbers.as_ref().filter(|_| is_all) {
        control.progress.expect_bytes(numbers.total_bytes_processed);
    }
}

fn restore(
    run: &Arc<Run>,
    snapshot: &Snapshot,
    target: &Found,
    workers: usize,
) -> Result<RestoreSummary, VaultError> {
    let mut decoder = Decoder::new()?;
    let subpath = run.options.subpath.as_deref().unwrap_or_default();
    let way = find_way(&run.reader, snapshot, subpath, &mut decoder)?;
    let (root, is_new) = open_target(run, target, subpath, &way)?;
    if let (Some(root), false) = (&root, run.is_dry()) {
        *lock(&run.stash) = Some(Stash {
            staging: Staging::apart(root.clone(), temp_name(run)),
            files: HashMap::new(),
        });
    }
    let mut planner = Planner::new(run.clone(), root, is_new, decoder)?;
    let planned = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| run.work(workers));
        }
        let planned = planner.plan(start(snapshot, way));
        match &planned {
            Ok(()) => run.queue.close(),
            Err(error) => run.fail(error.clone()),
        }
        planned
    });
    // What a worker ran into comes first: the planner may have stopped because of it.
    run.check()?;
    planned?;
    let mut summary = planner.finish()?;
    summary.files += run.files.load(Ordering::Relaxed);
    summary.bytes += run.bytes.load(Ordering::Relaxed);
    summary.unchanged += run.unchanged.load(Ordering::Relaxed);
    summary.skipped += run.skipped.load(Ordering::Relaxed);
    summary.warnings += run.warnings.load(Ordering::Relaxed);
    let notes = std::mem::take(&mut *lock(&run.notes));
    summary.changes = notes.changes;
    summary
        .changes
        .sort_by(|one, other| one.path.cmp(&other.path));
    summary.changes_total = notes.changes_total;
    summary.warned = notes.warned;
    Ok(summary)
}

/// What to restore.
enum Start {
    /// What this tree holds; the node of its directory, if it has one.
    Tree(crate::id::Id, Option<Node>),
    /// This one thing.
    Single(Node),
}

/// The entries on a path in a snapshot, outermost first; none for its root.
fn find_way(
    reader: &BlobReader,
    snapshot: &Snapshot,
    path: &str,
    decoder: &mut Decoder,
) -> Result<Vec<Node>, VaultError> {
    let mut tree = Some(snapshot.tree);
    let mut way = Vec::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let nodes = match tree {
            Some(tree) => reader.tree(&tree, decoder)?,
            None => Vec::new(),
        };
        let node = nodes.into_iter().find(|node| node.name == name.as_bytes());
        let node = node.ok_or_else(|| VaultError::NoSuchPath {
            snapshot: snapshot.id.to_string(),
            path: path.to_owned(),
        })?;
        tree = node.subtree.filter(|_| node.kind == Kind::Dir);
        way.push(node);
    }
    Ok(way)
}

/// The entry at a path in a snapshot; `None` is its root.
pub(crate) fn find_node(
    reader: &BlobReader,
    snapshot: &Snapshot,
    path: &str,
    decoder: &mut Decoder,
) -> Result<Option<Node>, VaultError> {
    Ok(find_way(reader, snapshot, path, decoder)?.pop())
}

fn start(snapshot: &Snapshot, mut way: Vec<Node>) -> Start {
    match way.pop() {
        None => Start::Tree(snapshot.tree, None),
        Some(node) => match node.subtree {
            Some(tree) if node.kind == Kind::Dir => Start::Tree(tree, Some(node)),
            _ => Start::Single(node),
        },
    }
}

/// The path that was looked for.
fn path_of(target: &Found) -> PathBuf {
    match target {
        Found::Dir(dir) => dir.path().to_owned(),
        Found::Other(dir, name, _) => dir.path().join(name),
        Found::Missing(dir, names) => names.iter().fold(dir.path().to_owned(), |p, n| p.join(n)),
    }
}

/// Mode of directories above a target, where the snapshot knows none.
const ABOVE: Access = Access {
    mode: 0o755,
    owner: None,
};

/// Opens the target, or makes it; whether it was made. `None`: it is not there, and this is a dry run.
fn open_target(
    run: &Run,
    target: &Found,
    subpath: &str,
    way: &[Node],
) -> Result<(Option<Dir>, bool), VaultError> {
    let (dir, names) = match target {
        Found::Dir(dir) => return Ok((Some(dir.clone()), false)),
        Found::Missing(..) if run.is_dry() => return Ok((None, true)),
        Found::Missing(dir, names) => (dir, names),
        Found::Other(..) => {
            let reason = "it is not a directory; remove it, or restore to another place";
            return Err(VaultError::target(run.target.to_string_lossy(), reason));
        }
    };
    let is_back = run.target == Path::new("/").join(subpath.trim_start_matches('/'));
    let above = |number: usize| {
        let at = (way.len() + number).checked_sub(names.len());
        let node = at.and_then(|at| way.get(at)).filter(|_| is_back);
        node.map_or(ABOVE, |node| Access {
            mode: node.mode,
            owner: Some((node.uid, node.gid)),
        })
    };
    let access = |number| match number + 1 == names.len() {
        true => Access {
            mode: 0o700,
            owner: None,
        },
        false => above(number),
    };
    let not_given = |left: NotGiven| run.warn(&left.path, left.what, left.errno);
    let made = dir.make_dirs(names, || temp_name(run), access, not_given);
    let (root, is_new) = made.map_err(|error| refused(&run.target, &error))?;
    Ok((Some(root), is_new))
}

/// Is this how a file system says that a file can have no more names?
fn has_no_links(error: Errno) -> bool {
    is_refusal(error) || matches!(error, Errno::MLINK | Errno::XDEV | Errno::ROFS)
}
