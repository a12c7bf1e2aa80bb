//! Records: what the database and the wire hold.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CheckpointId, OperationLogId, OperationLogStatus, PlanId, PlanStatus, ProviderId, Resource,
    RestoreId, RestoreStatus, UnknownState, VerificationId, VerificationStatus,
};

/// Parameters of an operation: by resource type (`Host::Directory`) or by one resource
/// (`Host::Directory#<id>`), which wins.
pub type Parameters = BTreeMap<String, Map<String, Value>>;

/// The parameters that apply to `resource`: those of its type, overlaid by its own.
#[must_use]
pub fn parameters_for(parameters: &Parameters, resource: &Resource) -> Map<String, Value> {
    let mut merged = parameters
        .get(&resource.resource_type)
        .cloned()
        .unwrap_or_default();
    if let Some(own) = parameters.get(&resource.key()) {
        merged.extend(own.clone());
    }
    merged
}

/// The five operations that run over a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationType {
    /// Makes a checkpoint.
    Protect,
    /// Brings back what a checkpoint holds.
    Restore,
    /// Removes a checkpoint and its data.
    Delete,
    /// Checks that a checkpoint can be restored.
    Verify,
    /// Copies checkpoints into a second bank.
    Copy,
}

impl OperationLogStatus {
    /// What the API calls it: the original logged the status of the checkpoint, restore or
    /// verification that the operation leaves.
    #[must_use]
    pub fn after(self, operation: OperationType) -> &'static str {
        use OperationType::{Copy, Delete, Protect, Restore, Verify};
        match (self, operation) {
            (Self::InProgress, Protect) => "protecting",
            (Self::InProgress, Copy) => "copying",
            (Self::InProgress, Delete) => "deleting",
            (Self::InProgress, Restore | Verify) => "in_progress",
            (Self::Success, Protect | Copy) => "available",
            (Self::Success, Delete) => "deleted",
            (Self::Success, Restore | Verify) => "success",
            (Self::Failed, Protect | Copy) => "error",
            (Self::Failed, Delete) => "error-deleting",
            (Self::Failed, Restore | Verify) => "fail",
            (Self::Missed, _) => "missed",
        }
    }
}

impl OperationType {
    /// Every type.
    pub const ALL: &'static [Self] = &[
        Self::Protect,
        Self::Restore,
        Self::Delete,
        Self::Verify,
        Self::Copy,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Restore => "restore",
            Self::Delete => "delete",
            Self::Verify => "verify",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for OperationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OperationType {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter().copied();
        all.find(|operation| operation.as_str() == text)
            .ok_or_else(|| UnknownState {
                what: "operation",
                value: text.to_owned(),
            })
    }
}

/// A plan: which resources are protected together, how, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Id.
    pub id: PlanId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// The provider to protect with.
    pub provider_id: ProviderId,
    /// The project it belongs to.
    pub project_id: String,
    /// Status.
    pub status: PlanStatus,
    /// Options for the protection plugins.
    pub parameters: Parameters,
    /// The resources it names; their dependents are looked up at each protect.
    pub resources: Vec<Resource>,
    /// When it was made, UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, UTC.
    pub updated_at: Option<DateTime<Utc>>,
}

/// A restore of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Id.
    pub id: RestoreId,
    /// The project it runs in.
    pub project_id: String,
    /// The provider of the checkpoint.
    pub provider_id: ProviderId,
    /// The checkpoint.
    pub checkpoint_id: CheckpointId,
    /// Where to, if not where it came from (an identity endpoint, in the original).
    pub restore_target: Option<String>,
    /// Options for the protection plugins.
    pub parameters: Parameters,
    /// May the checkpoint be one without a seal? Nothing vouches for what such a one says.
    #[serde(default)]
    pub accept_unsealed: bool,
    /// Status.
    pub status: RestoreStatus,
    /// Outcome by `type#id`.
    pub resources_status: BTreeMap<String, String>,
    /// Why not, by `type#id`.
    pub resources_reason: BTreeMap<String, String>,
    /// When it was asked for, UTC.
    pub created_at: DateTime<Utc>,
}

/// A verification of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Id.
    pub id: VerificationId,
    /// The project it runs in.
    pub project_id: String,
    /// The provider of the checkpoint.
    pub provider_id: ProviderId,
    /// The checkpoint.
    pub checkpoint_id: CheckpointId,
    /// Options for the protection plugins.
    pub parameters: Parameters,
    /// May the checkpoint be one without a seal? Nothing vouches for what such a one says.
    #[serde(default)]
    pub accept_unsealed: bool,
    /// Status.
    pub status: VerificationStatus,
    /// Outcome by `type#id`.
    pub resources_status: BTreeMap<String, String>,
    /// Why not, by `type#id`.
    pub resources_reason: BTreeMap<String, String>,
    /// When it was asked for, UTC.
    pub created_at: DateTime<Utc>,
}

/// A record in the operation log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationLog {
    /// Id.
    pub id: OperationLogId,
    /// The project.
    pub project_id: String,
    /// Which operation.
    pub operation_type: OperationType,
    /// The checkpoint that was made, read or removed.
    pub checkpoint_id: Option<CheckpointId>,
    /// The plan, for a protect.
    pub plan_id: Option<PlanId>,
    /// The provider.
    pub provider_id: Option<ProviderId>,
    /// The restore, for a restore.
    pub restore_id: Option<RestoreId>,
    /// The verification, for a verify (ours; not on the original's wire).
    pub verification_id: Option<VerificationId>,
    /// The scheduled operation that asked for it, if one did.
    pub scheduled_operation_id: Option<String>,
    /// Status.
    pub status: OperationLogStatus,
    /// When it began, UTC.
    pub started_at: DateTime<Utc>,
    /// When it ended, UTC.
    pub ended_at: Option<DateTime<Utc>>,
    /// Every failing resource with its reason, one a line.
    pub error_info: Option<String>,
    /// Progress while it runs, reports per resource when it ended (see `docs/operations.md`).
    pub extra_info: Option<Value>,
}

/// One service on one host, as the services table has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Id.
    pub id: i64,
    /// Host it runs on.
    pub host: String,
    /// Binary, e.g. `karbor-protection`.
    pub binary: String,
    /// RPC topic.
    pub topic: String,
    /// Heartbeats so far.
    pub report_count: i64,
    /// An operator took it out of service.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// When it registered, UTC.
    pub created_at: DateTime<Utc>,
    /// Last heartbeat, UTC.
    pub updated_at: Option<DateTime<Utc>>,
}

/// A provider as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// Id.
    pub id: ProviderId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// `options_schema`, `restore_schema`, `verify_schema`, `saved_info_schema`, each by resource type.
    /// Shared: it is large, never changes, and every request that names a provider asks for it.
    pub extended_info_schema: Arc<Map<String, Value>>,
}

/// A protectable type as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectableType {
    /// The resource type.
    pub name: String,
    /// Types of the resources that one of this type may depend on.
    pub dependent_types: Vec<String>,
}

/// A protectable resource with what it depends on, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectableInstance {
    /// The resource.
    #[serde(flatten)]
    pub resource: Resource,
    /// What it depends on directly.
    pub dependent_resources: Vec<Resource>,
}
