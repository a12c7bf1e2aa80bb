//! The executor.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{Attempts, TaskEnd},
    journal::{EventKind, Journal, JournalError, JournalEvent},
    outcome::FlowOutcome,
    planner::{FlowPlan, Hook},
    progress::ProgressSink,
    ready::Ready,
    runner::{FlowTime, HookRunner},
    state::{State, Step, detail},
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
    /// what the flow's journal holds: empty for a new flow. A flow that has ended gives the same
    /// outcome again and runs nothing.
    ///
    /// Dropping the future stops the flow as a crash would: hooks end at their next `await`, and
    /// the journal says how far it was.
    pub async fn run(
        &self,
        plan: Arc<FlowPlan>,
        hooks: Arc<dyn HookRunner>,
        journal: Arc<dyn Journal>,
        progress: Arc<dyn ProgressSink>,
        cancel: CancellationToken,
        resume: Vec<JournalEvent>,
    ) -> FlowOutcome {
        let state = match State::resume(Arc::clone(&plan), resume) {
            Ok(state) => state,
            Err(reason) => return FlowOutcome::interrupted(reason),
        };
        let mut run = Run {
            options: self.options,
            time: Arc::clone(&self.time),
            plan,
            hooks,
            journal,
            progress,
            cancel,
            state,
            pending: Vec::new(),
        };
        let interrupted = run.finish().await.err().map(|error| error.to_string());
        run.state.outcome(interrupted)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Forward,
    Undo,
}

/// Why a flow cannot go on.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the journal of the flow cannot be written, so the flow stopped: {0}")]
    Journal(#[from] JournalError),
    #[error("a hook of the flow was lost with the runtime: {0}")]
    Lost(#[from] JoinError),
}

type Running = JoinSet<(usize, TaskEnd)>;

/// One flow while it runs. Only this changes its state and writes its journal; the tasks beside it
/// run hooks and hand back how they ended.
struct Run {
    options: ExecutorOptions,
    time: Arc<dyn FlowTime>,
    plan: Arc<FlowPlan>,
    hooks: Arc<dyn HookRunner>,
    journal: Arc<dyn Journal>,
    progress: Arc<dyn ProgressSink>,
    cancel: CancellationToken,
    state: State,
    /// Events that are not in the journal yet.
    pending: Vec<JournalEvent>,
}

impl Run {
    async fn finish(&mut self) -> Result<(), Interruption> {
        self.progress
            .flow_started(&self.plan, self.state.finished());
        if self.state.stop().is_none() {
            self.drive(Phase::Forward).await?;
        }
        if self.state.stop().is_some() {
            let (total, done) = self.state.undo_counts();
            self.progress.undo_started(&self.plan, total, done);
            self.drive(Phase::Undo).await?;
        }
        Ok(())
    }

    /// Runs the steps of a phase that are left, until none runs and none may start.
    ///
    /// Each round makes one append: how steps ended since the last, and which start next. Only
    /// after it are those started. While an append is under way more hooks end, so the slower the
    /// journal, the larger the batches.
    async fn drive(&mut self, phase: Phase) -> Result<(), Interruption> {
        let (mut ready, halt) = match phase {
            Phase::Forward => (self.state.ready_tasks(), self.cancel.child_token()),
            // Who cancels the flow wants it undone: that must not cancel the undo.
            Phase::Undo => (self.state.ready_undos(), CancellationToken::new()),
        };
        let mut running = Running::new();
        loop {
            let forward = phase == Phase::Forward;
            if forward && !self.state.complete() && self.cancel.is_cancelled() {
                self.record_cancel();
            }
            let stopping = forward && self.state.stop().is_some();
            if stopping {
                halt.cancel();
            }
            let mut starting = Vec::new();
            while !stopping
                && running.len() + starting.len() < self.options.limit.max(1)
                && let Some(at) = ready.pop()
            {
                self.record(phase.step(at), EventKind::Started, None);
                starting.push(at);
            }
            if let Err(error) = self.flush().await {
                // What runs now cannot be written down: on resume it runs again.
                halt.cancel();
                while running.join_next().await.is_some() {}
                return Err(error.into());
            }
            for at in starting {
                self.start(&mut running, phase, at, halt.child_token());
            }
            if running.is_empty() {
                return Ok(());
            }
            let first = tokio::select! {
                biased;
                end = running.join_next() => end,
                () = self.cancel.cancelled(), if forward && !stopping => None,
            };
            let mut next = first;
            while let Some(end) = next {
                let (at, end) = end?;
                self.ended(phase, at, end, &mut ready);
                next = running.try_join_next();
            }
        }
    }

    fn start(&self, running: &mut Running, phase: Phase, at: usize, cancel: CancellationToken) {
        let (node, hook) = match phase {
            Phase::Forward => (self.plan.tasks()[at].node, self.plan.tasks()[at].hook),
            Phase::Undo => (at, Hook::Undo),
        };
        let attempts = Attempts {
            plan: Arc::clone(&self.plan),
            node,
            hook,
            hooks: Arc::clone(&self.hooks),
            progress: Arc::clone(&self.progress),
            time: Arc::clone(&self.time),
            options: self.options,
            cancel,
        };
        running.spawn(async move { (at, attempts.run().await) });
    }

    fn ended(&mut self, phase: Phase, at: usize, end: TaskEnd, ready: &mut Ready) {
        let step = phase.step(at);
        match (phase, end) {
            (Phase::Forward, TaskEnd::Finished(report)) => {
                self.record(step, EventKind::Finished, detail::of_report(report));
                ready.ended(at);
            }
            (Phase::Forward, TaskEnd::Failed(reason)) => {
                self.record(step, EventKind::Failed, detail::of_failure(&reason));
            }
            (Phase::Forward, TaskEnd::Cancelled) => {
                self.record_cancel();
                self.record(step, EventKind::Failed, detail::of_cancel());
            }
            (Phase::Undo, TaskEnd::Finished(_)) => {
                self.record(step, EventKind::Undone, None);
                ready.ended(at);
            }
            // What could not be undone does not keep others from it.
            (Phase::Undo, TaskEnd::Failed(reason)) => {
                self.record(step, EventKind::Failed, detail::of_failure(&reason));
                ready.ended(at);
            }
            // A broken journal cancels undos, and then nobody asks how they ended.
            (Phase::Undo, TaskEnd::Cancelled) => {}
        }
    }

    /// The flow was cancelled, unless it is stopping already.
    fn record_cancel(&mut self) {
        if self.state.stop().is_none() {
            self.record(Step::Flow, EventKind::Failed, detail::of_cancel());
        }
    }

    fn record(&mut self, step: Step, kind: EventKind, detail: Option<Value>) {
        let mut event = self.state.record(step, kind, detail);
        event.at = self.time.now();
        self.pending.push(event);
    }

    async fn flush(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.journal.append(std::mem::take(&mut self.pending)).await
    }
}

impl Phase {
    fn step(self, at: usize) -> Step {
        match self {
            Self::Forward => Step::Task(at),
            Self::Undo => Step::Undo(at),
        }
    }
}
