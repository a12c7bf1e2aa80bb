//! Verify: says of every resource of a checkpoint whether it could be restored.

use std::collections::BTreeMap;

use async_trait::async_trait;
use karbor_db::Db;
use karbor_flow::{FlowOutcome, FlowStatus};
use karbor_model::{
    ApiError, OperationId, OperationLog, OperationLogStatus, OperationType, RequestContext,
    Verification as Record, VerificationStatus,
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

pub(crate) struct Verify;

impl Ground {
    /// The run of a verification that a user asks for.
    ///
    /// # Errors
    /// A 400 that names what is wrong with its parameters; what forbids to read the checkpoint.
    pub(crate) async fn verify_run(
        &self,
        context: &RequestContext,
        record: Record,
    ) -> Result<Run, ApiError> {
        let provider = self.providers.get(record.provider_id)?;
        let parameters = parameters::typed(provider, SchemaKind::Verify, record.parameters);
        parameters::validate(provider, SchemaKind::Verify, "verify", &parameters)?;
        let (id, accept_unsealed) = (record.checkpoint_id, record.accept_unsealed);
        let checkpoint = self
            .available(context, provider, id, accept_unsealed)
            .await?;
        let now = self.clock.now();
        let mut run = Run::new(OperationType::Verify, context, checkpoint, parameters, now)
            .with_id(OperationId(record.id.0));
        run.verification_id = Some(record.id);
        Ok(run)
    }
}

#[async_trait]
impl Rules for Verify {
    fn claim(&self) -> Purpose {
        Purpose::Verify
    }

    fn line(&self) -> Line {
        Line::Verifications
    }

    async fn prepare(&self, _: &Ground, run: &Run, provider: &Provider) -> Result<(), BeginError> {
        refuse_unreadable(run, provider).await
    }

    fn warn(&self, run: &Run, reports: &mut BTreeMap<String, HookReport>) -> Option<String> {
        warn_unsealed(run, reports);
        None
    }

    /// A failure of one resource keeps no other from being looked at.
    fn reached(&self, run: &Run, outcome: &FlowOutcome) -> Vec<String> {
        reached(run, outcome, outcome.status != FlowStatus::Cancelled)
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
        let Some(id) = run.verification_id else {
            return Ok(());
        };
        let (status, reason) = (&conclusion.resources_status, &conclusion.resources_reason);
        db.verification_update_resources(id, status, reason).await?;
        let end = match conclusion.is_success() {
            true => VerificationStatus::Success,
            false => VerificationStatus::Fail,
        };
        once(
            db.transition::<Record>(id, VerificationStatus::InProgress, end)
                .await,
        )
    }

    fn evidence(&self, log: &OperationLog) -> Evidence {
        match log.status {
            OperationLogStatus::Success => Evidence::Whole,
            _ => Evidence::Nothing,
        }
    }
}
