//! What each record looks like on the wire: names, order and forms as recorded.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Timelike, Utc};
use karbor_model::{
    Checkpoint, CheckpointCopy, CheckpointId, CheckpointPlan, OperationLog, Parameters, Plan,
    PlanId, ProtectableType, Provider, ProviderId, Readback, Resource, ScheduledOperation,
    ServiceRecord, Trigger,
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    python_texts,
    shapes::{Id, OneOf},
};

/// A plan.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Plan")]
pub(crate) struct PlanView<'a> {
    #[schemars(with = "Id")]
    id: karbor_model::PlanId,
    name: &'a str,
    description: Option<&'a str>,
    resources: Vec<PlanResource<'a>>,
    #[schemars(with = "Id")]
    provider_id: ProviderId,
    #[schemars(with = "OneOf<karbor_model::PlanStatus>")]
    status: karbor_model::PlanStatus,
    parameters: &'a Parameters,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PlanResource")]
struct PlanResource<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(rename = "type")]
    resource_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_info: Option<&'a Value>,
}

impl<'a> From<&'a Plan> for PlanView<'a> {
    fn from(plan: &'a Plan) -> Self {
        let resources = plan.resources.iter().map(|resource| PlanResource {
            id: &resource.id,
            name: &resource.name,
            resource_type: &resource.resource_type,
            extra_info: resource.extra_info.as_ref().filter(|info| !info.is_null()),
        });
        Self {
            id: plan.id,
            name: &plan.name,
            description: plan.description.as_deref(),
            resources: resources.collect(),
            provider_id: plan.provider_id,
            status: plan.status,
            parameters: &plan.parameters,
        }
    }
}

/// The graph of nothing.
pub(crate) const NO_GRAPH: &str = "[{}, []]";

/// A checkpoint.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Checkpoint")]
pub(crate) struct CheckpointView<'a> {
    #[schemars(with = "Id")]
    pub(crate) id: CheckpointId,
    pub(crate) project_id: &'a str,
    #[schemars(with = "OneOf<karbor_model::CheckpointStatus>")]
    pub(crate) status: karbor_model::CheckpointStatus,
    pub(crate) protection_plan: CheckpointPlanView<'a>,
    /// Never null: clients decode it, also that of a checkpoint whose graph is not known.
    pub(crate) resource_graph: &'a str,
    #[schemars(with = "Option<String>")]
    pub(crate) created_at: Option<NaiveDate>,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "Option<String>")]
    pub(crate) extra_info: Option<&'a Value>,
    /// False of one that nothing vouches for; of others not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<bool>,
}

/// What a checkpoint tells of its plan. The answer to a create has no `provider_id`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CheckpointPlan")]
pub(crate) struct CheckpointPlanView<'a> {
    #[schemars(with = "Id")]
    id: karbor_model::PlanId,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Id>")]
    provider_id: Option<ProviderId>,
    resources: Vec<CheckpointResource<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CheckpointResource")]
struct CheckpointResource<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    resource_type: &'a str,
    name: &'a str,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "Option<String>")]
    extra_info: Option<&'a Value>,
}

fn checkpoint_resources(resources: &[Resource]) -> Vec<CheckpointResource<'_>> {
    resources
        .iter()
        .map(|resource| CheckpointResource {
            id: &resource.id,
            resource_type: &resource.resource_type,
            name: &resource.name,
            extra_info: resource.extra_info.as_ref(),
        })
        .collect()
}

impl<'a> From<&'a Plan> for CheckpointPlanView<'a> {
    fn from(plan: &'a Plan) -> Self {
        Self {
            id: plan.id,
            name: &plan.name,
            provider_id: None,
            resources: checkpoint_resources(&plan.resources),
        }
    }
}

impl<'a> From<&'a CheckpointPlan> for CheckpointPlanView<'a> {
    fn from(plan: &'a CheckpointPlan) -> Self {
        Self {
            id: plan.id,
            name: &plan.name,
            provider_id: Some(plan.provider_id),
            resources: checkpoint_resources(&plan.resources),
        }
    }
}

impl<'a> From<&'a Checkpoint> for CheckpointView<'a> {
    fn from(checkpoint: &'a Checkpoint) -> Self {
        Self {
            id: checkpoint.id,
            project_id: &checkpoint.project_id,
            status: checkpoint.status,
            protection_plan: (&checkpoint.protection_plan).into(),
            resource_graph: checkpoint.resource_graph.as_deref().unwrap_or(NO_GRAPH),
            created_at: checkpoint.created_at,
            extra_info: checkpoint.extra_info.as_ref(),
            sealed: checkpoint.seal.is_none().then_some(false),
        }
    }
}

