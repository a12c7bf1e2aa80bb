//! What is known of a flow. It is made of the journal's events only: those of earlier runs when it
//! is resumed, its own as they happen. So a resumed flow cannot know more, less or other than the
//! one that was killed.

use std::{collections::HashMap, sync::Arc};

use karbor_model::{EventKind, JournalEvent};
use karbor_plugin::HookReport;

use crate::{
    outcome::{FlowFailure, FlowOutcome, FlowStatus, merge},
    planner::{FlowPlan, Hook},
    ready::Ready,
};

/// The task name under which the cancel of a flow is journalled.
const FLOW: &str = "flow";

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A task of the plan, by its place.
    Task(usize),
    /// The undo of a resource, by its place.
    Undo(usize),
    /// The flow as a whole.
    Flow,
}

pub(crate) struct FlowState {
    plan: Arc<FlowPlan>,
    last_seq: u64,
    finished: Vec<bool>,
    finished_count: usize,
    /// Resources of which any hook was started.
    touched: Vec<bool>,
    /// Resources whose undo ended, well or not.
    settled: Vec<bool>,
    stop: Option<FlowStatus>,
    failures: Vec<FlowFailure>,
    reports: Vec<HookReport>,
}

impl FlowState {
    /// The state of a flow whose journal holds `events`.
    ///
    /// # Errors
    /// A sentence, when they are not the journal of this plan, or not the whole of it.
    pub(crate) fn resume(
        plan: Arc<FlowPlan>,
        mut events: Vec<JournalEvent>,
    ) -> Result<Self, String> {
        let mut state = Self {
            last_seq: 0,
            finished: vec![false; plan.tasks().len()],
            finished_count: 0,
            touched: vec![false; plan.nodes().len()],
            settled: vec![false; plan.nodes().len()],
            stop: None,
            failures: Vec::new(),
            reports: vec![HookReport::new(); plan.nodes().len()],
            plan,
        };
        if events.is_empty() {
            return Ok(state);
        }
        events.sort_by_key(|event| event.seq);
        let plan = Arc::clone(&state.plan);
        let undos: Vec<String> = plan
            .nodes()
            .iter()
            .map(|node| format!("{}:{}", Hook::Undo, node.key))
            .collect();
        let tasks = plan.tasks().iter().map(|task| task.name.as_str());
        let steps: HashMap<&str, Step> = tasks
            .enumerate()
            .map(|(at, name)| (name, Step::Task(at)))
            .chain(
                undos
                    .iter()
                    .enumerate()
                    .map(|(at, name)| (name.as_str(), Step::Undo(at))),
            )
            .chain([(FLOW, Step::Flow)])
            .collect();
        for event in &events {
            if event.seq != state.last_seq + 1 {
                return Err(format!(
                    "the journal of the flow is damaged: event {} follows event {}",
                    event.seq, state.last_seq
                ));
            }
            state.last_seq = event.seq;
            let step = steps.get(event.task.as_str());
            if !step.is_some_and(|&step| state.apply(step, &event.kind)) {
                return Err(format!(
                    "the journal is not of this flow: its event {} says '{} {}'",
                    event.seq,
                    event.task,
                    event.kind.name()
                ));
            }
        }
        Ok(state)
    }

