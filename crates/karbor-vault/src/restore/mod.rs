//! Restores files.
//!
//! One thread walks the snapshot, decides what happens to every entry, and makes directories, links and
//! special files; as many as there are cores read blobs, check them and write files. A file is written
//! beside its place under a name of ours and renamed when it is whole and has all its attributes, so at any
//! moment there is the old one or the new one, and it is on stable storage before it has its name. At
//! the end hard links are made, then directories get their attributes, innermost first, and the file
//! system is synced. Who dies half-way leaves files named `.karbor-restore-…`; the next restore into the
//! same directories removes them. Those of a restore that is alive are locked, so several restores may run
//! into one place.
//!
//! Nothing is followed below the target: not a link that is there already, not one from the snapshot, and
//! names such as `..` or `a/b` are refused when a tree is read. Where the snapshot has a directory and
//! the target a link or file, it counts as a file that is there already.
//!
//! Memory: 32 MiB of windows into packs, a blob (8 MiB at worst, 1 MiB usually) in two forms for each
//! thread, and for each directory and hard link of the snapshot its attributes until the end.

mod attributes;
mod file;
mod plan;

use std::{
    ffi::OsStr,
    os::fd::BorrowedFd,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    Control, Overwrite, RestoreOptions, RestoreSummary, Snapshot, SnapshotId, Vault, VaultError,
    crypto,
    engine::{Decoder, Queue, worker_count},
    fsio::{self, Root},
    node::{Kind, Node},
    reader::BlobReader,
    repository::{blocking, lock},
};
use file::{Batch, Segment};
use plan::Planner;
use rustix::io::Errno;

/// So much of files waits for a worker; it is their number that matters, for each keeps two files open.
const QUEUE_LIMIT: usize = 128;

/// What the threads of a restore share.
pub(crate) struct Run {
    reader: BlobReader,
    options: RestoreOptions,
    control: Control,
    queue: Queue<Segment>,
    failure: Mutex<Option<VaultError>>,
    failed: AtomicBool,
    is_root: bool,
    /// Random, for names that no other restore uses.
    id: u64,
    temps: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    warnings: AtomicU64,
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

    /// What was made under a name of ours gets its own.
    fn rename(
        &self,
        dir: BorrowedFd<'_>,
        temp: &OsStr,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), VaultError> {
        let renamed = match self.options.overwrite {
            Overwrite::Never => fsio::rename_new(dir, temp, name),
            Overwrite::IfChanged | Overwrite::Always => rustix::fs::renameat(dir, temp, dir, name),
        };
        renamed.map_err(|error| {
            let path = path.to_string_lossy();
            match error {
                Errno::EXIST if self.options.overwrite == Overwrite::Never => {
                    VaultError::target(path, "somebody made it while it was being restored")
                }
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
                    VaultError::target(path, "a directory is in its place")
                }
                error => VaultError::target(path, error),
            }
        })
    }

    fn warn(&self, path: &Path, what: &str, error: impl std::fmt::Display) {
        tracing::debug!(path = %path.display(), %error, "{what} could not be restored");
        self.warnings.fetch_add(1, Ordering::Relaxed);
    }

    fn work(&self, workers: usize) {
        let mut batch = Batch::new(workers);
        let done = Decoder::new().and_then(|mut decoder| {
            while let Some(segment) = self.queue.pop() {
                self.check()?;
                if let Some(file) = segment.write(self, &mut decoder)? {
                    batch.add(self, file)?;
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
    /// Restores the files of a snapshot below `target`, which is made if it is not there.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] names the object and the file that needs it, [`VaultError::Target`] a file
    /// that cannot be written, [`VaultError::NoSuchSnapshot`], [`VaultError::NoSuchPath`],
    /// [`VaultError::Cancelled`]. Files that were restored until then stay; none is half-written.
    pub async fn restore_tree(
        &self,
        id: &SnapshotId,
        target: &Path,
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
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            warnings: AtomicU64::new(0),
        };
        let target = target.to_owned();
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
    target: &Path,
    workers: usize,
) -> Result<RestoreSummary, VaultError> {
    let mut decoder = Decoder::new()?;
    let start = find(
        &run.reader,
        snapshot,
        run.options.subpath.as_deref(),
        &mut decoder,
    )?;
    let mut planner = Planner::new(run.clone(), target, decoder)?;
    let planned = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| run.work(workers));
        }
        let planned = planner.plan(start);
        match &planned {
            Ok(()) => run.queue.close(),
            Err(error) => run.fail(error.clone()),
        }
        planned
    });
    // What a worker ran into comes first: the planner may have stopped because of it.
    run.check()?;
    planned?;
    planner.finish()?;
    let mut summary = planner.summary;
    summary.files += run.files.load(Ordering::Relaxed);
    summary.bytes += run.bytes.load(Ordering::Relaxed);
    summary.warnings += run.warnings.load(Ordering::Relaxed);
    Ok(summary)
}

/// What to restore.
enum Start {
    /// What this tree holds; the node of its directory, if it has one.
    Tree(crate::id::Id, Option<Node>),
    /// This one thing.
    Single(Node),
}

/// The entry at a path in a snapshot; `None` is its root.
pub(crate) fn find_node(
    reader: &BlobReader,
    snapshot: &Snapshot,
    path: &str,
    decoder: &mut Decoder,
) -> Result<Option<Node>, VaultError> {
    let mut tree = Some(snapshot.tree);
    let mut found: Option<Node> = None;
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
        found = Some(node);
    }
    Ok(found)
}

fn find(
    reader: &BlobReader,
    snapshot: &Snapshot,
    subpath: Option<&str>,
    decoder: &mut Decoder,
) -> Result<Start, VaultError> {
    let node = find_node(reader, snapshot, subpath.unwrap_or_default(), decoder)?;
    Ok(match node {
        None => Start::Tree(snapshot.tree, None),
        Some(node) => match node.subtree {
            Some(tree) if node.kind == Kind::Dir => Start::Tree(tree, Some(node)),
            _ => Start::Single(node),
        },
    })
}

fn open_target(target: &Path, dry_run: bool) -> Result<(Option<Root>, bool), VaultError> {
    let failed = |error: String| VaultError::target(target.to_string_lossy(), error);
    match Root::open(target) {
        Ok(root) => return Ok((Some(root), false)),
        Err(rustix::io::Errno::NOENT) if dry_run => return Ok((None, true)),
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    std::fs::create_dir_all(target).map_err(|error| failed(error.to_string()))?;
    let root = Root::open(target).map_err(|error| failed(error.to_string()))?;
    Ok((Some(root), true))
}
