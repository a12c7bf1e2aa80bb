//! The task set: every background task of a service is started here, so that none is forgotten at
//! shutdown and none dies in silence.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use crate::{Clock, timeout};

/// Tasks that are waited for together. Cheap to clone; clones are the same set.
#[derive(Clone, Default)]
pub struct TaskSet {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tracker: TaskTracker,
    cancel: CancellationToken,
    abort: CancellationToken,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, String>>,
}

impl TaskSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It should end soon after [`TaskSet::cancelled`] is; a panic in it is logged
    /// with its name and goes no further.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let entry = Entry::new(self.inner.clone(), name.clone());
        let abort = self.inner.abort.clone();
        self.inner.tracker.spawn(async move {
            let _entry = entry;
            tokio::select! {
                outcome = AssertUnwindSafe(future).catch_unwind() => {
                    if let Err(panic) = outcome {
                        error!(task = %name, "task panicked: {}", panic_text(&*panic));
                    }
                }
                () = abort.cancelled() => {}
            }
        });
    }

    /// The token that asks the tasks of this set to stop.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.cancel
    }

    /// Asks every task to stop.
    pub fn cancel(&self) {
        self.inner.cancel.cancel();
    }

    /// Drops every task where it stands.
    pub fn abort(&self) {
        self.inner.cancel.cancel();
        self.inner.abort.cancel();
    }

    /// Names of the tasks that are still running.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        lock(&self.inner.running).values().cloned().collect()
    }

    /// Waits until every task has ended, for `deadline` at most; tasks that have not by then are
    /// dropped and named in the answer. Does not ask them to stop: see [`TaskSet::cancel`].
    pub async fn join(&self, clock: &dyn Clock, deadline: Duration) -> Vec<String> {
        self.inner.tracker.close();
        if timeout(clock, deadline, self.inner.tracker.wait())
            .await
            .is_ok()
        {
            return Vec::new();
        }
        let left = self.running();
        warn!(tasks = ?left, "tasks did not end within {deadline:?} and are dropped");
        self.abort();
        self.inner.tracker.wait().await;
        left
    }
}

/// Keeps a task's name listed for as long as the task lives.
struct Entry {
    set: Arc<Inner>,
    id: u64,
}

impl Entry {
    fn new(set: Arc<Inner>, name: String) -> Self {
        let id = set.next.fetch_add(1, Ordering::Relaxed);
        lock(&set.running).insert(id, name);
        Self { set, id }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.set.running).remove(&self.id);
    }
}

/// Locks, also when a holder panicked: what we guard is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said, as far as it is text.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