    /// Takes note of an event that happens now, and makes the line for the journal (all but its
    /// time).
    pub(crate) fn record(&mut self, step: Step, kind: EventKind) -> JournalEvent {
        self.apply(step, &kind);
        self.last_seq += 1;
        JournalEvent {
            seq: self.last_seq,
            task: match step {
                Step::Task(at) => self.plan.tasks()[at].name.clone(),
                Step::Undo(at) => format!("{}:{}", Hook::Undo, self.plan.nodes()[at].key),
                Step::Flow => FLOW.to_owned(),
            },
            kind,
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    /// False if there can be no such event.
    fn apply(&mut self, step: Step, kind: &EventKind) -> bool {
        match (step, kind) {
            (Step::Task(at), EventKind::Started) => self.touched[self.plan.tasks()[at].node] = true,
            (Step::Task(at), EventKind::Finished { report }) => {
                if !self.finished[at] {
                    self.finish(at);
                    let node = self.plan.tasks()[at].node;
                    merge(&mut self.reports[node], report.clone());
                }
            }
            // It may be the first to notice that the flow was cancelled.
            (
                Step::Task(_),
                EventKind::Failed {
                    cancelled: true, ..
                },
            ) => {
                self.stop.get_or_insert(FlowStatus::Cancelled);
            }
            (Step::Task(at), EventKind::Failed { reason, .. }) => {
                if self.plan.goes_on() {
                    self.finish(at);
                } else {
                    self.stop.get_or_insert(FlowStatus::Failed);
                }
                let (node, hook) = (self.plan.tasks()[at].node, self.plan.tasks()[at].hook);
                self.fail(node, hook, reason);
            }
            (Step::Undo(_), EventKind::Started) => {
                self.stop.get_or_insert(FlowStatus::Failed);
            }
            (Step::Undo(node), EventKind::Undone) => self.settled[node] = true,
            (Step::Undo(node), EventKind::Failed { reason, .. }) => {
                self.settled[node] = true;
                self.fail(node, Hook::Undo, reason);
            }
            (Step::Flow, EventKind::Failed { .. }) => {
                self.stop.get_or_insert(FlowStatus::Cancelled);
            }
            _ => return false,
        }
        true
    }

    fn finish(&mut self, at: usize) {
        if !self.finished[at] {
            self.finished[at] = true;
            self.finished_count += 1;
        }
    }

    /// A flow that went on in spite of failures has failed when nothing is left to do.
    pub(crate) fn sum_up(&mut self) {
        if self.complete() && !self.failures.is_empty() {
            self.stop.get_or_insert(FlowStatus::Failed);
        }
    }

    fn fail(&mut self, node: usize, hook: Hook, reason: &str) {
        let own = &self.plan.nodes()[node];
        self.failures.push(FlowFailure {
            node,
            resource: own.key.clone(),
            name: own.resource.name.clone(),
            hook,
            reason: reason.to_owned(),
        });
    }

    /// Why the flow no longer goes forward, if it does not.
    pub(crate) fn stop(&self) -> Option<FlowStatus> {
        self.stop
    }

    /// How many tasks are finished.
    pub(crate) fn finished(&self) -> usize {
        self.finished_count
    }

    /// Is every task finished?
    pub(crate) fn complete(&self) -> bool {
        self.finished_count == self.finished.len()
    }

    /// (resources to undo, how many of them were).
    pub(crate) fn undo_counts(&self) -> (usize, usize) {
        let count = |of: &[bool]| of.iter().filter(|&&set| set).count();
        (count(&self.touched), count(&self.settled))
    }

    /// The rank of tasks that do not start before there is a slot for them.
    pub(crate) const NOT_AHEAD: usize = 4;

    /// The tasks that are left. What was begun is brought to its end before more is begun, so that
    /// a quiesced application waits no longer than it must: later hooks go first, and those that
    /// quiesce others last.
    pub(crate) fn ready_tasks(&self) -> Ready {
        let tasks = self.plan.tasks();
        let rank = |at: usize| match tasks[at].hook {
            Hook::PrepareBegin if self.plan.nodes()[tasks[at].node].children.is_empty() => 3,
            Hook::PrepareBegin => Self::NOT_AHEAD,
            Hook::PrepareFinish => 2,
            Hook::Main => 1,
            Hook::Complete | Hook::Undo => 0,
        };
        Ready::new(
            tasks.len(),
            |at| self.finished[at],
            |at| &tasks[at].after,
            rank,
        )
    }

    /// The undos that are left: dependents first. A resource that was started has only started
    /// ancestors, so leaving out those that were not breaks no chain.
    pub(crate) fn ready_undos(&self) -> Ready {
        let nodes = self.plan.nodes();
        Ready::new(
            nodes.len(),
            |at| !self.touched[at] || self.settled[at],
            |at| &nodes[at].children,
            |_| 0,
        )
    }

    /// How the flow ended; `interrupted` if it did not.
    pub(crate) fn outcome(self, interrupted: Option<String>) -> FlowOutcome {
        let status = match (&interrupted, self.stop) {
            (Some(_), _) => FlowStatus::Interrupted,
            (None, Some(stop)) => stop,
            (None, None) => FlowStatus::Success,
        };
        let nodes = self.plan.nodes().iter();
        FlowOutcome {
            status,
            failures: self.failures,
            reports: nodes
                .zip(self.reports)
                .filter(|(_, report)| !report.is_empty())
                .map(|(node, report)| (node.key.clone(), report))
                .collect(),
            interrupted,
        }
    }
}
