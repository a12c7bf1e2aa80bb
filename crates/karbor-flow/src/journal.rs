//! The journal: what a flow has done, written down before anything is built on it.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use karbor_model::JournalEvent;

/// Why the journal could not be written; a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// Keeps the events of one flow.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Adds events. **They are durable when this returns**, all of them or none; after an error
    /// nothing may be assumed, so the flow stops and a resume reads what is really there.
    ///
    /// A number that the journal already holds must be refused: it means that a second executor
    /// runs the same flow, and the slower of the two has to stop.
    ///
    /// # Errors
    /// [`JournalError`].
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError>;
}

/// A journal for flows that need not outlive the process, such as those of tests and benchmarks.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Vec<JournalEvent>>);

impl MemoryJournal {
    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<JournalEvent> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &events {
            if held.last().is_some_and(|last| last.seq >= event.seq) {
                return Err(JournalError(format!(
                    "the journal already holds event {}: another executor runs this flow",
                    event.seq
                )));
            }
        }
        held.extend(events);
        Ok(())
    }
}
