//! With what a checkpoint is asked for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::OperationId;

/// `checkpoint_properties` of the original's `protect`, and what is ours in them, which the original leaves aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointProperties {
    /// What the checkpoint is to say of itself: a JSON text (see [`CheckpointInfo`](crate::CheckpointInfo)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_info: Option<Value>,
    /// The id of the run: asked for again under the same one, the same checkpoint is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
    /// Until when the run may begin, UTC: so long it is tried again while its bank or the database is away. Without, it
    /// begins at once or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_before: Option<DateTime<Utc>>,
}
