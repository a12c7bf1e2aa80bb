//! How far a flow has come.
//!
//! Hooks report bytes to a meter of their own: two atomics, no lock, so they may do so for every
//! block. The board reads all meters when somebody asks for a snapshot.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use karbor_manager::Clock;
use karbor_model::{ResourceProgress, RunProgress};
use karbor_plugin::{NoProgress, Progress};

use crate::planner::{FlowNode, FlowPlan, Hook};

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskResult {
    /// Whole.
    Finished,
    /// Not.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// Takes word of a flow's progress.
pub trait ProgressSink: Send + Sync {
    /// The flow begins, or goes on with `done` tasks done by an earlier run.
    fn flow_started(&self, plan: &FlowPlan, done: usize);

    /// The flow is being undone: of `total` resources, `done` already were by an earlier run.
    fn undo_started(&self, plan: &FlowPlan, total: usize, done: usize);

    /// A task starts, or starts over: what its earlier attempt reported no longer counts.
    fn task_started(&self, node: &FlowNode, hook: Hook) -> Arc<dyn Progress>;

    /// A task ended.
    fn task_ended(&self, node: &FlowNode, hook: Hook, result: TaskResult);
}

/// A sink for flows that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl ProgressSink for Unwatched {
    fn flow_started(&self, _: &FlowPlan, _: usize) {}
    fn undo_started(&self, _: &FlowPlan, _: usize, _: usize) {}
    fn task_started(&self, _: &FlowNode, _: Hook) -> Arc<dyn Progress> {
        Arc::new(NoProgress)
    }
    fn task_ended(&self, _: &FlowNode, _: Hook, _: TaskResult) {}
}

#[derive(Default)]
struct Meter {
    done: AtomicU64,
    expected: AtomicU64,
}

impl Meter {
    /// (done, expected): what was not announced is expected once it was moved.
    fn read(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.expected.load(Ordering::Relaxed).max(done))
    }
}

impl Progress for Meter {
    fn expect_bytes(&self, bytes: u64) {
        self.expected.store(bytes, Ordering::Relaxed);
    }

    fn add_bytes(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Line {
    key: String,
    name: String,
    /// Bytes of the hooks that ended.
    settled: u64,
    running: Option<(Hook, Arc<Meter>)>,
}

impl Line {
    fn read(&self) -> (u64, u64) {
        let (done, expected) = self
            .running
            .as_ref()
            .map_or((0, 0), |(_, meter)| meter.read());
        (self.settled + done, self.settled + expected)
    }
}

#[derive(Default)]
struct Board {
    undoing: bool,
    tasks_done: usize,
    tasks_total: usize,
    lines: Vec<Line>,
    rate: Rate,
}

/// An exponentially weighted average over time, right for samples at uneven intervals. `weight` is
/// what the samples so far weigh, so that the average does not start from zero.
#[derive(Default)]
struct Rate {
    last: Option<(Duration, u64)>,
    sum: f64,
    weight: f64,
}

impl Rate {
    /// A change of speed shows by two thirds after this time.
    const SMOOTHING: f64 = 5.0;
    /// Samples closer together than this say nothing.
    const SHORTEST: Duration = Duration::from_millis(50);

    fn sample(&mut self, at: Duration, bytes: u64) -> f64 {
        match self.last {
            None => self.last = Some((at, bytes)),
            Some((then, before)) if at.saturating_sub(then) >= Self::SHORTEST => {
                let seconds = (at - then).as_secs_f64();
                let keep = (-seconds / Self::SMOOTHING).exp();
                #[allow(clippy::cast_precision_loss, reason = "a rate, not a count")]
                let now = bytes.saturating_sub(before) as f64 / seconds;
                self.sum = self.sum * keep + now * (1.0 - keep);
                self.weight = self.weight * keep + (1.0 - keep);
                self.last = Some((at, bytes));
            }
            Some(_) => {}
        }
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

/// Aggregates what a flow's hooks report and shows it to those who ask.
pub struct ProgressBoard {
    clock: Arc<dyn Clock>,
    board: Mutex<Board>,
}

impl ProgressBoard {
    /// The most resources that a snapshot lists.
    pub const LISTED: usize = 100;

    /// An empty board.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            board: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the flow has come.
    #[must_use]
    pub fn snapshot(&self) -> RunProgress {
        let now = self.clock.monotonic();
        let mut board = self.lock();
        let (mut bytes_done, mut bytes_expected) = (0_u64, 0_u64);
        let (mut running, mut moved) = (Vec::new(), Vec::new());
        for line in &board.lines {
            let (done, expected) = line.read();
            bytes_done += done;
            bytes_expected += expected;
            let list = if line.running.is_some() {
                &mut running
            } else if done > 0 {
                &mut moved
            } else {
                continue;
            };
            if list.len() < Self::LISTED {
                list.push(ResourceProgress {
                    key: line.key.clone(),
                    name: line.name.clone(),
                    hook: line.running.as_ref().map(|(hook, _)| hook.to_string()),
                    bytes_done: done,
                    bytes_expected: expected,
                });
            }
        }
        running.append(&mut moved);
        running.truncate(Self::LISTED);
        RunProgress {
            undoing: board.undoing,
            tasks_done: board.tasks_done,
            tasks_total: board.tasks_total,
            bytes_done,
            bytes_expected,
            bytes_per_second: board.rate.sample(now, bytes_done),
            resources: running,
        }
    }
}

impl ProgressSink for ProgressBoard {
    fn flow_started(&self, plan: &FlowPlan, done: usize) {
        let now = self.clock.monotonic();
        let mut board = self.lock();
        *board = Board {
            tasks_done: done,
            tasks_total: plan.tasks().len(),
            lines: plan
                .nodes()
                .iter()
                .map(|node| Line {
                    key: node.key.clone(),
                    name: node.resource.name.clone(),
                    ..Line::default()
                })
                .collect(),
            ..Board::default()
        };
        board.rate.sample(now, 0);
    }

    fn undo_started(&self, _: &FlowPlan, total: usize, done: usize) {
        let mut board = self.lock();
        board.undoing = true;
        board.tasks_done = done;
        board.tasks_total = total;
    }

    fn task_started(&self, node: &FlowNode, hook: Hook) -> Arc<dyn Progress> {
        let meter = Arc::new(Meter::default());
        if let Some(line) = self.lock().lines.get_mut(node.at) {
            line.running = Some((hook, meter.clone()));
        }
        meter
    }

    fn task_ended(&self, node: &FlowNode, _: Hook, _: TaskResult) {
        let mut board = self.lock();
        board.tasks_done += 1;
        if let Some(line) = board.lines.get_mut(node.at)
            && let Some((_, meter)) = line.running.take()
        {
            // What a hook that ended did not move, it will not move.
            line.settled += meter.read().0;
        }
    }
}
