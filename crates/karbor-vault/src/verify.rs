//! Verifies snapshots: is what they claim really in the bank?
//!
//! Damage does not stop a verification: it goes on to the end, names the first it found with the file that
//! needs it, and says how much more there is. Then damaged packs are taken out of the index (`mend.rs`).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use karbor_fs::shown;

use crate::{
    Control, Snapshot, SnapshotId, Vault, VaultError, VerifyLevel, VerifySummary, crypto,
    engine::{Decoder, Queue, worker_count},
    id::Id,
    index::{IdMap, IdSet},
    node::{Node, NodeKind},
    pack::BlobKind,
    reader::{BlobReader, pack_header},
    repository::{FileKind, blocking, lock, read, write},
};

/// So many blobs wait for a worker.
const QUEUE_LIMIT: usize = 4096;

/// A blob to be read, and a file that needs it.
struct Job {
    blob: Id,
    file: Arc<Path>,
}

/// What the threads of a verification share.
struct Verifying {
    reader: BlobReader,
    control: Control,
    queue: Queue<Job>,
    findings: Mutex<Findings>,
    blobs_read: AtomicU64,
    bytes_read: AtomicU64,
}

#[derive(Default)]
struct Findings {
    /// The first damage.
    damage: Option<VaultError>,
    more: u64,
    /// Not damage, but an end: the bank failed, or we were cancelled.
    end: Option<VaultError>,
}

