//! Putting a restored database into its place.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use karbor_fs::{Dir, Found, Identity, NotGiven, Replace, Staging};
use karbor_plugin::{OperationContext, PluginError};
use karbor_vault::Overwrite;
use rustix::{
    fs::{FileType, Gid, Mode, Stat, Uid, fchmod, fchown, fstat},
    io::Errno,
    process::{Flock, FlockOffsetType, FlockType, fcntl_getlk},
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    super::places::FilePlace,
    folders::Folders,
    process::{Checked, Workers},
};

/// The bytes that SQLite's locks are on (<https://www.sqlite.org/lockingv3.html>): pending, reserved, shared.
const LOCKS: (u64, u64) = (0x4000_0000, 512);

pub(super) fn unusable(error: &dyn std::fmt::Display) -> PluginError {
    PluginError::new(format!("the place to restore to cannot be used: {error}"))
}

/// The service's own name in the directory of the database; the same when the operation is run again.
pub(super) fn temporary(name: &OsStr, context: &OperationContext) -> OsString {
    let mut digest = Sha256::new();
    for part in [
        context.operation_id.to_string().as_bytes(),
        context.resource.id.to_string().as_bytes(),
        name.as_encoded_bytes(),
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let digest = digest.finalize();
    let mut run = [0; 8];
    run.copy_from_slice(&digest[..8]);
    karbor_fs::temp_name(u64::from_be_bytes(run), 0)
}

/// Removes what a run that died left beside the place.
pub(super) fn discard(path: &Path, temporary: &OsStr) -> Result<(), PluginError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match Dir::find(parent).map_err(|e| unusable(&e))? {
        Found::Dir(dir) | Found::Missing(dir, _) => remove_stale(&dir, temporary),
        Found::Other(..) => Ok(()),
    }
}

fn remove_stale(dir: &Dir, temporary: &OsStr) -> Result<(), PluginError> {
    let removed = Staging::remove_stale(dir, temporary, |name| name == temporary);
    removed
        .and_then(|()| dir.remove_file(temporary))
        .map_err(|e| unusable(&e))
}

