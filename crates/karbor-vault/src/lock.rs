//! restic's locks. We only take the shared sort: it keeps a `restic prune` away while we write or read,
//! and we stay away while one runs.
//!
//! A lock is shared by everything that runs on one [`Vault`](crate::Vault) and removed when the last is
//! done. It is refreshed as restic does: a new file, then the old one is removed. Who stops refreshing
//! is taken for dead after 30 minutes, so a writer that finds its lock so old must not commit.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    VaultError,
    id::Id,
    repository::{self, FileKind, Repository, lock},
    time::Time,
};

const REFRESH: Duration = Duration::from_secs(5 * 60);
const STALE: TimeDelta = TimeDelta::minutes(30);

#[derive(Debug, Serialize, Deserialize)]
struct LockFile {
    time: Time,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
}

impl LockFile {
    fn ours() -> Self {
        Self {
            time: Utc::now().into(),
            exclusive: false,
            hostname: hostname(),
            username: "karbor".to_owned(),
            pid: std::process::id(),
            uid: Some(rustix::process::geteuid().as_raw()),
            gid: Some(rustix::process::getegid().as_raw()),
        }
    }

    fn is_stale(&self, now: DateTime<Utc>) -> bool {
        if now - self.time.to_utc() > STALE {
            return true;
        }
        let here = hostname();
        !here.is_empty() && self.hostname == here && !is_alive(self.pid)
    }
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// This host's name, as the kernel has it.
pub(crate) fn hostname() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

/// Hands out the one lock of a vault.
#[derive(Default)]
pub(crate) struct Locks {
    held: tokio::sync::Mutex<Weak<HeldLock>>,
}

/// A lock file in the bank, removed when dropped.
pub(crate) struct HeldLock {
    repository: Arc<Repository>,
    files: Mutex<Files>,
    refresher: tokio::task::AbortHandle,
    runtime: tokio::runtime::Handle,
}

/// The files of one lock.
#[derive(Default)]
struct Files {
    /// The one that holds, and when it was written.
    held: Option<(Id, DateTime<Utc>)>,
    /// Every one that may be in the bank: also one whose write was given up and may be done yet.
    written: Vec<Id>,
}

impl Locks {
    /// The shared lock.
    pub(crate) async fn shared(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<Arc<HeldLock>, VaultError> {
        let mut held = self.held.lock().await;
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        check(repository).await?;
        let lock = HeldLock::take(repository).await?;
        // Who took an exclusive lock after our first look saw ours, or we see theirs now.
        check(repository).await?;
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }

    /// The shared lock, for somebody who only reads. What can be read can be restored: where no lock
    /// can be written (the bank is full, or was mounted read-only because it is failing) reading
    /// goes on without one. A prune would have to write, too.
    pub(crate) async fn for_reading(
        &self,
        repository: &Arc<Repository>,
    ) -> Result<Option<Arc<HeldLock>>, VaultError> {
        match self.shared(repository).await {
            Ok(lock) => Ok(Some(lock)),
            Err(error @ (VaultError::Locked { .. } | VaultError::Cancelled)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the repository cannot be locked; reading goes on without");
                Ok(None)
            }
        }
    }
}

/// Fails if somebody alive has an exclusive lock; removes locks of the dead.
async fn check(repository: &Repository) -> Result<(), VaultError> {
    let now = Utc::now();
    for (id, size) in repository.list(FileKind::Lock).await? {
        // Some of restic's backends leave empty files behind.
        if size == 0 {
            continue;
        }
        let Some(json) = repository.load(FileKind::Lock, &id).await? else {
            continue;
        };
        let other: LockFile = serde_json::from_slice(&json)
            .map_err(|error| VaultError::damaged(FileKind::Lock.object(&id), error.to_string()))?;
        if other.is_stale(now) {
            tracing::info!(lock = %id, pid = other.pid, host = other.hostname, "removing a stale lock");
            repository.delete(FileKind::Lock, &id).await?;
        } else if other.exclusive {
            return Err(VaultError::Locked {
                holder: format!(
                    "process {} of {} on {} since {}",
                    other.pid,
                    other.username,
                    other.hostname,
                    other.time.to_text()
                ),
            });
        }
    }
    Ok(())
}

impl HeldLock {
    async fn take(repository: &Arc<Repository>) -> Result<Arc<Self>, VaultError> {
        let runtime = tokio::runtime::Handle::current();
        let taken = Arc::new_cyclic(|weak: &Weak<Self>| Self {
            repository: repository.clone(),
            files: Mutex::default(),
            refresher: runtime.spawn(keep_fresh(weak.clone())).abort_handle(),
            runtime,
        });
        taken.refresh().await?;
        Ok(taken)
    }

