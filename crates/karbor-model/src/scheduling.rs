//! What runs by itself: triggers, and the operations that they fire.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CheckpointId, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    ScheduledOperationId, TriggerId, UnknownState,
};

/// When scheduled operations run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Id.
    pub id: TriggerId,
    /// Name.
    pub name: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Which sort of trigger; `time` is the only one.
    #[serde(rename = "type")]
    pub trigger_type: String,
    /// `format` (`calendar` or `crontab`), `pattern`, `start_time`, `end_time`, `window`; texts, as
    /// the original kept them (Q31).
    pub properties: Map<String, Value>,
    /// When it was made, UTC; `None` while it is only being verified.
    #[serde(default)]
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed, UTC.
    #[serde(default)]
    pub updated_at: Option<DateTime<Utc>>,
}

/// What a scheduled operation does when its trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduledOperationType {
    /// Makes a checkpoint of a plan.
    Protect,
    /// The same, and then deletes the checkpoints that it no longer has to keep.
    RetentionProtect,
    /// Verifies checkpoints that it finds.
    Verify,
    /// Deletes checkpoints that have expired.
    Delete,
}

impl ScheduledOperationType {
    /// Every type.
    pub const ALL: &'static [Self] = &[
        Self::Protect,
        Self::RetentionProtect,
        Self::Verify,
        Self::Delete,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::RetentionProtect => "retention_protect",
            Self::Verify => "verify",
            Self::Delete => "delete",
        }
    }

    /// What the operation log calls it.
    #[must_use]
    pub fn operation(self) -> OperationType {
        match self {
            Self::Protect | Self::RetentionProtect => OperationType::Protect,
            Self::Verify => OperationType::Verify,
            Self::Delete => OperationType::Delete,
        }
    }
}

impl fmt::Display for ScheduledOperationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ScheduledOperationType {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut types = Self::ALL.iter().copied();
        types
            .find(|known| known.as_str() == text)
            .ok_or_else(|| UnknownState {
                what: "scheduled operation type",
                value: text.to_owned(),
            })
    }
}

/// An operation that runs whenever its trigger fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledOperation {
    /// Id.
    pub id: ScheduledOperationId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// What it does.
    pub operation_type: ScheduledOperationType,
    /// Whose it is: it runs as this user.
    pub user_id: String,
    /// The project it runs in.
    pub project_id: String,
    /// What fires it.
    pub trigger_id: TriggerId,
    /// `provider_id`, `plan_id` and what the type takes beside, every value a text (Q41).
    pub operation_definition: BTreeMap<String, String>,
    /// Does it run?
    pub enabled: bool,
    /// When it was made, UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, UTC.
    #[serde(default)]
    pub updated_at: Option<DateTime<Utc>>,
}

impl ScheduledOperation {
    /// A record for the operation log of a run that did not get to make one.
    #[must_use]
    pub fn log_record(
        &self,
        id: OperationLogId,
        status: OperationLogStatus,
        at: DateTime<Utc>,
        reason: String,
    ) -> OperationLog {
        let defined = |key: &str| self.operation_definition.get(key);
        OperationLog {
            id,
            project_id: self.project_id.clone(),
            operation_type: self.operation_type.operation(),
            checkpoint_id: None,
            plan_id: defined("plan_id").and_then(|id| id.parse().ok()),
            provider_id: defined("provider_id").and_then(|id| id.parse().ok()),
            readback_id: None,
            scheduled_operation_id: Some(self.id.to_string()),
            status,
            started_at: at,
            ended_at: Some(at),
            error_info: Some(reason),
            extra_info: None,
        }
    }
}

/// A checkpoint and its copy in the second bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCopy {
    /// The checkpoint that is copied.
    pub checkpoint_protect_id: CheckpointId,
    /// The copy.
    pub checkpoint_copy_id: CheckpointId,
}
