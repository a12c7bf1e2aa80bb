//! One run of an operation, as it is kept in the flow record: all that is needed to go on with it
//! after a restart.

use karbor_model::{
    ApiError, Checkpoint, OperationId, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, Parameters, RequestContext, ResourceGraph, RestoreId, VerificationId,
};
use serde::{Deserialize, Serialize};

/// A run. It holds no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Id of the run, and of its flow.
    pub id: OperationId,
    /// Which operation.
    pub operation: OperationType,
    /// Who asked.
    pub context: RequestContext,
    /// The checkpoint as it was when the run began, with its graph.
    pub checkpoint: Checkpoint,
    /// What the user gave.
    pub parameters: Parameters,
    /// Its record in the operation log.
    pub log: OperationLogId,
    /// When it was asked for, UTC.
    pub started_at: chrono::DateTime<chrono::Utc>,
    /// The restore it carries out.
    pub restore_id: Option<RestoreId>,
    /// The verification it carries out.
    pub verification_id: Option<VerificationId>,
}

impl Run {
    /// A run of `operation` on `checkpoint`, asked for now.
    #[must_use]
    pub(crate) fn new(
        operation: OperationType,
        context: &RequestContext,
        checkpoint: Checkpoint,
        parameters: Parameters,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Self {
        Self {
            id: OperationId::new(),
            operation,
            context: context.clone(),
            checkpoint,
            parameters,
            log: OperationLogId::new(),
            started_at: now,
            restore_id: None,
            verification_id: None,
        }
    }

    /// Does it leave the bank as it is?
    #[must_use]
    pub(crate) fn reads_only(&self) -> bool {
        matches!(
            self.operation,
            OperationType::Restore | OperationType::Verify
        )
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

    /// The first form of its record in the operation log.
    #[must_use]
    pub(crate) fn log_record(&self) -> OperationLog {
        let plan = self.checkpoint.protection_plan.id;
        OperationLog {
            id: self.log,
            project_id: self.checkpoint.project_id.clone(),
            operation_type: self.operation,
            checkpoint_id: Some(self.checkpoint.id),
            plan_id: (self.operation == OperationType::Protect).then_some(plan),
            provider_id: Some(self.checkpoint.provider_id),
            restore_id: self.restore_id,
            verification_id: self.verification_id,
            scheduled_operation_id: None,
            status: OperationLogStatus::InProgress,
            started_at: self.started_at,
            ended_at: None,
            error_info: None,
            extra_info: None,
        }
    }
}
