//! What a run does before its first hook: claims its checkpoint and tells the bank.

use karbor_db::DbError;
use karbor_model::{ApiError, OperationType};
use karbor_plugin::BankError;

use super::Worker;
use crate::{
    error::bank_error,
    leases::{CheckpointLease, Purpose},
    providers::Provider,
    run::Run,
};

impl Worker {
    /// Enters the run in the operation log and claims its checkpoint. Safe to repeat.
    ///
    /// What can be read can be restored: where a claim cannot be written (the bank is full, or was
    /// mounted read-only because it is failing) a restore or verification goes on without one.
    pub(super) async fn claim(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Option<CheckpointLease>, ApiError> {
        match self.db.operation_log_create(&run.log_record()).await {
            Ok(()) | Err(DbError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (bank, checkpoint) = (provider.bank().clone(), run.checkpoint.id);
        let purpose = Purpose::Operation(run.operation);
        let clock = self.clock.as_ref();
        match CheckpointLease::acquire(bank, clock, checkpoint, purpose, run.id, &self.owner).await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(error @ BankError::LeaseHeld { .. }) => Err(bank_error(&error)),
            Err(error) if run.reads_only() => {
                tracing::warn!(run = %run.id, %error, "the checkpoint cannot be claimed; reading goes on without");
                Ok(None)
            }
            Err(error) => Err(bank_error(&error)),
        }
    }

    /// What the bank is told before the first hook. Safe to repeat.
    pub(super) async fn prepare(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        match run.operation {
            OperationType::Protect => self.prepare_protect(run, provider).await,
            OperationType::Delete => self.prepare_delete(run, provider).await,
            OperationType::Restore | OperationType::Verify | OperationType::Copy => Ok(()),
        }
    }

    /// On a resume the checkpoint may be there already, perhaps ended: it is not set back.
    async fn prepare_protect(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use crate::error::CheckpointError::NotFound;
        let checkpoints = provider.checkpoints();
        let written = match checkpoints.get(run.checkpoint.id).await {
            Ok(there) => there,
            Err(NotFound(_)) => run.checkpoint.clone(),
            Err(error) => return Err(error.into()),
        };
        Ok(checkpoints.create(&written).await?)
    }

    async fn prepare_delete(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use karbor_model::CheckpointStatus::{Deleted, Deleting, ErrorDeleting};
        let there = provider.checkpoints().get(run.checkpoint.id).await?;
        if there.status == Deleted {
            return Ok(());
        }
        let ended = there.status == ErrorDeleting && run.checkpoint.status != ErrorDeleting;
        if !ended {
            provider
                .checkpoints()
                .transition(run.checkpoint.id, Deleting)
                .await?;
        }
        Ok(())
    }
}
