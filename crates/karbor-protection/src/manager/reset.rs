//! Setting the state of a checkpoint by hand.

use karbor_db::ListQuery;
use karbor_model::{ApiError, Checkpoint, CheckpointId, CheckpointStatus, OperationId, State};
use karbor_plugin::BankError;

use super::ProtectionManager;
use crate::{
    checkpoints::is_unreadable,
    error::bank_error,
    leases::{CheckpointLease, Purpose},
    operations::{Evidence, rules},
    providers::Home,
};

impl ProtectionManager {
    /// Resets a checkpoint that nobody else works on; `false` when its state does not allow it.
    pub(super) async fn reset(
        &self,
        home: &Home,
        id: CheckpointId,
        state: CheckpointStatus,
    ) -> Result<bool, ApiError> {
        let checkpoint = home.checkpoints().get(id).await?;
        if checkpoint.status == state {
            return Ok(true);
        }
        let allowed = checkpoint.status.can_become(state)
            && (state != CheckpointStatus::Available || self.was_whole(&checkpoint).await?);
        if allowed {
            home.checkpoints().set_status(checkpoint, state).await?;
        }
        Ok(allowed)
    }

    /// A checkpoint whose protect failed was undone, and one whose delete was begun has lost data:
    /// neither can be called available by hand. Nor can one that nothing good is known
    /// of (the operation log is new): it must have been made, or verified, with success.
    async fn was_whole(&self, checkpoint: &Checkpoint) -> Result<bool, ApiError> {
        if checkpoint.status != CheckpointStatus::Error || is_unreadable(checkpoint) {
            return Ok(false);
        }
        let query = ListQuery {
            filters: vec![("checkpoint_id".to_owned(), checkpoint.id.to_string())],
            ..ListQuery::of_every_project()
        };
        let logs = self.ground.runs.operation_log_list(&query).await?;
        let says = |evidence: Evidence| {
            let mut logs = logs.iter();
            logs.any(|log| rules(log.operation_type).evidence(log) == evidence)
        };
        Ok(says(Evidence::Whole) && !says(Evidence::Spoilt))
    }

    /// Takes a checkpoint for oneself, to change what is known of it.
    pub(super) async fn alone(
        &self,
        home: &Home,
        id: CheckpointId,
        refused: impl Fn() -> ApiError,
    ) -> Result<CheckpointLease, ApiError> {
        let (bank, clock) = (home.bank().clone(), &self.ground.clock);
        let (run, owner) = (OperationId::new(), &self.ground.owner);
        let lease =
            CheckpointLease::acquire(bank, clock.as_ref(), id, Purpose::Reset, run, owner).await;
        lease.map_err(|error| match error {
            BankError::LeaseHeld { .. } => refused().with_cause(error),
            other => bank_error(&other),
        })
    }
}
