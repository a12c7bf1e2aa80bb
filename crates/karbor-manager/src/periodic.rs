//! Periodic tasks: what a manager does again and again.
//!
//! The rules are oslo.service's. A task has a spacing; it is due when that long has passed since
//! the last boundary, and boundaries are multiples of the spacing, moved on by up to 5 % (in whole
//! seconds, so spacings under 20 s have none) so that services do not fall into step. Due tasks run
//! one after the other; an error in one is logged and the next runs.
//!
//! In two things we differ: a late look shifts the phase, and the time that may be idled is worked out
//! after the runs. The crate's head says how, and which test holds that there is no third.
//!
//! What oslo has no rule for: a run has a time limit ([`PeriodicTask::limit`]), after which it is
//! dropped and counts as failed, for one that hangs would keep the others from running.
//!
//! A task takes no input, and may be run twice, or dropped at any point where it waits: it looks at
//! the world and mends it. Each run leaves a [`TaskReport`] that an operator can read (`karbor
//! service show`).

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{debug, error, info};
use uuid::Uuid;

use crate::{
    Clock, Elapsed,
    tasks::{caught, lock},
    timeout,
};

/// The spacing of a task that says 0, and the longest that [`PeriodicTasks::periodic_tasks`] says
/// it may idle.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a run may take when its task does not say ([`PeriodicTask::limit`]).
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(600);

/// What the last run of a task came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub name: String,
    /// When the last run began, UTC.
    pub started_at: DateTime<Utc>,
    /// When it ended, UTC.
    pub ended_at: DateTime<Utc>,
    /// How.
    pub outcome: TaskOutcome,
    /// Runs so far.
    pub runs: u64,
    /// How many of them failed.
    pub failures: u64,
}

/// How a run of a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TaskOutcome {
    /// Well.
    Ok {
        /// What the task reports: its own type, as JSON.
        details: Value,
    },
    /// Not well.
    Error {
        /// What happened and what to do.
        message: String,
    },
}

/// Where the random part of a boundary comes from: a number from 0 up to 1.
type Random = Arc<dyn Fn() -> f64 + Send + Sync>;

type Body<M> = Arc<
    dyn Fn(Arc<M>, RequestContext) -> Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>
        + Send
        + Sync,
>;

/// A task of the manager `M`, before it is added.
pub struct PeriodicTask<M> {
    name: String,
    spacing: i64,
    run_immediately: bool,
    enabled: bool,
    external_process_ok: bool,
    limit: Duration,
    run: Body<M>,
}

impl<M> PeriodicTask<M> {
    /// A task on the default interval. What `run` returns is the report's details.
    pub fn new<F, Fut, R>(name: impl Into<String>, run: F) -> Self
    where
        F: Fn(Arc<M>, RequestContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, ApiError>> + Send + 'static,
        R: Serialize,
    {
        let run: Body<M> = Arc::new(move |manager, context| {
            let future = run(manager, context);
            Box::pin(async move {
                let details = future.await?;
                serde_json::to_value(&details).map_err(ApiError::internal)
            })
        });
        Self {
            name: name.into(),
            spacing: 0,
            run_immediately: false,
            enabled: true,
            external_process_ok: false,
            limit: DEFAULT_LIMIT,
            run,
        }
    }

    /// Seconds between runs; 0 is [`DEFAULT_INTERVAL`], a negative number disables the task.
    #[must_use]
    pub fn spacing(mut self, seconds: i64) -> Self {
        self.spacing = seconds;
        self
    }

    /// Run first as soon as the service has started, not one spacing later.
    #[must_use]
    pub fn run_immediately(mut self, yes: bool) -> Self {
        self.run_immediately = yes;
        self
    }

    /// Run it at all.
    #[must_use]
    pub fn enabled(mut self, yes: bool) -> Self {
        self.enabled = yes;
        self
    }

    /// Another process may run this task: it is left to that one when `run_external_periodic_tasks`
    /// is false.
    #[must_use]
    pub fn external_process_ok(mut self, yes: bool) -> Self {
        self.external_process_ok = yes;
        self
    }

    /// How long a run may take. One that takes longer is dropped where it waits, and has failed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// The periodic tasks of a manager. Cheap to clone; clones are the same tasks.
pub struct PeriodicTasks<M> {
    inner: Arc<Inner<M>>,
}

impl<M> Clone for PeriodicTasks<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<M> {
    clock: Arc<dyn Clock>,
    random: Random,
    run_external: AtomicBool,
    entries: Mutex<Vec<Entry<M>>>,
    added: Notify,
}

struct Entry<M> {
    name: String,
    spacing: Duration,
    external_process_ok: bool,
    limit: Duration,
    run: Body<M>,
    /// The boundary of the last run; `None` when it is to run at once.
    last_run: Option<Duration>,
    runs: u64,
    failures: u64,
    report: Option<TaskReport>,
    unsaved: bool,
}

impl<M> Entry<M> {
    fn due_in(&self, now: Duration) -> Duration {
        match self.last_run {
            Some(last) => (last + self.spacing).saturating_sub(now),
            None => Duration::ZERO,
        }
    }
}

impl<M: Send + Sync + 'static> PeriodicTasks<M> {
    /// No tasks yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_random(clock, random_part)
    }

