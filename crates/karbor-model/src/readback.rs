//! Readbacks: operations that a user asks for to read a checkpoint back, and that leave an outcome for each resource.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{CheckpointId, OperationType, Parameters, ProviderId, ReadbackId, ReadbackStatus};

fn restore() -> OperationType {
    OperationType::Restore
}

/// A readback of a checkpoint: a restore brings its resources back, a verification looks whether that can be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readback {
    /// Id; that of its run and of its record in the operation log, too.
    pub id: ReadbackId,
    /// Which operation reads the checkpoint. Messages do not say it, as the original's: the method that is called does.
    #[serde(skip, default = "restore")]
    pub operation: OperationType,
    /// The project it runs in.
    pub project_id: String,
    /// The provider of the checkpoint.
    pub provider_id: ProviderId,
    /// The checkpoint.
    pub checkpoint_id: CheckpointId,
    /// Where to, if not where it came from (an identity endpoint, in the original); of a restore alone.
    #[serde(default)]
    pub restore_target: Option<String>,
    /// Options for the protection plugins.
    pub parameters: Parameters,
    /// May the checkpoint be one without a seal? Nothing vouches for what such a one says.
    #[serde(default)]
    pub accept_unsealed: bool,
    /// Status.
    pub status: ReadbackStatus,
    /// Outcome by `type#id`.
    pub resources_status: BTreeMap<String, String>,
    /// Why not, by `type#id`.
    pub resources_reason: BTreeMap<String, String>,
    /// When it was asked for, UTC.
    pub created_at: DateTime<Utc>,
}

impl Readback {
    /// Is `other` the same one, asked for once more, and not one of somebody else's under the same id?
    #[must_use]
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.id == other.id
            && self.operation == other.operation
            && self.project_id == other.project_id
            && self.provider_id == other.provider_id
            && self.checkpoint_id == other.checkpoint_id
    }
}
