//! What other services may ask of the protection manager.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use chrono::NaiveDate;
use futures::{StreamExt as _, stream};
use karbor_db::DbError;
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointProperties, CheckpointStatus,
    ErrorKind, OperationLog, OperationLogId, OperationLogStatus, OperationType, Parameters, Plan,
    ProtectableInstance, ProtectableType, Provider as ProviderRecord, ProviderId, Readback,
    RequestContext, Resource,
};
use karbor_plugin::SchemaKind;
use serde_json::{Map, Value};

use super::ProtectionManager;
use crate::{
    begin_error::{BeginError, Why},
    checkpoints::CheckpointQuery,
    copies,
    error::{CheckpointError, bank_error},
    graph, leases,
    listing::{list_by_name, page},
    operations::{delete, rules},
    parameters,
    providers::BankRole,
};

/// How many lookups of dependents one list keeps going at once.
const LOOKUPS: usize = 8;

/// How long a call may wait for the end of an operation, in seconds: an answer over RPC must come before its caller
/// gives it up.
const LONGEST_WAIT: u64 = 30;

#[async_trait]
impl ProtectionApi for ProtectionManager {
    async fn protect(
        &self,
        context: &RequestContext,
        plan: Plan,
        checkpoint_properties: CheckpointProperties,
    ) -> Result<CheckpointId, ApiError> {
        let asked_as = checkpoint_properties.operation_id;
        if let Some(id) = asked_as
            && let Some(made) = self.ground.protected_before(id, &plan).await?
        {
            return Ok(made);
        }
        let ground = &self.ground;
        let run = ground
            .protect_run(context, &plan, checkpoint_properties)
            .await?;
        let id = run.checkpoint.id;
        let Err(refused) = self.worker.start(run).await else {
            return Ok(id);
        };
        // Somebody asked for the same at the same time, and was faster.
        if let Some(asked_as) = asked_as
            && refused.error.kind == ErrorKind::Conflict
            && let Some(made) = ground.protected_before(asked_as, &plan).await?
            && made != id
        {
            return Ok(made);
        }
        Err(refused.into())
    }

    async fn restore(
        &self,
        context: &RequestContext,
        restore: Readback,
        // For plugins that act on another cloud as somebody else: there is none yet.
        _restore_auth: Option<Map<String, Value>>,
    ) -> Result<(), ApiError> {
        self.read_back(context, OperationType::Restore, restore)
            .await
    }

    async fn verification(
        &self,
        context: &RequestContext,
        verification: Readback,
    ) -> Result<(), ApiError> {
        self.read_back(context, OperationType::Verify, verification)
            .await
    }

    async fn read_back(
        &self,
        context: &RequestContext,
        operation: OperationType,
        readback: Readback,
    ) -> Result<(), ApiError> {
        let asked = Readback {
            operation,
            ..readback
        };
        self.readback(context, asked).await
    }

    async fn copy(
        &self,
        context: &RequestContext,
        plan: Plan,
    ) -> Result<Vec<CheckpointCopy>, ApiError> {
        if !context.may_access(&plan.project_id) {
            return Err(ApiError::not_found("Plan", plan.id));
        }
        let provider = self.ground.providers.get(plan.provider_id)?;
        let given = plan.parameters.clone();
        let parameters = parameters::typed(provider, SchemaKind::Options, given);
        self.copy_all(context, &plan, &parameters).await
    }

    async fn delete(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), ApiError> {
        let run = self
            .ground
            .delete_run(context, provider_id, checkpoint_id)
            .await?;
        let started = self.worker.start(run).await;
        started.map_err(|error| delete::refused(checkpoint_id, error))
    }

    async fn reset_state(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String,
    ) -> Result<(), ApiError> {
        let provider = self.ground.providers.get(provider_id)?;
        let (place, checkpoint) = self
            .ground
            .checkpoint(context, provider, checkpoint_id)
            .await?;
        let home = provider.home(place)?;
        // The original's words, to the letter: its clients read them.
        let refused = || {
            let message = format!("The checkpoint {checkpoint_id} can not be reset.");
            ApiError::new(ErrorKind::BadRequest, "CheckpointNotBeReset", message)
        };
        let state: CheckpointStatus = state.parse().map_err(|_| refused())?;
        // Waiting for its maker would end in an error where all went well.
        let is_made = checkpoint.status == CheckpointStatus::Protecting
            && leases::is_held(home.bank().as_ref(), checkpoint_id)
                .await
                .map_err(|error| bank_error(&error))?;
        let can_be_set = matches!(state, CheckpointStatus::Available | CheckpointStatus::Error);
        if is_made || !can_be_set {
            return Err(refused());
        }
        // What is asked next stays true until it is done.
        let reset = self.reset(home, checkpoint.id, state);
        match self.alone(home, checkpoint_id, refused, reset).await? {
            true => Ok(()),
            false => Err(refused()),
        }
    }