/// JSON text, as the original kept extra info; a text is taken to be one already.
#[allow(clippy::ref_option, reason = "serde asks for this signature")]
fn as_text<S: Serializer>(value: &Option<&Value>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        None | Some(Value::Null) => serializer.serialize_none(),
        Some(Value::String(text)) => serializer.serialize_str(text),
        Some(other) => serializer.serialize_str(&python_texts::json(other)),
    }
}

/// A readback of a checkpoint, e.g. a restore, and what became of each resource.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{Own}")]
pub(crate) struct ReadbackView<'a, Own> {
    #[schemars(with = "Id")]
    id: karbor_model::ReadbackId,
    project_id: &'a str,
    #[schemars(with = "Id")]
    provider_id: ProviderId,
    #[schemars(with = "Id")]
    checkpoint_id: CheckpointId,
    #[serde(flatten)]
    own: Own,
    parameters: &'a Parameters,
    #[schemars(with = "OneOf<karbor_model::ReadbackStatus>")]
    status: karbor_model::ReadbackStatus,
    resources_status: &'a BTreeMap<String, String>,
    resources_reason: &'a BTreeMap<String, String>,
}

impl<'a, Own: From<&'a Readback>> From<&'a Readback> for ReadbackView<'a, Own> {
    fn from(readback: &'a Readback) -> Self {
        Self {
            id: readback.id,
            project_id: &readback.project_id,
            provider_id: readback.provider_id,
            checkpoint_id: readback.checkpoint_id,
            own: readback.into(),
            parameters: &readback.parameters,
            status: readback.status,
            resources_status: &readback.resources_status,
            resources_reason: &readback.resources_reason,
        }
    }
}

/// The copies that a request began.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Copy")]
pub(crate) struct CopyView<'a> {
    pub(crate) project_id: &'a str,
    #[schemars(with = "Id")]
    pub(crate) provider_id: ProviderId,
    #[schemars(with = "Id")]
    pub(crate) plan_id: PlanId,
    /// Each checkpoint with its copy.
    #[schemars(with = "Vec<CopyPair>")]
    pub(crate) checkpoint_id: &'a [CheckpointCopy],
    /// As they were given; null if they were not.
    pub(crate) parameters: Option<&'a Map<String, Value>>,
}

/// How [`CheckpointCopy`] is written.
#[derive(JsonSchema)]
#[schemars(rename = "CheckpointCopy")]
#[expect(dead_code, reason = "it describes")]
struct CopyPair {
    #[schemars(with = "Id")]
    checkpoint_protect_id: CheckpointId,
    #[schemars(with = "Id")]
    checkpoint_copy_id: CheckpointId,
}

/// A record of the operation log.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OperationLog")]
pub(crate) struct OperationLogView<'a> {
    #[schemars(with = "Id")]
    id: karbor_model::OperationLogId,
    #[schemars(with = "OneOf<karbor_model::OperationType>")]
    operation_type: karbor_model::OperationType,
    #[schemars(with = "Option<Id>")]
    checkpoint_id: Option<CheckpointId>,
    #[schemars(with = "Option<Id>")]
    plan_id: Option<karbor_model::PlanId>,
    #[schemars(with = "Option<Id>")]
    provider_id: Option<ProviderId>,
    #[schemars(with = "Option<Id>")]
    restore_id: Option<karbor_model::ReadbackId>,
    scheduled_operation_id: Option<&'a str>,
    /// That of the checkpoint, restore or verification that the operation leaves, or `missed`.
    #[schemars(with = "OneOf<karbor_model::OperationLogStatus>")]
    status: &'static str,
    started_at: String,
    ended_at: Option<String>,
    error_info: Option<&'a str>,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "Option<String>")]
    extra_info: Option<&'a Value>,
}

impl<'a> From<&'a OperationLog> for OperationLogView<'a> {
    fn from(log: &'a OperationLog) -> Self {
        Self {
            id: log.id,
            operation_type: log.operation_type,
            checkpoint_id: log.checkpoint_id,
            plan_id: log.plan_id,
            provider_id: log.provider_id,
            restore_id: log.readback_of(karbor_model::OperationType::Restore),
            scheduled_operation_id: log.scheduled_operation_id.as_deref(),
            status: log.status.after(log.operation_type),
            started_at: time(log.started_at),
            ended_at: log.ended_at.map(time),
            error_info: log.error_info.as_deref(),
            // Null where nothing was reported, as the original's was.
            extra_info: log
                .extra_info
                .as_ref()
                .filter(|info| **info != json!({"resources": {}})),
        }
    }
}

/// A trigger.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Trigger")]
pub(crate) struct TriggerView<'a> {
    #[schemars(with = "Id")]
    id: karbor_model::TriggerId,
    name: &'a str,
    #[serde(rename = "type")]
    trigger_type: &'a str,
    properties: &'a Map<String, Value>,
}

