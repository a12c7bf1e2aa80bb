//! What a run does before its first hook: claims its checkpoint and tells the bank.

use std::sync::Arc;

use karbor_db::DbError;
use karbor_model::{ApiError, Checkpoint, CheckpointId, CheckpointStatus, OperationType};
use karbor_plugin::{Bank, BankError};

use super::{Worker, release};
use crate::{
    checkpoints::is_unreadable,
    error::{NOT_DELETED, bank_error, not_available, not_sealed},
    leases::{CheckpointLease, Purpose},
    providers::Provider,
    run::Run,
};

/// Class of the error that the record with a run's id says that the run came to nothing.
pub(super) const ENDED: &str = "OperationEnded";

impl Worker {
    /// Enters the run in the operation log and claims its checkpoints. Safe to repeat.
    pub(super) async fn claim(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Vec<CheckpointLease>, ApiError> {
        self.enter_log(run).await?;
        self.claim_all(run, provider).await
    }

    /// Claims the run's checkpoints.
    pub(super) async fn claim_all(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Vec<CheckpointLease>, ApiError> {
        let mut claims = Vec::new();
        for (place, checkpoint, purpose) in run.claims() {
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
    /// [`ENDED`] when the record with its id is not its own.
    pub(super) async fn enter_log(&self, run: &Run) -> Result<(), ApiError> {
        let db = self.db.asked_by(&run.context);
        match db.operation_log_create(&run.log_record()).await {
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
    ) -> Result<Option<CheckpointLease>, ApiError> {
        let clock = self.clock.as_ref();
        match CheckpointLease::acquire(bank, clock, checkpoint, purpose, run.id, &self.owner).await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(error @ BankError::LeaseHeld { .. }) => Err(bank_error(&error)),
            Err(error) if !purpose.is_exclusive() => {
                tracing::warn!(run = %run.id, %error, "the checkpoint cannot be claimed; reading goes on without");
                Ok(None)
            }
            Err(error) => Err(bank_error(&error)),
        }
    }

    /// Is the record with the run's id the run's? The caller may have noted that it came
    /// to nothing, while it was not known that it had been heard.
    async fn check_own(&self, run: &Run) -> Result<(), ApiError> {
        let log = self.db.operation_log_get(run.log).await?;
        if log.checkpoint_id == Some(run.subject().1.id) {
            return Ok(());
        }
        let message = format!("Operation {} was given up before it began.", run.log);
        Err(ApiError::conflict(ENDED, message))
    }

    /// What the bank is told before the first hook. Safe to repeat.
    pub(super) async fn prepare(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        match run.operation {
            OperationType::Protect => self.prepare_protect(run, provider).await,
            OperationType::Delete => self.prepare_delete(run, provider).await,
            OperationType::Copy => self.prepare_copy(run, provider).await,
            OperationType::Restore | OperationType::Verify => {
                self.prepare_reading(run, provider).await
            }
        }
    }

    /// The run that had the checkpoint before may have removed it.
    async fn prepare_reading(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        let checkpoints = provider.home(run.place)?.checkpoints();
        let there = checkpoints.get(run.checkpoint.id).await?;
        if there.status != CheckpointStatus::Available {
            return Err(not_available(&there));
        }
        // What it had when the run was asked for it may not lose.
        match there.seal.is_none() && run.checkpoint.seal.is_some() {
            true => Err(not_sealed(&there)),
            false => Ok(()),
        }
    }

    /// On a resume the checkpoint may be there already, perhaps ended: it is not set back.
    async fn prepare_protect(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use crate::error::CheckpointError::NotFound;
        let checkpoints = provider.home(run.place)?.checkpoints();
        let written = match checkpoints.get(run.checkpoint.id).await {
            Ok(there) => there,
            Err(NotFound(_)) => {
                self.refuse_hollow(run).await?;
                run.checkpoint.clone()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(checkpoints.create(&written).await?)
    }

    /// While this run holds the source's claim nobody else copies it: what is not copied now is copied once.
    async fn prepare_copy(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use crate::error::CheckpointError::NotFound;
        let (place, copy) = run.subject();
        let checkpoints = provider.home(place)?.checkpoints();
        let written = match checkpoints.get(copy.id).await {
            Ok(there) => there,
            Err(NotFound(_)) => {
                self.refuse_hollow(run).await?;
                self.prepare_reading(run, provider).await?;
                self.refuse_second(provider, &run.checkpoint).await?;
                copy.clone()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(checkpoints.create(&written).await?)
    }

    /// A run whose hooks have begun, in a bank that does not know its checkpoint: the bank was lost or
    /// is another. What those hooks wrote is not in it, and they would not run again.
    async fn refuse_hollow(&self, run: &Run) -> Result<(), ApiError> {
        match self.db.flow_events(run.id).await?.is_empty() {
            true => Ok(()),
            false => Err(ApiError::not_found("Checkpoint", run.subject().1.id)),
        }
    }

    /// A copy's turn has come: the bank says so. Safe to repeat.
    pub(super) async fn take_turn(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        let Some(copy) = &run.copy else {
            return Ok(());
        };
        let checkpoints = provider.home(copy.place)?.checkpoints();
        let there = checkpoints.get(copy.checkpoint.id).await?;
        if there.status == CheckpointStatus::WaitCopying {
            let copying = CheckpointStatus::Copying;
            checkpoints.transition(there.id, copying).await?;
        }
        Ok(())
    }

    async fn prepare_delete(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use karbor_model::CheckpointStatus::{Deleted, Deleting, ErrorDeleting};
        let checkpoints = provider.home(run.place)?.checkpoints();
        let id = run.checkpoint.id;
        let there = match checkpoints.get(id).await {
            Err(error) if error.is_damage() && is_unreadable(&run.checkpoint) => {
                // An earlier try had another master key.
                if checkpoints.kept_is_good(id).await? {
                    checkpoints.put_back(id).await?;
                    return Err(can_be_read(id));
                }
                let deleting = Checkpoint {
                    status: Deleting,
                    ..run.checkpoint.clone()
                };
                return Ok(checkpoints.replace(&deleting).await?);
            }
            other => other?,
        };
        // What it is made of was to be guessed, and can be read now.
        if is_unreadable(&run.checkpoint) && !is_unreadable(&there) {
            return Err(can_be_read(id));
        }
        if there.status == Deleted {
            return Ok(());
        }
        let ended = there.status == ErrorDeleting && run.checkpoint.status != ErrorDeleting;
        if !ended {
            checkpoints.transition(id, Deleting).await?;
        }
        Ok(())
    }
}

/// What was to be deleted unread is as good as any other.
fn can_be_read(id: CheckpointId) -> ApiError {
    let message = format!(
        "The index of checkpoint {id} was damaged, and can be read again: delete it again if it is to go."
    );
    ApiError::conflict(NOT_DELETED, message)
}
