//! The task set: every background task of a service is started here, so that none is forgotten at
//! shutdown and none dies in silence. A loop that is to run for as long as the service does is
//! supervised: after a panic it is begun again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use karbor_model::ApiError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use crate::{Clock, timeout};

/// A supervised loop that panicked is begun again after this; each panic in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The pause grows no further. A loop that ran for this long begins with [`FIRST_PAUSE`] again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a task may take to be dropped: one that is in the middle of a computation cannot be.
const DROP_TIME: Duration = Duration::from_secs(1);

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
    /// Supervised loops that panicked and do not run again yet.
    down: Mutex<BTreeSet<String>>,
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

    /// Starts a loop that runs until the set is asked to stop. When it panics, that is logged and
    /// `begin` begins it again after a pause, which grows from a second to a minute while it goes on
    /// panicking; until then [`TaskSet::down`] names it.
    pub fn supervise<F, Fut>(&self, name: impl Into<String>, clock: Arc<dyn Clock>, begin: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let set = self.inner.clone();
        self.spawn(name.clone(), async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = clock.monotonic();
                let run = AssertUnwindSafe(async { begin().await });
                let Err(panic) = run.catch_unwind().await else {
                    return;
                };
                if clock.monotonic().saturating_sub(begun) >= LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                error!(
                    task = %name,
                    "task panicked and is begun again in {pause:?}: {}", panic_text(&*panic)
                );
                // A panic's payload may hold anything; it is not kept over the pause.
                drop(panic);
                lock(&set.down).insert(name.clone());
                tokio::select! {
                    () = set.cancel.cancelled() => return,
                    () = clock.sleep(pause) => {}
                }
                lock(&set.down).remove(&name);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Names of the supervised loops that panicked and have not been begun again yet.
    #[must_use]
    pub fn down(&self) -> Vec<String> {
        lock(&self.inner.down).iter().cloned().collect()
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
        // One that is in the middle of a computation is left to the end of the process.
        let _ = timeout(clock, DROP_TIME, self.inner.tracker.wait()).await;
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

/// What `future` comes to; a panic in it is an internal error, whose cause is what the panic said.
///
/// # Errors
/// `Internal` when it panicked.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, ApiError> {
    let done = AssertUnwindSafe(future).catch_unwind().await;
    done.map_err(|panic| ApiError::internal(format!("a panic: {}", panic_text(&*panic))))
}

/// What a panic said, as far as it is text.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