    /// No tasks yet; `random` gives numbers from 0 up to 1, by which boundaries are moved on.
    #[must_use]
    pub fn with_random(
        clock: Arc<dyn Clock>,
        random: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                random: Arc::new(random),
                run_external: AtomicBool::new(true),
                entries: Mutex::default(),
                added: Notify::new(),
            }),
        }
    }

    /// With one more task.
    #[must_use]
    pub fn with(self, task: PeriodicTask<M>) -> Self {
        self.add(task);
        self
    }

    /// Adds a task, also while the others run; one of the same name is replaced. Says whether the
    /// task was enabled.
    pub fn add(&self, task: PeriodicTask<M>) -> bool {
        if task.spacing < 0 {
            info!(task = %task.name, "skipping periodic task: its interval is negative");
            return false;
        }
        if !task.enabled {
            info!(task = %task.name, "skipping periodic task: it is disabled");
            return false;
        }
        let spacing = match task.spacing.unsigned_abs() {
            0 => DEFAULT_INTERVAL,
            seconds => Duration::from_secs(seconds),
        };
        let last_run = (!task.run_immediately).then(|| self.inner.clock.monotonic());
        let entry = Entry {
            name: task.name,
            spacing,
            external_process_ok: task.external_process_ok,
            limit: task.limit,
            run: task.run,
            last_run,
            runs: 0,
            failures: 0,
            report: None,
            unsaved: false,
        };
        let mut entries = lock(&self.inner.entries);
        match entries.iter_mut().find(|other| other.name == entry.name) {
            Some(other) => *other = entry,
            None => entries.push(entry),
        }
        drop(entries);
        self.inner.added.notify_one();
        true
    }

    /// Whether tasks that another process may run are run by this one (`run_external_periodic_tasks`).
    pub fn set_run_external(&self, yes: bool) {
        self.inner.run_external.store(yes, Ordering::Relaxed);
    }

    /// Runs what is due, and says how long it may idle until something is.
    ///
    /// # Errors
    /// With `raise_on_error` the first error of a task, at once; else none: errors are logged.
    pub async fn periodic_tasks(
        &self,
        manager: &Arc<M>,
        context: &RequestContext,
        raise_on_error: bool,
    ) -> Result<Duration, ApiError> {
        let clock = &*self.inner.clock;
        // By place, since tasks may be added while others run: those have their turn too.
        for place in 0.. {
            let Some(name) = self.name(place) else {
                break;
            };
            let Some((run, limit)) = self.start_if_due(&name) else {
                continue;
            };
            debug!(task = %name, "running periodic task");
            let started_at = clock.now();
            // In a block, for a task may panic before it has a future.
            let ran = caught(async { (*run)(manager.clone(), context.clone()).await });
            let outcome = match timeout(clock, limit, ran).await {
                Ok(outcome) => outcome.flatten(),
                Err(Elapsed(limit)) => Err(ApiError::new(
                    ErrorKind::Timeout,
                    "Timeout",
                    format!(
                        "It had not ended after {} s and was stopped. It runs again in its turn.",
                        limit.as_secs_f64()
                    ),
                )),
            };
            self.finished(&name, started_at, &outcome);
            if let Err(failure) = outcome {
                if raise_on_error {
                    return Err(failure);
                }
                error!(task = %name, request_id = %context.request_id, "periodic task failed: {failure:?}");
            }
        }
        Ok(self.idle_for())
    }

    /// Returns when a task has been added.
    pub async fn added(&self) {
        self.inner.added.notified().await;
    }

    /// The report of the last run of each task that has run.
    #[must_use]
    pub fn reports(&self) -> Vec<TaskReport> {
        let entries = lock(&self.inner.entries);
        entries.iter().filter_map(|e| e.report.clone()).collect()
    }

    /// Goes on counting from reports that were kept when the service last ran.
    pub fn restore(&self, reports: &[TaskReport]) {
        for entry in lock(&self.inner.entries).iter_mut() {
            let kept = reports.iter().find(|report| report.name == entry.name);
            if let (Some(kept), None) = (kept, &entry.report) {
                entry.runs = kept.runs;
                entry.failures = kept.failures;
                entry.report = Some(kept.clone());
            }
        }
    }

    /// Reports that have not been kept yet.
    pub(crate) fn unsaved(&self) -> Vec<TaskReport> {
        let entries = lock(&self.inner.entries);
        let unsaved = entries.iter().filter(|entry| entry.unsaved);
        unsaved.filter_map(|entry| entry.report.clone()).collect()
    }

    /// No report counts as kept any more: what kept them is gone.
    pub(crate) fn keep_again(&self) {
        for entry in lock(&self.inner.entries).iter_mut() {
            entry.unsaved = entry.report.is_some();
        }
    }

    /// `report` has been kept.
    pub(crate) fn saved(&self, report: &TaskReport) {
        for entry in lock(&self.inner.entries).iter_mut() {
            if entry.report.as_ref() == Some(report) {
                entry.unsaved = false;
            }
        }
    }

    fn name(&self, place: usize) -> Option<String> {
        let entries = lock(&self.inner.entries);
        entries.get(place).map(|entry| entry.name.clone())
    }

    fn is_ours(&self, entry: &Entry<M>) -> bool {
        !entry.external_process_ok || self.inner.run_external.load(Ordering::Relaxed)
    }

    /// Moves the task's boundary on, if it is due; how to run it, and its limit.
    fn start_if_due(&self, name: &str) -> Option<(Body<M>, Duration)> {
        let now = self.inner.clock.monotonic();
        let mut entries = lock(&self.inner.entries);
        let entry = entries.iter_mut().find(|entry| entry.name == name)?;
        if !self.is_ours(entry) || !entry.due_in(now).is_zero() {
            return None;
        }
        entry.last_run = Some(match entry.last_run {
            Some(last) => nearest_boundary(last, entry.spacing, now, (self.inner.random)()),
            None => now,
        });
        Some((entry.run.clone(), entry.limit))
    }

    fn finished(&self, name: &str, started_at: DateTime<Utc>, outcome: &Result<Value, ApiError>) {
        let mut entries = lock(&self.inner.entries);
        let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) else {
            return;
        };
        entry.runs += 1;
        entry.failures += u64::from(outcome.is_err());
        entry.unsaved = true;
        entry.report = Some(TaskReport {
            name: name.to_owned(),
            started_at,
            ended_at: self.inner.clock.now(),
            outcome: match outcome {
                Ok(details) => TaskOutcome::Ok {
                    details: details.clone(),
                },
                Err(failure) => TaskOutcome::Error {
                    message: failure.message.clone(),
                },
            },
            runs: entry.runs,
            failures: entry.failures,
        });
    }

    fn idle_for(&self) -> Duration {
        let now = self.inner.clock.monotonic();
        let entries = lock(&self.inner.entries);
        entries
            .iter()
            .filter(|entry| self.is_ours(entry))
            .map(|entry| entry.due_in(now).min(entry.spacing))
            .fold(DEFAULT_INTERVAL, Duration::min)
    }
}

/// The boundary that a run starting now counts from: the last multiple of the spacing after `last`,
/// moved on by up to 5 %, and no further back than 5 % of the spacing. `random`: from 0 up to 1.
fn nearest_boundary(last: Duration, spacing: Duration, now: Duration, random: f64) -> Duration {
    let since = now.saturating_sub(last).as_nanos();
    let into = u64::try_from(since % spacing.as_nanos().max(1)).unwrap_or(u64::MAX);
    let jitter = Duration::from_secs((spacing.as_secs_f64() * (random / 20.0)) as u64);
    let boundary = now.saturating_sub(Duration::from_nanos(into)) + jitter;
    boundary.max(now.saturating_sub(spacing / 20))
}

/// A random number from 0 up to 1.
pub(crate) fn random_part() -> f64 {
    // The low 32 bits of a random UUID are random.
    f64::from(Uuid::new_v4().as_u128() as u32) / (f64::from(u32::MAX) + 1.0)
}
