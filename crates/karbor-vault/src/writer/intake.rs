//! The way of bytes from a source to the engine.

use std::{
    io::{self, Read},
    sync::Arc,
};

use crate::{
    VaultError,
    chunker::{ChunkError, Chunker},
    engine::{Decoder, Shared, Sink, WriterState},
    id::Id,
    lock::HeldLock,
    node::{Node, tree_from_json},
    pack::BlobKind,
    reader::BlobReader,
    repository::read,
};

/// What every source of one writer needs.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Arc<WriterState>,
    pub(super) chunker: Arc<Chunker>,
    pub(super) held: Arc<HeldLock>,
}

/// A source could not be taken in.
pub(super) enum IntakeError {
    Read(io::Error),
    Vault(VaultError),
}

impl From<ChunkError<VaultError>> for IntakeError {
    fn from(error: ChunkError<VaultError>) -> Self {
        match error {
            ChunkError::Read(error) => Self::Read(error),
            ChunkError::Taker(error) => Self::Vault(error),
        }
    }
}

impl IntakeError {
    /// The error about a source.
    pub(super) fn of(self, source: impl FnOnce(String) -> VaultError) -> VaultError {
        match self {
            Self::Read(error) => source(error.to_string()),
            Self::Vault(error) => error,
        }
    }
}

impl Intake {
    /// Waits until everything that was stored is in the bank and can be found there.
    pub(super) async fn flush(&self) -> Result<(), VaultError> {
        tokio::select! {
            flushed = self.shared.flush(self.held.clone()) => flushed?,
            () = self.writer.control.cancel.cancelled() => return Err(VaultError::Cancelled),
        }
        // A pack may have failed while we waited, with a blob in it that we rely on.
        self.writer.check()
    }

    /// A tree that was stored just now, wherever it is on its way. Call it from a thread that may block.
    pub(super) fn stored_tree(
        &self,
        tree: &Id,
        reader: &BlobReader,
        decoder: &mut Decoder,
    ) -> Result<Vec<Node>, VaultError> {
        let kind = BlobKind::Tree;
        if let Some((sealed, at)) = self.shared.in_open_pack(kind, tree) {
            let json = decoder.decode(tree, &sealed, &at, &self.shared.repository.crypto)?;
            return tree_from_json(&json).map_err(VaultError::Internal);
        }
        let is_indexed = read(&self.shared.repository.index).has(kind, tree);
        if !is_indexed {
            self.shared.wait_for(self.flush())?;
        }
        reader.tree(tree, decoder)
    }

    /// Hands one blob to the engine.
    pub(super) fn blob(
        &self,
        data: Vec<u8>,
        sink: Arc<dyn Sink>,
        slot: usize,
    ) -> Result<(), VaultError> {
        self.writer.control.progress.add_bytes(data.len() as u64);
        self.shared
            .submit(BlobKind::Data, data, sink, slot, &self.writer)
    }

    /// Cuts all that `source` gives into blobs; answers with its size.
    pub(super) fn cut<S: Sink + 'static>(
        &self,
        source: impl Read,
        buffer: &mut Vec<u8>,
        sink: &Arc<S>,
        mut next_slot: impl FnMut() -> usize,
    ) -> Result<u64, IntakeError> {
        let take = |chunk| self.blob(chunk, sink.clone(), next_slot());
        Ok(self.chunker.chunks(source, buffer, take)?)
    }
}
