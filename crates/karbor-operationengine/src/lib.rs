//! The operation engine: it is responsible for what runs by itself — triggers, scheduled operations
//! and retention.
//!
//! **Everything is in the database.** An engine keeps nothing in memory that another would need to
//! know, so any number of them share the work, and none is missed. What it is told over RPC only
//! makes it look sooner.
//!
//! **A due time is run once.** When a trigger is to fire next is a row. The engine that moves it on, by
//! compare-and-set, enters in the same transaction a run for each of its operations
//! (`ScheduleStore::triggers_fire`): both or neither, whichever process dies. The row is worked out from the trigger's
//! own version, so all engines come to the same times, whatever their clocks say.
//!
//! **A run is one engine's, for as long as it is heard of.** It is claimed with a lease that is
//! renewed while it runs; one whose lease ran out is adopted by the engine that looks next. An engine that
//! starts again on its host adopts its own at once. What a slow engine writes of a run that it has
//! lost is refused.
//!
//! **A run makes one checkpoint, however often it is carried out.** The id of the run is the id of
//! the operation that it asks the protection manager for, which makes one checkpoint of it and
//! answers with the same whenever it is asked again; see `runner`. So there is no moment at which
//! a crash can make a second:
//!
//! | dies | then |
//! |---|---|
//! | before the due time is moved on | it is due: any engine fires it |
//! | after, before a claim | the run is due: any engine claims it |
//! | claimed, nothing asked for | adopted; begun if now is inside its window, else missed |
//! | asked for, answer not written down | adopted; asked for again, answered with the same checkpoint |
//! | while the checkpoint is made, or its bank is away | adopted; waited for |
//! | while old checkpoints are deleted | adopted; what is left to delete is deleted |
//! | noted as missed or failed, not closed | adopted; the note is found and the run closed |
//!
//! **What is missed is told.** Of due times that nobody was there for, the latest is made up for if
//! now is inside its window; the others are recorded as missed in the operation log, in one record
//! (`due`). So is a due time at which the run before was still going, and one whose plan was
//! suspended or whose operation was disabled meanwhile. Nothing that is scheduled comes to nothing
//! in silence.
//!
//! **A clock that was wrong stops nothing.** See `clock`.
//!
//! **Nothing good is deleted for nothing.** Checkpoints are deleted after the new one is available
//! and listed, only those that the operation made, and never the newest; those from the future are neither
//! counted nor deleted (`retention`).

mod clock;
mod definition;
mod due;
mod ends;
mod engine;
mod manager;
mod operations;
mod options;
mod owners;
mod registration;
mod retention;
mod runner;
mod schedule;
mod scheduler;

pub use clock::ClockReading;
pub use engine::{EngineReport, EngineStores};
pub use manager::OperationEngineManager;
pub use options::OPTIONS;
pub use owners::{OwnerContexts, RecordedOwners};
pub use retention::{Candidate, RetentionPolicy};
pub use schedule::{LimitsError, Schedule, ScheduleLimits};
