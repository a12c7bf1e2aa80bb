//! Copies of a plan's checkpoints.

use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointStatus, OperationType,
    Parameters, Plan, RequestContext, Seal,
};

use super::ProtectionManager;
use crate::{
    copies,
    error::NOT_AVAILABLE,
    providers::{Place, Provider},
    run::{CopyOf, Run},
};

impl ProtectionManager {
    /// Begins a run for every checkpoint of the plan that is not copied yet. What the answer does not
    /// name is copied, or being copied; or else its failure is in the operation log, and asking again
    /// tells it, too.
    ///
    /// # Errors
    /// When no copy could begin of what is not copied: why, and how much is left.
    pub(super) async fn copy_all(
        &self,
        context: &RequestContext,
        plan: &Plan,
        parameters: &Parameters,
    ) -> Result<Vec<CheckpointCopy>, ApiError> {
        let provider = self.providers.get(plan.provider_id)?;
        if provider.place_of_copies() == Place::Bank {
            let provider = &provider.record().name;
            tracing::warn!(provider, plan = %plan.id, "{}", copies::IN_SAME_BANK);
        }
        let mut begun = Vec::new();
        let mut refused = None;
        for source in self.worker.not_copied(provider, plan).await? {
            let copy = self.copy_run(context, provider, source, parameters);
            let pair = CheckpointCopy {
                checkpoint_protect_id: copy.checkpoint.id,
                checkpoint_copy_id: copy.subject().1.id,
            };
            let Err(error) = self.worker.start(copy.clone()).await else {
                begun.push(pair);
                continue;
            };
            // Of one source: the next may be free. Anything else would meet the next as well.
            let is_its_own = matches!(
                error.class.as_str(),
                "LeaseHeld" | copies::COPIED | NOT_AVAILABLE
            );
            tracing::warn!(source = %copy.checkpoint.id, ?error, "a checkpoint is not copied now");
            refused = Some((copy, error));
            if !is_its_own {
                break;
            }
        }
        let Some((copy, mut error)) = refused else {
            return Ok(begun);
        };
        if !begun.is_empty() {
            self.worker.tell_refused(&copy, &error).await;
            return Ok(begun);
        }
        // Somebody else may have copied, or removed, what could not be copied here.
        let left = match self.worker.not_copied(provider, plan).await?.len() {
            0 => return Ok(begun),
            1 => "1 checkpoint of the plan is".to_owned(),
            many => format!("{many} checkpoints of the plan are"),
        };
        error.message = format!("{left} not copied: {}", error.message);
        Err(error)
    }

    fn copy_run(
        &self,
        context: &RequestContext,
        provider: &Provider,
        source: Checkpoint,
        parameters: &Parameters,
    ) -> Run {
        let now = self.base.clock().now();
        let origin = copies::Origin::of(&source);
        let place = provider.place_of_copies();
        // As old as its data: the newest is not what was copied last.
        let protected_at = origin.protected_at();
        let checkpoint = Checkpoint {
            id: CheckpointId::next(),
            status: CheckpointStatus::WaitCopying,
            owner_id: self.worker.owner.clone(),
            extra_info: Some(origin.of_copy(&source, now, place == Place::Bank)),
            created_at: Some(protected_at.date_naive()),
            timestamp: protected_at.timestamp(),
            // A copy of what nothing vouches for is no better than that.
            seal: source.seal.as_ref().map(|_| Seal::default()),
            ..source.clone()
        };
        let source = (Place::Bank, source);
        let mut run = Run::new(
            OperationType::Copy,
            context,
            source,
            parameters.clone(),
            now,
        );
        run.copy = Some(CopyOf { place, checkpoint });
        run
    }
}
