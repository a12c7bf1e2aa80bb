//! What goes in and comes out of the facade.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use karbor_plugin::{NoProgress, Progress};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{Mishaps, SnapshotId, node};

/// How a vault works.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct VaultOptions {
    /// zstd level of what is written: 1 (fast) to 19.
    pub compression_level: i32,
    /// How many threads hash, compress and encrypt; 0: as many as the machine has, at most 8.
    pub workers: usize,
    /// A pack is closed when it is this large, in bytes.
    pub pack_size: usize,
    /// So many entries a directory may have in a snapshot, at most 5,000,000. What is beyond is left out, and the directory
    /// counts as one that cannot be read as a whole: see [`TreeOptions::on_unreadable`].
    pub most_entries: usize,
}

impl Default for VaultOptions {
    fn default() -> Self {
        Self {
            compression_level: 1,
            workers: 0,
            pack_size: 16 << 20,
            most_entries: node::MOST_ENTRIES,
        }
    }
}

/// What a snapshot says of itself.
#[derive(Debug, Clone)]
pub struct SnapshotMeta {
    /// The host it was made on.
    pub hostname: String,
    /// Who made it.
    pub username: String,
    /// When.
    pub time: DateTime<Utc>,
    /// Tags, by which it is found again.
    pub tags: Vec<String>,
    /// An earlier snapshot of the same source: files that have not changed since are not read.
    pub parent: Option<SnapshotId>,
}

/// Who watches a run and may stop it.
#[derive(Clone)]
pub struct Control {
    /// Hears of bytes.
    pub progress: Arc<dyn Progress>,
    /// Stops the run between two blobs.
    pub cancel: CancellationToken,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            progress: Arc::new(NoProgress),
            cancel: CancellationToken::new(),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Decides which entries of a tree are stored: called with the path relative to the tree's root and whether it
/// is a directory. `false` leaves it out, and all below it.
pub type TreeFilter = Arc<dyn Fn(&Path, bool) -> bool + Send + Sync>;

/// What to do about entries of a tree that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnreadable {
    /// The rest is stored, and [`TreeSummary::unreadable`] names it.
    #[default]
    LeaveOut,
    /// Nothing is stored, and [`VaultError::Unreadable`](crate::VaultError::Unreadable) names it.
    Fail,
}

/// The part of a tree that is stored.
#[derive(Clone, Default)]
pub struct TreeOptions {
    /// Which entries; `None` is all.
    pub filter: Option<TreeFilter>,
    /// Directories on other file systems are stored empty.
    pub one_file_system: bool,
    /// Of directories below that a `CACHEDIR.TAG` marks as caches, nothing but that file is stored
    /// (<https://bford.info/cachedir/>).
    pub exclude_caches: bool,
    /// What to do about what cannot be read.
    pub on_unreadable: OnUnreadable,
    /// Recorded in the snapshot for people: what the filter leaves out.
    pub excludes: Vec<String>,
}

impl fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeOptions")
            .field("filter", &self.filter.is_some())
            .field("one_file_system", &self.one_file_system)
            .field("exclude_caches", &self.exclude_caches)
            .field("on_unreadable", &self.on_unreadable)
            .field("excludes", &self.excludes)
            .finish()
    }
}

/// What was found in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TreeSummary {
    /// Where in the snapshot the tree is: the absolute path it was read from. For
    /// [`RestoreOptions::subpath`].
    pub snapshot_path: String,
    /// Files, links and special files.
    pub files: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Files that were not read, because they are as in the parent snapshot.
    pub unmodified: u64,
    /// Entries that were deleted between listing and opening, or moved to where they were not found
    /// again. A directory counts as one, with all that was in it.
    pub left_out: Mishaps,
    /// Files that somebody wrote to while they were read: they are stored as they were read.
    pub changed: Mishaps,
    /// Entries that cannot be read, and are not stored. A directory counts as one: it is stored empty, or
    /// with as much as can be listed.
    pub unreadable: Mishaps,
    /// Entries that are stored, and something about them that is not, or is not as it should be.
    pub warnings: Mishaps,
}

/// What a committed snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    /// Its id.
    pub id: SnapshotId,
    /// Files, links, special files and streams.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes in files and streams.
    pub bytes: u64,
    /// Of these, bytes that the repository did not have yet.
    pub new_data: u64,
    /// What was added to the bank for it, compressed and encrypted.
    pub new_bytes: u64,
    /// Files that were not read, because they are as in the parent snapshot.
    pub unmodified: u64,
    /// Entries that were deleted between listing and opening, or moved to where they were not found
    /// again. A directory counts as one, with all that was in it.
    pub left_out: Mishaps,
    /// Files that somebody wrote to while they were read: they are stored as they were read.
    pub changed: Mishaps,
    /// Entries that cannot be read, and are not stored. A directory counts as one: it is stored empty, or
    /// with as much as can be listed.
    pub unreadable: Mishaps,
    /// Entries that are stored, and something about them that is not, or is not as it should be.
    pub warnings: Mishaps,
}

/// Numbers kept in a snapshot, under restic's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotNumbers {
    /// When the run began.
    pub backup_start: String,
    /// When the run ended.
    pub backup_end: String,
    /// Files that were read.
    pub files_new: u64,
    /// Always 0: a file that was read again counts as new.
    pub files_changed: u64,
    /// Files that were not read, because they are as in the parent snapshot.
    pub files_unmodified: u64,
    /// Directories.
    pub dirs_new: u64,
    /// Always 0.
    pub dirs_changed: u64,
    /// Always 0.
    pub dirs_unmodified: u64,
    /// New data blobs.
    pub data_blobs: u64,
    /// New tree blobs.
    pub tree_blobs: u64,
    /// New bytes before compression.
    pub data_added: u64,
    /// New bytes in the bank.
    pub data_added_packed: u64,
    /// All files.
    pub total_files_processed: u64,
    /// All bytes in files.
    pub total_bytes_processed: u64,
}

