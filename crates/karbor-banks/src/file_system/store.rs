//! The bank's work on files. Everything here blocks.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use karbor_plugin::{BankError, BankKey, ListRequest, MAX_OBJECT, ObjectInfo, too_large};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    dirs::{Dirs, Refusal, is_removed, kind},
    error::failure,
    leases, listing, reserve,
    temp::{self, TempArea, TempFile},
};

/// Where the original's layout has the keys of the index.
const INDICES: &str = "indices/";

/// How often a write starts over because somebody pruned its directory just then.
const ATTEMPTS: usize = 100;

/// What a write does with an object that is there.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Existing {
    Replace,
    Refuse,
}

/// An open bank.
pub(super) struct Store {
    pub(super) dirs: Dirs,
    temp: Mutex<Option<Arc<TempArea>>>,
    pub(super) lease_lock: Mutex<()>,
    /// Locked while somebody uses it.
    reserve: Mutex<Reserve>,
}

/// What is known of the reserve.
#[derive(Default)]
struct Reserve {
    is_ours: bool,
    /// It is as large as it should be.
    is_whole: bool,
}

/// How much to allocate at once for so many bytes: what a file says of its size may not be so.
fn claimed(size: u64) -> usize {
    const AT_ONCE: u64 = 32 << 20;
    usize::try_from(size.min(AT_ONCE)).unwrap_or_default()
}

