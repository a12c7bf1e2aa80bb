//! A tree of files as it is declared.

use std::path::PathBuf;

use karbor_vault::OnUnreadable;

/// A tree of files.
#[derive(Debug, Clone)]
pub(crate) struct DirectorySource {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// If any: only files that one of these matches.
    pub(crate) include: Vec<String>,
    /// What to leave out.
    pub(crate) exclude: Vec<String>,
    /// Do not follow into other file systems mounted below.
    pub(crate) one_file_system: bool,
    /// Leave out what is in directories that a `CACHEDIR.TAG` marks as caches.
    pub(crate) exclude_caches: bool,
    /// What to do about files that cannot be read.
    pub(crate) on_unreadable: OnUnreadable,
}
