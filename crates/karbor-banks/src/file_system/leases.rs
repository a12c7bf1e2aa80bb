//! Leases: `+leases/<name>/+lease`, compared and set while `+lease-lock` is locked.

use std::{
    io::Read,
    os::fd::OwnedFd,
    sync::PoisonError,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use karbor_plugin::{BankError, BankKey, Lease};
use rustix::{
    fs::{Dir, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::{
    dirs::{kind, open_directory},
    error::failure,
    store::{Existing, Store},
};

const LEASES: &str = "+leases";
const LEASE: &str = "+lease";
const LOCK: &str = "+lease-lock";

/// A holder does four small steps; one that takes this long was stopped.
const PATIENCE: Duration = Duration::from_secs(10);

fn path_of(name: &BankKey) -> String {
    format!("{LEASES}/{name}/{LEASE}")
}

/// Is a lease at this path in the container?
pub(super) fn is_lease(path: &str) -> bool {
    path.starts_with(LEASES)
}

fn end_of(now: DateTime<Utc>, ttl: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(ttl)
        .ok()
        .and_then(|ttl| now.checked_add_signed(ttl))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl Store {
    pub(super) fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Lease, BankError> {
        self.locked(|| {
            // Taken under the lock: waiting for it costs the lease nothing.
            let now = now();
            if let Some(held) = self.read_lease(name)?
                && held.owner != owner
                && held.expires_at > now
            {
                return Err(BankError::LeaseHeld {
                    name: held.name,
                    owner: held.owner,
                    expires_at: held.expires_at,
                });
            }
            let lease = Lease {
                name: name.to_string(),
                owner: owner.to_owned(),
                expires_at: end_of(now, ttl),
            };
            self.write_lease(name, lease)
        })
    }

    pub(super) fn renew_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Lease, BankError> {
        let name = BankKey::parse(&lease.name)?;
        self.locked(|| match self.read_lease(&name)? {
            Some(held) if held.owner == lease.owner => {
                let expires_at = end_of(now(), ttl);
                self.write_lease(&name, Lease { expires_at, ..held })
            }
            _ => Err(BankError::LeaseLost(lease.name.clone())),
        })
    }

    pub(super) fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        let name = BankKey::parse(&lease.name)?;
        self.locked(|| match self.read_lease(&name)? {
            Some(held) if held.owner == lease.owner => self
                .remove(&path_of(&name))
                .map_err(|errno| failure(format_args!("releasing '{name}'"), errno)),
            _ => Ok(()),
        })
    }

    pub(super) fn leases(
        &self,
        name: &BankKey,
        now: DateTime<Utc>,
    ) -> Result<Vec<Lease>, BankError> {
        let reading = |errno| failure(format_args!("listing leases of '{name}'"), errno);
        let mut names = Vec::new();
        let start = format!("{LEASES}/{name}");
        if let Some(directory) = self.dirs.find(&start).map_err(reading)? {
            collect(&directory, name.as_str(), &mut names).map_err(reading)?;
        }
        names.sort();
        let mut live = Vec::new();
        for name in names {
            let lease = self.read_lease(&name)?;
            live.extend(lease.filter(|lease| lease.expires_at > now));
        }
        Ok(live)
    }

    fn read_lease(&self, name: &BankKey) -> Result<Option<Lease>, BankError> {
        let reading = |error| failure(format_args!("reading the lease '{name}'"), error);
        let opened = self.open_file(&path_of(name));
        let Some((mut file, _)) = opened.map_err(|errno| reading(errno.into()))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(reading)?;
        match serde_json::from_slice(&text) {
            Ok(lease) => Ok(Some(lease)),
            Err(error) => Err(BankError::Other {
                message: format!(
                    "the lease '{name}' cannot be read ({error}); if nothing runs on this bank, \
                     remove its file"
                ),
                at: Some(self.path().join(path_of(name)).display().to_string()),
                retryable: false,
            }),
        }
    }

    fn write_lease(&self, name: &BankKey, lease: Lease) -> Result<Lease, BankError> {
        let text = serde_json::to_vec(&lease).map_err(|error| BankError::Other {
            message: format!("the lease '{name}' cannot be written: {error}"),
            at: None,
            retryable: false,
        })?;
        match self.write(&path_of(name), &text, Existing::Replace) {
            Ok(()) => Ok(lease),
            Err(refusal) => Err(refusal.into_error(&format!("lease {name}"))),
        }
    }

    /// Runs `work` while no other process, and no other thread, does the like.
    fn locked<T>(&self, work: impl FnOnce() -> Result<T, BankError>) -> Result<T, BankError> {
        let _turn = self
            .lease_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let locking = |errno| failure("locking the leases", errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let lock: OwnedFd =
            rustix::fs::openat(self.dirs.container(), LOCK, flags, mode).map_err(locking)?;
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return work(),
                Err(Errno::WOULDBLOCK) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(BankError::Other {
                        message: format!(
                            "another process has held the lock of its leases for {} seconds; see who with lsof",
                            PATIENCE.as_secs()
                        ),
                        at: Some(self.path().join(LOCK).display().to_string()),
                        retryable: true,
                    });
                }
                Err(errno) => return Err(locking(errno)),
            }
        }
    }
}

/// The names of all leases at and below `name`, dead ones too.
fn collect(directory: &OwnedFd, name: &str, names: &mut Vec<BankKey>) -> Result<(), Errno> {
    if kind(directory, LEASE) == Some(FileType::RegularFile) {
        names.extend(BankKey::parse(name));
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(part) = entry.file_name().to_str() else {
            continue;
        };
        if BankKey::parse(part).is_err() {
            continue;
        }
        match open_directory(directory, part) {
            Ok(below) => collect(&below, &format!("{name}/{part}"), names)?,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