/// Is there anything at this place?
pub(super) fn there(path: &Path) -> Result<bool, PluginError> {
    match Dir::find(path).map_err(|e| unusable(&e))? {
        Found::Missing(..) => Ok(false),
        Found::Other(_, _, stat) if is_file(&stat) => Ok(true),
        Found::Dir(_) | Found::Other(..) => Err(no_file()),
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn no_file() -> PluginError {
    PluginError::new(
        "there is something at the place to restore to that is not a file: remove it first",
    )
}

/// Owner and permission bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) owner: Option<(u32, u32)>,
    mode: u32,
}

/// The place of a database, held by its directory, and the new one on its way there.
#[derive(Debug)]
pub(super) struct Spot {
    staging: Staging,
    name: OsString,
    temporary: OsString,
}

impl Drop for Spot {
    fn drop(&mut self) {
        // What is left behind is removed the next time.
        let _ = self
            .staging
            .dir()
            .and_then(|dir| dir.remove_file(&self.temporary));
    }
}

impl Spot {
    /// Opens the directory, makes it if need be, and removes what a run that died left there. Answers also
    /// with warnings of folders that were made.
    pub(super) fn prepare(
        path: &Path,
        temporary: OsString,
        folders: &Folders,
    ) -> Result<(Self, Vec<String>), PluginError> {
        let mut warnings = Vec::new();
        let failed = |error| unusable(&error);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(PluginError::new("the place has no name"));
        };
        let dir = match Dir::find(parent).map_err(failed)? {
            Found::Dir(dir) => dir,
            Found::Missing(dir, names) => {
                warnings.extend(folders.warning());
                let access = |number| folders.access(names.len() - 1 - number);
                let not_given = |left: NotGiven| {
                    let (path, what, why) = (left.path.display(), left.what, left.errno);
                    warnings.push(format!("'{path}': {what} could not be restored: {why}"));
                };
                let made = dir.make_dirs(&names, || temporary.clone(), access, not_given);
                made.map_err(failed)?.0
            }
            Found::Other(..) => {
                return Err(PluginError::new(
                    "there is something on the way to the place to restore to that is not a directory: remove it first",
                ));
            }
        };
        remove_stale(&dir, &temporary)?;
        let spot = Self {
            staging: Staging::apart(dir, temporary.clone()),
            name: name.to_owned(),
            temporary,
        };
        Ok((spot, warnings))
    }

    fn dir(&self) -> &Dir {
        self.staging.place()
    }

    /// Makes the new file, for nobody else to open.
    pub(super) fn create(&self) -> Result<File, PluginError> {
        let made = self.staging.dir();
        made.and_then(|dir| dir.create_file(&self.temporary))
            .map_err(|e| unusable(&e))
    }

    /// What is at the place: nothing, or a file.
    fn existing(&self) -> Result<Option<Stat>, PluginError> {
        match self.dir().look(&self.name).map_err(|e| unusable(&e))? {
            Some(stat) if !is_file(&stat) => Err(no_file()),
            found => Ok(found),
        }
    }

    /// Whose the new file becomes: as the one that is there, else as it was when it was protected. No
    /// database has use for bits beyond the permissions.
    pub(super) fn given(&self, place: &FilePlace) -> Result<Given, PluginError> {
        Ok(match self.existing()? {
            Some(stat) => Given {
                owner: Some((stat.st_uid, stat.st_gid)),
                mode: stat.st_mode & 0o777,
            },
            None => Given {
                owner: place.owner,
                mode: place.mode.unwrap_or(0o600) & 0o777,
            },
        })
    }

    /// Has SQLite look through the new file, where nobody else reaches it.
    pub(super) fn check(
        &self,
        workers: &Workers,
        size: u64,
        given: Given,
        cancel: &CancellationToken,
    ) -> Result<Checked, PluginError> {
        let dir = self.staging.dir().map_err(|e| unusable(&e))?;
        workers.check(&dir, &self.temporary, size, given.owner, cancel)
    }

    /// Lets the new file take the place. `false` if the same was there already, or, with
    /// [`Overwrite::Never`], `None` if there is another database.
    pub(super) fn replace(
        &self,
        new: &File,
        given: Given,
        overwrite: Overwrite,
    ) -> Result<Option<bool>, PluginError> {
        if let Some(existing) = self.existing()? {
            let unchanged = || self.is_same(new).map_err(|e| unusable(&e));
            match overwrite {
                Overwrite::Never => return Ok(unchanged()?.then_some(false)),
                Overwrite::IfChanged if unchanged()? => return Ok(Some(false)),
                _ => self.in_use(&existing)?,
            }
        }
        self.put(new, given, overwrite)
    }

    /// Sets owner and mode, makes the new file durable, and gives it its name.
    fn put(
        &self,
        new: &File,
        given: Given,
        overwrite: Overwrite,
    ) -> Result<Option<bool>, PluginError> {
        let failed = |error| unusable(&error);
        if let Some((user, group)) = given.owner
            && let Err(error) = fchown(new, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
        {
            // Only root can give files away; a service that runs as another account owns them.
            tracing::warn!(%error, place = %self.dir().path_of(&self.name).display(), "the owner of a restored database could not be set");
        }
        fchmod(new, Mode::from_raw_mode(given.mode)).map_err(|e| unusable(&e))?;
        new.sync_all().map_err(|e| unusable(&e))?;
        // Logs of a database that was made meanwhile are not ours to remove.
        if overwrite == Overwrite::Never && self.existing()?.is_some() {
            return Ok(None);
        }
        let ours = fstat(new).map_err(|e| unusable(&e))?;
        let within = self.staging.dir().map_err(failed)?;
        // The old database is worth nothing without its log.
        let made = within.look(&self.temporary).map_err(failed)?;
        if !made.is_some_and(|made| Identity::of(&made) == Identity::of(&ours)) {
            return Err(PluginError::new(
                "the new database was removed before it had its place: restore again",
            ));
        }
        for suffix in ["-wal", "-shm", "-journal"] {
            self.dir()
                .remove_file(&self.beside(suffix))
                .map_err(failed)?;
        }
        self.dir().sync().map_err(failed)?;
        let replace = match overwrite {
            Overwrite::Never => Replace::No,
            _ => Replace::Yes,
        };
        let done = self
            .staging
            .finish(&within, &self.temporary, &self.name, replace);
        match done {
            Ok(()) => {}
            // Made since we looked.
            Err(error) if error.errno() == Some(Errno::EXIST) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        self.dir().sync().map_err(failed)?;
        let there = self.dir().look(&self.name).map_err(failed)?;
        match there.is_some_and(|there| Identity::of(&there) == Identity::of(&ours)) {
            true => Ok(Some(true)),
            false => Err(PluginError::new(
                "the restored database was exchanged for something else as soon as it was there: keep others from its directory",
            )),
        }
    }

    fn beside(&self, suffix: &str) -> OsString {
        let mut beside = self.name.clone();
        beside.push(suffix);
        beside
    }

    /// The same bytes, and no log with later transactions.
    fn is_same(&self, new: &File) -> Result<bool, Box<dyn std::error::Error>> {
        let log = self.dir().look(&self.beside("-wal"))?;
        let old = self.dir().open_file(&self.name)?.file;
        let size = new.metadata()?.len();
        if log.is_some_and(|log| log.st_size > 0) || old.metadata()?.len() != size {
            return Ok(false);
        }
        let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut at = 0;
        while at < size {
            let read = new.read_at(&mut a, at)?;
            if read == 0 || old.read_exact_at(&mut b[..read], at).is_err() || a[..read] != b[..read]
            {
                return Ok(false);
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// Refuses if a process has the database open: by looking at what processes have open, as far as
    /// the system lets us, and at the locks on it.
    fn in_use(&self, existing: &Stat) -> Result<(), PluginError> {
        let who = match opened_by(existing) {
            Some(process) => Some(process),
            None => self.locked_by()?,
        };
        match who {
            None => Ok(()),
            Some(who) => Err(PluginError::retryable(format!(
                "the database at the place to restore to is in use by {who}: stop the application first (its before_restore command can do that)"
            ))),
        }
    }

    /// SQLite locks a database while it reads or writes; in WAL mode as long as a connection is there.
    fn locked_by(&self) -> Result<Option<String>, PluginError> {
        let file = self.dir().open_file(&self.name).map_err(|e| unusable(&e))?;
        let mut lock = Flock::from(FlockType::WriteLock);
        (lock.start, lock.length) = LOCKS;
        lock.offset_type = FlockOffsetType::Set;
        Ok(match fcntl_getlk(&file.file, &lock) {
            Ok(None) => None,
            Ok(Some(Flock { pid: Some(pid), .. })) => {
                Some(format!("process {}", pid.as_raw_nonzero()))
            }
            Ok(Some(_)) => Some("another process".to_owned()),
            // Where there are no locks nobody has one.
            Err(_) => None,
        })
    }
}

/// The first process that has this file open.
fn opened_by(wanted: &Stat) -> Option<String> {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(id) = name
            .to_str()
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let files = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let open = files
            .filter_map(|file| fs::metadata(file.path()).ok())
            .any(|file| file.dev() == wanted.st_dev && file.ino() == wanted.st_ino);
        if open {
            let called = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {id} ({})", called.trim()));
        }
    }
    None
}