impl Verifying {
    /// Notes damage; anything else ends the run.
    fn found(&self, error: VaultError) {
        let mut findings = lock(&self.findings);
        match error {
            VaultError::Damaged { .. } if findings.damage.is_none() => {
                findings.damage = Some(error);
            }
            VaultError::Damaged { .. } => findings.more += 1,
            error => {
                findings.end.get_or_insert(error);
                drop(findings);
                self.queue.clear();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.control.cancel.is_cancelled() || lock(&self.findings).end.is_some()
    }

    fn work(&self) {
        let mut decoder = match Decoder::new() {
            Ok(decoder) => decoder,
            Err(error) => return self.found(error),
        };
        while let Some(job) = self.queue.pop() {
            if self.is_over() {
                return;
            }
            match self.reader.load(BlobKind::Data, &job.blob, &mut decoder) {
                Ok(data) => {
                    self.blobs_read.fetch_add(1, Relaxed);
                    self.bytes_read.fetch_add(data.len() as u64, Relaxed);
                    self.control.progress.add_bytes(data.len() as u64);
                }
                Err(error) => self.found(error.for_file(&job.file.to_string_lossy())),
            }
        }
    }

    fn outcome(&self, summary: VerifySummary) -> Result<VerifySummary, VaultError> {
        let findings = std::mem::take(&mut *lock(&self.findings));
        if self.control.cancel.is_cancelled() {
            return Err(VaultError::Cancelled);
        }
        if let Some(end) = findings.end {
            return Err(end);
        }
        match findings.damage {
            None => Ok(summary),
            Some(mut damage) => {
                if let VaultError::Damaged { others, .. } = &mut damage {
                    *others = findings.more;
                }
                Err(damage)
            }
        }
    }
}

impl Vault {
    /// Verifies a snapshot. Counts as progress: bytes of data that were read.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] names the first damaged object and a file that needs it;
    /// [`VaultError::NoSuchSnapshot`], [`VaultError::Cancelled`], failures of the bank.
    pub async fn verify(
        &self,
        id: &SnapshotId,
        level: VerifyLevel,
        control: Control,
    ) -> Result<VerifySummary, VaultError> {
        let repository = &self.inner.repository;
        let held = self.inner.locks.for_reading(repository).await?;
        let snapshot = self.snapshot(id).await?;
        repository.refresh_index().await?;
        // One listing rather than a question for each pack.
        let sizes = repository.packs_in_bank().await?;
        let run = Verifying {
            reader: BlobReader::new(repository.clone()),
            control,
            queue: Queue::new(QUEUE_LIMIT),
            findings: Mutex::default(),
            blobs_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        };
        let workers = worker_count(repository.options.workers);
        let choice = Choice::of(level)?;
        let runtime = tokio::runtime::Handle::current();
        let done = blocking(move || {
            let mut walk = Walk {
                run: &run,
                runtime,
                choice,
                sizes,
                packs: HashMap::default(),
                seen: [IdSet::default(), IdSet::default()],
                spare: None,
                is_sampled: false,
                summary: VerifySummary::default(),
            };
            std::thread::scope(|scope| {
                if walk.choice.is_some() {
                    for _ in 0..workers {
                        scope.spawn(|| run.work());
                    }
                }
                if let Err(error) = walk.snapshot(&snapshot) {
                    run.found(error);
                }
                walk.read_spare();
                run.queue.close();
            });
            let mut summary = walk.summary;
            summary.blobs_read = run.blobs_read.load(Relaxed);
            summary.bytes_read = run.bytes_read.load(Relaxed);
            run.outcome(summary)
        })
        .await;
        if let Some(held) = held {
            if !matches!(done, Err(VaultError::Cancelled)) {
                self.mend_or_warn(&held).await;
            }
            held.release().await;
        }
        done
    }
}

/// Which blobs are read.
struct Choice {
    percent: u8,
    /// Makes it another part every time.
    salt: u64,
}

impl Choice {
    fn of(level: VerifyLevel) -> Result<Option<Self>, VaultError> {
        match level {
            VerifyLevel::Metadata => Ok(None),
            VerifyLevel::Data { percent } if (1..=100).contains(&percent) => {
                let mut salt = [0; 8];
                crypto::random(&mut salt)?;
                Ok(Some(Self {
                    percent,
                    salt: u64::from_le_bytes(salt),
                }))
            }
            VerifyLevel::Data { percent } => Err(VaultError::Invalid(format!(
                "{percent} percent of the data cannot be read: 1 to 100 can"
            ))),
        }
    }

    fn takes(&self, blob: &Id) -> bool {
        self.rank(blob) % 100 < u64::from(self.percent)
    }

    /// A number that is another one every time.
    fn rank(&self, blob: &Id) -> u64 {
        let number = blob
            .0
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // A multiplication, for salting by exclusive or would keep neighbours together.
        let mixed = (number ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed >> 32
    }
}

/// The walk through a snapshot's trees.
struct Walk<'a> {
    run: &'a Verifying,
    runtime: tokio::runtime::Handle,
    choice: Option<Choice>,
    /// Packs in the bank.
    sizes: IdMap<u64>,
    /// Packs that were looked at, and whether they are as they should be.
    packs: IdMap<bool>,
    seen: [IdSet; 2],
    /// Read if none other is: the one that comes first by [`Choice::rank`].
    spare: Option<(u64, Job)>,
    is_sampled: bool,
    summary: VerifySummary,
}

impl Walk<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), VaultError> {
        let mut decoder = Decoder::new()?;
        let mut pending = vec![(snapshot.tree, PathBuf::from("/"))];
        while let Some((tree, path)) = pending.pop() {
            if !self.seen[BlobKind::Tree as usize].insert(tree) {
                continue;
            }
            self.summary.trees += 1;
            self.locate(BlobKind::Tree, &tree, &path);
            let nodes = match self.run.reader.tree(&tree, &mut decoder) {
                Ok(nodes) => nodes,
                Err(error) => {
                    self.run.found(error.for_file(&path.to_string_lossy()));
                    continue;
                }
            };
            for node in nodes.into_iter().rev() {
                if self.run.is_over() {
                    return Ok(());
                }
                let path = shown(&path, &node.os_name());
                match (node.kind, node.subtree) {
                    (NodeKind::Dir, Some(tree)) => pending.push((tree, path)),
                    (NodeKind::File, _) => self.file(&node, path),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, node: &Node, path: PathBuf) {
        self.summary.files += 1;
        let path: Arc<Path> = path.into();
        let mut size = Some(0);
        for blob in &node.content {
            let length = self.blob(blob, &path);
            size = size.zip(length).map(|(size, length)| size + length);
        }
        if let Some(size) = size.filter(|size| *size != node.size) {
            let reason = format!("it says {} bytes, but its blobs have {size}", node.size);
            let damage = VaultError::damaged("a tree of the snapshot", reason);
            self.run.found(damage.for_file(&path.to_string_lossy()));
        }
    }

    /// Answers with its length if it is there.
    fn blob(&mut self, blob: &Id, path: &Arc<Path>) -> Option<u64> {
        if !self.seen[BlobKind::Data as usize].insert(*blob) {
            let at = self.run.reader.locate(BlobKind::Data, blob).ok()?;
            return Some(at.plain_length().into());
        }
        self.summary.blobs += 1;
        let length = self.locate(BlobKind::Data, blob, path)?;
        if let Some(choice) = &self.choice {
            let job = Job {
                blob: *blob,
                file: path.clone(),
            };
            let rank = choice.rank(blob);
            if choice.takes(blob) {
                self.is_sampled = true;
                self.read(job);
            } else if self.spare.as_ref().is_none_or(|(least, _)| rank < *least) {
                self.spare = Some((rank, job));
            }
        }
        Some(length)
    }

    fn read(&self, job: Job) {
        // Refused means that the run is over, which the walk sees for itself.
        self.run.queue.push(1, job, || self.run.is_over()).ok();
    }

    /// A few percent of a few blobs may be none: one is read at least.
    fn read_spare(&mut self) {
        if let Some((_, job)) = self.spare.take().filter(|_| !self.is_sampled) {
            self.read(job);
        }
    }

    /// Is a blob in the index, in a pack that is in the bank?
    fn locate(&mut self, kind: BlobKind, blob: &Id, path: &Path) -> Option<u64> {
        let at = match self.run.reader.locate(kind, blob) {
            Ok(at) => at,
            Err(error) => {
                self.run.found(error.for_file(&path.to_string_lossy()));
                return None;
            }
        };
        if !self.packs.contains_key(&at.pack) {
            let checked = self.pack(&at.pack);
            self.packs.insert(at.pack, checked.is_ok());
            self.summary.packs += 1;
            if let Err(error) = checked {
                self.run.found(error.for_file(&path.to_string_lossy()));
            }
        }
        // Of a pack that is gone, one finding is enough.
        self.packs
            .get(&at.pack)
            .is_some_and(|good| *good)
            .then(|| at.plain_length().into())
    }

    fn pack(&self, pack: &Id) -> Result<(), VaultError> {
        let damaged = |reason: String| VaultError::damaged(FileKind::Pack.object(pack), reason);
        let size = self.sizes.get(pack).copied();
        let size = size.ok_or_else(|| damaged("it is missing from the bank".to_owned()))?;
        let smallest = read(&self.run.reader.repository().index).smallest_size(pack);
        if size < smallest {
            return Err(damaged(format!(
                "it has {size} bytes, but the blobs that the index places in it need {smallest}"
            )));
        }
        if self.choice.is_none() {
            return Ok(());
        }
        let checked = self.header(pack, size);
        if let Err(VaultError::Damaged { .. }) = &checked {
            write(&self.run.reader.repository().index).note_damaged(*pack);
        }
        checked
    }

    /// Does a pack's header say what the index does?
    fn header(&self, pack: &Id, size: u64) -> Result<(), VaultError> {
        let repository = self.run.reader.repository();
        let header = self.runtime.block_on(pack_header(repository, pack, size))?;
        let index = read(&repository.index);
        let agrees = header.iter().all(|entry| {
            let known = index.find(entry.kind, &entry.id);
            // A blob may be in several packs; the index remembers one.
            known.is_some_and(|at| {
                at.pack != *pack || (at.offset, at.length) == (entry.offset, entry.length)
            })
        });
        match agrees {
            true => Ok(()),
            false => Err(VaultError::damaged(
                FileKind::Pack.object(pack),
                "its header and the index do not agree",
            )),
        }
    }
}
