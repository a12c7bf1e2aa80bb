//! A deduplicating, compressed, encrypted store of bytes inside a bank, in the restic repository format version 2.

mod chunker;
mod crypto;
mod engine;
mod error;
mod fsio;
mod id;
mod index;
mod keyfile;
mod lock;
mod node;
mod pack;
mod polynomial;
mod quote;
mod reader;
mod repository;
mod restore;
mod snapshot;
mod stream;
mod time;
mod types;
mod vault;
mod verify;
mod writer;

pub use error::VaultError;
pub use id::{SnapshotId, SnapshotIdError};
pub use stream::BlobStream;
pub use types::{
    Change, ChangeKind, Control, Overwrite, RestoreOptions, RestoreSummary, Snapshot, SnapshotMeta,
    SnapshotNumbers, SnapshotSummary, TreeFilter, TreeOptions, TreeSummary, VaultOptions,
    VerifyLevel, VerifySummary,
};
pub use vault::Vault;
pub use writer::SnapshotWriter;
