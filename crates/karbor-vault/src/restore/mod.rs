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
mod run;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use karbor_fs::{Access, Dir, Found, NotGiven, Staging};

use crate::{
    Control, RestoreOptions, RestoreSummary, Snapshot, SnapshotId, Vault, VaultError, crypto,
    engine::{Decoder, Queue, worker_count},
    node::{Node, NodeKind},
    reader::BlobReader,
    repository::{blocking, lock},
};
use file::temp_name;
use plan::{Planner, Start};
use run::{QUEUE_LIMIT, Restoring, Stash, refused};

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
        let run = Restoring {
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
    run: &Arc<Restoring>,
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
        tree = node.subtree.filter(|_| node.kind == NodeKind::Dir);
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
            Some(tree) if node.kind == NodeKind::Dir => Start::Tree(tree, Some(node)),
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
    run: &Restoring,
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
