//! The operation `verify`: checkpoints are verified, as if their owner had asked.

use std::collections::BTreeMap;

use karbor_db::RunOutcome;
use karbor_model::{
    ApiError, Checkpoint, OperationLogId, OperationType, Parameters, Readback, ReadbackId,
    ReadbackStatus, RequestContext,
};
use serde_json::Value;

use super::candidate;
use crate::{
    definition::{Definition, Verify},
    runner::{DELAYS, Runner, Step},
};

impl Runner {
    /// The operation `verify`: each checkpoint gets a verification, as if its owner had asked.
    pub(crate) async fn verify(
        &self,
        context: &RequestContext,
        definition: &Definition,
        verify: &Verify,
    ) -> Step<RunOutcome> {
        self.check_plan(definition).await?;
        let mut checkpoints = self.available(context, definition).await?;
        // Of the same second the original comes first, as listed, and copies after it.
        checkpoints.sort_by_key(|one| std::cmp::Reverse(one.timestamp));
        if !verify.all {
            // One that a wrong clock dated in the future is not the newest.
            let now = self.engine.clock.now();
            let is_future = |one: &Checkpoint| candidate(one).is_from_the_future(now);
            let future: Vec<_> = checkpoints.iter().filter(|one| is_future(one)).collect();
            self.engine
                .announce_future(future.iter().map(|one| one.id))
                .await;
            if future.len() < checkpoints.len() {
                checkpoints.retain(|one| !is_future(one));
            }
            checkpoints.truncate(1);
        }
        if checkpoints.is_empty() {
            return Err(ApiError::conflict(
                "NothingToVerify",
                "The plan has no available checkpoint to verify.",
            ));
        }
        let parameters = self.parameters(context, definition, verify).await?;
        let mut outcome = RunOutcome::Success;
        for checkpoint in checkpoints {
            let accept_unsealed = verify.accept_unsealed;
            let asked = self
                .ask_for_verification(context, &checkpoint, &parameters, accept_unsealed)
                .await;
            let id = match asked {
                Ok(id) => id,
                Err(error) if error.kind.is_retryable() || !error.is_logged => return Err(error),
                // It is recorded as failed; the others are verified all the same.
                Err(error) => {
                    tracing::error!(operation = %self.operation.id, checkpoint = %checkpoint.id, ?error, "a verification was refused");
                    outcome = RunOutcome::Failed;
                    continue;
                }
            };
            match self.await_verification(id).await? {
                None => return Ok(None),
                Some(ReadbackStatus::Success) => {}
                Some(_) => outcome = RunOutcome::Failed,
            }
        }
        Ok(Some(outcome))
    }

    /// What was given, and the level for every type whose verification knows levels.
    async fn parameters(
        &self,
        context: &RequestContext,
        definition: &Definition,
        verify: &Verify,
    ) -> Result<Parameters, ApiError> {
        let mut parameters = verify.parameters.clone();
        let Some(level) = &verify.level else {
            return Ok(parameters);
        };
        let provider = self
            .engine
            .protection
            .show_provider(context, definition.provider_id)
            .await?;
        let schemas = provider.extended_info_schema.get("verify_schema");
        for (name, schema) in schemas.and_then(Value::as_object).into_iter().flatten() {
            if schema["properties"].get("level").is_some() {
                let given = parameters.entry(name.clone()).or_default();
                given.entry("level").or_insert_with(|| level.clone().into());
            }
        }
        Ok(parameters)
    }

    async fn ask_for_verification(
        &self,
        context: &RequestContext,
        checkpoint: &Checkpoint,
        parameters: &Parameters,
        accept_unsealed: bool,
    ) -> Result<ReadbackId, ApiError> {
        let verification = Readback {
            id: ReadbackId(self.id_for(&checkpoint.id.to_string())),
            operation: OperationType::Verify,
            project_id: self.operation.project_id.clone(),
            provider_id: checkpoint.provider_id,
            restore_target: None,
            checkpoint_id: checkpoint.id,
            parameters: parameters.clone(),
            accept_unsealed,
            status: ReadbackStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: self.engine.clock.now(),
        };
        let id = verification.id;
        self.engine
            .protection
            .verification(context, verification)
            .await?;
        Ok(id)
    }

    async fn await_verification(&self, id: ReadbackId) -> Step<ReadbackStatus> {
        let (mut awaited, mut delay) = (Some(OperationLogId(id.0)), DELAYS.0);
        loop {
            let status = self
                .engine
                .db
                .readback_get(OperationType::Verify, id)
                .await?
                .status;
            if status != ReadbackStatus::InProgress {
                return Ok(Some(status));
            }
            if self.pause_or_end(&mut awaited, &mut delay).await {
                return Ok(None);
            }
        }
    }
}
