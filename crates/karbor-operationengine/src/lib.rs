//! The operation engine: it is responsible for what runs by itself — triggers, scheduled operations
//! and retention.

mod manager;
mod options;
mod retention;
mod schedule;

pub use manager::OperationEngineManager;
pub use options::OPTIONS;
pub use retention::{Candidate, RetentionPolicy};
pub use schedule::{LimitsError, Schedule, ScheduleLimits};
