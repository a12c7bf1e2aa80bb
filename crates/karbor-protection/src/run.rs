//! One run of an operation, as it is kept in the flow record: all that is needed to go on with it
//! after a restart.

use chrono::{DateTime, TimeDelta, Utc};
use karbor_model::{
    ApiError, Checkpoint, OperationId, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, Parameters, ReadbackId, RequestContext, ResourceGraph,
};
use serde::{Deserialize, Serialize};

use crate::providers::BankRole;

/// The copy that a run makes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CopyOf {
    /// The bank it is made in.
    pub place: BankRole,
    /// The copy, as it is at first.
    pub checkpoint: Checkpoint,
}

/// A clock that is kept right goes back by less.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// A run. It holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Id of the run, and of its flow.
    pub id: OperationId,
    /// Which operation.
    pub operation: OperationType,
    /// Who asked.
    pub context: RequestContext,
    /// The bank that the checkpoint is in.
    #[serde(default)]
    pub place: BankRole,
    /// The checkpoint as it was when the run began, with its graph.
    pub checkpoint: Checkpoint,
    /// The copy of it that a copy makes.
    #[serde(default)]
    pub copy: Option<CopyOf>,
    /// What the user gave.
    pub parameters: Parameters,
    /// Its record in the operation log.
    pub log: OperationLogId,
    /// When it was asked for, UTC.
    pub started_at: DateTime<Utc>,
    /// Until when it may begin: so long it is tried again when the bank or the database is away.
    /// `None`: at once or not at all.
    #[serde(default)]
    pub begin_before: Option<DateTime<Utc>>,
}

impl Run {
    /// A run of `operation` on `checkpoint`, asked for now.
    #[must_use]
    pub(crate) fn new(
        operation: OperationType,
        context: &RequestContext,
        (place, checkpoint): (BankRole, Checkpoint),
        parameters: Parameters,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: OperationId::new(),
            operation,
            context: context.clone(),
            place,
            checkpoint,
            copy: None,
            parameters,
            log: OperationLogId::new(),
            started_at: now,
            begin_before: None,
        }
    }

    /// The same as the operation that the caller names `id`, so that it is carried out once
    /// however often it is asked for.
    #[must_use]
    pub(crate) fn with_id(mut self, id: OperationId) -> Self {
        self.id = id;
        self.log = OperationLogId(id.0);
        self
    }

    /// When its time to begin was over, if it was at `now`. What a clock that was ahead asked for does not wait
    /// until that time comes.
    #[must_use]
    pub(crate) fn late(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let was_ahead = self.started_at > now + SKEW;
        self.begin_before.filter(|end| was_ahead || now > *end)
    }

    /// The readback that it carries out, if it is one: it has the run's id.
    #[must_use]
    pub(crate) fn readback(&self) -> Option<ReadbackId> {
        self.operation.readback().map(|_| ReadbackId(self.id.0))
    }

    /// The checkpoint whose state tells how the run goes: the one that is made, read or removed.
    #[must_use]
    pub(crate) fn subject(&self) -> (BankRole, &Checkpoint) {
        match &self.copy {
            Some(copy) => (copy.place, &copy.checkpoint),
            None => (self.place, &self.checkpoint),
        }
    }

    /// The graph that it runs over. A checkpoint that failed before its graph was known has none.
    ///
    /// # Errors
    /// A 500 when the stored graph cannot be read.
    pub(crate) fn graph(&self) -> Result<ResourceGraph, ApiError> {
        match &self.checkpoint.resource_graph {
            None => Ok(ResourceGraph::new()),
            Some(text) => ResourceGraph::unpack(text).map_err(ApiError::internal),
        }
    }

    /// The first form of its record in the operation log; `with_plan` names the plan.
    #[must_use]
    pub(crate) fn log_record(&self, with_plan: bool) -> OperationLog {
        let plan = self.checkpoint.protection_plan.id;
        OperationLog {
            id: self.log,
            project_id: self.checkpoint.project_id.clone(),
            operation_type: self.operation,
            checkpoint_id: Some(self.subject().1.id),
            plan_id: with_plan.then_some(plan),
            provider_id: Some(self.checkpoint.provider_id),
            readback_id: self.readback(),
            scheduled_operation_id: self.context.scheduled_operation_id.map(|id| id.to_string()),
            status: OperationLogStatus::InProgress,
            started_at: self.started_at,
            ended_at: None,
            error_info: None,
            extra_info: None,
        }
    }
}
