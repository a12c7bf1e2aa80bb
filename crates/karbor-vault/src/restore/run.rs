//! What the threads of a restore share: what is wanted, what has failed, what was done, what is to be told.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use karbor_fs::{Dir, Identity, Refused, Replace, Staging};
use rustix::io::Errno;

use super::file::{Batch, temp_name};
use crate::{
    Change, ChangeKind, Control, Overwrite, RestoreOptions, RestoreSummary, VaultError,
    engine::{Decoder, Queue},
    id::Id,
    node::Node,
    reader::BlobReader,
    repository::lock,
};

/// So much of files waits for a worker; it is their number that matters, for each keeps two files open.
pub(super) const QUEUE_LIMIT: usize = 128;

/// Work for a thread.
pub(super) trait Job: Send {
    fn carry_out(
        self: Box<Self>,
        run: &Restoring,
        batch: &mut Batch,
        decoder: &mut Decoder,
    ) -> Result<(), VaultError>;
}

/// What the threads of a restore share.
pub(super) struct Restoring {
    pub(super) reader: BlobReader,
    pub(super) options: RestoreOptions,
    pub(super) control: Control,
    pub(super) queue: Queue<Box<dyn Job>>,
    pub(super) failure: Mutex<Option<VaultError>>,
    pub(super) failed: AtomicBool,
    pub(super) is_root: bool,
    /// Random, for names that no other restore uses.
    pub(super) id: u64,
    pub(super) temps: AtomicU64,
    /// The target's path, for messages.
    pub(super) target: PathBuf,
    pub(super) stash: Mutex<Option<Stash>>,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) unchanged: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) warnings: AtomicU64,
    pub(super) notes: Mutex<Notes>,
}

/// What is told by name.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) changes: Vec<Change>,
    pub(super) changes_total: u64,
    pub(super) warned: Vec<String>,
}

/// One file of the snapshot, whatever its names. By content too, for a file may change between the reading
/// of one name and the other.
pub(super) type LinkKey = (u64, u64, Id);

pub(super) fn link_key(node: &Node) -> LinkKey {
    let blobs: Vec<u8> = node.content.iter().flat_map(|blob| blob.0).collect();
    (node.inode, node.device_id, Id::of(&blobs))
}

/// Files with several names have one more here, until the end: the one that the others are made from, since
/// nobody else can exchange it.
pub(super) struct Stash {
    pub(super) staging: Staging,
    pub(super) files: HashMap<LinkKey, Stashed>,
}

#[derive(Clone)]
pub(super) struct Stashed {
    pub(super) name: OsString,
    pub(super) identity: Identity,
}

impl Drop for Stash {
    fn drop(&mut self) {
        for stashed in self.files.values() {
            let dir = self.staging.dir();
            if let Err(error) = dir.and_then(|dir| dir.remove_file(&stashed.name)) {
                tracing::warn!(%error, "a name of a restored file stays behind");
            }
        }
    }
}

/// An error about a file of the target.
pub(super) fn refused(path: &Path, error: &Refused) -> VaultError {
    let reason = match error {
        Refused::System { errno, .. } => errno.to_string(),
        other => other.to_string(),
    };
    VaultError::target(path.to_string_lossy(), reason)
}

impl Restoring {
    pub(super) fn is_stopped(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.control.cancel.is_cancelled()
    }

    pub(super) fn fail(&self, error: VaultError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        // Files that were begun go as their segments do.
        self.queue.clear();
    }

    pub(super) fn check(&self) -> Result<(), VaultError> {
        if let Some(error) = lock(&self.failure).clone() {
            return Err(error);
        }
        match self.control.cancel.is_cancelled() {
            true => Err(VaultError::Cancelled),
            false => Ok(()),
        }
    }

    /// Is everything that is there left as it is?
    pub(super) fn leaves_all(&self) -> bool {
        self.options.overwrite == Overwrite::Never && !self.options.goes_on
    }

    pub(super) fn is_dry(&self) -> bool {
        self.options.dry_run
    }

