//! The operations `protect` and `retention_protect`: a checkpoint is made and seen to its end.

use karbor_db::RunOutcome;
use karbor_model::{
    ApiError, CheckpointId, CheckpointInfo, CheckpointProperties, CheckpointStatus, ErrorKind,
    OperationLogStatus, ProviderId, RequestContext,
};

use crate::{
    definition::Definition,
    retention::RetentionPolicy,
    runner::{DELAYS, Runner, Step},
};

impl Runner {
    /// Makes a checkpoint and sees it to its end; then, if it is good, deletes those before it that
    /// need not be kept.
    pub(crate) async fn protect(
        &mut self,
        context: &RequestContext,
        definition: &Definition,
        policy: Option<&RetentionPolicy>,
    ) -> Step<RunOutcome> {
        let id = match self.run.checkpoint_id {
            Some(id) => id,
            None => self.ask_for_checkpoint(context, definition).await?,
        };
        if self.run.checkpoint_id != Some(id) && !self.made(id).await? {
            return Ok(None);
        }
        match self
            .await_checkpoint(context, definition.provider_id, id)
            .await?
        {
            None => return Ok(None),
            Some(false) => return Ok(Some(RunOutcome::Failed)),
            Some(true) => {}
        }
        let Some(policy) = policy else {
            return Ok(Some(RunOutcome::Success));
        };
        let own = Some(self.operation.id);
        let kept = self.candidates(context, definition, own).await?;
        if !kept.iter().any(|one| one.id == id) {
            return Err(ApiError::conflict(
                "CheckpointNotListed",
                format!("The bank does not list the new checkpoint {id}: nothing was deleted."),
            ));
        }
        self.delete_what_expired(context, definition, policy, &kept)
            .await
    }

    async fn ask_for_checkpoint(
        &self,
        context: &RequestContext,
        definition: &Definition,
    ) -> Result<CheckpointId, ApiError> {
        let plan = self.engine.stores.plans.get(definition.plan_id).await?;
        definition.check_plan(&self.operation, &plan)?;
        let info = CheckpointInfo::of_schedule(self.operation.trigger_id, self.operation.id);
        let properties = CheckpointProperties {
            extra_info: info.to_extra_info(),
            operation_id: Some(self.run.id),
            begin_before: Some(self.run.run_before),
        };
        self.engine
            .protection
            .protect(context, plan, properties)
            .await
    }

    /// Waits until the checkpoint is made; says whether it is good.
    async fn await_checkpoint(
        &self,
        context: &RequestContext,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Step<bool> {
        let (mut awaited, mut delay) = (Some(self.log_id()), DELAYS.0);
        loop {
            let shown = self
                .engine
                .protection
                .show_checkpoint(context, provider, id);
            match shown.await.map(|checkpoint| checkpoint.status) {
                Ok(CheckpointStatus::Available) => return Ok(Some(true)),
                Ok(CheckpointStatus::Protecting) => {
                    // Its bank may have gone before it was told that the run failed. Read after the bank: a
                    // run that went well meanwhile is seen there next time.
                    let log = self.record().await?;
                    if log.is_some_and(|log| log.status == OperationLogStatus::Failed) {
                        return Ok(Some(false));
                    }
                }
                Ok(_) => return Ok(Some(false)),
                // Not in the bank yet, or never, or the bank is away: its record knows.
                Err(error) if error.kind == ErrorKind::NotFound || error.kind.is_retryable() => {
                    tracing::debug!(run = %self.run.id, checkpoint = %id, ?error, "a checkpoint cannot be looked at yet");
                    match self.record().await?.map(|log| log.status) {
                        None | Some(OperationLogStatus::InProgress) => {}
                        Some(status) => return Ok(Some(status == OperationLogStatus::Success)),
                    }
                }
                Err(error) => return Err(error),
            }
            if self.pause_or_end(&mut awaited, &mut delay).await {
                return Ok(None);
            }
        }
    }
}
