//! The write engine: takes plain blobs from any number of writers, and brings those that the repository
//! does not have into the bank.
//!
//! ```text
//! walker, stream reader …  ─► queue (≤ 8 MiB) ─► workers: hash, known? compress, seal ─► open pack
//!                                                                     full ─► upload (≤ 2) ─► index file
//! ```
//!
//! **One engine per vault.** It exists while there are writers. They share its threads, its open packs and
//! its notion of what is on the way, so equal blobs of two writers are stored once, and memory is bounded
//! for the vault, not for each writer: the queue (8 MiB), a blob and its compressed form for each worker
//! (≤ 17 MiB each at worst, 2 MiB usually), an open data pack and tree pack, a full pack for each worker
//! that waits for an upload, and two packs being uploaded. With two workers and packs of 16 MiB that is
//! 120 MiB when the bank is slower than the sources, half of it otherwise. To this come buffers of the
//! chunker (8 MiB at most for each source being read) and the allocator's slack: a whole process with a
//! file system bank peaked at 140 to 160 MB over 1 GB in 30,000 files.
//!
//! **When a blob counts as stored.** It is *known* to dedup as soon as a worker has taken it on, but a
//! writer may only commit when all that it relied on is in the bank and in an index file. Packs belong to
//! the engine, not to the writer who filled them: if a writer is cancelled, packs with its blobs are
//! stored all the same (and a later prune removes what nothing refers to). If a pack cannot be stored,
//! **every** writer that is active fails, as any of them may have relied on a blob in it; the blobs are
//! forgotten and a new writer stores them again. [`Shared::flush`] waits for what was begun before it was
//! called, in whatever thread it began.
//!
//! What is in a pack but in no index file yet is known to this engine only and forgotten with it: once we
//! hold no lock, a prune may remove such packs.

mod codec;
mod queue;
mod worker;
mod writer_state;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(crate) use codec::Decoder;
pub(crate) use queue::Queue;
pub(crate) use worker::{Known, Sink, Worker};
pub(crate) use writer_state::WriterState;

use crate::{
    VaultError,
    id::Id,
    index::{self, IdMap, Location},
    lock::HeldLock,
    pack::{BlobKind, PackBuilder, PackEntry, SealedPack},
    repository::{FileKind, Repository, blocking, lock, read, write},
};
use worker::Job;

/// Plain bytes that wait for a worker.
const QUEUE_LIMIT: usize = 8 << 20;
/// What an item in the queue weighs besides its bytes: bounds the number of empty ones.
const ITEM_WEIGHT: usize = 2 << 10;
const UPLOADS: usize = 2;
/// An index file is written after so many packs (2 GiB), so that a run that dies loses no more.
const PACKS_PER_INDEX: usize = 128;
/// An index file holds so many blobs at most (restic keeps them below 8 MiB).
const BLOBS_PER_INDEX: usize = 50_000;

/// Closes the queue when the last writer is gone.
pub(crate) struct Engine {
    shared: Arc<Shared>,
}

/// What the threads and uploads of an engine share.
pub(crate) struct Shared {
    pub(crate) repository: Arc<Repository>,
    queue: Queue<Job>,
    runtime: tokio::runtime::Handle,
    uploads: Arc<Semaphore>,
    state: Mutex<Packing>,
    /// A reservation or a pack is done.
    progressed: Notify,
    writing_index: tokio::sync::Mutex<()>,
    writers: Mutex<Vec<Weak<WriterState>>>,
}

#[derive(Default)]
struct Packing {
    /// Blobs that were taken on and are in no index file yet, and which of its pack's each is.
    fresh: [IdMap<usize>; 2],
    /// Numbers of blobs that a worker is at.
    reserved: Numbers,
    open: [Option<PackBuilder>; 2],
    /// Numbers of packs that are full and not in the bank yet.
    sealed: Numbers,
    /// Packs that are in the bank but in no index file.
    stored: Vec<(Id, Vec<PackEntry>)>,
    stored_blobs: usize,
}

/// Ascending numbers, of which some are still out.
#[derive(Default)]
struct Numbers {
    next: u64,
    out: BTreeSet<u64>,
}

impl Numbers {
    fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.out.insert(number);
        number
    }

    fn done(&mut self, number: u64) {
        self.out.remove(&number);
    }

    fn are_done_below(&self, number: u64) -> bool {
        self.out.first().is_none_or(|first| *first >= number)
    }
}

/// A pack that is full, with its number.
struct FullPack {
    number: u64,
    builder: PackBuilder,
}

