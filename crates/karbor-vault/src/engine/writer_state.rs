//! What a writer, its threads and the engine know of each other.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::{Control, VaultError, repository::lock};

/// What a writer has brought in so far.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) new_blobs: [AtomicU64; 2],
    pub(crate) new_data: AtomicU64,
    pub(crate) new_bytes: AtomicU64,
}

pub(crate) struct WriterState {
    pub(crate) control: Control,
    pub(crate) totals: Totals,
    /// The first failure; nothing is committed after one.
    failure: Mutex<Option<VaultError>>,
    failed: AtomicBool,
    jobs: AtomicUsize,
    idle: Notify,
}

impl WriterState {
    pub(crate) fn new(control: Control) -> Self {
        Self {
            control,
            totals: Totals::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            jobs: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// Notes a failure; only the first counts.
    pub(crate) fn poison(&self, error: VaultError) {
        lock(&self.failure).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// Has it failed, or was it cancelled?
    pub(crate) fn is_stopped(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.control.cancel.is_cancelled()
    }

    pub(crate) fn failure(&self) -> Option<VaultError> {
        lock(&self.failure).clone()
    }

    /// Fails if it has failed or was cancelled.
    pub(crate) fn check(&self) -> Result<(), VaultError> {
        match self.failure() {
            Some(error) => Err(error),
            None if self.control.cancel.is_cancelled() => Err(VaultError::Cancelled),
            None => Ok(()),
        }
    }

    /// Why nothing more is taken.
    pub(crate) fn reason(&self) -> VaultError {
        let closed = || VaultError::Internal("the engine is closed".to_owned());
        self.check().err().unwrap_or_else(closed)
    }

    pub(super) fn job_begins(&self) {
        self.jobs.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn job_ends(&self) {
        if self.jobs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Waits until no job of this writer is queued or at work.
    pub(crate) async fn until_idle(&self) {
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.jobs.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}
