//! The protection manager: it is responsible for checkpoints and for every operation that runs over
//! one.

mod api;
mod copy;
mod damaged;
mod once;
mod reset;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use chrono::TimeDelta;
use karbor_db::{Db, ListQuery, QuotaDefaults};
use karbor_flow::{Executor, ExecutorOptions, FlowTime};
use karbor_manager::{Clock, Config, Manager, ManagerBase};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointPlan, CheckpointStatus, ErrorKind, INDEX_VERSION,
    OperationLog, OperationType, Plan, RequestContext, Resource, Seal,
};
use karbor_plugin::{Protectable, Registry};
use serde_json::{Map, Value};

use crate::{
    error::{not_available, not_sealed},
    host::ManagerTime,
    keys::MasterKey,
    providers::{Place, Provider, Providers},
    worker::{Slots, Worker},
};

/// How long a checkpoint that was deleted is still shown, as deleted.
const DELETED_IS_SHOWN: TimeDelta = TimeDelta::minutes(10);

/// The protection manager.
pub struct ProtectionManager {
    pub(crate) base: ManagerBase<Db>,
    registry: Arc<Registry>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) worker: Arc<Worker>,
}

/// What a protection manager is made of.
pub struct ProtectionParts {
    /// Every plugin there is.
    pub registry: Arc<Registry>,
    /// The providers in use.
    pub providers: Providers,
    /// The key from which repository passwords are derived.
    pub master_key: MasterKey,
}

impl ProtectionManager {
    /// A manager on `host` (default: this host's name).
    ///
    /// # Errors
    /// A 500 when the configuration lacks an option of [`OPTIONS`](crate::OPTIONS).
    pub fn new(
        host: Option<String>,
        db: Db,
        config: Config,
        clock: Arc<dyn Clock>,
        parts: ProtectionParts,
    ) -> Result<Self, ApiError> {
        let base = ManagerBase::new(host, db.clone(), config, clock.clone());
        let number = |group, name| base.config().int(group, name).map_err(ApiError::internal);
        let operations =
            usize::try_from(number("DEFAULT", "max_concurrent_operations")?).unwrap_or(0);
        let limit = usize::try_from(number("protection", "max_parallel_tasks")?)
            .unwrap_or(1)
            .max(1);
        let copies = usize::try_from(number("protection", "max_parallel_copies")?)
            .unwrap_or(1)
            .max(1);
        let task_timeout = base
            .config()
            .seconds("protection", "task_timeout")
            .map_err(ApiError::internal)?;
        let suspicious_share = base
            .config()
            .float("protection", "suspicious_share")
            .map_err(ApiError::internal)?;
        let time: Arc<dyn FlowTime> = Arc::new(ManagerTime(clock.clone()));
        let options = ExecutorOptions {
            limit,
            task_timeout,
            ..ExecutorOptions::default()
        };
        let providers = Arc::new(parts.providers.with_key(&parts.master_key));
        let worker = Arc::new(Worker {
            db,
            clock,
            executor: Executor::new(options, time.clone()),
            suspicious_share,
            time,
            tasks: base.tasks().clone(),
            providers: providers.clone(),
            key: parts.master_key,
            host: base.host().to_owned(),
            quotas: QuotaDefaults::read(base.config())?,
            owner: format!("{}@{}", Self::BINARY, base.host()),
            slots: Slots::new(operations, copies),
            running: Mutex::new(HashMap::new()),
            stuck: Mutex::new(HashMap::new()),
        });
        Ok(Self {
            base,
            registry: parts.registry,
            providers,
            worker,
        })
    }

