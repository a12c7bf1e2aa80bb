//! The journal of flows.

use chrono::{DateTime, Utc};
use karbor_model::{FlowStatus, OperationId, OperationType};
use serde_json::Value;

use crate::{Db, DbError};

/// One flow: a run of an operation on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowRecord {
    /// Id of the run.
    pub operation_id: OperationId,
    /// Which operation.
    pub operation_type: OperationType,
    /// The host that runs it.
    pub host: String,
    /// All that is needed to run it again after a restart.
    pub payload: Value,
    /// Where it is.
    pub status: FlowStatus,
}

/// What happened to a task of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowEventKind {
    /// It is about to run.
    Started,
    /// It ran to its end.
    Finished,
    /// It failed.
    Failed,
    /// What it made was removed.
    Undone,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowEvent {
    /// Place in the journal of its flow; no two events share one.
    pub seq: i64,
    /// The task's name.
    pub task: String,
    /// What happened.
    pub kind: FlowEventKind,
    /// When, UTC.
    pub at: DateTime<Utc>,
    /// What the task reported, or why it failed.
    pub detail: Option<Value>,
}

impl Db {
    /// Enters a flow.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when there is one with this id.
    pub async fn flow_create(&self, _flow: &FlowRecord) -> Result<(), DbError> {
        todo!()
    }

    /// One flow.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn flow_get(&self, _id: OperationId) -> Result<FlowRecord, DbError> {
        todo!()
    }

    /// Writes a batch of events in one durable transaction.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when a `seq` is taken: somebody else runs the same flow.
    pub async fn flow_append(
        &self,
        _id: OperationId,
        _events: &[FlowEvent],
    ) -> Result<(), DbError> {
        todo!()
    }

    /// The journal of a flow in order.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flow_events(&self, _id: OperationId) -> Result<Vec<FlowEvent>, DbError> {
        todo!()
    }

    /// Flows of `host` that have not ended, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flows_unfinished(&self, _host: &str) -> Result<Vec<FlowRecord>, DbError> {
        todo!()
    }

    /// Compare-and-set of a flow's status.
    ///
    /// # Errors
    /// As [`Db::transition`].
    pub async fn flow_set_status(
        &self,
        _id: OperationId,
        _from: FlowStatus,
        _to: FlowStatus,
    ) -> Result<(), DbError> {
        todo!()
    }

    /// Removes flows that ended before `before`, with their journals; returns how many.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flow_delete_finished(&self, _before: DateTime<Utc>) -> Result<u64, DbError> {
        todo!()
    }
}
