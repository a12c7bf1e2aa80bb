//! Flows: the planner (resource graph x operation -> hook tasks) and the journalled executor.

mod executor;
mod journal;
mod outcome;
mod planner;
mod progress;
mod runner;

pub use executor::{Executor, ExecutorOptions, RetryPolicy};
pub use journal::{EventKind, Journal, JournalError, JournalEvent, MemoryJournal};
pub use outcome::{FlowFailure, FlowOutcome, FlowStatus};
pub use planner::{FlowNode, FlowPlan, FlowTask, Hook, plan};
pub use progress::{
    ProgressBoard, ProgressSink, ProgressSnapshot, ResourceProgress, TaskResult, Unwatched,
};
pub use runner::{FlowTime, HookContext, HookRunner, TokioTime};
