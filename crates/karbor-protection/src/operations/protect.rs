//! Protect: makes a checkpoint of a plan's resources.
//!
//! A protect may be asked for under an id: asked for again, it is not begun again.

use async_trait::async_trait;
use karbor_db::{DbError, QuotaSettlement};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointPlan, CheckpointProperties, CheckpointStatus,
    INDEX_VERSION, OperationId, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    Plan, QuotaHolding, RequestContext, Resource, Seal,
};
use karbor_plugin::{HookSet, SchemaKind};
use serde_json::Value;

use super::rules::{Evidence, Line, Rules, enter_in_bank};
use crate::{
    begin_error::BeginError,
    checkpoints::CheckpointCollection,
    conclusion::Conclusion,
    error::CheckpointError,
    flaws::Findings,
    graph,
    ground::Ground,
    leases::Purpose,
    parameters,
    providers::{BankRole, Provider},
    quota,
    run::Run,
};

pub(crate) struct Protect;

impl Ground {
    /// The run of a protect that a user asks for.
    ///
    /// # Errors
    /// What is wrong with the properties, or with the plan's resources: nothing was written yet.
    pub(crate) async fn protect_run(
        &self,
        context: &RequestContext,
        plan: &Plan,
        properties: CheckpointProperties,
    ) -> Result<Run, ApiError> {
        let provider = self.providers.get(plan.provider_id)?;
        let graph = graph::build(&self.registry, context, &plan.resources).await?;
        let graph = graph.pack().map_err(ApiError::invalid_input)?;
        let checkpoint = self.new_checkpoint(plan, graph, properties.extra_info);
        let mut run = Run::new(
            OperationType::Protect,
            context,
            (BankRole::Bank, checkpoint),
            parameters::typed(provider, SchemaKind::Options, plan.parameters.clone()),
            self.clock.now(),
        );
        run.begin_before = properties.begin_before;
        Ok(match properties.operation_id {
            Some(id) => run.with_id(id),
            None => run,
        })
    }

    /// The checkpoint that was asked for under this id before. The record in the operation log
    /// outlives the flow; the flow is entered first.
    pub(crate) async fn protected_before(
        &self,
        id: OperationId,
        plan: &Plan,
    ) -> Result<Option<CheckpointId>, ApiError> {
        let runs = &self.runs;
        let ended = |message: String| ApiError::conflict("OperationEnded", message);
        match runs.operation_log_get(OperationLogId(id.0)).await {
            Ok(log) => {
                let same = log.operation_type == OperationType::Protect
                    && log.project_id == plan.project_id;
                return match log.checkpoint_id.filter(|_| same) {
                    Some(checkpoint) => Ok(Some(checkpoint)),
                    None => Err(ended(format!(
                        "Operation {id} has ended without a checkpoint."
                    ))),
                };
            }
            Err(DbError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let flow = match runs.flow_get(id).await {
            Ok(flow) => flow,
            Err(DbError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let run: Run = serde_json::from_value(flow.payload).map_err(ApiError::internal)?;
        let same =
            run.operation == OperationType::Protect && run.checkpoint.project_id == plan.project_id;
        if same {
            return Ok(Some(run.checkpoint.id));
        }
        Err(ended(format!("Operation {id} is another one.")))
    }
    fn new_checkpoint(&self, plan: &Plan, graph: String, extra_info: Option<Value>) -> Checkpoint {
        let now = self.clock.now();
        Checkpoint {
            version: INDEX_VERSION.to_owned(),
            id: CheckpointId::next(),
            status: CheckpointStatus::Protecting,
            owner_id: self.owner.clone(),
            provider_id: plan.provider_id,
            project_id: plan.project_id.clone(),
            protection_plan: CheckpointPlan {
                id: plan.id,
                name: plan.name.clone(),
                provider_id: plan.provider_id,
                resources: plan.resources.iter().map(as_stored).collect(),
            },
            extra_info,
            created_at: Some(now.date_naive()),
            timestamp: now.timestamp(),
            resource_graph: Some(graph),
            seal: Some(Seal::default()),
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
impl Rules for Protect {
    fn claim(&self) -> Purpose {
        Purpose::Protect
    }

    fn line(&self) -> Line {
        Line::Common
    }

    fn hooks(&self) -> HookSet {
        HookSet::Protect
    }

    async fn prepare(
        &self,
        ground: &Ground,
        run: &Run,
        provider: &Provider,
    ) -> Result<(), BeginError> {
        enter_in_bank(ground, run, provider, async { Ok(()) }).await
    }

    async fn conclude(
        &self,
        ground: &Ground,
        run: &Run,
        checkpoints: &CheckpointCollection,
        conclusion: &mut Conclusion,
    ) -> Result<(), CheckpointError> {
        match conclusion.is_success() {
            true => finish(run, checkpoints, conclusion, ground.suspicious_share).await,
            false => checkpoints.fail(run.checkpoint.id).await,
        }
    }

    fn reserved(&self, run: &Run) -> Option<QuotaHolding> {
        Some(quota::reserved(run))
    }

    fn settlement(&self, run: &Run, conclusion: &Conclusion) -> QuotaSettlement {
        quota::made(run, conclusion)
    }

    fn names_plan(&self) -> bool {
        true
    }

    /// One that failed was undone.
    fn evidence(&self, log: &OperationLog) -> Evidence {
        match log.status {
            OperationLogStatus::Success => Evidence::Whole,
            _ => Evidence::Spoilt,
        }
    }
}

/// Calls a protected checkpoint available, with what is to be said against it; the conclusion says so, too.
async fn finish(
    run: &Run,
    checkpoints: &CheckpointCollection,
    conclusion: &mut Conclusion,
    share: f64,
) -> Result<(), CheckpointError> {
    let told = &mut conclusion.report;
    let checkpoint = &run.checkpoint;
    let findings = Findings::of(told, checkpoints, checkpoint, share).await?;
    let objects = &conclusion.objects;
    checkpoints
        .finish(checkpoint.id, objects, Some(&findings))
        .await?;
    findings.tell(told);
    if findings.are_bad() {
        let (incomplete, suspicious) = (&told.incomplete, &told.suspicious);
        tracing::warn!(
            checkpoint = %checkpoint.id, plan = %checkpoint.protection_plan.id, ?incomplete, ?suspicious,
            "a checkpoint was made that is incomplete or suspicious"
        );
    }
    Ok(())
}