impl Engine {
    pub(crate) fn start(repository: Arc<Repository>) -> Result<Self, VaultError> {
        let shared = Arc::new(Shared {
            queue: Queue::new(QUEUE_LIMIT),
            runtime: tokio::runtime::Handle::current(),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            state: Mutex::default(),
            progressed: Notify::new(),
            writing_index: tokio::sync::Mutex::default(),
            writers: Mutex::default(),
            repository,
        });
        let workers = worker_count(shared.repository.options.workers);
        for _ in 0..workers {
            let worker = Worker::new(shared.clone())?;
            shared.runtime.spawn_blocking(move || worker.run());
        }
        Ok(Self { shared })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A new writer, which hears of packs that could not be stored.
    pub(crate) fn register(&self, writer: &Arc<WriterState>) {
        let mut writers = lock(&self.shared.writers);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(writer));
    }
}

impl Shared {
    /// Waits until all blobs that were taken on before this call are in the bank and in an index file.
    /// Failures reach the writers, not the caller.
    ///
    /// A caller that stops waiting does not stop it: the packs that it has begun are everybody's. `held` is
    /// kept until the end.
    pub(crate) async fn flush(self: &Arc<Self>, held: Arc<HeldLock>) -> Result<(), VaultError> {
        let shared = self.clone();
        let flush = async move {
            let flushed = shared.store_all().await;
            drop(held);
            flushed
        };
        let flushed = self.runtime.spawn(flush).await;
        flushed.map_err(|error| VaultError::Internal(error.to_string()))?
    }

    /// A sealed blob that is in an open pack, and where it will be in it.
    pub(crate) fn in_open_pack(&self, kind: BlobKind, id: &Id) -> Option<(Vec<u8>, Location)> {
        let state = lock(&self.state);
        let at = state.fresh[kind as usize].get(id)?;
        state.open[kind as usize].as_ref()?.blob(*at, id)
    }

    /// Waits for something that is asynchronous. Call it from a thread that may block.
    pub(crate) fn wait_for<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    async fn store_all(self: &Arc<Self>) -> Result<(), VaultError> {
        let shared = self;
        let begun = lock(&shared.state).reserved.next;
        shared
            .wait(|state| state.reserved.are_done_below(begun))
            .await;
        let (full, sealed) = {
            let mut state = lock(&shared.state);
            let full: Vec<_> = (0..2).filter_map(|kind| state.close_pack(kind)).collect();
            (full, state.sealed.next)
        };
        for full in full {
            let permit = shared.upload_slot().await?;
            let this = shared.clone();
            blocking(move || {
                this.seal_and_upload(full, permit);
                Ok(())
            })
            .await?;
        }
        shared
            .wait(|state| state.sealed.are_done_below(sealed))
            .await;
        shared.write_index().await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue.clear();
    }
}

/// How many threads do CPU work.
pub(crate) fn worker_count(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(8),
        wanted => wanted,
    }
}

impl Packing {
    fn close_pack(&mut self, kind: usize) -> Option<FullPack> {
        let builder = self.open[kind].take()?;
        let number = self.sealed.take();
        Some(FullPack { number, builder })
    }
}

impl Shared {
    /// Takes a blob on; `None` if it is known already. Call it from a thread that may block.
    fn reserve(&self, kind: BlobKind, id: Id) -> Result<Option<u64>, VaultError> {
        self.wait_for(self.repository.look_for(kind, &id))?;
        let mut state = lock(&self.state);
        // In this order, for blobs move from `fresh` into the index under the lock that we hold.
        if state.fresh[kind as usize].contains_key(&id)
            || read(&self.repository.index).has(kind, &id)
        {
            return Ok(None);
        }
        state.fresh[kind as usize].insert(id, 0);
        Ok(Some(state.reserved.take()))
    }

    /// Puts a sealed blob that was reserved into the open pack; a pack that is full now comes back.
    fn add(
        &self,
        reservation: u64,
        kind: BlobKind,
        id: Id,
        sealed: &[u8],
        plain: Option<u32>,
    ) -> Result<Option<FullPack>, VaultError> {
        let size = self.repository.options.pack_size;
        let mut state = lock(&self.state);
        // Packs of trees are small as a rule: no room is kept for them.
        let capacity = match kind {
            BlobKind::Data => size + size / 16,
            BlobKind::Tree => 0,
        };
        let builder =
            state.open[kind as usize].get_or_insert_with(|| PackBuilder::new(kind, capacity));
        let at = builder.entries().len();
        builder.add(id, sealed, plain)?;
        let is_full = builder.is_full(size);
        state.fresh[kind as usize].insert(id, at);
        let full = is_full.then(|| state.close_pack(kind as usize));
        state.reserved.done(reservation);
        drop(state);
        self.progressed.notify_waiters();
        Ok(full.flatten())
    }

