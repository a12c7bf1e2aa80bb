//! Records: what the database and the wire hold.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CheckpointId, OperationLogId, OperationLogStatus, OperationType, PlanId, PlanStatus,
    ProviderId, ReadbackId, Resource, RunReport,
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
    /// The readback, of an operation that is one.
    pub readback_id: Option<ReadbackId>,
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

impl OperationLog {
    /// What the run tells, or told.
    #[must_use]
    pub fn report(&self) -> RunReport {
        RunReport::read(self.extra_info.as_ref())
    }

    /// The readback that it is about, if that is one of `operation`: the original names each kind by itself.
    #[must_use]
    pub fn readback_of(&self, operation: OperationType) -> Option<ReadbackId> {
        self.readback_id
            .filter(|_| self.operation_type == operation)
    }

    /// The ids of the readbacks that it is about, by what each is called, e.g. `restore_id`: all but one are null.
    pub fn readback_ids(&self) -> impl Iterator<Item = (String, Value)> {
        OperationType::readbacks().map(|(operation, names)| {
            let id = self.readback_of(operation).map(|id| id.to_string());
            (format!("{}_id", names.one), id.into())
        })
    }
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
    /// What it depends on directly; `None` where the one who answered did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependent_resources: Option<Vec<Resource>>,
}

impl From<Resource> for ProtectableInstance {
    fn from(resource: Resource) -> Self {
        Self {
            resource,
            dependent_resources: None,
        }
    }
}
