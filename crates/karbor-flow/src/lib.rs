//! Flows: how an operation runs over a resource graph, and survives what happens to it.
//!
//! # The plan
//!
//! [`plan`] is a pure function: resource graph × operation → [`FlowPlan`], the hooks of every
//! resource as tasks with what each waits for. The edges are Karbor's:
//!
//! ```text
//! per resource       prepare_begin -> prepare_finish -> main -> complete
//! parent and child   parent.prepare_begin  -> child.prepare_begin       quiesce from the top
//!                    child.prepare_finish  -> parent.prepare_finish
//!                    child.complete        -> parent.complete           resume from the bottom
//! ```
//!
//! so `main` hooks run in parallel while everything above them is quiesced. A child that is shared
//! by several parents is one resource, and each of its hooks is one task. A plan can be printed and
//! serialised; that is a dry run.
//!
//! # The journal
//!
//! [`Executor::run`] writes down every start and every end before it builds anything on it:
//!
//! * a task's `started` is durable before its hook runs, so after a crash we know of every resource
//!   that a hook may have touched, and undo can be asked of all of them;
//! * its `finished`, with the hook's report, is durable before any task that waits for it starts,
//!   so what later hooks rely on has happened for good and is not run again;
//! * the decision to stop (a task's `failed`, or `flow failed` for a cancel) is durable before
//!   anything is undone, so a flow that was undoing never goes forward over half-undone ground.
//!
//! Within those rules, ends and starts that come together go in one append, because each append is
//! an fsync. Everything that the executor knows of a flow is made from events alone
//! (`state.rs`): the same code reads them from the journal and takes note of them live, so a
//! resumed flow continues from what was written and from nothing else. A task that was started and
//! not finished is run again: hooks can be repeated, it is their contract.
//!
//! If the journal cannot be written, no further hook runs, not even an undo: undoing without
//! writing it down, then crashing, would let the resumed flow go forward over what was undone. The
//! outcome is [`FlowStatus::Interrupted`], which is not an end: the flow is to be run again with
//! what the journal then holds. Events are numbered without gaps, and a journal refuses a number
//! that it has; so of two executors on one flow, the slower is stopped.
//!
//! # Stopping
//!
//! When a hook fails (for good, out of time, or by a panic), or the flow is cancelled: no task
//! starts any more; those that run are told to stop and waited for, a hook that does not stop within
//! [`ExecutorOptions::cancel_grace`] is dropped; then every resource of which a hook was started is
//! undone, dependents before what depends on them. An undo that fails is a failure of its own and
//! keeps no other from being undone. Every failure is told, the first and those that came while
//! the flow was stopping; not those that are only `cancelled` because of it.

mod attempt;
mod executor;
mod journal;
mod outcome;
mod planner;
mod progress;
mod ready;
mod runner;
mod state;

pub use executor::{Executor, ExecutorOptions, RetryPolicy};
pub use journal::{Journal, JournalError, MemoryJournal};
pub use outcome::{FlowFailure, FlowOutcome, FlowStatus};
pub use planner::{FlowNode, FlowPlan, FlowTask, Hook, plan};
pub use progress::{ProgressBoard, ProgressSink, TaskResult, Unwatched};
pub use runner::{HookContext, HookRunner};
