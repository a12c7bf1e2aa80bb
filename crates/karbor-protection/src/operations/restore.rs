//! Restore: brings the resources of a checkpoint back.

use std::collections::BTreeMap;

use async_trait::async_trait;
use karbor_db::Db;
use karbor_flow::{FlowOutcome, FlowStatus};
use karbor_model::{
    ApiError, OperationId, OperationLog, OperationType, RequestContext, Restore as Record,
    RestoreStatus,
};
use karbor_plugin::{HookReport, SchemaKind};

use super::{Evidence, Line, Rules, reached, refuse_unreadable, warn_unsealed};
use crate::{
    begin_error::BeginError,
    checkpoints::CheckpointCollection,
    conclusion::{Conclusion, once},
    error::CheckpointError,
    ground::Ground,
    leases::Purpose,
    parameters,
    providers::Provider,
    run::Run,
};

pub(crate) struct Restore;

impl Ground {
    /// The run of a restore that a user asks for.
    ///
    /// # Errors
    /// A 400 that names what is wrong with its parameters; what forbids to read the checkpoint.
    pub(crate) async fn restore_run(
        &self,
        context: &RequestContext,
        record: Record,
    ) -> Result<Run, ApiError> {
        let provider = self.providers.get(record.provider_id)?;
        let parameters = parameters::typed(provider, SchemaKind::Restore, record.parameters);
        parameters::validate(provider, SchemaKind::Restore, "restore", &parameters)?;
        let (id, accept_unsealed) = (record.checkpoint_id, record.accept_unsealed);
        let checkpoint = self
            .available(context, provider, id, accept_unsealed)
            .await?;
        let now = self.clock.now();
        let mut run = Run::new(OperationType::Restore, context, checkpoint, parameters, now)
            .with_id(OperationId(record.id.0));
        run.restore_id = Some(record.id);
        Ok(run)
    }
}

#[async_trait]
impl Rules for Restore {
    fn claim(&self) -> Purpose {
        Purpose::Restore
    }

    fn line(&self) -> Line {
        Line::Restores
    }

    async fn prepare(&self, _: &Ground, run: &Run, provider: &Provider) -> Result<(), BeginError> {
        refuse_unreadable(run, provider).await
    }

    fn warn(&self, run: &Run, reports: &mut BTreeMap<String, HookReport>) -> Option<String> {
        warn_unsealed(run, reports);
        None
    }

    /// A failure ends it: what was not reached then is not restored.
    fn reached(&self, run: &Run, outcome: &FlowOutcome) -> Vec<String> {
        reached(run, outcome, outcome.status == FlowStatus::Success)
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
        let Some(id) = run.restore_id else {
            return Ok(());
        };
        let (status, reason) = (&conclusion.resources_status, &conclusion.resources_reason);
        db.restore_update_resources(id, status, reason).await?;
        let end = match conclusion.is_success() {
            true => RestoreStatus::Success,
            false => RestoreStatus::Fail,
        };
        once(
            db.transition::<Record>(id, RestoreStatus::InProgress, end)
                .await,
        )
    }

    fn evidence(&self, _: &OperationLog) -> Evidence {
        Evidence::Nothing
    }
}
