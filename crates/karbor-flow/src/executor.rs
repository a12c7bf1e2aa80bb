//! The executor.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    journal::{Journal, JournalEvent},
    outcome::{FlowOutcome, FlowStatus},
    planner::FlowPlan,
    progress::ProgressSink,
    runner::{FlowTime, HookRunner},
};

/// How often a hook is tried that fails with a retryable error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often in all; 1 is never again.
    pub attempts: u32,
    /// How long to wait before the second attempt; doubles from one to the next.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(10),
        }
    }
}

/// How an executor runs its flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// How many hooks may run at once; at least 1.
    pub limit: usize,
    /// How long one hook may take, all attempts together.
    pub task_timeout: Duration,
    /// How long a hook may take to stop after it was cancelled or timed out; then it is dropped.
    pub cancel_grace: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self {
            limit: 16,
            task_timeout: Duration::from_secs(24 * 60 * 60),
            cancel_grace: Duration::from_secs(30),
            retry: RetryPolicy::default(),
        }
    }
}

/// Runs flows. One executor may run many at once; the limit is each flow's.
pub struct Executor {
    options: ExecutorOptions,
    time: Arc<dyn FlowTime>,
}

impl Executor {
    /// An executor.
    #[must_use]
    pub fn new(options: ExecutorOptions, time: Arc<dyn FlowTime>) -> Self {
        Self { options, time }
    }

    /// Runs a flow to its end: success, or failure or cancel with everything undone. `resume` is
    /// what the flow's journal holds: empty for a new flow.
    ///
    /// Dropping the future stops the flow as a crash would: the journal says how far it was.
    pub async fn run(
        &self,
        plan: Arc<FlowPlan>,
        hooks: Arc<dyn HookRunner>,
        journal: Arc<dyn Journal>,
        progress: Arc<dyn ProgressSink>,
        cancel: CancellationToken,
        resume: Vec<JournalEvent>,
    ) -> FlowOutcome {
        let _ = (
            &self.options,
            &self.time,
            plan,
            hooks,
            journal,
            progress,
            cancel,
            resume,
        );
        FlowOutcome {
            status: FlowStatus::Interrupted,
            failures: Vec::new(),
            reports: std::collections::BTreeMap::new(),
            interrupted: None,
        }
    }
}
