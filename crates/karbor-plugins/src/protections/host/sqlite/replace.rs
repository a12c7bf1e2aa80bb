//! Putting a restored database into its place.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use karbor_plugin::{OperationContext, PluginError};
use karbor_vault::Overwrite;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{super::directory::unusable, super::places::Target, copy, remove_logs};
use crate::rename::rename_new;

/// Is there anything at this place?
pub(super) fn there(path: &Path) -> Result<bool, PluginError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(PluginError::new(
            "there is something at the place to restore to that is not a file: remove it first",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(&error)),
    }
}

/// Where the database is written before it is renamed: in the same directory.
pub(super) fn beside(target: &Path, context: &OperationContext) -> Result<PathBuf, PluginError> {
    let name = target
        .file_name()
        .ok_or_else(|| PluginError::new("the place has no name"))?;
    let name = format!(
        ".{}.karbor-{}",
        name.to_string_lossy(),
        context.operation_id
    );
    Ok(target.with_file_name(name))
}

/// Checks `new` and renames it to the target. `false` if the target was the same already, or, with
/// [`Overwrite::Never`], `None` if there is another database.
pub(super) fn replace(
    new: &Path,
    target: &Target,
    overwrite: Overwrite,
) -> Result<Option<bool>, PluginError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(new, flags)
        .map_err(|e| PluginError::new("what was restored is not a database").with_cause(e))?;
    copy::check(&opened)?;
    drop(opened);
    let path = &target.path;
    if there(path)? {
        let unchanged = || same(new, path).map_err(|e| unusable(&e));
        match overwrite {
            Overwrite::Never => return Ok(unchanged()?.then_some(false)),
            Overwrite::IfChanged if unchanged()? => return Ok(Some(false)),
            _ => in_use(path)?,
        }
    }
    match put(new, target, overwrite) {
        Ok(()) => Ok(Some(true)),
        // Made since we looked.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(unusable(&error)),
    }
}

/// Sets owner and mode, makes the new file durable, and lets it take the place.
fn put(new: &Path, target: &Target, overwrite: Overwrite) -> io::Result<()> {
    let (path, place) = (&target.path, &target.place);
    let existing = fs::metadata(path).ok();
    let owner = existing
        .as_ref()
        .map(|found| (found.uid(), found.gid()))
        .or(place.owner);
    let mode = existing
        .as_ref()
        .map(|found| found.mode() & 0o7777)
        .or(place.mode);
    if let Some((user, group)) = owner
        && let Err(error) = chown(new, Some(user), Some(group))
    {
        // Only root can give files away; whoever runs the service as somebody else owns them.
        tracing::warn!(%error, place = %path.display(), "the owner of a restored database could not be set");
    }
    fs::set_permissions(new, fs::Permissions::from_mode(mode.unwrap_or(0o600)))?;
    File::open(new)?.sync_all()?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    // Logs of a database that was made meanwhile are not ours to remove.
    if overwrite == Overwrite::Never && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    remove_logs(path)?;
    File::open(dir)?.sync_all()?;
    match overwrite {
        Overwrite::Never => rename_new(new, path)?,
        _ => fs::rename(new, path)?,
    }
    File::open(dir)?.sync_all()
}

/// The same bytes, and no log with later transactions.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let mut log = other.as_os_str().to_owned();
    log.push("-wal");
    let logged = fs::metadata(Path::new(&log)).is_ok_and(|found| found.len() > 0);
    if logged || fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    let mut one = io::BufReader::with_capacity(1 << 16, File::open(one)?);
    let mut other = io::BufReader::with_capacity(1 << 16, File::open(other)?);
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

/// Refuses if a process has the database open: by looking at what processes have open, as far as
/// the system lets us, and by trying for its locks.
fn in_use(path: &Path) -> Result<(), PluginError> {
    let refuse = |who: String| {
        Err(PluginError::retryable(format!(
            "the database at the place to restore to is in use by {who}: stop the application first (its before_restore command can do that)"
        )))
    };
    if let Some(process) = opened_by(path).map_err(|e| unusable(&e))? {
        return refuse(process);
    }
    match locked(path) {
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) =>
        {
            refuse("another process".to_owned())
        }
        // A wrecked file cannot be locked, and nobody else can use it either.
        _ => Ok(()),
    }
}

fn locked(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(Duration::ZERO)?;
    // In WAL mode this asks that no other connection be there at all.
    database.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK")
}

/// The first process that has this file open.
fn opened_by(path: &Path) -> io::Result<Option<String>> {
    let wanted = fs::metadata(path)?;
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
            .any(|file| file.dev() == wanted.dev() && file.ino() == wanted.ino());
        if open {
            let called = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Ok(Some(format!("process {id} ({})", called.trim())));
        }
    }
    Ok(None)
}
