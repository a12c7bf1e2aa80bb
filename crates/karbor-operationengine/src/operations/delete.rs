//! The operation `delete`: checkpoints that need not be kept are deleted.

use karbor_db::RunOutcome;
use karbor_model::{ApiError, ErrorKind, RequestContext, ScheduledOperationId};

use crate::{
    definition::Definition,
    retention::{Candidate, RetentionPolicy},
    runner::{Runner, Step},
};

impl Runner {
    /// The operation `delete`.
    pub(crate) async fn delete_expired(
        &self,
        context: &RequestContext,
        definition: &Definition,
        policy: &RetentionPolicy,
        made_by: Option<ScheduledOperationId>,
    ) -> Step<RunOutcome> {
        self.check_plan(definition).await?;
        let kept = self.candidates(context, definition, made_by).await?;
        self.delete_what_expired(context, definition, policy, &kept)
            .await
    }

    pub(super) async fn delete_what_expired(
        &self,
        context: &RequestContext,
        definition: &Definition,
        policy: &RetentionPolicy,
        kept: &[Candidate],
    ) -> Step<RunOutcome> {
        let now = self.engine.clock.now();
        let future = kept.iter().filter(|one| one.is_from_the_future(now));
        self.engine.announce_future(future.map(|one| one.id)).await;
        let mut failures = Vec::new();
        for id in policy.to_delete(kept, self.engine.trusted_now()) {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            tracing::info!(operation = %self.operation.id, checkpoint = %id, "deleting a checkpoint that need not be kept");
            let deleted = self
                .engine
                .protection
                .delete(context, definition.provider_id, id);
            match deleted.await {
                Ok(()) => {}
                // Somebody else deletes it, or did.
                Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {
                    tracing::info!(checkpoint = %id, ?error, "a checkpoint is not deleted now");
                }
                Err(error) if error.kind.is_retryable() => return Err(error),
                Err(error) => failures.push(format!("Checkpoint#{id}: {}", error.message)),
            }
        }
        if failures.is_empty() {
            return Ok(Some(RunOutcome::Success));
        }
        Err(ApiError::new(
            ErrorKind::Internal,
            "RetentionFailed",
            format!(
                "Checkpoints that need not be kept could not be deleted.\n{}",
                failures.join("\n")
            ),
        ))
    }
}