    /// Writes the file anew, then removes those before it.
    async fn refresh(&self) -> Result<(), VaultError> {
        let file = LockFile::ours();
        let json = repository::json(&file)?;
        let (id, sealed) = self.repository.sealed(FileKind::Lock, &json)?;
        lock(&self.files).written.push(id);
        self.repository.put(FileKind::Lock, &id, sealed).await?;
        lock(&self.files).held = Some((id, file.time.to_utc()));
        self.remove_but(Some(id)).await
    }

    /// Removes every file but one.
    async fn remove_but(&self, one: Option<Id>) -> Result<(), VaultError> {
        let others = || {
            let files = lock(&self.files);
            files.written.iter().copied().find(|id| Some(*id) != one)
        };
        while let Some(id) = others() {
            self.repository.delete(FileKind::Lock, &id).await?;
            lock(&self.files).written.retain(|other| *other != id);
        }
        Ok(())
    }

    /// Fails if others may have taken us for dead.
    pub(crate) async fn check_held(&self) -> Result<(), VaultError> {
        let held = || lock(&self.files).held;
        let (id, time) =
            held().ok_or_else(|| VaultError::LockLost("it was released".to_owned()))?;
        if Utc::now() - time > STALE {
            return Err(VaultError::LockLost(format!(
                "it was not renewed since {time}"
            )));
        }
        match self.repository.exists(FileKind::Lock, &id).await? {
            true => Ok(()),
            // Or it was refreshed just now.
            false if held().is_some_and(|(now, _)| now != id) => Ok(()),
            false => Err(VaultError::LockLost("somebody removed it".to_owned())),
        }
    }

