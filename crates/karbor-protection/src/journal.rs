//! The journal of a run, kept in the database.

use async_trait::async_trait;
use karbor_db::{Db, DbError, FlowEvent, FlowEventKind};
use karbor_flow::{EventKind, Journal, JournalError, JournalEvent};
use karbor_model::OperationId;

/// The journal of one run.
pub(crate) struct DbJournal {
    db: Db,
    run: OperationId,
}

impl DbJournal {
    /// The journal of `run` in `db`.
    pub(crate) fn new(db: Db, run: OperationId) -> Self {
        Self { db, run }
    }

    /// What it holds.
    pub(crate) async fn events(&self) -> Result<Vec<JournalEvent>, DbError> {
        let events = self.db.flow_events(self.run).await?;
        Ok(events
            .into_iter()
            .map(|event| JournalEvent {
                seq: event.seq,
                task: event.task,
                kind: match event.kind {
                    FlowEventKind::Started => EventKind::Started,
                    FlowEventKind::Finished => EventKind::Finished,
                    FlowEventKind::Failed => EventKind::Failed,
                    FlowEventKind::Undone => EventKind::Undone,
                },
                at: event.at,
                detail: event.detail,
            })
            .collect())
    }
}

#[async_trait]
impl Journal for DbJournal {
    async fn append(&self, events: Vec<JournalEvent>) -> Result<(), JournalError> {
        let events: Vec<FlowEvent> = events
            .into_iter()
            .map(|event| FlowEvent {
                seq: event.seq,
                task: event.task,
                kind: match event.kind {
                    EventKind::Started => FlowEventKind::Started,
                    EventKind::Finished => FlowEventKind::Finished,
                    EventKind::Failed => FlowEventKind::Failed,
                    EventKind::Undone => FlowEventKind::Undone,
                },
                at: event.at,
                detail: event.detail,
            })
            .collect();
        self.db
            .flow_append(self.run, &events)
            .await
            .map_err(|error| JournalError(format!("the journal cannot be written: {error}")))
    }
}
