//! The executor.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use karbor_manager::Clock;
use karbor_model::{EventKind, JournalEvent};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{Attempts, TaskEnd},
    journal::{Journal, JournalError},
    outcome::FlowOutcome,
    planner::{FlowPlan, Hook},
    progress::ProgressSink,
    ready::Ready,
    runner::HookRunner,
    state::{FlowState, Step},
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
    /// For how many more hooks the journal may say that they started before there is a slot for
    /// them. More make for fewer appends; after a failure or a crash, resources of which no hook
    /// really ran may be undone as if one had. Never for the `prepare_begin` of a resource with
    /// dependents: nothing is quiesced before its time.
    pub ahead: usize,
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
            ahead: 64,
            task_timeout: Duration::from_secs(24 * 60 * 60),
            cancel_grace: Duration::from_secs(30),
            retry: RetryPolicy::default(),
        }
    }
}

/// Runs flows. One executor may run many at once; the limit is each flow's.
pub struct Executor {
    options: ExecutorOptions,
    clock: Arc<dyn Clock>,
}

impl Executor {
    /// An executor.
    #[must_use]
    pub fn new(options: ExecutorOptions, clock: Arc<dyn Clock>) -> Self {
        Self { options, clock }
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
        let state = match FlowState::resume(Arc::clone(&plan), resume) {
            Ok(state) => state,
            Err(reason) => return FlowOutcome::interrupted(reason),
        };
        let mut run = Execution {
            options: self.options,
            clock: Arc::clone(&self.clock),
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
    #[error("the flow stopped, and nothing was undone yet: {0}")]
    Journal(#[from] JournalError),
    #[error("a hook of the flow was lost with the runtime: {0}")]
    Lost(#[from] JoinError),
    /// Cannot be; but a flow that is not whole must never pass for one.
    #[error("tasks of the flow are left that nothing leads to, which is a fault in karbor")]
    Unfinished,
}

type Append = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send>>;

/// One flow while it runs. Only this changes its state and writes its journal; the tasks beside it
/// run hooks and hand back how they ended.
struct Execution {
    options: ExecutorOptions,
    clock: Arc<dyn Clock>,
    plan: Arc<FlowPlan>,
    hooks: Arc<dyn HookRunner>,
    journal: Arc<dyn Journal>,
    progress: Arc<dyn ProgressSink>,
    cancel: CancellationToken,
    state: FlowState,
    /// Events that are not in the journal yet.
    pending: Vec<JournalEvent>,
}

impl Execution {
    async fn finish(&mut self) -> Result<(), Interruption> {
        self.progress
            .flow_started(&self.plan, self.state.finished());
        if self.state.stop().is_none() {
            self.drive(Phase::Forward).await?;
            self.state.sum_up();
        }
        if self.state.stop().is_some() {
            let (total, done) = self.state.undo_counts();
            self.progress.undo_started(&self.plan, total, done);
            self.drive(Phase::Undo).await?;
        } else if !self.state.complete() {
            return Err(Interruption::Unfinished);
        }
        Ok(())
    }

    /// Runs the steps of a phase that are left, until none runs and none may start.
    ///
    /// One append is under way at a time, and hooks run meanwhile. The next one takes how steps
    /// ended since, and which start next: so the slower the journal, the larger the batches. A step
    /// runs once an append that held its start is through, and with it, or before it, went the ends
    /// of all that it waits for.
    async fn drive(&mut self, phase: Phase) -> Result<(), Interruption> {
        let mut lane = match phase {
            Phase::Forward => Lane::new(self.state.ready_tasks(), self.cancel.child_token()),
            // Who cancels the flow wants it undone: that must not cancel the undo.
            Phase::Undo => Lane::new(self.state.ready_undos(), CancellationToken::new()),
        };
        let forward = phase == Phase::Forward;
        loop {
            // When everything is done, a cancel comes too late.
            let cancellable = forward && self.state.stop().is_none() && !self.state.complete();
            if cancellable && self.cancel.is_cancelled() {
                self.record(Step::Flow, EventKind::cancelled());
                continue;
            }
            let stopping = forward && self.state.stop().is_some();
            if stopping {
                lane.stop();
            }
            if lane.append.is_none() {
                if !stopping {
                    self.announce(phase, &mut lane);
                }
                lane.append = self.append();
            }
            while lane.running.len() < self.limit()
                && let Some(at) = lane.admitted.pop_front()
            {
                self.start(&mut lane, phase, at);
            }
            if lane.running.is_empty() && lane.append.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                result = through(&mut lane.append) => {
                    lane.append = None;
                    if let Err(error) = result {
                        lane.give_up().await;
                        return Err(error.into());
                    }
                    lane.admitted.extend(lane.announced.drain(..));
                }
                Some(end) = lane.running.join_next() => {
                    let (at, end) = end?;
                    self.ended(phase, at, end, &mut lane.ready);
                    while let Some(end) = lane.running.try_join_next() {
                        let (at, end) = end?;
                        self.ended(phase, at, end, &mut lane.ready);
                    }
                }
                () = self.cancel.cancelled(), if cancellable => {}
            }
        }
    }

    fn limit(&self) -> usize {
        self.options.limit.max(1)
    }

    /// Chooses the steps that the next append starts: for the free slots, and some ahead, so that
    /// a slot need not wait for an append of its own.
    fn announce(&mut self, phase: Phase, lane: &mut Lane) {
        let mut busy = lane.running.len() + lane.admitted.len();
        while let Some(rank) = lane.ready.rank() {
            let ahead = if rank == FlowState::NOT_AHEAD {
                0
            } else {
                self.options.ahead
            };
            if busy >= self.limit().saturating_add(ahead) {
                return;
            }
            let Some(at) = lane.ready.pop() else { return };
            self.record(phase.step(at), EventKind::Started);
            lane.announced.push(at);
            busy += 1;
        }
    }

    /// Begins to write what is not in the journal yet.
    fn append(&mut self) -> Option<Append> {
        if self.pending.is_empty() {
            return None;
        }
        let events = std::mem::take(&mut self.pending);
        let journal = Arc::clone(&self.journal);
        Some(Box::pin(async move { journal.append(events).await }))
    }

    fn start(&self, lane: &mut Lane, phase: Phase, at: usize) {
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
            clock: Arc::clone(&self.clock),
            options: self.options,
            cancel: lane.halt.child_token(),
        };
        lane.running
            .spawn(async move { (at, attempts.run().await) });
    }

    fn ended(&mut self, phase: Phase, at: usize, end: TaskEnd, ready: &mut Ready) {
        let step = phase.step(at);
        match (phase, end) {
            (Phase::Forward, TaskEnd::Finished(report)) => {
                self.record(step, EventKind::Finished { report });
                ready.ended(at);
            }
            (Phase::Forward, TaskEnd::Failed(reason)) => {
                self.record(step, EventKind::failed(reason));
                if self.plan.goes_on() {
                    ready.ended(at);
                }
            }
            (Phase::Forward, TaskEnd::Cancelled) => {
                self.record(step, EventKind::cancelled());
            }
            (Phase::Undo, TaskEnd::Finished(_)) => {
                self.record(step, EventKind::Undone);
                ready.ended(at);
            }
            // What could not be undone does not keep others from it.
            (Phase::Undo, TaskEnd::Failed(reason)) => {
                self.record(step, EventKind::failed(reason));
                ready.ended(at);
            }
            // A broken journal cancels undos, and then nobody asks how they ended.
            (Phase::Undo, TaskEnd::Cancelled) => {}
        }
    }

    fn record(&mut self, step: Step, kind: EventKind) {
        let mut event = self.state.record(step, kind);
        event.at = self.clock.now();
        self.pending.push(event);
    }
}

/// The steps of one phase on their way: ready, announced, admitted, running.
struct Lane {
    /// Nothing that they wait for is left.
    ready: Ready,
    /// Their start is in the append under way.
    announced: Vec<usize>,
    /// Their start is durable; they wait for a slot.
    admitted: VecDeque<usize>,
    running: JoinSet<(usize, TaskEnd)>,
    append: Option<Append>,
    /// Stops what runs.
    halt: CancellationToken,
}

impl Lane {
    fn new(ready: Ready, halt: CancellationToken) -> Self {
        Self {
            ready,
            announced: Vec::new(),
            admitted: VecDeque::new(),
            running: JoinSet::new(),
            append: None,
            halt,
        }
    }

    /// Nothing starts any more, and what runs is told to stop.
    fn stop(&mut self) {
        self.halt.cancel();
        self.admitted.clear();
    }

    /// The journal is broken. How the running hooks end cannot be written down: they run again on
    /// resume.
    async fn give_up(&mut self) {
        self.halt.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// Waits for the append under way; for ever, if there is none.
async fn through(append: &mut Option<Append>) -> Result<(), JournalError> {
    match append {
        Some(append) => append.await,
        None => std::future::pending().await,
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
