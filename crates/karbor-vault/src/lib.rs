//! A deduplicating, compressed, encrypted store of bytes inside a bank, in the restic repository format version 2.
#![allow(unused_variables, clippy::unused_async, dead_code)] // being filled

mod error;
mod facade;
mod id;
mod types;

pub use error::VaultError;
pub use facade::{BlobStream, SnapshotWriter, Vault};
pub use id::{SnapshotId, SnapshotIdError};
pub use types::{
    Change, ChangeKind, Control, Overwrite, RestoreOptions, RestoreSummary, Snapshot, SnapshotMeta,
    SnapshotNumbers, SnapshotSummary, TreeFilter, TreeOptions, TreeSummary, VaultOptions,
    VerifyLevel, VerifySummary,
};
