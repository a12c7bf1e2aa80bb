//! Reads one file or stream of a snapshot, in order.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::{
    Control, SnapshotId, Vault, VaultError, engine::Decoder, id::Id, lock::HeldLock,
    node::NodeKind, pack::BlobKind, reader::BlobReader, repository::blocking, restore::find_node,
};

/// So many blobs are read ahead, at the same time.
const AHEAD: usize = 3;

/// The content of a file or stream in a snapshot. Every piece was compared with its hash before it is given
/// out; a damaged one ends the stream with an error.
pub struct BlobStream {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, VaultError>> + Send>>,
    size: u64,
    given: u64,
    name: String,
    control: Control,
    held: Option<Arc<HeldLock>>,
    ended: bool,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "BlobStream({}, {} of {} bytes)",
            self.name, self.given, self.size
        )
    }
}

impl BlobStream {
    /// The size of the whole, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// As a reader.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin + use<> {
        StreamReader::new(self.map_err(std::io::Error::other))
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, VaultError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match self.control.cancel.is_cancelled() {
            true => Some(Err(VaultError::Cancelled)),
            false => task::ready!(self.pieces.as_mut().poll_next(context)),
        };
        let item = match next {
            Some(Ok(piece)) => {
                self.given += piece.len() as u64;
                self.control.progress.add_bytes(piece.len() as u64);
                return Poll::Ready(Some(Ok(piece)));
            }
            Some(Err(error)) => Some(Err(error.for_file(&self.name))),
            None if self.given == self.size => None,
            None => {
                let reason = format!(
                    "it says {} bytes, but its blobs have {}",
                    self.size, self.given
                );
                let damage = VaultError::damaged("a tree of the snapshot", reason);
                Some(Err(damage.for_file(&self.name)))
            }
        };
        self.held = None;
        self.ended = true;
        Poll::Ready(item)
    }
}

impl Vault {
    /// Reads the file or stream `name` of a snapshot (a path from its root).
    ///
    /// # Errors
    /// [`VaultError::NoSuchSnapshot`], [`VaultError::NoSuchPath`], [`VaultError::Damaged`], and failures of
    /// the bank; the stream gives them too.
    pub async fn read_stream(
        &self,
        id: &SnapshotId,
        name: &str,
        control: Control,
    ) -> Result<BlobStream, VaultError> {
        let repository = &self.inner.repository;
        let held = self.inner.locks.for_reading(repository).await?;
        let snapshot = self.snapshot(id).await?;
        repository.refresh_index().await?;
        let reader = Arc::new(BlobReader::new(repository.clone()));
        let (searcher, path) = (reader.clone(), name.to_owned());
        let node = blocking(move || find_node(&searcher, &snapshot, &path, &mut Decoder::new()?));
        let node = node.await?.filter(|node| node.kind == NodeKind::File);
        let node = node.ok_or_else(|| VaultError::NoSuchPath {
            snapshot: id.to_string(),
            path: name.to_owned(),
        })?;
        control.progress.expect_bytes(node.size);
        let pieces = stream::iter(node.content).map(move |blob| load(reader.clone(), blob));
        Ok(BlobStream {
            pieces: Box::pin(pieces.buffered(AHEAD)),
            size: node.size,
            given: 0,
            name: name.to_owned(),
            control,
            held,
            ended: false,
        })
    }
}

async fn load(reader: Arc<BlobReader>, blob: Id) -> Result<Bytes, VaultError> {
    blocking(move || {
        let data = reader.load(BlobKind::Data, &blob, &mut Decoder::new()?)?;
        Ok(Bytes::from(data))
    })
    .await
}