    async fn accept_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<(), ApiError> {
        let provider = self.ground.providers.get(provider_id)?;
        let (place, checkpoint) = self
            .ground
            .checkpoint(context, provider, checkpoint_id)
            .await?;
        let home = provider.home(place)?;
        let refused = |reason: &str| {
            let message = format!("The checkpoint {checkpoint_id} can not be accepted: {reason}.");
            ApiError::conflict("CheckpointNotAccepted", message)
        };
        if checkpoint.status != CheckpointStatus::Available {
            return Err(refused("it is not available"));
        }
        let busy = || refused("an operation works on it; try again");
        let accept = async {
            let now = self.ground.clock.now();
            Ok(home.checkpoints().accept(checkpoint_id, now).await?)
        };
        match self.alone(home, checkpoint_id, busy, accept).await? {
            true => {
                tracing::info!(checkpoint = %checkpoint_id, user = context.user_id, "a suspicious checkpoint was accepted");
                Ok(())
            }
            false => Err(refused("it is not suspicious")),
        }
    }

    async fn show_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Result<Checkpoint, ApiError> {
        let provider = self.ground.providers.get(provider_id)?;
        let checkpoint = self.ground.shown(context, provider, checkpoint_id).await?;
        match self.ground.is_gone(&checkpoint).await? {
            true => Err(CheckpointError::NotFound(checkpoint_id).into()),
            false => Ok(checkpoint),
        }
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
        let provider = self.ground.providers.get(provider_id)?;
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
        provider.list(&query).await
    }

    async fn list_protectable_types(
        &self,
        _context: &RequestContext,
    ) -> Result<Vec<String>, ApiError> {
        // A type that no provider here protects is not one to choose from.
        let is_protected = |name: &&String| {
            let mut providers = self.ground.providers.all().iter();
            providers.any(|provider| provider.protects(name))
        };
        let types = self.ground.registry.protectables().keys();
        Ok(types.filter(is_protected).cloned().collect())
    }

    async fn show_protectable_type(
        &self,
        _context: &RequestContext,
        protectable_type: String,
    ) -> Result<ProtectableType, ApiError> {
        self.protectable(&protectable_type)?;
        let dependent_types = self
            .ground
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
    ) -> Result<Vec<ProtectableInstance>, ApiError> {
        let found = self.lookup(&protectable_type)?.list(context).await;
        let found = found.map_err(|error| graph::lookup_failed(&error))?;
        let field = |resource: &Resource, key: &str| match key {
            "id" => Some(resource.id.clone()),
            "name" => Some(resource.name.clone()),
            _ => None,
        };
        let sorted = list_by_name(found, &sort_keys, &sort_dirs, &filters, field)?;
        let listed = page(sorted, marker.as_deref(), limit, |resource| {
            resource.id.clone()
        })?;
        let lookups = listed
            .into_iter()
            .map(|resource| self.with_dependents(context, resource));
        Ok(stream::iter(lookups).buffered(LOOKUPS).collect().await)
    }

    async fn show_protectable_instance(
        &self,
        context: &RequestContext,
        protectable_type: String,
        protectable_id: String,
        _parameters: Option<Map<String, Value>>,
    ) -> Result<Option<Resource>, ApiError> {
        let found = self
            .lookup(&protectable_type)?
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
        graph::dependents(&self.ground.registry, context, &parent).await
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
            .ground
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
        Ok(self.ground.providers.get(provider_id)?.record().clone())
    }

