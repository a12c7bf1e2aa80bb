//! What restore and verify share: they read a checkpoint back and leave an outcome for each resource.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::TimeDelta;
use karbor_db::{DbError, RunStore};
use karbor_flow::{FlowOutcome, FlowStatus};
use karbor_model::{
    ApiError, OperationId, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    Readback, ReadbackStatus, RequestContext, Resource, RunReport,
};
use karbor_plugin::{HookSet, SchemaKind};

use super::rules::{Evidence, Line, Rules, refuse_unreadable};
use crate::{
    begin_error::BeginError,
    checkpoints::CheckpointCollection,
    conclusion::{Conclusion, unless_done_before},
    error::CheckpointError,
    ground::Ground,
    leases::Purpose,
    parameters,
    providers::Provider,
    run::Run,
};

/// What is particular to an operation that reads a checkpoint back.
pub(super) trait Reads: Send + Sync {
    /// What it claims the checkpoint for: one of the purposes that only read.
    fn claim(&self) -> Purpose;

    fn line(&self) -> Line;

    /// The schema of its parameters.
    fn schema(&self) -> SchemaKind;

    /// Whose hooks of a plugin it runs.
    fn hooks(&self) -> HookSet;

    /// Does a failure leave the other resources their turn?
    fn goes_on(&self) -> bool;

    /// Did every resource have its turn in a flow that ended so?
    fn reached_all(&self, end: FlowStatus) -> bool;

    /// What one that went well says of its checkpoint.
    fn success(&self) -> Evidence;
}

impl Ground {
    /// The run of a readback that a user asks for, by the rules of its operation.
    ///
    /// # Errors
    /// A 400 that names what is wrong with its parameters; what forbids to read the checkpoint.
    pub(crate) async fn readback_run(
        &self,
        context: &RequestContext,
        rules: &dyn Rules,
        asked: Readback,
    ) -> Result<Run, ApiError> {
        let operation = asked.operation;
        let Some(schema) = rules.readback_schema() else {
            let reason = "It must be an operation that reads a checkpoint back.";
            return Err(ApiError::invalid_field("operation", operation, reason));
        };
        let provider = self.providers.get(asked.provider_id)?;
        let parameters = parameters::typed(provider, schema, asked.parameters);
        parameters::validate(provider, schema, operation.as_str(), &parameters)?;
        let (id, accept_unsealed) = (asked.checkpoint_id, asked.accept_unsealed);
        let checkpoint = self
            .available(context, provider, id, accept_unsealed)
            .await?;
        let run = Run::new(operation, context, checkpoint, parameters, self.clock.now());
        Ok(run.with_id(OperationId(asked.id.0)))
    }
}

/// How long ago what nobody carries out was asked for, at least: a call under way is answered, or given up, before.
const UNDER_WAY: TimeDelta = TimeDelta::hours(1);

