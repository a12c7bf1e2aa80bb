//! Setting the state of a checkpoint by hand.

use karbor_db::ListQuery;
use karbor_model::{ApiError, Checkpoint, CheckpointId, CheckpointStatus, OperationId, State};
use karbor_plugin::BankError;

use super::ProtectionManager;
use crate::{
    checkpoints::is_unreadable,
    error::bank_error,
    leases::{CheckpointLease, LOST, Purpose},
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

    /// Takes a checkpoint for oneself, to change what is known of it by `work`; keeps it as long as that takes.
    pub(super) async fn alone<T>(
        &self,
        home: &Home,
        id: CheckpointId,
        refused: impl Fn() -> ApiError,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let (bank, clock) = (home.bank().clone(), self.ground.clock.as_ref());
        let (run, owner) = (OperationId::new(), &self.ground.owner);
        let claim = CheckpointLease::acquire(bank, clock, id, Purpose::Reset, run, owner).await;
        let mut claim = claim.map_err(|error| match error {
            BankError::LeaseHeld { .. } => refused().with_cause(error),
            other => bank_error(&other),
        })?;
        let done = CheckpointLease::during(std::slice::from_mut(&mut claim), clock, work).await;
        claim.release().await;
        done.unwrap_or_else(|| Err(ApiError::unavailable(LOST, id)))
    }
}
