//! The journal of a run, kept in the database.

use async_trait::async_trait;
use karbor_db::{DbError, RunStore};
use karbor_flow::{Journal, JournalError};
use karbor_model::{JournalEvent, OperationId};

/// The journal of one run.
pub(crate) struct DbJournal {
    runs: RunStore,
    run: OperationId,
}

impl DbJournal {
    /// The journal of `run` in `runs`.
    pub(crate) fn new(runs: RunStore, run: OperationId) -> Self {
        Self { runs, run }
    }

    /// What it holds.
    pub(crate) async fn events(&self) -> Result<Vec<JournalEvent>, DbError> {
        self.runs.flow_events(self.run).await
    }
}

#[async_trait]
impl Journal for DbJournal {
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError> {
        self.runs
            .flow_append(self.run, &events)
            .await
            .map_err(|error| JournalError(format!("the journal cannot be written: {error}")))
    }
}