/// A path in the container, as directory and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Store {
    pub(super) fn open(path: &Path, container: &str, make: bool) -> Result<Self, BankError> {
        let dirs = Dirs::open(path, container, make)?;
        match temp::sweep(dirs.container()) {
            Ok(0) => {}
            Ok(files) => tracing::info!(
                bank = %dirs.path().display(), files, "removed what dead processes left unfinished"
            ),
            // A bank that cannot be written can still be restored from.
            Err(error) => tracing::warn!(
                bank = %dirs.path().display(), %error,
                "what dead processes left unfinished could not be removed"
            ),
        }
        Ok(Self {
            dirs,
            temp: Mutex::default(),
            lease_lock: Mutex::default(),
            reserve: Mutex::default(),
        })
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills the reserve up, if it is short.
    fn fill_reserve(&self) {
        let mut reserve = self.reserve();
        if !reserve.is_whole {
            self.keep_reserve(&mut reserve);
        }
    }

    fn keep_reserve(&self, reserve: &mut Reserve) {
        match reserve::keep(self.dirs.container()) {
            Ok(is_whole) => {
                *reserve = Reserve {
                    is_ours: true,
                    is_whole,
                }
            }
            // A bank that cannot be written needs none.
            Err(errno) => {
                tracing::debug!(bank = %self.path().display(), %errno, "no room can be kept in reserve");
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dirs.path()
    }

    pub(super) fn put(
        &self,
        key: &BankKey,
        data: &[u8],
        existing: Existing,
    ) -> Result<(), BankError> {
        match self.write(key.as_str(), data, existing) {
            Err(Refusal::Errno(Errno::EXIST)) if existing == Existing::Refuse => {
                Err(BankError::AlreadyExists(key.clone()))
            }
            Err(refusal) => Err(refusal.into_error(key.as_str())),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a file at `path` in the container. What replaces a small one, is a lease, or a key of the index (its
    /// record is there already), may use the reserve of a bank that is full.
    pub(super) fn write(&self, path: &str, data: &[u8], existing: Existing) -> Result<(), Refusal> {
        let written = self.write_once(path, data, existing);
        match &written {
            Err(Refusal::Errno(errno)) if reserve::is_full(*errno) => {}
            Ok(()) => {
                self.fill_reserve();
                return written;
            }
            Err(_) => return written,
        }
        let may_use = data.len() <= reserve::SMALL
            && existing == Existing::Replace
            && (leases::is_lease(path)
                || path.starts_with(INDICES)
                || self.open_file(path)?.is_some());
        if !may_use {
            return written;
        }
        let mut reserve = self.reserve();
        if !reserve::give_up(self.dirs.container())? {
            return written;
        }
        let written = self.write_once(path, data, existing);
        self.keep_reserve(&mut reserve);
        written
    }

    /// See the head of the bank for the order.
    fn write_once(&self, path: &str, data: &[u8], existing: Existing) -> Result<(), Refusal> {
        let (above, name) = split(path);
        let mut temp = self.temp_file()?;
        temp.file.write_all(data).map_err(errno)?;
        temp.file.sync_all().map_err(errno)?;
        for _ in 0..ATTEMPTS {
            let directory = match self.dirs.ensure(above) {
                Err(Refusal::Errno(errno)) if is_removed(errno) => {
                    self.dirs.forget(above);
                    continue;
                }
                other => other?,
            };
            let moved = match existing {
                Existing::Replace => temp.replace(&directory, name),
                Existing::Refuse => temp.move_new(&directory, name),
            };
            match moved {
                Ok(()) => return Ok(rustix::fs::fsync(&directory)?),
                Err(errno) if is_removed(errno) => self.dirs.forget(above),
                Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY)
                    if kind(&directory, name) == Some(FileType::Directory) =>
                {
                    self.clear_directory(&directory, path, name)?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// An empty directory may be left where an object is to be; one with objects may not.
    fn clear_directory(&self, parent: impl AsFd, path: &str, name: &str) -> Result<(), Refusal> {
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                self.dirs.forget(path);
                Ok(())
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(Refusal::InTheWay(format!("{path}/..."))),
            Err(errno) => Err(errno.into()),
        }
    }

    fn temp_file(&self) -> Result<TempFile, Errno> {
        let mut area = self.temp.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = area.as_ref() {
            match open.create() {
                // Somebody removed it by hand.
                Err(errno) if is_removed(errno) => *area = None,
                other => return other,
            }
        }
        let opened = Arc::new(TempArea::open(self.dirs.container())?);
        *area = Some(opened.clone());
        opened.create()
    }

    /// Opens an object for reading.
    fn open_object(&self, key: &BankKey) -> Result<(File, u64), BankError> {
        let reading = |errno| failure(format_args!("reading '{key}'"), errno);
        match self.open_file(key.as_str()).map_err(reading)? {
            Some(opened) => Ok(opened),
            None => Err(BankError::NotFound(key.clone())),
        }
    }

    /// Opens a plain file in the container and tells its size, if there is one.
    pub(super) fn open_file(&self, path: &str) -> Result<Option<(File, u64)>, Errno> {
        let (above, name) = split(path);
        let Some(directory) = self.dirs.find(above)? else {
            return Ok(None);
        };
        // NONBLOCK: a pipe that somebody put there must not hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file: OwnedFd = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        Ok(Some((
            file.into(),
            u64::try_from(stat.st_size).unwrap_or(0),
        )))
    }

    pub(super) fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let (file, size) = self.open_object(key)?;
        if size > most {
            return Err(too_large(key, most));
        }
        let mut data = Vec::with_capacity(claimed(size));
        // The file may have grown since, and a size may be a lie.
        file.take(most.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|error| failure(format_args!("reading '{key}'"), error))?;
        match data.len() as u64 > most {
            true => Err(too_large(key, most)),
            false => Ok(data.into()),
        }
    }

    pub(super) fn get_range(
        &self,
        key: &BankKey,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, BankError> {
        let (file, size) = self.open_object(key)?;
        let short = || BankError::Corrupt {
            key: key.clone(),
            reason: format!("it has {size} bytes, not {length} from {offset} on"),
        };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(short());
        }
        if length > MAX_OBJECT {
            return Err(too_large(key, MAX_OBJECT));
        }
        let length = usize::try_from(length).map_err(|_| short())?;
        let mut data = Vec::with_capacity(claimed(length as u64));
        while data.len() < length {
            let from = data.len();
            data.resize(length.min(from + claimed(MAX_OBJECT)), 0);
            match file.read_exact_at(&mut data[from..], offset + from as u64) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(short());
                }
                Err(error) => return Err(failure(format_args!("reading '{key}'"), error)),
            }
        }
        Ok(data.into())
    }

    pub(super) fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let (_, size) = self.open_object(key)?;
        let key = key.clone();
        Ok(ObjectInfo { key, size })
    }

    pub(super) fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        self.remove(key.as_str())
            .map_err(|errno| failure(format_args!("deleting '{key}'"), errno))
    }

    /// Removes a file in the container, durably, and the directories that it leaves empty.
    pub(super) fn remove(&self, path: &str) -> Result<(), Errno> {
        let (above, name) = split(path);
        let Some(directory) = self.dirs.find(above)? else {
            return Ok(());
        };
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Some systems say EPERM of a directory; it is no object, so nothing is to be done.
            Err(Errno::ISDIR | Errno::PERM)
                if kind(&directory, name) == Some(FileType::Directory) =>
            {
                return Ok(());
            }
            Err(errno) => return Err(errno),
        }
        // Also when it was gone: its remover may have died before this line.
        rustix::fs::fsync(&directory)?;
        self.dirs.prune(above);
        self.fill_reserve();
        Ok(())
    }

    pub(super) fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        listing::list(&self.dirs, request).map_err(|errno| {
            let prefix = request.prefix.as_ref().map_or("", BankKey::as_str);
            failure(format_args!("listing '{prefix}'"), errno)
        })
    }
}

/// A service that stops gives the reserve back: `restic prune`, which makes room, takes some first.
impl Drop for Store {
    fn drop(&mut self) {
        let is_ours = self.reserve().is_ours;
        if is_ours && let Err(errno) = reserve::give_up(self.dirs.container()) {
            tracing::debug!(bank = %self.path().display(), %errno, "the reserve stays");
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