    async fn cancel_operation(
        &self,
        context: &RequestContext,
        operation_log_id: OperationLogId,
    ) -> Result<(), ApiError> {
        let log = self.operation_log(context, operation_log_id).await?;
        match self.worker.running().get(&operation_log_id) {
            Some(run) => {
                run.cancel.cancel();
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

    async fn record_operation(
        &self,
        context: &RequestContext,
        operation_log: OperationLog,
    ) -> Result<bool, ApiError> {
        if !context.may_access(&operation_log.project_id) {
            return Err(ApiError::not_found("Project", &operation_log.project_id));
        }
        if operation_log.status == OperationLogStatus::InProgress {
            let reason = "A record without a run must have ended.";
            return Err(ApiError::invalid_field(
                "status",
                operation_log.status,
                reason,
            ));
        }
        let runs = self.ground.runs.asked_by(context);
        match runs.operation_log_create(&operation_log).await {
            Ok(()) => Ok(true),
            Err(DbError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn await_operation(
        &self,
        context: &RequestContext,
        operation_log_id: OperationLogId,
        seconds: u64,
    ) -> Result<OperationLog, ApiError> {
        // A run is taken off this list after its record was closed.
        let at_work = self.worker.running().get(&operation_log_id).cloned();
        let log = self.operation_log(context, operation_log_id).await?;
        if log.status != OperationLogStatus::InProgress {
            return Ok(log);
        }
        let patience = Duration::from_secs(seconds.min(LONGEST_WAIT));
        let left = async {
            match at_work {
                Some(run) => run.left.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = left => {}
            () = self.ground.clock.sleep(patience) => {}
            () = self.base.closing().cancelled() => {}
        }
        self.operation_log(context, operation_log_id).await
    }
}

impl ProtectionManager {
    /// A record of the operation log, if it is of the context's project.
    async fn operation_log(
        &self,
        context: &RequestContext,
        id: OperationLogId,
    ) -> Result<OperationLog, ApiError> {
        let log = self.ground.runs.operation_log_get(id).await?;
        match context.may_access(&log.project_id) {
            true => Ok(log),
            false => Err(ApiError::not_found("OperationLog", id)),
        }
    }

    /// Begins a readback, and records it with its run; or records that it was refused. One that was asked for before goes
    /// on, or has ended. What a schedule asks and is not possible now leaves no record: the schedule asks again.
    async fn readback(&self, context: &RequestContext, asked: Readback) -> Result<(), ApiError> {
        if self.ground.heard_before(context, &asked).await? {
            return Ok(());
        }
        let refused = match self.begin_readback(context, &asked).await {
            Err(error) if !matches!(error.why, Why::Known | Why::Ended) => error,
            _ => return Ok(()),
        };
        let is_asked_again =
            refused.error.kind.is_retryable() && context.scheduled_operation_id.is_some();
        if is_asked_again || refused.error.is_logged {
            return Err(refused.into());
        }
        let reason = &refused.error.message;
        match self.ground.refuse_readback(context, &asked, reason).await? {
            true => Err(refused.logged().into()),
            false => Ok(()),
        }
    }

    async fn begin_readback(
        &self,
        context: &RequestContext,
        asked: &Readback,
    ) -> Result<(), BeginError> {
        let rules = rules(asked.operation);
        let run = self
            .ground
            .readback_run(context, rules, asked.clone())
            .await?;
        self.worker.start_readback(run, asked).await
    }

    /// Begins a run for every checkpoint of the plan that is not copied yet. What the answer does not
    /// name is copied, or being copied; or else its failure is in the operation log, and asking again
    /// tells it, too.
    ///
    /// # Errors
    /// When no copy could begin of what is not copied: why, and how much is left.
    pub(super) async fn copy_all(
        &self,
        context: &RequestContext,
        plan: &Plan,
        parameters: &Parameters,
    ) -> Result<Vec<CheckpointCopy>, ApiError> {
        let provider = self.ground.providers.get(plan.provider_id)?;
        if provider.bank_of_copies() == BankRole::Bank {
            let provider = &provider.record().name;
            tracing::warn!(provider, plan = %plan.id, "{}", copies::IN_SAME_BANK);
        }
        let mut begun = Vec::new();
        let mut refused = None;
        for source in self.ground.not_copied(provider, plan).await? {
            let copy = self.ground.copy_run(context, provider, source, parameters);
            let pair = CheckpointCopy {
                checkpoint_protect_id: copy.checkpoint.id,
                checkpoint_copy_id: copy.subject().1.id,
            };
            let Err(refusal) = self.worker.start(copy.clone()).await else {
                begun.push(pair);
                continue;
            };
            // Of one source: the next may be free. Anything else would meet the next as well.
            let is_its_own = matches!(refusal.why, Why::Held | Why::Copied | Why::NotAvailable);
            let error = refusal.error;
            tracing::warn!(source = %copy.checkpoint.id, ?error, "a checkpoint is not copied now");
            refused = Some((copy, error));
            if !is_its_own {
                break;
            }
        }
        let Some((copy, mut error)) = refused else {
            return Ok(begun);
        };
        if !begun.is_empty() {
            self.worker.record_refusal(&copy, &error).await;
            return Ok(begun);
        }
        // Somebody else may have copied, or removed, what could not be copied here.
        let left = match self.ground.not_copied(provider, plan).await?.len() {
            0 => return Ok(begun),
            1 => "1 checkpoint of the plan is".to_owned(),
            many => format!("{many} checkpoints of the plan are"),
        };
        error.message = format!("{left} not copied: {}", error.message);
        Err(error)
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
