//! The threads that hash, compress and seal.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{FullPack, ITEM_WEIGHT, Shared, WriterState, codec::Encoder};
use crate::{VaultError, id::Id, pack::BlobKind};

/// Hears of blobs that are taken care of.
pub(crate) trait Sink: Send + Sync {
    /// The blob for `slot` has this id. Called from a worker, which may be given more to store.
    fn taken(
        self: Arc<Self>,
        slot: usize,
        id: Id,
        worker: &mut Worker,
        writer: &WriterState,
    ) -> Result<(), VaultError>;
}

/// Of blobs that are copied: nobody waits for their ids, which are known.
pub(crate) struct Known;

impl Sink for Known {
    fn taken(
        self: Arc<Self>,
        _: usize,
        _: Id,
        _: &mut Worker,
        _: &WriterState,
    ) -> Result<(), VaultError> {
        Ok(())
    }
}

/// Something to do for a worker.
pub(super) struct Job {
    work: Work,
    sink: Arc<dyn Sink>,
    slot: usize,
    ticket: Ticket,
}

enum Work {
    Store(BlobKind, Vec<u8>),
    /// The blob is known to be in the repository.
    Known(Id),
}

/// Counts the job as done, whatever becomes of it.
struct Ticket(Arc<WriterState>);

impl Ticket {
    fn new(writer: &Arc<WriterState>) -> Self {
        writer.job_begins();
        Self(writer.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.job_ends();
    }
}

/// One worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    encoder: Encoder,
}

/// A worker that panics must not leave others waiting for it.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail_all(&VaultError::Internal("a worker panicked".to_owned()));
            self.0.queue.clear();
        }
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, VaultError> {
        let encoder = Encoder::new(shared.repository.options.compression_level)?;
        Ok(Self { shared, encoder })
    }

    /// How many entries a tree may have.
    pub(crate) fn most_entries(&self) -> usize {
        self.shared.repository.options.most_entries
    }

    pub(super) fn run(mut self) {
        let _alarm = Alarm(self.shared.clone());
        while let Some(job) = self.shared.clone().queue.pop() {
            let Job {
                work,
                sink,
                slot,
                ticket: Ticket(ref writer),
            } = job;
            if writer.is_stopped() {
                continue;
            }
            let id = match work {
                Work::Store(kind, data) => self.store(kind, &data, writer),
                Work::Known(id) => Ok(id),
            };
            let done = id.and_then(|id| sink.taken(slot, id, &mut self, writer));
            if let Err(error) = done {
                writer.poison(error);
            }
        }
    }

    /// Brings a blob on its way, unless it is known.
    pub(crate) fn store(
        &mut self,
        kind: BlobKind,
        data: &[u8],
        writer: &WriterState,
    ) -> Result<Id, VaultError> {
        // What is larger would be stored and never read again.
        if data.len() > kind.largest() {
            return Err(VaultError::Internal(format!(
                "a blob of {} bytes is not stored, for none is read with more than {}",
                data.len(),
                kind.largest()
            )));
        }
        let id = Id::of(data);
        let Some(reservation) = self.shared.reserve(kind, id)? else {
            return Ok(id);
        };
        let encoded = self.encoder.encode(data, &self.shared.repository.crypto);
        let added = encoded.and_then(|(sealed, plain)| {
            let full = self.shared.add(reservation, kind, id, sealed, plain)?;
            writer.totals.new_blobs[kind as usize].fetch_add(1, Relaxed);
            writer.totals.new_data.fetch_add(data.len() as u64, Relaxed);
            writer
                .totals
                .new_bytes
                .fetch_add(sealed.len() as u64, Relaxed);
            Ok(full)
        });
        match added {
            Ok(Some(full)) => self.upload(full),
            Ok(None) => Ok(()),
            Err(error) => {
                self.shared.give_up(reservation, kind, &id, &error);
                Err(error)
            }
        }
        .map(|()| id)
    }

    fn upload(&self, full: FullPack) -> Result<(), VaultError> {
        // Here the bank holds up the workers, and so the sources, if it is slower than they are.
        let slot = self.shared.runtime.block_on(self.shared.upload_slot())?;
        self.shared.seal_and_upload(full, slot);
        Ok(())
    }
}

impl Shared {
    /// Hands a blob to the workers. Waits while they have enough to do.
    pub(crate) fn submit(
        &self,
        kind: BlobKind,
        data: Vec<u8>,
        sink: Arc<dyn Sink>,
        slot: usize,
        writer: &Arc<WriterState>,
    ) -> Result<(), VaultError> {
        let weight = data.len() + ITEM_WEIGHT;
        self.push(weight, Work::Store(kind, data), sink, slot, writer)
    }

    /// As `submit`, for a blob that is known to be in the repository.
    pub(crate) fn submit_known(
        &self,
        id: Id,
        sink: Arc<dyn Sink>,
        slot: usize,
        writer: &Arc<WriterState>,
    ) -> Result<(), VaultError> {
        self.push(ITEM_WEIGHT, Work::Known(id), sink, slot, writer)
    }

    fn push(
        &self,
        weight: usize,
        work: Work,
        sink: Arc<dyn Sink>,
        slot: usize,
        writer: &Arc<WriterState>,
    ) -> Result<(), VaultError> {
        let job = Job {
            work,
            sink,
            slot,
            ticket: Ticket::new(writer),
        };
        let pushed = self.queue.push(weight, job, || writer.is_stopped());
        pushed.map_err(|_| writer.reason())
    }
}