impl Ground {
    /// Was this readback asked for before? It goes on, or has ended.
    ///
    /// # Errors
    /// A 404 when it is of a project that the context may not act in, a 409 when its id is that of another; when the
    /// database is away.
    pub(crate) async fn heard_before(
        &self,
        context: &RequestContext,
        asked: &Readback,
    ) -> Result<bool, ApiError> {
        if !context.may_access(&asked.project_id) {
            return Err(ApiError::not_found("Project", &asked.project_id));
        }
        match self.runs.readback_get(asked.operation, asked.id).await {
            Ok(there) if !there.is_the_same_as(asked) => Err(id_of_another(asked).into()),
            Ok(there) if there.status != ReadbackStatus::InProgress => Ok(true),
            // What has begun is not asked again whether it may.
            Ok(_) => match self.runs.flow_get(OperationId(asked.id.0)).await {
                Ok(_) => Ok(true),
                Err(DbError::NotFound { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Err(DbError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that a readback was refused, and why: beside the checkpoint it was about (Q28), and in the operation log.
    /// Says whether it is: one that goes on, because somebody asked for the same at the same time and was heard, is not.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn refuse_readback(
        &self,
        context: &RequestContext,
        asked: &Readback,
        reason: &str,
    ) -> Result<bool, ApiError> {
        let now = self.clock.now();
        let log = OperationLog {
            id: OperationLogId(asked.id.0),
            project_id: asked.project_id.clone(),
            operation_type: asked.operation,
            checkpoint_id: Some(asked.checkpoint_id),
            plan_id: None,
            provider_id: Some(asked.provider_id),
            readback_id: Some(asked.id),
            scheduled_operation_id: context.scheduled_operation_id.map(|id| id.to_string()),
            status: OperationLogStatus::Failed,
            started_at: now,
            ended_at: Some(now),
            error_info: Some(reason.to_owned()),
            extra_info: None,
        };
        let about = format!("Checkpoint#{}", asked.checkpoint_id);
        let refused = Readback {
            status: ReadbackStatus::Fail,
            resources_reason: BTreeMap::from([(about, reason.to_owned())]),
            ..asked.clone()
        };
        let runs = self.runs.asked_by(context);
        Ok(runs.readback_refuse(&refused, &log).await?)
    }

    /// Closes readbacks that say they are in progress and that nobody carries out: their service was stopped between
    /// their record and their run, or it was the original's. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn close_abandoned_readbacks(&self) -> Result<usize, ApiError> {
        let before = self.clock.now() - UNDER_WAY;
        let mut closed = 0;
        for (operation, _) in OperationType::readbacks() {
            for abandoned in self.runs.readbacks_abandoned(operation, before).await? {
                let context = RequestContext::admin();
                let reason = "The service was stopped before it could begin. Ask for it again.";
                self.refuse_readback(&context, &abandoned, reason).await?;
                tracing::warn!(%operation, id = %abandoned.id, "nobody carried this out; it is closed as failed");
                closed += 1;
            }
        }
        Ok(closed)
    }
}

/// The id of `asked` is that of something else.
pub(crate) fn id_of_another(asked: &Readback) -> BeginError {
    BeginError::another(format!(
        "The id {} is that of another {}.",
        asked.id, asked.operation
    ))
}

#[async_trait]
impl<R: Reads> Rules for R {
    fn claim(&self) -> Purpose {
        Reads::claim(self)
    }

    fn line(&self) -> Line {
        Reads::line(self)
    }

    fn hooks(&self) -> HookSet {
        Reads::hooks(self)
    }

    fn goes_on(&self) -> bool {
        Reads::goes_on(self)
    }

    fn readback_schema(&self) -> Option<SchemaKind> {
        Some(self.schema())
    }

    async fn prepare(&self, _: &Ground, run: &Run, provider: &Provider) -> Result<(), BeginError> {
        refuse_unreadable(run, provider).await
    }

    /// Says with each resource that its checkpoint has no seal, if it has none.
    fn warn(&self, run: &Run, report: &mut RunReport) {
        if run.checkpoint.seal.is_some() {
            return;
        }
        let warning = "the checkpoint has no seal: nothing vouches for its index and metadata, which were accepted as they are in the bank";
        for resource in run.graph().unwrap_or_default().nodes() {
            report.of(&resource.key()).warn(warning);
        }
    }

    fn reached(&self, run: &Run, outcome: &FlowOutcome) -> Vec<String> {
        match run.graph() {
            Ok(graph) if self.reached_all(outcome.status) => {
                graph.nodes().iter().map(Resource::key).collect()
            }
            _ => outcome.reports.keys().cloned().collect(),
        }
    }

    async fn conclude(
        &self,
        _: &Ground,
        _: &Run,
        _: &CheckpointCollection,
        _: &mut Conclusion,
    ) -> Result<(), CheckpointError> {
        Ok(())
    }

    async fn settle(
        &self,
        runs: &RunStore,
        run: &Run,
        conclusion: &Conclusion,
    ) -> Result<(), ApiError> {
        let Some(id) = run.readback() else {
            return Ok(());
        };
        let end = match conclusion.is_success() {
            true => ReadbackStatus::Success,
            false => ReadbackStatus::Fail,
        };
        let (status, reason) = (&conclusion.resources_status, &conclusion.resources_reason);
        unless_done_before(
            runs.readback_end(run.operation, id, end, status, reason)
                .await,
        )
    }

    fn evidence(&self, log: &OperationLog) -> Evidence {
        match log.status {
            OperationLogStatus::Success => self.success(),
            _ => Evidence::Nothing,
        }
    }
}