    /// What was made under a name of ours gets its own.
    pub(super) fn rename(
        &self,
        staging: &Staging,
        within: &Dir,
        temp: &OsStr,
        name: &OsStr,
        replaces: bool,
    ) -> Result<(), VaultError> {
        let is_never = self.options.overwrite == Overwrite::Never && !replaces;
        let replace = match is_never {
            true => Replace::No,
            false => Replace::Yes,
        };
        let done = staging.finish(within, temp, name, replace);
        done.map_err(|error| {
            let path = staging.place().path_of(name);
            let reason = match error.errno() {
                Some(Errno::EXIST) if is_never => "somebody made it while it was being restored",
                Some(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                    "a directory is in its place"
                }
                _ => return refused(&path, &error),
            };
            VaultError::target(path.to_string_lossy(), reason)
        })
    }

    /// Keeps an open file for the hard links to it. Where files can have one name only, each is written.
    pub(super) fn stash(&self, file: impl AsFd, node: &Node) -> Result<(), VaultError> {
        let mut stash = lock(&self.stash);
        let Some(stash) = &mut *stash else {
            return Ok(());
        };
        let path = stash.staging.place().path_of(&node.os_name());
        let name = temp_name(self);
        let dir = stash.staging.dir();
        match dir.and_then(|dir| dir.link_file(&file, &name)) {
            Ok(()) => {}
            Err(error) if error.errno().is_some_and(has_no_links) => return Ok(()),
            Err(error) => return Err(refused(&path, &error)),
        }
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| VaultError::target(path.to_string_lossy(), error))?;
        let identity = Identity::of(&stat);
        let stashed = Stashed { name, identity };
        // One that can have no more names is written again, and the next are made from that.
        let full = stash.files.insert(link_key(node), stashed);
        if let Some(full) = full {
            let removed = stash
                .staging
                .dir()
                .and_then(|dir| dir.remove_file(&full.name));
            removed.map_err(|error| refused(&path, &error))?;
        }
        Ok(())
    }

    /// What hard links are made from: the directory, and the file in it.
    pub(super) fn stashed(&self, key: &LinkKey) -> Result<Option<(Dir, Stashed)>, Refused> {
        let stash = lock(&self.stash);
        let Some(stash) = &*stash else {
            return Ok(None);
        };
        let Some(stashed) = stash.files.get(key) else {
            return Ok(None);
        };
        Ok(Some((stash.staging.dir()?, stashed.clone())))
    }

    pub(super) fn relative(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.target) {
            Ok(top) if top.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        }
    }

    /// In a dry run: what would happen to a path.
    pub(super) fn note(&self, path: &Path, kind: ChangeKind) {
        if !self.is_dry() {
            return;
        }
        let mut notes = lock(&self.notes);
        if kind != ChangeKind::Skip {
            notes.changes_total += 1;
        }
        if notes.changes.len() < RestoreSummary::MAX_CHANGES {
            let path = self.relative(path);
            notes.changes.push(Change { path, kind });
        }
    }

    pub(super) fn skip(&self, path: &Path) {
        self.note(path, ChangeKind::Skip);
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn warn(&self, path: &Path, what: &str, error: impl std::fmt::Display) {
        self.tell(path, &format!("{what} could not be restored: {error}"));
    }

    /// Warns of a path; the first are named.
    pub(super) fn tell(&self, path: &Path, what: &str) {
        tracing::debug!(path = %path.display(), "{what}");
        self.warnings.fetch_add(1, Ordering::Relaxed);
        let mut notes = lock(&self.notes);
        if notes.warned.len() < RestoreSummary::MAX_NAMED {
            let relative = self.relative(path);
            notes
                .warned
                .push(format!("'{}': {what}", relative.display()));
        }
    }

    pub(super) fn work(&self, workers: usize) {
        let mut batch = Batch::new(workers);
        let done = Decoder::new().and_then(|mut decoder| {
            while let Some(job) = self.queue.pop() {
                self.check()?;
                job.carry_out(self, &mut batch, &mut decoder)?;
            }
            self.check()?;
            batch.place(self)
        });
        if let Err(error) = done {
            self.fail(error);
        }
    }
}

/// Is this how a file system or a kernel says that it does not do this, or not for this account?
pub(super) fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL
    )
}

/// Is this how a file system says that a file can have no more names?
pub(super) fn has_no_links(error: Errno) -> bool {
    is_refusal(error) || matches!(error, Errno::MLINK | Errno::XDEV | Errno::ROFS)
}
