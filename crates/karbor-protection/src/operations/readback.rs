//! What restore and verify share: they read a checkpoint back and leave an outcome for each resource.

use std::collections::BTreeMap;

use async_trait::async_trait;
use karbor_db::{Db, DbError};
use karbor_flow::{FlowOutcome, FlowStatus};
use karbor_model::{
    ApiError, OperationId, OperationLog, OperationLogId, OperationLogStatus, Readback,
    ReadbackStatus, RequestContext, Resource, RunReport,
};
use karbor_plugin::SchemaKind;

use super::{Evidence, Line, Rules, refuse_unreadable};
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

impl Ground {
    /// Records a readback that is asked for, unless it is recorded; answers with how it stands.
    ///
    /// # Errors
    /// A 404 when it is of a project that the context may not act in, a 409 when its id is that of another; when the
    /// database is away.
    pub(crate) async fn enter_readback(
        &self,
        context: &RequestContext,
        asked: &Readback,
    ) -> Result<ReadbackStatus, ApiError> {
        if !context.may_access(&asked.project_id) {
            return Err(ApiError::not_found("Project", &asked.project_id));
        }
        match self.db.readback_create(asked).await {
            Ok(()) => return Ok(asked.status),
            Err(DbError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let there = self.db.readback_get(asked.operation, asked.id).await?;
        let about = |one: &Readback| (one.project_id.clone(), one.provider_id, one.checkpoint_id);
        match about(&there) == about(asked) {
            true => Ok(there.status),
            false => {
                let message = format!(
                    "The id {} is that of another {}.",
                    asked.id, asked.operation
                );
                Err(ApiError::conflict("OperationKnown", message))
            }
        }
    }

    /// Was a run entered under this id? It goes on, or has ended.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn has_begun(&self, id: OperationId) -> Result<bool, ApiError> {
        match self.db.flow_get(id).await {
            Ok(_) => Ok(true),
            Err(DbError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Records that a readback was refused, and why: beside the checkpoint it was about (Q28), and in the operation log.
    /// What has ended stays as it is; nothing that was refused stays `in_progress` (Q63).
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn refuse_readback(
        &self,
        context: &RequestContext,
        asked: &Readback,
        reason: &str,
    ) -> Result<(), ApiError> {
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
        unless_done_before(self.db.asked_by(context).operation_log_create(&log).await)?;
        let about = format!("Checkpoint#{}", asked.checkpoint_id);
        let reasons = BTreeMap::from([(about, reason.to_owned())]);
        let (none, failed) = (BTreeMap::new(), ReadbackStatus::Fail);
        unless_done_before(
            self.db
                .readback_end(asked.operation, asked.id, failed, &none, &reasons)
                .await,
        )
    }
}

#[async_trait]
impl<R: Reads> Rules for R {
    fn claim(&self) -> Purpose {
        Reads::claim(self)
    }

    fn line(&self) -> Line {
        Reads::line(self)
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

    async fn settle(&self, db: &Db, run: &Run, conclusion: &Conclusion) -> Result<(), ApiError> {
        let Some(id) = run.readback() else {
            return Ok(());
        };
        let end = match conclusion.is_success() {
            true => ReadbackStatus::Success,
            false => ReadbackStatus::Fail,
        };
        let (status, reason) = (&conclusion.resources_status, &conclusion.resources_reason);
        unless_done_before(
            db.readback_end(run.operation, id, end, status, reason)
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
