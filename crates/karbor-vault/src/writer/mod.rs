//! Writes a snapshot: trees of files, streams and images in, one snapshot file out, at the very end.

mod copy;
mod dir;
mod file;
mod image;
mod intake;
mod layout;
mod look_back;
mod parent;
mod stream;
mod trail;
mod unreadable;
mod walk;

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use chrono::Utc;
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncRead;

use crate::{
    SnapshotId, SnapshotMeta, SnapshotNumbers, SnapshotSummary, TreeOptions, TreeSummary,
    VaultError,
    engine::{Engine, Worker, WriterState},
    fsio::{self, Names},
    id::Id,
    lock::HeldLock,
    node::{Node, NodeKind},
    reader::BlobReader,
    repository::{self, FileKind, Repository, blocking},
    snapshot::SnapshotJson,
    time::Time,
};
use dir::Root;
use intake::Intake;
use layout::{Folder, Placed};
use look_back::LOOKS_BACK;
use parent::ParentTrees;
use walk::Walker;

/// The parent snapshot, if there is one that can be read.
pub(crate) struct Before {
    pub(crate) id: SnapshotId,
    pub(crate) tree: Id,
    pub(crate) time: Time,
}

/// Writes a snapshot.
///
/// Any failed `add_…` poisons it: `commit` then refuses. So does cancelling. If it is dropped before
/// `commit` has answered, there is no snapshot; what was stored for it already is found again by the next
/// writer as long as this vault is in use by another, and else left to a prune.
pub struct SnapshotWriter {
    repository: Arc<Repository>,
    /// Its threads go on for as long as there are writers.
    _engine: Arc<Engine>,
    held: Arc<HeldLock>,
    intake: Intake,
    meta: SnapshotMeta,
    before: Option<Before>,
    names: Arc<Names>,
    layout: Folder,
    paths: Vec<String>,
    excludes: Vec<String>,
    /// The snapshot this is a copy of.
    original: Option<Id>,
    totals: TreeSummary,
    started: Time,
}

impl std::fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("repository", &self.repository)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// When a writer is dropped, its threads have nothing to do any more.
impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        self.intake
            .writer
            .poison(VaultError::Poisoned("it was given up".to_owned()));
    }
}

impl SnapshotWriter {
    pub(crate) fn new(
        repository: Arc<Repository>,
        engine: Arc<Engine>,
        held: Arc<HeldLock>,
        writer: Arc<WriterState>,
        meta: SnapshotMeta,
        before: Option<Before>,
    ) -> Self {
        engine.register(&writer);
        let intake = Intake {
            shared: engine.shared().clone(),
            chunker: Arc::new(crate::chunker::Chunker::new(repository.seed)),
            writer,
            held: held.clone(),
        };
        Self {
            repository,
            _engine: engine,
            held,
            intake,
            meta,
            before,
            names: Arc::new(Names::load()),
            layout: Folder::default(),
            paths: Vec::new(),
            excludes: Vec::new(),
            original: None,
            totals: TreeSummary::default(),
            started: Utc::now().into(),
        }
    }

    /// Adds the tree of files of an open directory, under the path it was opened by; see
    /// [`TreeSummary::snapshot_path`].
    ///
    /// # Errors
    /// [`VaultError::Source`] when the directory itself cannot be read or was exchanged meanwhile;
    /// [`VaultError::Unreadable`], see [`TreeOptions::on_unreadable`], also when nothing of it can be read.
    pub async fn add_tree(
        &mut self,
        source: &karbor_fs::Dir,
        options: TreeOptions,
    ) -> Result<TreeSummary, VaultError> {
        let done = self.try_add_tree(source, options).await;
        self.settle(done)
    }