/// A snapshot in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// When it was made.
    pub time: DateTime<Utc>,
    /// Paths of trees and names of streams in it.
    pub paths: Vec<String>,
    /// The host it was made on.
    pub hostname: String,
    /// Who made it.
    pub username: String,
    /// Tags.
    pub tags: Vec<String>,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Numbers, if its maker recorded them.
    pub numbers: Option<SnapshotNumbers>,
    #[serde(skip)]
    pub(crate) tree: crate::id::Id,
    /// The snapshot this is a copy of.
    #[serde(skip)]
    pub(crate) original: Option<crate::id::Id>,
    #[serde(skip)]
    pub(crate) excludes: Vec<String>,
}

/// How thoroughly to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyLevel {
    /// The snapshot and all trees are read and compared with their hashes; every blob of every file
    /// is in the index, in a pack that is in the bank with a size that fits.
    Metadata,
    /// As `Metadata`, and so many percent (1 to 100) of the data is read, decrypted, decompressed
    /// and compared with its hash. Below 100 another part is chosen every time.
    Data {
        /// How much.
        percent: u8,
    },
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifySummary {
    /// Files seen.
    pub files: u64,
    /// Trees read.
    pub trees: u64,
    /// Distinct data blobs the snapshot needs.
    pub blobs: u64,
    /// Of these, how many were read and compared.
    pub blobs_read: u64,
    /// Bytes (plain) that were read and compared.
    pub bytes_read: u64,
    /// Packs that were looked for in the bank.
    pub packs: u64,
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overwrite {
    /// It stays as it is.
    #[default]
    Never,
    /// It is replaced if its content (compared by hash), owner, mode, time or extended attributes differ. What
    /// runs with the rights of its owner or has capabilities is replaced in any case: somebody may have
    /// had it open for writing before it got them.
    IfChanged,
    /// It is replaced.
    Always,
}

/// How to restore.
#[derive(Clone, Default)]
pub struct RestoreOptions {
    /// What happens to files that are there already.
    pub overwrite: Overwrite,
    /// With [`Overwrite::Never`]: the target was empty before this restore was begun for the first time.
    /// What is there as it should be is its own, and gets the rest of its attributes.
    pub goes_on: bool,
    /// Change nothing, list what would change.
    pub dry_run: bool,
    /// The folder in the snapshot whose content becomes the target's content; `None` is the root.
    /// If it is a file, it is restored into the target under its own name.
    pub subpath: Option<String>,
    /// Remove what is in the target and not in the snapshot; not with [`Overwrite::Never`].
    pub delete_extra: bool,
    /// Directories on other file systems were stored empty: what is in them is no extra.
    pub one_file_system: bool,
    /// Directories that are marked as caches were stored with their mark alone: what is in them is no extra.
    pub exclude_caches: bool,
    /// What was stored at all: what it does not take was left out of the snapshot by choice, is no extra, and
    /// is never removed.
    pub filter: Option<TreeFilter>,
}

impl fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreOptions")
            .field("overwrite", &self.overwrite)
            .field("goes_on", &self.goes_on)
            .field("dry_run", &self.dry_run)
            .field("subpath", &self.subpath)
            .field("delete_extra", &self.delete_extra)
            .field("one_file_system", &self.one_file_system)
            .field("exclude_caches", &self.exclude_caches)
            .field("filter", &self.filter.is_some())
            .finish()
    }
}

/// What happens to one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is made.
    Create,
    /// It is replaced.
    Overwrite,
    /// It is there, and stays as it is.
    Skip,
    /// Its content is right; mode, owner, times or attributes are not. (A file is replaced for it by a new
    /// one with the same content.)
    Metadata,
    /// It is removed, as the snapshot does not have it.
    Delete,
}

/// One thing that a restore changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Relative to the target, which is `.` itself.
    pub path: PathBuf,
    /// What happens.
    pub kind: ChangeKind,
}

/// What was restored, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RestoreSummary {
    /// Files, links and special files written.
    pub files: u64,
    /// Directories made.
    pub dirs: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files that were as in the snapshot already.
    pub unchanged: u64,
    /// Files that stayed as they were because they may not be overwritten.
    pub skipped: u64,
    /// Attributes that could not be set (owner without being root, what the file system does not have),
    /// and links, sockets and devices that could not be made.
    pub warnings: u64,
    /// Each with the name of the file: the first [`RestoreSummary::MAX_NAMED`].
    pub warned: Vec<String>,
    /// What is in the target and not in the snapshot; a directory counts as one.
    pub extra: u64,
    /// The first [`RestoreSummary::MAX_NAMED`] of them, relative to the target.
    pub extras: Vec<PathBuf>,
    /// So many of them were removed.
    pub deleted: u64,
    /// What would change: dry runs only, the first [`RestoreSummary::MAX_CHANGES`].
    pub changes: Vec<Change>,
    /// How many changes there are, listed or not (dry runs only).
    pub changes_total: u64,
}

impl RestoreSummary {
    /// So many changes are listed.
    pub const MAX_CHANGES: usize = 10_000;
    /// So many warnings, and so much of what the snapshot does not have, are listed.
    pub const MAX_NAMED: usize = 100;
}
