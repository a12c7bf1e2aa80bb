//! Operations that are asked for by id: asked for again, they are not begun again.

use chrono::{DateTime, Utc};
use karbor_db::DbError;
use karbor_model::{ApiError, CheckpointId, OperationId, OperationLogId, OperationType, Plan};
use serde_json::{Map, Value};

use super::ProtectionManager;
use crate::run::Run;

/// The id under which a checkpoint is asked for, if it is.
pub(super) fn operation_id(
    properties: &Map<String, Value>,
) -> Result<Option<OperationId>, ApiError> {
    let Some(given) = properties.get("operation_id").filter(|id| !id.is_null()) else {
        return Ok(None);
    };
    let id = given.as_str().and_then(|text| text.parse().ok());
    id.map(Some)
        .ok_or_else(|| ApiError::invalid_field("operation_id", given, "It must be a uuid."))
}

/// Until when what is asked for may begin, if it has time.
pub(super) fn begin_before(
    properties: &Map<String, Value>,
) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(given) = properties.get("begin_before").filter(|at| !at.is_null()) else {
        return Ok(None);
    };
    let at = given.as_str().and_then(|text| text.parse().ok());
    at.map(Some).ok_or_else(|| {
        let reason = "It must be a time like 2026-11-22T01:15:00Z.";
        ApiError::invalid_field("begin_before", given, reason)
    })
}

impl ProtectionManager {
    /// The checkpoint that was asked for under this id before. The record in the operation log
    /// outlives the flow; the flow is entered first.
    pub(super) async fn made_before(
        &self,
        id: OperationId,
        plan: &Plan,
    ) -> Result<Option<CheckpointId>, ApiError> {
        let db = self.base.db();
        let ended = |message: String| ApiError::conflict("OperationEnded", message);
        match db.operation_log_get(OperationLogId(id.0)).await {
            Ok(log) => {
                let same = log.operation_type == OperationType::Protect
                    && log.project_id == plan.project_id;
                return match log.checkpoint_id.filter(|_| same) {
                    Some(checkpoint) => Ok(Some(checkpoint)),
                    None => Err(ended(format!(
                        "Operation {id} has ended without a checkpoint."
                    ))),
                };
            }
            Err(DbError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let flow = match db.flow_get(id).await {
            Ok(flow) => flow,
            Err(DbError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let run: Run = serde_json::from_value(flow.payload).map_err(ApiError::internal)?;
        let same =
            run.operation == OperationType::Protect && run.checkpoint.project_id == plan.project_id;
        if same {
            return Ok(Some(run.checkpoint.id));
        }
        Err(ended(format!("Operation {id} is another one.")))
    }
}