    /// Adds all that `reader` gives, as the file `/name`. Answers with its size.
    ///
    /// # Errors
    /// [`VaultError::Source`] when the reader fails. A reader that ends is taken to have given
    /// everything: a reader of a pipe has to turn the other end's failure into an error of its own.
    pub async fn add_stream(
        &mut self,
        name: &str,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<u64, VaultError> {
        let done = self.try_add_stream(name, reader).await;
        self.settle(done)
    }

    /// Adds an image or block device, as the file `/name`, in chunks of 1 MiB; holes are not read.
    /// Answers with its size.
    ///
    /// # Errors
    /// [`VaultError::Source`] when it cannot be read or shrinks.
    pub async fn add_image(&mut self, name: &str, file: File) -> Result<u64, VaultError> {
        let done = self.try_add_image(name, file).await;
        self.settle(done)
    }

    /// A failure is remembered, however it came about.
    fn settle<T>(&self, done: Result<T, VaultError>) -> Result<T, VaultError> {
        let writer = &self.intake.writer;
        match done {
            Ok(value) => writer.check().map(|()| value),
            Err(error) => {
                // What failed first tells more than what failed because of it.
                let first = writer.failure().unwrap_or(error);
                writer.poison(first.clone());
                Err(first)
            }
        }
    }

    async fn try_add_tree(
        &mut self,
        source: &karbor_fs::Dir,
        options: TreeOptions,
    ) -> Result<TreeSummary, VaultError> {
        self.intake.writer.check()?;
        let path = source.path().to_owned();
        if self.layout.is_taken(names_of(&path).map(OsStr::as_bytes)) {
            return Err(VaultError::Invalid(format!(
                "'{}' is in the snapshot already, or contains or is below something that is",
                path.display()
            )));
        }
        self.excludes.extend(options.excludes.iter().cloned());
        let (intake, names) = (self.intake.clone(), self.names.clone());
        let parent = self.parent_trees()?;
        let mut walker = Walker::new(intake, names, options, parent, source.clone())?;
        let result = Arc::new(Root::default());
        let tree = result.clone();
        let (source, names) = (source.clone(), self.names.clone());
        let (mut walker, above, mut root) = blocking(move || {
            let above = nodes_above(&source, &names)?;
            let root = walker.walk(tree)?;
            Ok((walker, above, root))
        })
        .await?;
        let tree = self.whole_tree(&result).await?;
        walker.note_cut(&result);
        let (walker, tree) = self.look_back(walker, tree).await?;
        let mut summary = blocking(move || walker.settle()).await?;
        root.subtree = Some(tree);
        summary.snapshot_path = path.to_string_lossy().into_owned();
        self.paths.push(summary.snapshot_path.clone());
        self.totals.add(&summary);
        match (path.file_name(), root.subtree) {
            (None, Some(tree)) => self.layout.insert_whole(tree),
            _ => self.layout.insert(Placed { above, node: root })?,
        }
        Ok(summary)
    }

    /// Looks at the directories again that were read, as long as there is something new in them.
    async fn look_back(
        &self,
        mut walker: Walker,
        mut tree: Id,
    ) -> Result<(Walker, Id), VaultError> {
        for look in 1..=LOOKS_BACK {
            let (found, looked) = blocking(move || Ok((walker.look_back()?, walker))).await?;
            walker = looked;
            if !found {
                break;
            }
            let result = Arc::new(Root::default());
            let again = result.clone();
            let (has_new, read) = blocking(move || {
                let has_new = walker.read_again(tree, again, look == LOOKS_BACK)?;
                Ok((has_new, walker))
            })
            .await?;
            walker = read;
            tree = self.whole_tree(&result).await?;
            walker.note_cut(&result);
            if !has_new {
                break;
            }
        }
        Ok((walker, tree))
    }

    /// Waits for a tree of which everything was handed in.
    async fn whole_tree(&self, result: &Root) -> Result<Id, VaultError> {
        self.intake.writer.until_idle().await;
        self.intake.writer.check()?;
        result.take_tree().ok_or_else(never_whole)
    }

    fn parent_trees(&self) -> Result<Option<ParentTrees>, VaultError> {
        let parent = self.before.as_ref().map(|before| {
            let reader = Arc::new(BlobReader::new(self.repository.clone()));
            ParentTrees::new(reader, before.tree, before.time)
        });
        parent.transpose()
    }

    /// A file at the root, owned by our own account.
    fn stream_node(&self, name: &str) -> Result<Node, VaultError> {
        let is_name = !name.is_empty() && name != "." && name != "..";
        if !is_name || name.contains(['/', '\0']) {
            return Err(VaultError::Invalid(format!(
                "'{name}' is not the name of a file"
            )));
        }
        if self.layout.is_taken([name.as_bytes()]) {
            return Err(VaultError::Invalid(format!(
                "'{name}' is in the snapshot already"
            )));
        }
        let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
        node.mode = 0o600;
        node.links = 1;
        node.uid = rustix::process::geteuid().as_raw();
        node.gid = rustix::process::getegid().as_raw();
        let time = Time::from(self.meta.time);
        (node.mtime, node.atime, node.ctime) = (time, time, time);
        Ok(node)
    }

    /// Adds a tag to those that the snapshot gets.
    pub fn tag(&mut self, tag: String) {
        self.meta.tags.push(tag);
    }

    /// Makes the snapshot: waits for everything to be in the bank, then writes the snapshot file.
    ///
    /// # Errors
    /// [`VaultError::Poisoned`] if an earlier step failed, [`VaultError::Cancelled`], and failures of the
    /// bank. Then there is no snapshot.
    pub async fn commit(mut self) -> Result<SnapshotSummary, VaultError> {
        let done = self.try_commit().await;
        let held = self.held.clone();
        drop(self);
        held.release().await;
        done
    }

    async fn try_commit(&mut self) -> Result<SnapshotSummary, VaultError> {
        let state = self.intake.writer.clone();
        if let Some(error) = state.failure() {
            return Err(VaultError::Poisoned(error.to_string()));
        }
        state.check()?;
        if self.layout.is_empty() {
            return Err(VaultError::Invalid(
                "a snapshot of nothing is not made".to_owned(),
            ));
        }
        let layout = std::mem::take(&mut self.layout);
        let mut worker = Worker::new(self.intake.shared.clone())?;
        let writer = state.clone();
        let (tree, folders) = blocking(move || layout.store(&mut worker, &writer)).await?;
        self.totals.dirs += folders;
        self.intake.flush().await?;
        self.held.check_held().await?;
        let json = repository::json(&self.snapshot(tree))?;
        let id = self.repository.save(FileKind::Snapshot, &json).await?;
        // Exchanged between the look before the snapshot was written and its writing, it is where it helps
        // nobody. All that was written before it went to the repository that was in place just then.
        self.repository.check_in_place().await?;
        Ok(self.summary(SnapshotId(id)))
    }

    fn snapshot(&self, tree: Id) -> SnapshotJson {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let engine = &self.intake.writer.totals;
        let [data_blobs, tree_blobs] = [0, 1].map(|kind| engine.new_blobs[kind].load(Relaxed));
        let totals = &self.totals;
        SnapshotJson {
            time: self.meta.time.into(),
            parent: self.before.as_ref().map(|before| before.id.0),
            tree,
            paths: Some(self.paths.clone()),
            hostname: self.meta.hostname.clone(),
            username: self.meta.username.clone(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            excludes: some(&self.excludes),
            tags: some(&self.meta.tags),
            original: self.original,
            program_version: Some(concat!("karbor ", env!("CARGO_PKG_VERSION")).to_owned()),
            summary: Some(SnapshotNumbers {
                backup_start: self.started.to_text(),
                backup_end: Time::from(Utc::now()).to_text(),
                files_new: totals.files.saturating_sub(totals.unmodified),
                files_unmodified: totals.unmodified,
                dirs_new: totals.dirs,
                data_blobs,
                tree_blobs,
                data_added: engine.new_data.load(Relaxed),
                data_added_packed: engine.new_bytes.load(Relaxed),
                total_files_processed: totals.files,
                total_bytes_processed: totals.bytes,
                ..SnapshotNumbers::default()
            }),
        }
    }

    fn summary(&self, id: SnapshotId) -> SnapshotSummary {
        let engine = &self.intake.writer.totals;
        SnapshotSummary {
            id,
            files: self.totals.files,
            dirs: self.totals.dirs,
            bytes: self.totals.bytes,
            new_data: engine.new_data.load(Relaxed),
            new_bytes: engine.new_bytes.load(Relaxed),
            unmodified: self.totals.unmodified,
            left_out: self.totals.left_out.clone(),
            changed: self.totals.changed.clone(),
            unreadable: self.totals.unreadable.clone(),
            warnings: self.totals.warnings.clone(),
        }
    }
}

impl TreeSummary {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.dirs += other.dirs;
        self.bytes += other.bytes;
        self.unmodified += other.unmodified;
        self.left_out.add(&other.left_out);
        self.changed.add(&other.changed);
        self.unreadable.add(&other.unreadable);
        self.warnings.add(&other.warnings);
    }
}

fn never_whole() -> VaultError {
    VaultError::Internal("a tree was read, but never became whole".to_owned())
}

fn names_of(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// Nodes of the directories above one, outermost first.
fn nodes_above(dir: &karbor_fs::Dir, names: &Names) -> Result<Vec<Node>, VaultError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut nodes = Vec::new();
    let mut below: Option<OwnedFd> = None;
    for path in dir.path().ancestors().skip(1) {
        let Some(name) = path.file_name() else { break };
        let failed = |error| VaultError::source(path.to_string_lossy(), error);
        let at = below.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        let above = rustix::fs::openat(at, "..", flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&above).map_err(failed)?;
        nodes.push(fsio::node_of(name, NodeKind::Dir, &stat, names));
        below = Some(above);
    }
    nodes.reverse();
    Ok(nodes)
}
