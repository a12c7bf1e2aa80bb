//! What a run does first: it is entered in the operation log, and claims its checkpoints.

use std::sync::Arc;

use karbor_db::DbError;
use karbor_model::{CheckpointId, OperationLog};
use karbor_plugin::{Bank, BankError};

use super::{Worker, release};
use crate::{
    begin_error::BeginError,
    leases::{CheckpointLease, Purpose},
    operations::rules,
    providers::{BankRole, Provider},
    run::Run,
};

/// The claims that a run needs: on which checkpoint of which bank, and what for.
fn needed(run: &Run) -> Vec<(BankRole, CheckpointId, Purpose)> {
    let own = rules(run.operation).claim();
    let mut claims = vec![(run.place, run.checkpoint.id, own)];
    if let Some(copy) = &run.copy {
        claims.push((copy.place, copy.checkpoint.id, Purpose::Copied));
    }
    claims
}

/// The first form of a run's record in the operation log.
pub(super) fn log_record(run: &Run) -> OperationLog {
    run.log_record(rules(run.operation).names_plan())
}

impl Worker {
    /// Enters the run in the operation log and claims its checkpoints. Safe to repeat.
    pub(super) async fn claim(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Vec<CheckpointLease>, BeginError> {
        self.enter_log(run).await?;
        self.claim_all(run, provider).await
    }

    /// Claims the run's checkpoints.
    pub(super) async fn claim_all(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Vec<CheckpointLease>, BeginError> {
        let mut claims = Vec::new();
        for (place, checkpoint, purpose) in needed(run) {
            let bank = provider.home(place)?.bank().clone();
            match self.claim_one(run, bank, checkpoint, purpose).await {
                Ok(claim) => claims.extend(claim),
                Err(error) => {
                    release(claims).await;
                    return Err(error);
                }
            }
        }
        Ok(claims)
    }

    /// Enters the run in the operation log. Safe to repeat.
    ///
    /// # Errors
    /// [`BeginError::ended`] when the record with its id is not its own.
    pub(super) async fn enter_log(&self, run: &Run) -> Result<(), BeginError> {
        let runs = self.ground.runs.asked_by(&run.context);
        match runs.operation_log_create(&log_record(run)).await {
            Ok(()) => Ok(()),
            Err(DbError::Conflict { .. }) => self.check_own(run).await,
            Err(error) => Err(error.into()),
        }
    }

    /// What can be read can be restored: where a claim cannot be written (the bank is full, or was
    /// mounted read-only because it is failing) a run that only reads goes on without one.
    async fn claim_one(
        &self,
        run: &Run,
        bank: Arc<dyn Bank>,
        checkpoint: CheckpointId,
        purpose: Purpose,
    ) -> Result<Option<CheckpointLease>, BeginError> {
        let clock = self.ground.clock.as_ref();
        match CheckpointLease::acquire(bank, clock, checkpoint, purpose, run.id, &self.ground.owner)
            .await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(error @ BankError::LeaseHeld { .. }) => Err(error.into()),
            Err(error) if !purpose.is_exclusive() => {
                tracing::warn!(run = %run.id, %error, "the checkpoint cannot be claimed; reading goes on without");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Is the record with the run's id the run's? The caller may have noted that it came
    /// to nothing, while it was not known that it had been heard.
    async fn check_own(&self, run: &Run) -> Result<(), BeginError> {
        let log = self.ground.runs.operation_log_get(run.log).await?;
        if log.checkpoint_id == Some(run.subject().1.id) {
            return Ok(());
        }
        Err(BeginError::ended(run.log))
    }
}
