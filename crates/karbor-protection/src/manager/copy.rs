//! Copies of a plan's checkpoints.

use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointStatus, OperationType,
    Parameters, Plan, RequestContext,
};

use super::ProtectionManager;
use crate::{
    copies,
    error::NOT_AVAILABLE,
    providers::{Place, Provider},
    run::{CopyOf, Run},
};

impl ProtectionManager {
    /// Begins a run for every checkpoint of the plan that is not copied yet. Those that somebody else
    /// works on are left out: being copied, they need no second copy; being deleted, none at all.
    pub(super) async fn copy_all(
        &self,
        context: &RequestContext,
        plan: &Plan,
        parameters: &Parameters,
    ) -> Result<Vec<CheckpointCopy>, ApiError> {
        let provider = self.providers.get(plan.provider_id)?;
        let mut begun = Vec::new();
        for source in copies::missing(provider, plan).await? {
            let copy = self.copy_run(context, provider, source, parameters);
            let pair = CheckpointCopy {
                checkpoint_protect_id: copy.checkpoint.id,
                checkpoint_copy_id: copy.subject().1.id,
            };
            match self.worker.start(copy).await {
                Ok(()) => begun.push(pair),
                Err(error)
                    if matches!(
                        error.class.as_str(),
                        "LeaseHeld" | copies::COPIED | NOT_AVAILABLE
                    ) =>
                {
                    let source = pair.checkpoint_protect_id;
                    tracing::info!(%source, %error, "a checkpoint is not copied now");
                }
                // What was begun goes on, and the next copy begins with what is left.
                Err(error) if !begun.is_empty() => {
                    tracing::error!(plan = %plan.id, ?error, "not every checkpoint of a plan is being copied");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(begun)
    }

    fn copy_run(
        &self,
        context: &RequestContext,
        provider: &Provider,
        source: Checkpoint,
        parameters: &Parameters,
    ) -> Run {
        let now = self.base.clock().now();
        let checkpoint = Checkpoint {
            id: CheckpointId::new(),
            status: CheckpointStatus::WaitCopying,
            owner_id: self.worker.owner.clone(),
            extra_info: Some(copies::Origin::of(&source).to_extra_info(false)),
            created_at: Some(now.date_naive()),
            timestamp: now.timestamp(),
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
        run.copy = Some(CopyOf {
            place: provider.place_of_copies(),
            checkpoint,
        });
        run
    }
}