    /// Gives a reservation up: who relied on the blob must fail.
    fn give_up(&self, reservation: u64, kind: BlobKind, id: &Id, error: &VaultError) {
        let mut state = lock(&self.state);
        state.fresh[kind as usize].remove(id);
        state.reserved.done(reservation);
        self.fail_all(error);
        drop(state);
        self.progressed.notify_waiters();
    }

    /// Poisons every writer there is.
    fn fail_all(&self, error: &VaultError) {
        for writer in lock(&self.writers).iter().filter_map(Weak::upgrade) {
            writer.poison(error.clone());
        }
    }

    async fn wait(&self, done: impl Fn(&Packing) -> bool) {
        loop {
            let notified = self.progressed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if done(&lock(&self.state)) {
                return;
            }
            notified.await;
        }
    }

    async fn upload_slot(&self) -> Result<OwnedSemaphorePermit, VaultError> {
        let slot = self.uploads.clone().acquire_owned().await;
        slot.map_err(|error| VaultError::Internal(error.to_string()))
    }

    /// CPU work: call it from a thread that may block.
    fn seal_and_upload(self: &Arc<Self>, full: FullPack, permit: OwnedSemaphorePermit) {
        let number = full.number;
        let entries = full.builder.entries().to_vec();
        match full.builder.seal(&self.repository.crypto) {
            Ok(pack) => {
                let this = self.clone();
                self.runtime
                    .spawn(async move { this.upload(number, pack, permit).await });
            }
            Err(error) => self.pack_failed(number, &entries, &error),
        }
    }

    async fn upload(&self, number: u64, pack: SealedPack, permit: OwnedSemaphorePermit) {
        let SealedPack { id, data, entries } = pack;
        if let Err(error) = self.repository.put(FileKind::Pack, &id, data.into()).await {
            self.pack_failed(number, &entries, &error);
            return;
        }
        let due = {
            let mut state = lock(&self.state);
            state.sealed.done(number);
            state.stored_blobs += entries.len();
            state.stored.push((id, entries));
            state.stored.len() >= PACKS_PER_INDEX || state.stored_blobs >= BLOBS_PER_INDEX
        };
        drop(permit);
        self.progressed.notify_waiters();
        if due && let Err(error) = self.write_index().await {
            // Not lost yet: the packs stay on the list, and the next attempt's failure is told.
            tracing::warn!(%error, "an index file could not be written; it will be tried again");
        }
    }

    fn pack_failed(&self, number: u64, entries: &[PackEntry], error: &VaultError) {
        let mut state = lock(&self.state);
        state.sealed.done(number);
        for entry in entries {
            state.fresh[entry.kind as usize].remove(&entry.id);
        }
        // Still under the lock: who relied on one of these blobs hears of it before his flush ends, and
        // who comes later does not find them.
        self.fail_all(error);
        drop(state);
        self.progressed.notify_waiters();
    }

    /// Writes index files for all packs that are in the bank and in none.
    async fn write_index(&self) -> Result<(), VaultError> {
        let _one_at_a_time = self.writing_index.lock().await;
        loop {
            let packs = lock(&self.state).take_stored();
            if packs.is_empty() {
                return Ok(());
            }
            let written = self.save_index(&packs).await;
            let mut state = lock(&self.state);
            match written {
                Ok(file) => {
                    write(&self.repository.index).add_written(file, borrowed(&packs));
                    for entry in packs.iter().flat_map(|(_, entries)| entries) {
                        state.fresh[entry.kind as usize].remove(&entry.id);
                    }
                }
                Err(error) => {
                    state.stored_blobs += packs.iter().map(|(_, e)| e.len()).sum::<usize>();
                    state.stored.extend(packs);
                    return Err(error);
                }
            }
        }
    }

    async fn save_index(&self, packs: &[(Id, Vec<PackEntry>)]) -> Result<Id, VaultError> {
        let json = index::to_json(borrowed(packs)).map_err(VaultError::Internal)?;
        self.repository.save(FileKind::Index, &json).await
    }
}

fn borrowed(packs: &[(Id, Vec<PackEntry>)]) -> impl Iterator<Item = (Id, &[PackEntry])> {
    packs.iter().map(|(id, entries)| (*id, &entries[..]))
}

impl Packing {
    /// As many stored packs as go into one index file.
    fn take_stored(&mut self) -> Vec<(Id, Vec<PackEntry>)> {
        let mut blobs = 0;
        let mut taken = Vec::new();
        while blobs < BLOBS_PER_INDEX
            && let Some(pack) = self.stored.pop()
        {
            blobs += pack.1.len();
            taken.push(pack);
        }
        self.stored_blobs -= blobs;
        taken
    }
}
