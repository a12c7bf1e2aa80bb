//! The journal: what a flow has done, written down before anything is built on it.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::UnknownState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It is about to run.
    Started,
    /// It ran; `detail` is `{"report": {..}}` if there is one.
    Finished,
    /// It did not run to its end; `detail` is `{"reason": "..", "cancelled": bool}`.
    Failed,
    /// What the resource's hooks did was undone.
    Undone,
}

impl EventKind {
    /// The name, as a journal stores it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Undone => "undone",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Started, Self::Finished, Self::Failed, Self::Undone]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownState {
                what: "flow event",
                value: text.to_owned(),
            })
    }
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Its number: 1, 2, 3, … without gaps in one flow.
    pub seq: u64,
    /// `<hook>:<type>#<id>`, `undo:<type>#<id>`, or `flow` for the cancel of the whole.
    pub task: String,
    /// What happened.
    pub kind: EventKind,
    /// When, UTC.
    pub at: DateTime<Utc>,
    /// More of it.
    pub detail: Option<Value>,
}

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
