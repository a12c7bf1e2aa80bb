//! A deduplicating, compressed, encrypted store of bytes inside a bank, in the restic repository format
//! version 2 (restic's `doc/design.rst`). The real `restic` checks, lists and restores what this engine
//! writes, and this engine reads what `restic` writes; both may use one repository at the same time.
//!
//! ```text
//! Vault ── writer() ──► SnapshotWriter ── add_tree, add_stream, add_image ──► engine ──► bank
//!   │                        │  add_snapshot: one of another vault
//!   │                        └ commit: packs, then index, then (last) the snapshot file
//!   ├─ catalog(), find(tags), snapshots(), forget()
//!   ├─ verify()        every blob there? readable?
//!   ├─ restore_tree()  files, with all their attributes
//!   └─ read_stream()   one file, as a stream
//! ```
//!
//! # What can be relied on
//!
//! * A snapshot exists only when everything it refers to is in the bank: packs are written first, then
//!   index files, then the snapshot. A blob counts as stored when the bank has confirmed its pack. A process that
//!   dies before leaves objects that nothing refers to.
//! * A snapshot is whole, or there is none. Whatever could not be read poisons the writer; the only
//!   exception, counted in the summary, is a file that was deleted between listing and opening (see
//!   `writer/walk.rs` for what is promised of files that change).
//! * Everything read is compared with its hash before it is used; damage is told with the object and the
//!   file that needs it. Nothing that is written later relies on what was found damaged.
//! * Restores replace files atomically and never write outside the target.
//! * Memory is bounded for each vault, whatever the sizes of files and the number of writers: see
//!   `engine/mod.rs` for writing (about 130 MiB with two workers), `restore/mod.rs` for reading (about 50).
//!   Besides, the index takes 48 bytes a blob and the slack of a hash table, the catalog some 300 bytes a
//!   snapshot (`catalog.rs`), and the entries of directories that are being read are in memory.
//! * All CPU work and file access is on threads that may block.
//!
//! # Locks
//!
//! Shared locks as restic has them are held while something is written or read, so that a `restic prune`
//! and this engine keep out of each other's way. Where no lock can be written, reading goes on without.
//!
//! # What is not here
//!
//! Forgetting removes the snapshot file only. Space is given back by a prune, which this engine does not
//! have yet; `restic prune` does it. Damaged packs are taken out of the index (`mend.rs`), but an index is not
//! made anew from packs (`restic rebuild-index` does).
//!
//! # Differences from restic's own writer, all within the format
//!
//! Content is cut by FastCDC rather than by Rabin fingerprints, seeded by the repository's secret
//! polynomial; blobs that do not compress are stored as they are; names of links that are not UTF-8 are
//! kept as newer restics do (0.14 does not know them).

mod catalog;
mod chunker;
mod crypto;
mod engine;
mod error;
mod fsio;
mod id;
mod index;
mod keyfile;
mod latest;
mod lock;
mod mend;
mod mishaps;
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

pub use catalog::{Catalog, SnapshotBrief};
pub use error::VaultError;
pub use id::{SnapshotId, SnapshotIdError};
pub use mishaps::{Mishap, Mishaps};
pub use stream::BlobStream;
pub use types::{
    Change, ChangeKind, Control, OnUnreadable, Overwrite, RestoreOptions, RestoreSummary, Snapshot,
    SnapshotMeta, SnapshotNumbers, SnapshotSummary, TreeFilter, TreeOptions, TreeSummary,
    VaultOptions, VerifyLevel, VerifySummary,
};
pub use vault::Vault;
pub use writer::SnapshotWriter;