    /// A checkpoint that `context` may see.
    async fn checkpoint(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<(Place, Checkpoint), ApiError> {
        match provider.find(id).await {
            Ok((place, checkpoint)) if context.may_access(&checkpoint.project_id) => {
                Ok((place, checkpoint))
            }
            Ok(_) => Err(not_allowed(id)),
            Err(error) if error.is_damage() => match self.damaged(context, provider, id).await? {
                Some(found) => Err(found.refusal(id)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Was it deleted so long ago that it is not shown any more? A client that waits for the end of a deletion
    /// sees it end (Q26). A deletion that our database does not know of is long ago.
    async fn is_gone(&self, checkpoint: &Checkpoint) -> Result<bool, ApiError> {
        if checkpoint.status != CheckpointStatus::Deleted {
            return Ok(false);
        }
        let filter = |name: &str, value: String| (name.to_owned(), value);
        let query = ListQuery {
            filters: vec![
                filter("checkpoint_id", checkpoint.id.to_string()),
                filter("operation_type", OperationType::Delete.to_string()),
            ],
            ..ListQuery::default()
        };
        let logs = self.base.db().operation_log_list(&query).await?;
        let since = self.base.clock().now() - DELETED_IS_SHOWN;
        let is_fresh = |log: &OperationLog| log.ended_at.is_none_or(|ended_at| ended_at > since);
        Ok(!logs.iter().any(is_fresh))
    }

    /// A checkpoint that may be read from: one that is vouched for, unless `accept_unsealed`.
    async fn available(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
        accept_unsealed: bool,
    ) -> Result<(Place, Checkpoint), ApiError> {
        let (place, checkpoint) = self.checkpoint(context, provider, id).await?;
        if checkpoint.status != CheckpointStatus::Available {
            return Err(not_available(&checkpoint));
        }
        match checkpoint.seal.is_some() || accept_unsealed {
            true => Ok((place, checkpoint)),
            false => Err(not_sealed(&checkpoint)),
        }
    }

    fn protectable(&self, resource_type: &str) -> Result<&Arc<dyn Protectable>, ApiError> {
        self.registry
            .protectables()
            .get(resource_type)
            .ok_or_else(|| {
                let message = format!("Protectable type {resource_type} could not be found.");
                ApiError::new(ErrorKind::NotFound, "ProtectableTypeNotFound", message)
            })
    }

    /// The protectable of a type, to look resources up with.
    fn lookup(&self, resource_type: &str) -> Result<&Arc<dyn Protectable>, ApiError> {
        let protectable = self.protectable(resource_type)?;
        if protectable.can_look_up() {
            return Ok(protectable);
        }
        Err(ApiError::new(
            ErrorKind::BadRequest,
            "ListProtectableResourceFailed",
            format!(
                "This service is not connected to where resources of type {resource_type} are: it \
                 cannot say which there are. Name them in the plan."
            ),
        ))
    }

    fn new_checkpoint(
        &self,
        plan: &Plan,
        graph: String,
        properties: &Map<String, Value>,
    ) -> Checkpoint {
        let now = self.base.clock().now();
        Checkpoint {
            version: INDEX_VERSION.to_owned(),
            id: CheckpointId::next(),
            status: CheckpointStatus::Protecting,
            owner_id: self.worker.owner.clone(),
            provider_id: plan.provider_id,
            project_id: plan.project_id.clone(),
            protection_plan: CheckpointPlan {
                id: plan.id,
                name: plan.name.clone(),
                provider_id: plan.provider_id,
                resources: plan.resources.iter().map(as_stored).collect(),
            },
            extra_info: properties.get("extra_info").cloned(),
            created_at: Some(now.date_naive()),
            timestamp: now.timestamp(),
            resource_graph: Some(graph),
            seal: Some(Seal::default()),
        }
    }
}

fn not_allowed(id: CheckpointId) -> ApiError {
    let message = format!("Access checkpoint {id} is not allowed");
    ApiError::forbidden("AccessCheckpointNotAllowed", message)
}

/// The original kept a resource's extra info as JSON text in the plan of a checkpoint.
fn as_stored(resource: &Resource) -> Resource {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let extra_info = resource
        .extra_info
        .as_ref()
        .filter(|value| !value.is_null())
        .map(text);
    Resource {
        extra_info: extra_info.map(Value::String),
        ..resource.clone()
    }
}
