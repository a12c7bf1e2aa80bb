//! The way of bytes from a source to the engine.

use std::{
    io::{self, Read},
    sync::Arc,
};

use crate::{
    VaultError,
    chunker::{ChunkError, Chunker},
    engine::{Shared, Sink, WriterState},
    pack::BlobKind,
};

/// What every source of one writer needs.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Arc<WriterState>,
    pub(super) chunker: Arc<Chunker>,
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