impl<'a> From<&'a Trigger> for TriggerView<'a> {
    fn from(trigger: &'a Trigger) -> Self {
        Self {
            id: trigger.id,
            name: &trigger.name,
            trigger_type: &trigger.trigger_type,
            properties: &trigger.properties,
        }
    }
}

/// A scheduled operation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ScheduledOperation")]
pub(crate) struct ScheduledOperationView<'a> {
    #[schemars(with = "Id")]
    id: karbor_model::ScheduledOperationId,
    name: &'a str,
    description: Option<&'a str>,
    #[schemars(with = "OneOf<karbor_model::ScheduledOperationType>")]
    operation_type: karbor_model::ScheduledOperationType,
    #[schemars(with = "Id")]
    trigger_id: karbor_model::TriggerId,
    operation_definition: &'a BTreeMap<String, String>,
    enabled: bool,
}

impl<'a> From<&'a ScheduledOperation> for ScheduledOperationView<'a> {
    fn from(operation: &'a ScheduledOperation) -> Self {
        Self {
            id: operation.id,
            name: &operation.name,
            description: operation.description.as_deref(),
            operation_type: operation.operation_type,
            trigger_id: operation.trigger_id,
            operation_definition: &operation.operation_definition,
            enabled: operation.enabled,
        }
    }
}

/// A service.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Service")]
pub(crate) struct ServiceView<'a> {
    id: i64,
    binary: &'a str,
    host: &'a str,
    status: &'static str,
    state: &'static str,
    updated_at: Option<String>,
    disabled_reason: Option<&'a str>,
    /// What is to be known of it, e.g. that its clock jumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notice: Option<String>,
}

impl<'a> ServiceView<'a> {
    pub(crate) fn new(service: &'a ServiceRecord, is_up: bool) -> Self {
        Self {
            id: service.id,
            binary: &service.binary,
            host: &service.host,
            status: if service.disabled {
                "disabled"
            } else {
                "enabled"
            },
            state: if is_up { "up" } else { "down" },
            updated_at: service.updated_at.map(time),
            disabled_reason: service.disabled_reason.as_deref(),
            notice: None,
        }
    }
}

/// A provider.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Provider")]
pub(crate) struct ProviderView<'a> {
    #[schemars(with = "Id")]
    id: ProviderId,
    name: &'a str,
    description: &'a str,
    extended_info_schema: &'a Map<String, Value>,
}

impl<'a> From<&'a Provider> for ProviderView<'a> {
    fn from(provider: &'a Provider) -> Self {
        Self {
            id: provider.id,
            name: &provider.name,
            description: &provider.description,
            extended_info_schema: &provider.extended_info_schema,
        }
    }
}

/// A type of what can be protected.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProtectableType")]
pub(crate) struct TypeView<'a> {
    name: &'a str,
    dependent_types: &'a [String],
}

impl<'a> From<&'a ProtectableType> for TypeView<'a> {
    fn from(shown: &'a ProtectableType) -> Self {
        Self {
            name: &shown.name,
            dependent_types: &shown.dependent_types,
        }
    }
}

/// A protectable resource with what it depends on.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProtectableInstance")]
pub(crate) struct InstanceView<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    resource_type: &'a str,
    name: &'a str,
    extra_info: Option<&'a Value>,
    dependent_resources: Vec<DependentView<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DependentResource")]
struct DependentView<'a> {
    #[serde(rename = "type")]
    resource_type: &'a str,
    id: &'a str,
    name: &'a str,
    extra_info: Option<&'a Value>,
}

impl<'a> From<&'a karbor_model::ProtectableInstance> for InstanceView<'a> {
    fn from(instance: &'a karbor_model::ProtectableInstance) -> Self {
        let resource = &instance.resource;
        let dependents = instance.dependent_resources.iter().flatten();
        Self {
            id: &resource.id,
            resource_type: &resource.resource_type,
            name: &resource.name,
            extra_info: resource.extra_info.as_ref(),
            dependent_resources: dependents
                .map(|dependent| DependentView {
                    resource_type: &dependent.resource_type,
                    id: &dependent.id,
                    name: &dependent.name,
                    extra_info: dependent.extra_info.as_ref(),
                })
                .collect(),
        }
    }
}

/// Python's `isoformat` of a time without a zone: microseconds only if there are any.
fn time(at: DateTime<Utc>) -> String {
    let form = if at.nanosecond() / 1000 == 0 {
        "%Y-%m-%dT%H:%M:%S"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f"
    };
    at.format(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        let at: DateTime<Utc> = "2026-11-22T10:21:22.205919Z".parse().unwrap();
        assert_eq!(time(at), "2026-11-22T10:21:22.205919");
        let whole: DateTime<Utc> = "2026-11-22T10:21:22Z".parse().unwrap();
        assert_eq!(time(whole), "2026-11-22T10:21:22");
    }
}
