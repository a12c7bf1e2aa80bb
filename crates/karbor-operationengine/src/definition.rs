//! What scheduled operations are to do, read from their definitions.

use std::collections::BTreeMap;

use karbor_model::{
    ApiError, ErrorKind, OperationType, Parameters, Plan, PlanId, ProviderId, ScheduledOperation,
    ScheduledOperationId, ScheduledOperationType,
};

use crate::retention::RetentionPolicy;

/// A definition that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    /// Which provider the plan must name.
    pub(crate) provider_id: ProviderId,
    /// What it is about.
    pub(crate) plan_id: PlanId,
    /// What is done.
    pub(crate) task: Task,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    /// A checkpoint is made.
    Protect,
    /// The same, and those before it are deleted that need not be kept.
    RetentionProtect(RetentionPolicy),
    /// Checkpoints are read back by an operation, e.g. verified.
    Readback(OperationType, ReadBack),
    /// Checkpoints that need not be kept are deleted.
    Delete {
        /// What is to be kept.
        policy: RetentionPolicy,
        /// Only those that this operation made; else those of every scheduled operation.
        made_by: Option<ScheduledOperationId>,
    },
}

/// Which checkpoints are read back, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadBack {
    /// Every available checkpoint of the plan, not only the newest.
    pub(crate) all: bool,
    /// Those too that nothing vouches for.
    pub(crate) accept_unsealed: bool,
    /// For every type whose schema knows levels.
    pub(crate) level: Option<String>,
    /// By type or resource, as `parameters` of the record in the API.
    pub(crate) parameters: Parameters,
}

impl Definition {
    /// Reads an operation's definition.
    ///
    /// Keys: `plan_id`, `provider_id`; for `retention_protect` and `delete` those of
    /// [`RetentionPolicy::parse`]; for `delete` also `scheduled_operation_id`; for `verify`
    /// and others that read checkpoints back `checkpoints` (`latest`, the default, or `all`), `accept_unsealed` (`true` or `false`, the default),
    /// `level` and `parameters` (JSON).
    ///
    /// # Errors
    /// 400 that names what is wrong (Q42).
    pub(crate) fn parse(operation: &ScheduledOperation) -> Result<Self, ApiError> {
        let given = &operation.operation_definition;
        let provider_id = id(given, "provider_id", "Provider_id is invalid")?;
        let plan_id = id(given, "plan_id", "Plan_id is invalid")?;
        let task = match operation.operation_type {
            ScheduledOperationType::Protect => Task::Protect,
            ScheduledOperationType::RetentionProtect => {
                Task::RetentionProtect(RetentionPolicy::parse(given)?)
            }
            ScheduledOperationType::Readback(operation) => {
                Task::Readback(operation, ReadBack::parse(given)?)
            }
            ScheduledOperationType::Delete => delete(given)?,
        };
        Ok(Self {
            provider_id,
            plan_id,
            task,
        })
    }

    /// May the operation act on the plan? Its owner's project must be the plan's (Q65).
    ///
    /// # Errors
    /// 404 for a foreign plan, as for one that is not there; 400 when the provider is another.
    pub(crate) fn check_plan(
        &self,
        operation: &ScheduledOperation,
        plan: &Plan,
    ) -> Result<(), ApiError> {
        if plan.project_id != operation.project_id {
            return Err(ApiError::not_found("Plan", plan.id));
        }
        if plan.provider_id != self.provider_id {
            return Err(invalid("Provider_id is conflict"));
        }
        Ok(())
    }
}

impl ReadBack {
    fn parse(given: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        let all = match given.get("checkpoints").map_or("latest", String::as_str) {
            "latest" => false,
            "all" => true,
            other => {
                let reason = "It must be 'latest' or 'all'.";
                return Err(ApiError::invalid_field("checkpoints", other, reason));
            }
        };
        let key = "accept_unsealed";
        let accept_unsealed = match given.get(key).map_or("false", String::as_str) {
            "false" => false,
            "true" => true,
            other => {
                return Err(ApiError::invalid_field(
                    key,
                    other,
                    "It must be 'true' or 'false'.",
                ));
            }
        };
        let parameters = match given.get("parameters").filter(|text| !text.is_empty()) {
            None => Parameters::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                let reason = format!(
                    "It must be a JSON object of objects, one for each resource type: {error}"
                );
                ApiError::invalid_field("parameters", text, reason)
            })?,
        };
        Ok(Self {
            all,
            accept_unsealed,
            level: given.get("level").cloned(),
            parameters,
        })
    }
}

fn delete(given: &BTreeMap<String, String>) -> Result<Task, ApiError> {
    let policy = RetentionPolicy::parse(given)?;
    if policy == RetentionPolicy::default() {
        return Err(invalid(
            "It would never delete anything: give max_backups, retention_duration or a keep_ rule",
        ));
    }
    let key = "scheduled_operation_id";
    let made_by = given.get(key).filter(|text| !text.is_empty());
    let made_by = made_by.map(|_| id(given, key, "Scheduled_operation_id is invalid"));
    Ok(Task::Delete {
        policy,
        made_by: made_by.transpose()?,
    })
}

fn id<T: std::str::FromStr>(
    given: &BTreeMap<String, String>,
    key: &str,
    reason: &str,
) -> Result<T, ApiError> {
    let text = given.get(key).map_or("", String::as_str);
    text.parse().map_err(|_| invalid(reason))
}

/// `Invalid operation definition, reason:<reason>`, in the original's words.
pub(crate) fn invalid(reason: &str) -> ApiError {
    ApiError::new(
        ErrorKind::BadRequest,
        "InvalidOperationDefinition",
        format!("Invalid operation definition, reason:{reason}"),
    )
}
