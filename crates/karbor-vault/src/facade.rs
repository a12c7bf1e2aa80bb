//! Facade: signatures first.
use std::{
    fs::File,
    path::Path,
    pin::Pin,
    task::{self, Poll},
};

use bytes::Bytes;
use futures::Stream;
use karbor_plugin::{BankSection, Secret};
use tokio::io::AsyncRead;

use crate::*;

/// An open repository. Cheap to clone; may be used by many tasks at once.
///
/// Opening derives a key with scrypt (tens of milliseconds of CPU, 32 MiB): keep the `Vault`.
#[derive(Debug, Clone)]
pub struct Vault;

fn soon<T>() -> Result<T, VaultError> {
    Err(VaultError::Internal("being written".to_owned()))
}

impl Vault {
    /// Opens the repository in `section`, making it if there is none.
    pub async fn open_or_init(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        soon()
    }
    /// Opens the repository in `section`.
    pub async fn open(
        section: BankSection,
        password: &Secret,
        options: VaultOptions,
    ) -> Result<Self, VaultError> {
        soon()
    }
    /// Begins a snapshot.
    pub async fn writer(
        &self,
        meta: SnapshotMeta,
        control: Control,
    ) -> Result<SnapshotWriter, VaultError> {
        soon()
    }
    /// All snapshots, newest first.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, VaultError> {
        soon()
    }
    /// Snapshots that have all of the tags, newest first.
    pub async fn find(&self, tags: &[String]) -> Result<Vec<Snapshot>, VaultError> {
        soon()
    }
    /// One snapshot.
    pub async fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot, VaultError> {
        soon()
    }
    /// Removes a snapshot. One that is not there is no error.
    pub async fn forget(&self, id: &SnapshotId) -> Result<(), VaultError> {
        soon()
    }
    /// Verifies a snapshot.
    pub async fn verify(
        &self,
        id: &SnapshotId,
        level: VerifyLevel,
        control: Control,
    ) -> Result<VerifySummary, VaultError> {
        soon()
    }
    /// Restores files.
    pub async fn restore_tree(
        &self,
        id: &SnapshotId,
        target: &Path,
        options: RestoreOptions,
        control: Control,
    ) -> Result<RestoreSummary, VaultError> {
        soon()
    }
    /// Reads one file or stream of a snapshot.
    pub async fn read_stream(
        &self,
        id: &SnapshotId,
        name: &str,
        control: Control,
    ) -> Result<BlobStream, VaultError> {
        soon()
    }
}

/// The content of a file or stream in a snapshot. Every piece was compared with its hash.
/// `StreamReader::new(stream.map_err(std::io::Error::other))` makes an `AsyncRead` of it; so does
/// [`BlobStream::into_async_read`].
#[derive(Debug)]
pub struct BlobStream;

impl BlobStream {
    /// The size of the whole, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        0
    }
    /// As `AsyncRead`.
    pub fn into_async_read(self) -> impl AsyncRead + Send + Unpin {
        tokio::io::empty()
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, VaultError>;
    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

/// Writes a snapshot. Any failed `add_…` poisons it: `commit` then refuses. Dropped without commit, no
/// snapshot is made.
#[derive(Debug)]
pub struct SnapshotWriter;

impl SnapshotWriter {
    /// Adds a tree of files (or one file), under its absolute path.
    pub async fn add_tree(
        &mut self,
        path: &Path,
        options: TreeOptions,
    ) -> Result<TreeSummary, VaultError> {
        soon()
    }
    /// Adds all that `reader` gives, as the file `/name`. Answers with its size.
    pub async fn add_stream(
        &mut self,
        name: &str,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<u64, VaultError> {
        soon()
    }
    /// Adds an image or block device, as the file `/name`, in chunks of 1 MiB. Answers with its size.
    pub async fn add_image(&mut self, name: &str, file: File) -> Result<u64, VaultError> {
        soon()
    }
    /// Makes the snapshot.
    pub async fn commit(self) -> Result<SnapshotSummary, VaultError> {
        soon()
    }
}
