//! The protection manager: it is responsible for checkpoints and for every operation that runs over
//! one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use chrono::NaiveDate;
use karbor_db::{Db, ListQuery};
use karbor_flow::{Executor, ExecutorOptions, FlowTime};
use karbor_interfaces::protection::ProtectionApi;
use karbor_manager::{Clock, Config, Manager, ManagerBase};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointPlan, CheckpointStatus, ErrorKind, INDEX_VERSION,
    OperationId, OperationLogId, OperationLogStatus, OperationType, Plan, ProtectableType,
    Provider as ProviderRecord, ProviderId, RequestContext, Resource, Restore, State, Verification,
};
use karbor_plugin::{BankError, Protectable, Registry, SchemaKind};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::{
    checkpoints::CheckpointQuery,
    error::bank_error,
    graph,
    host::ManagerTime,
    keys::MasterKey,
    leases::{self, CheckpointLease, Purpose},
    listing::{list_by_name, page},
    parameters,
    providers::{Provider, Providers},
    run::Run,
    worker::Worker,
};

/// The protection manager.
pub struct ProtectionManager {
    pub(crate) base: ManagerBase<Db>,
    registry: Arc<Registry>,
    providers: Arc<Providers>,
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
        let task_timeout = base
            .config()
            .seconds("protection", "task_timeout")
            .map_err(ApiError::internal)?;
        let time: Arc<dyn FlowTime> = Arc::new(ManagerTime(clock.clone()));
        let options = ExecutorOptions {
            limit,
            task_timeout,
            ..ExecutorOptions::default()
        };
        let providers = Arc::new(parts.providers);
        let worker = Arc::new(Worker {
            db,
            clock,
            executor: Executor::new(options, time.clone()),
            time,
            tasks: base.tasks().clone(),
            providers: providers.clone(),
            key: parts.master_key,
            host: base.host().to_owned(),
            owner: format!("{}@{}", Self::BINARY, base.host()),
            slots: (operations > 0).then(|| Semaphore::new(operations)),
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
    ) -> Result<Checkpoint, ApiError> {
        let checkpoint = provider.checkpoints().get(id).await?;
        if context.may_access(&checkpoint.project_id) {
            return Ok(checkpoint);
        }
        let message = format!("Access checkpoint {id} is not allowed");
        Err(ApiError::forbidden("AccessCheckpointNotAllowed", message))
    }

    /// A checkpoint that may be read from.
    async fn available(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<Checkpoint, ApiError> {
        let checkpoint = self.checkpoint(context, provider, id).await?;
        if checkpoint.status == CheckpointStatus::Available {
            return Ok(checkpoint);
        }
        let message = format!(
            "The checkpoint {id} is not available: its status is '{}'",
            checkpoint.status
        );
        Err(ApiError::new(
            ErrorKind::BadRequest,
            "CheckpointNotAvailable",
            message,
        ))
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

    fn new_checkpoint(
        &self,
        plan: &Plan,
        graph: String,
        properties: &Map<String, Value>,
    ) -> Checkpoint {
        let now = self.base.clock().now();
        Checkpoint {
            version: INDEX_VERSION.to_owned(),
            id: CheckpointId::new(),
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
        }
    }
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

#[async_trait]
impl ProtectionApi for ProtectionManager {
    async fn protect(
        &self,
        context: &RequestContext,
        plan: Plan,
        checkpoint_properties: Map<String, Value>,
    ) -> Result<CheckpointId, ApiError> {
        let provider = self.providers.get(plan.provider_id)?;
        let graph = graph::build(&self.registry, context, &plan.resources).await?;
        let graph = graph.pack().map_err(ApiError::invalid_input)?;
        let checkpoint = self.new_checkpoint(&plan, graph, &checkpoint_properties);
        let id = checkpoint.id;
        let now = self.base.clock().now();
        let run = Run::new(
            OperationType::Protect,
            context,
            checkpoint,
            parameters::typed(provider, SchemaKind::Options, plan.parameters),
            now,
        );
        self.worker.start(run).await?;
        Ok(id)
    }

    async fn restore(
        &self,
        context: &RequestContext,
        restore: Restore,
        // For plugins that act on another cloud as somebody else: there is none yet.
        _restore_auth: Option<Map<String, Value>>,
    ) -> Result<(), ApiError> {
        let provider = self.providers.get(restore.provider_id)?;
        let parameters = parameters::typed(provider, SchemaKind::Restore, restore.parameters);
        parameters::validate(provider, SchemaKind::Restore, "restore", &parameters)?;
        let checkpoint = self
            .available(context, provider, restore.checkpoint_id)
            .await?;
        let now = self.base.clock().now();
        let mut run = Run::new(OperationType::Restore, context, checkpoint, parameters, now);
        run.restore_id = Some(restore.id);
        self.worker.start(run).await
    }

    async fn verification(
        &self,
        context: &RequestContext,
        verification: Verification,
    ) -> Result<(), ApiError> {
        let provider = self.providers.get(verification.provider_id)?;
        let parameters = parameters::typed(provider, SchemaKind::Verify, verification.parameters);
        parameters::validate(provider, SchemaKind::Verify, "verify", &parameters)?;
        let checkpoint = self
            .available(context, provider, verification.checkpoint_id)
            .await?;
        let now = self.base.clock().now();
        let mut run = Run::new(OperationType::Verify, context, checkpoint, parameters, now);
        run.verification_id = Some(verification.id);
        self.worker.start(run).await
    }

    async fn delete(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), ApiError> {
        use CheckpointStatus::{Available, Deleting, Error, ErrorDeleting};
        let provider = self.providers.get(provider_id)?;
        let checkpoint = provider.checkpoints().get(checkpoint_id).await?;
        if !context.may_access(&checkpoint.project_id) {
            let message = format!("Delete checkpoint {checkpoint_id} is not allowed");
            return Err(ApiError::forbidden("DeleteCheckpointNotAllowed", message));
        }
        let refused = || {
            let message = format!("The checkpoint {checkpoint_id} can not be deleted.");
            ApiError::conflict("CheckpointNotBeDeleted", message)
        };
        match checkpoint.status {
            Available | Error | ErrorDeleting => {}
            // Left by a service that is gone for good: nobody is at work on it any more.
            Deleting if !self.is_held(provider, checkpoint_id).await? => {}
            _ => return Err(refused()),
        }
        let now = self.base.clock().now();
        let run = Run::new(
            OperationType::Delete,
            context,
            checkpoint,
            BTreeMap::new(),
            now,
        );
        self.worker
            .start(run)
            .await
            .map_err(|error| match error.class.as_str() {
                "LeaseHeld" => refused().with_cause(error),
                _ => error,
            })
    }

    async fn reset_state(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String,
    ) -> Result<(), ApiError> {
        let provider = self.providers.get(provider_id)?;
        let checkpoint = self.checkpoint(context, provider, checkpoint_id).await?;
        let refused = || {
            let message = format!("The checkpoint {checkpoint_id} can not be reset.");
            ApiError::new(ErrorKind::BadRequest, "CheckpointNotBeReset", message)
        };
        let state: CheckpointStatus = state.parse().map_err(|_| refused())?;
        if !matches!(state, CheckpointStatus::Available | CheckpointStatus::Error) {
            return Err(refused());
        }
        // Alone with the checkpoint: what is asked next stays true until it is done.
        let bank = provider.bank().clone();
        let (run, owner) = (OperationId::new(), &self.worker.owner);
        let clock = self.base.clock();
        let lease = CheckpointLease::acquire(
            bank,
            clock.as_ref(),
            checkpoint_id,
            Purpose::Reset,
            run,
            owner,
        )
        .await;
        let lease = lease.map_err(|error| match error {
            BankError::LeaseHeld { .. } => refused().with_cause(error),
            other => bank_error(&other),
        })?;
        let done = self.reset(provider, checkpoint.id, state).await;
        lease.release().await;
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused()),
            Err(error) => Err(error),
        }
    }

    async fn show_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<Checkpoint, ApiError> {
        self.checkpoint(context, self.providers.get(provider_id)?, checkpoint_id)
            .await
    }

    async fn list_checkpoints(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        marker: Option<CheckpointId>,
        limit: Option<usize>,
        _sort_keys: Vec<String>,
        sort_dirs: Vec<String>,
        filters: BTreeMap<String, String>,
        all_tenants: bool,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let provider = self.providers.get(provider_id)?;
        let mut query = CheckpointQuery {
            project_id: Some(context.project_id.clone()),
            marker,
            limit,
            ascending: sort_dirs
                .first()
                .is_some_and(|direction| direction == "asc"),
            start_date: date(&filters, "start_date")?,
            end_date: date(&filters, "end_date")?,
            ..CheckpointQuery::default()
        };
        if all_tenants && context.is_admin {
            query.project_id = filters.get("project_id").cloned();
        }
        if let Some(plan) = filters.get("plan_id") {
            // What cannot be a plan has no checkpoints.
            let Ok(plan) = plan.parse() else {
                return Ok(Vec::new());
            };
            query.plan_id = Some(plan);
        }
        if let Some(status) = filters.get("status") {
            let Ok(status) = status.parse() else {
                return Ok(Vec::new());
            };
            query.status = Some(status);
        }
        Ok(provider.checkpoints().list(&query).await?)
    }

    async fn list_protectable_types(
        &self,
        _context: &RequestContext,
    ) -> Result<Vec<String>, ApiError> {
        Ok(self.registry.protectables().keys().cloned().collect())
    }

    async fn show_protectable_type(
        &self,
        _context: &RequestContext,
        protectable_type: String,
    ) -> Result<ProtectableType, ApiError> {
        self.protectable(&protectable_type)?;
        let dependent_types = self
            .registry
            .protectables()
            .values()
            .filter(|other| other.parent_types().contains(&protectable_type.as_str()))
            .map(|other| other.resource_type().to_owned())
            .collect();
        Ok(ProtectableType {
            name: protectable_type,
            dependent_types,
        })
    }

    async fn list_protectable_instances(
        &self,
        context: &RequestContext,
        protectable_type: String,
        marker: Option<String>,
        limit: Option<usize>,
        sort_keys: Vec<String>,
        sort_dirs: Vec<String>,
        filters: BTreeMap<String, String>,
        _parameters: Option<Map<String, Value>>,
    ) -> Result<Vec<Resource>, ApiError> {
        let found = self.protectable(&protectable_type)?.list(context).await;
        let found = found.map_err(|error| graph::lookup_failed(&error))?;
        let field = |resource: &Resource, key: &str| match key {
            "id" => Some(resource.id.clone()),
            "name" => Some(resource.name.clone()),
            _ => None,
        };
        let sorted = list_by_name(found, &sort_keys, &sort_dirs, &filters, field)?;
        page(sorted, marker.as_deref(), limit, |resource| {
            resource.id.clone()
        })
    }

    async fn show_protectable_instance(
        &self,
        context: &RequestContext,
        protectable_type: String,
        protectable_id: String,
        _parameters: Option<Map<String, Value>>,
    ) -> Result<Option<Resource>, ApiError> {
        let found = self
            .protectable(&protectable_type)?
            .show(context, &protectable_id)
            .await;
        found.map_err(|error| graph::lookup_failed(&error))
    }

    async fn list_protectable_dependents(
        &self,
        context: &RequestContext,
        protectable_id: String,
        protectable_type: String,
        protectable_name: String,
    ) -> Result<Vec<Resource>, ApiError> {
        self.protectable(&protectable_type)?;
        let parent = Resource::new(protectable_type, protectable_id, protectable_name);
        graph::dependents(&self.registry, context, &parent).await
    }

    async fn list_providers(
        &self,
        _context: &RequestContext,
        marker: Option<ProviderId>,
        limit: Option<usize>,
        sort_keys: Vec<String>,
        sort_dirs: Vec<String>,
        filters: BTreeMap<String, String>,
    ) -> Result<Vec<ProviderRecord>, ApiError> {
        let all = self
            .providers
            .all()
            .iter()
            .map(|provider| provider.record().clone())
            .collect();
        let field = |provider: &ProviderRecord, key: &str| match key {
            "id" => Some(provider.id.to_string()),
            "name" => Some(provider.name.clone()),
            "description" => Some(provider.description.clone()),
            _ => None,
        };
        let sorted = list_by_name(all, &sort_keys, &sort_dirs, &filters, field)?;
        // A marker that is no provider is left aside, as the original did.
        let marker = marker.filter(|marker| sorted.iter().any(|provider| provider.id == *marker));
        let marker = marker.map(|marker| marker.to_string());
        page(sorted, marker.as_deref(), limit, |provider| {
            provider.id.to_string()
        })
    }

    async fn show_provider(
        &self,
        _context: &RequestContext,
        provider_id: ProviderId,
    ) -> Result<ProviderRecord, ApiError> {
        Ok(self.providers.get(provider_id)?.record().clone())
    }

    async fn cancel_operation(
        &self,
        context: &RequestContext,
        operation_log_id: OperationLogId,
    ) -> Result<(), ApiError> {
        let log = self.base.db().operation_log_get(operation_log_id).await?;
        if !context.may_access(&log.project_id) {
            return Err(ApiError::not_found("OperationLog", operation_log_id));
        }
        match self.worker.running().get(&operation_log_id) {
            Some(cancel) => {
                cancel.cancel();
                Ok(())
            }
            None => {
                let message = format!(
                    "Operation {operation_log_id} is not running here; its status is '{}'.",
                    log.status
                );
                Err(ApiError::conflict("OperationNotRunning", message))
            }
        }
    }
}

impl ProtectionManager {
    /// Resets a checkpoint that nobody else works on; `false` when its state does not allow it.
    async fn reset(
        &self,
        provider: &Provider,
        id: CheckpointId,
        state: CheckpointStatus,
    ) -> Result<bool, ApiError> {
        let checkpoint = provider.checkpoints().get(id).await?;
        if checkpoint.status == state {
            return Ok(true);
        }
        let allowed = checkpoint.status.can_become(state)
            && (state != CheckpointStatus::Available || self.was_whole(&checkpoint).await?);
        if allowed {
            provider.checkpoints().transition(id, state).await?;
        }
        Ok(allowed)
    }

    /// A checkpoint whose protect failed was undone, and one whose delete was begun has lost data:
    /// neither can be called available by hand.
    async fn was_whole(&self, checkpoint: &Checkpoint) -> Result<bool, ApiError> {
        if checkpoint.status != CheckpointStatus::Error {
            return Ok(false);
        }
        let query = ListQuery {
            filters: vec![("checkpoint_id".to_owned(), checkpoint.id.to_string())],
            ..ListQuery::default()
        };
        let logs = self.base.db().operation_log_list(&query).await?;
        Ok(logs.iter().all(|log| match log.operation_type {
            OperationType::Protect => log.status == OperationLogStatus::Success,
            OperationType::Delete => log.extra_info.as_ref().is_none_or(Value::is_null),
            _ => true,
        }))
    }

    async fn is_held(
        &self,
        provider: &Provider,
        checkpoint: CheckpointId,
    ) -> Result<bool, ApiError> {
        let holder = leases::holder(provider.bank().as_ref(), checkpoint).await;
        Ok(holder.map_err(|error| bank_error(&error))?.is_some())
    }
}

fn date(filters: &BTreeMap<String, String>, field: &str) -> Result<Option<NaiveDate>, ApiError> {
    let Some(text) = filters.get(field).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = NaiveDate::parse_from_str(text, "%Y-%m-%d");
    parsed
        .map(Some)
        .map_err(|_| ApiError::invalid_field(field, text, "It must be a date like 2026-11-22."))
}