    /// Removes the lock if nobody else uses it. Dropping does too, but does not wait for it.
    pub(crate) async fn release(self: Arc<Self>) {
        let Some(this) = Arc::into_inner(self) else {
            return;
        };
        this.refresher.abort();
        lock(&this.files).held = None;
        if let Err(error) = this.remove_but(None).await {
            left(&error);
            lock(&this.files).written.clear();
        }
    }
}

async fn keep_fresh(held: Weak<HeldLock>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let Some(held) = held.upgrade() else {
            return;
        };
        if let Err(error) = held.refresh().await {
            tracing::warn!(%error, "the lock on the repository could not be renewed; trying again");
        }
    }
}

fn left(error: &VaultError) {
    tracing::warn!(%error, "a lock could not be removed; it ends by itself in 30 minutes");
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.refresher.abort();
        let files = std::mem::take(&mut *lock(&self.files));
        if files.written.is_empty() {
            return;
        }
        let repository = self.repository.clone();
        self.runtime.spawn(async move {
            for id in files.written {
                if let Err(error) = repository.delete(FileKind::Lock, &id).await {
                    left(&error);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_and_the_silent_are_stale() {
        let now = Utc::now();
        let alive = LockFile::ours();
        assert!(!alive.is_stale(now));
        assert!(alive.is_stale(now + TimeDelta::minutes(31)));
        let dead = LockFile {
            pid: 0x3fff_ffff,
            ..LockFile::ours()
        };
        assert!(dead.is_stale(now));
        let elsewhere = LockFile {
            hostname: "elsewhere".to_owned(),
            ..dead
        };
        assert!(!elsewhere.is_stale(now));
    }

    async fn repository() -> Arc<Repository> {
        repository_in(Arc::new(karbor_testkit::MemoryBank::new())).await
    }

    async fn repository_in(bank: Arc<dyn karbor_plugin::Bank>) -> Arc<Repository> {
        let prefix = karbor_plugin::BankKey::parse("v").unwrap();
        let section = karbor_plugin::BankSection::new(bank, prefix);
        let password = karbor_plugin::Secret::new("x".to_owned());
        repository::init(&section, &password, String::new(), None)
            .await
            .unwrap();
        let opened = Repository::open(section, &password, crate::VaultOptions::default());
        Arc::new(opened.await.unwrap())
    }

    async fn put(repository: &Repository, file: &LockFile) -> Id {
        let json = repository::json(file).unwrap();
        repository.save(FileKind::Lock, &json).await.unwrap()
    }

    #[tokio::test]
    async fn an_exclusive_lock_of_the_living_keeps_us_out() {
        let repository = repository().await;
        let locks = Locks::default();
        let theirs = LockFile {
            exclusive: true,
            ..LockFile::ours()
        };
        let id = put(&repository, &theirs).await;
        let error = locks.shared(&repository).await.err().unwrap();
        assert!(matches!(error, VaultError::Locked { .. }), "{error:?}");
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        assert!(error.is_retryable());
        assert!(matches!(
            locks.for_reading(&repository).await,
            Err(VaultError::Locked { .. })
        ));
        repository.delete(FileKind::Lock, &id).await.unwrap();
        let held = locks.shared(&repository).await.unwrap();
        held.check_held().await.unwrap();
        assert!(Arc::ptr_eq(
            &held,
            &locks.shared(&repository).await.unwrap()
        ));
        assert_eq!(repository.list(FileKind::Lock).await.unwrap().len(), 1);
        held.release().await;
        assert!(repository.list(FileKind::Lock).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn stale_locks_are_removed_and_others_shared_ones_left() {
        let repository = repository().await;
        let long_ago = Time::from(Utc::now() - TimeDelta::minutes(31));
        put(
            &repository,
            &LockFile {
                exclusive: true,
                time: long_ago,
                ..LockFile::ours()
            },
        )
        .await;
        put(
            &repository,
            &LockFile {
                exclusive: true,
                pid: 0x3fff_ffff,
                ..LockFile::ours()
            },
        )
        .await;
        let other = put(
            &repository,
            &LockFile {
                hostname: "other".to_owned(),
                ..LockFile::ours()
            },
        )
        .await;
        let held = Locks::default().shared(&repository).await.unwrap();
        held.release().await;
        let left = repository.list(FileKind::Lock).await.unwrap();
        assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [other]);
    }

    #[tokio::test]
    async fn a_renewed_lock_is_still_held_and_one_that_was_not_is_lost() {
        let repository = repository().await;
        let held = Locks::default().shared(&repository).await.unwrap();
        held.refresh().await.unwrap();
        held.check_held().await.unwrap();
        assert_eq!(repository.list(FileKind::Lock).await.unwrap().len(), 1);
        if let Some((_, time)) = lock(&held.files).held.as_mut() {
            *time -= TimeDelta::minutes(31);
        }
        let error = held.check_held().await.unwrap_err();
        assert!(matches!(error, VaultError::LockLost(_)), "{error:?}");
    }

    /// A bank that hangs and wakes up, or whose answer is lost: nobody's `restic prune` waits for half an hour.
    #[tokio::test]
    async fn a_renewal_that_was_given_up_leaves_no_file() {
        use karbor_testkit::{Fault, FaultyBank, MemoryBank, Verb};
        let bank = Arc::new(FaultyBank::new(MemoryBank::new()));
        let repository = repository_in(bank.clone()).await;
        let held = Locks::default().shared(&repository).await.unwrap();
        bank.inject(Fault::AnswerLost, 1, |call| call.verb == Verb::Put);
        held.refresh().await.unwrap_err();
        held.check_held().await.unwrap();
        held.refresh().await.unwrap();
        assert_eq!(repository.list(FileKind::Lock).await.unwrap().len(), 1);
        bank.inject(Fault::AnswerLost, 1, |call| call.verb == Verb::Put);
        held.refresh().await.unwrap_err();
        held.release().await;
        assert!(repository.list(FileKind::Lock).await.unwrap().is_empty());

        // Nor does a first one.
        bank.inject(Fault::AnswerLost, 1, |call| call.verb == Verb::Put);
        let refused = Locks::default().shared(&repository).await;
        assert!(refused.is_err());
        while !repository.list(FileKind::Lock).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
