//! What runs by itself: triggers, and the operations that they fire.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduledOperationType {
    /// Makes a checkpoint of a plan.
    Protect,
    /// The same, and then deletes the checkpoints that it no longer has to keep.
    RetentionProtect,
    /// Deletes checkpoints that have expired.
    Delete,
    /// Reads checkpoints back that it finds, by this operation, e.g. verifies them.
    Readback(OperationType),
}

impl ScheduledOperationType {
    /// Every type.
    pub fn all() -> impl Iterator<Item = Self> {
        let readbacks = OperationType::readbacks().filter(|(_, names)| names.is_scheduled);
        [Self::Protect, Self::RetentionProtect]
            .into_iter()
            .chain(readbacks.map(|(operation, _)| Self::Readback(operation)))
            .chain([Self::Delete])
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetentionProtect => "retention_protect",
            other => other.operation().as_str(),
        }
    }

    /// What the operation log calls it.
    #[must_use]
    pub fn operation(self) -> OperationType {
        match self {
            Self::Protect | Self::RetentionProtect => OperationType::Protect,
            Self::Delete => OperationType::Delete,
            Self::Readback(operation) => operation,
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
        Self::all()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| UnknownState {
                what: "scheduled operation type",
                value: text.to_owned(),
            })
    }
}

impl Serialize for ScheduledOperationType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ScheduledOperationType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
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
