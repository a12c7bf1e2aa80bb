//! Operations that read checkpoints back, e.g. `verify`, asked for as if their owner had.

use std::collections::BTreeMap;

use karbor_db::RunOutcome;
use karbor_interfaces::protection::ask_for;
use karbor_model::{
    ApiError, Checkpoint, OperationLogId, OperationType, Parameters, Readback, ReadbackId,
    ReadbackStatus, RequestContext,
};
use serde_json::Value;

use super::candidate;
use crate::{
    definition::{Definition, ReadBack},
    runner::{DELAYS, Runner, Step},
};

impl Runner {
    /// Each checkpoint is read back by an operation, one after the other.
    pub(crate) async fn read_back(
        &self,
        context: &RequestContext,
        definition: &Definition,
        operation: OperationType,
        how: &ReadBack,
    ) -> Step<RunOutcome> {
        self.check_plan(definition).await?;
        let mut checkpoints = self.available(context, definition).await?;
        // Of the same second the original comes first, as listed, and copies after it.
        checkpoints.sort_by_key(|one| std::cmp::Reverse(one.timestamp));
        if !how.all {
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
                "NothingToReadBack",
                format!("The plan has no available checkpoint to {operation}."),
            ));
        }
        let parameters = self.parameters(context, definition, operation, how).await?;
        let mut outcome = RunOutcome::Success;
        for checkpoint in checkpoints {
            let accept_unsealed = how.accept_unsealed;
            let readback = self.readback(operation, &checkpoint, &parameters, accept_unsealed);
            let id = readback.id;
            let protection = &*self.engine.protection;
            let asked = ask_for(protection, context, readback, None).await;
            match asked {
                Ok(()) => {}
                Err(error) if error.kind.is_retryable() || !error.is_logged => return Err(error),
                // It is recorded as failed; the others have their turn all the same.
                Err(error) => {
                    tracing::error!(operation = %self.operation.id, checkpoint = %checkpoint.id, ?error, "a readback was refused");
                    outcome = RunOutcome::Failed;
                    continue;
                }
            }
            match self.await_readback(operation, id).await? {
                None => return Ok(None),
                Some(ReadbackStatus::Success) => {}
                Some(_) => outcome = RunOutcome::Failed,
            }
        }
        Ok(Some(outcome))
    }

    /// What was given, and the level for every type whose schema knows levels.
    async fn parameters(
        &self,
        context: &RequestContext,
        definition: &Definition,
        operation: OperationType,
        how: &ReadBack,
    ) -> Result<Parameters, ApiError> {
        let mut parameters = how.parameters.clone();
        let (Some(level), Some(names)) = (&how.level, operation.readback()) else {
            return Ok(parameters);
        };
        let provider = self
            .engine
            .protection
            .show_provider(context, definition.provider_id)
            .await?;
        let schemas = provider.extended_info_schema.get(names.schema);
        for (name, schema) in schemas.and_then(Value::as_object).into_iter().flatten() {
            if schema["properties"].get("level").is_some() {
                let given = parameters.entry(name.clone()).or_default();
                given.entry("level").or_insert_with(|| level.clone().into());
            }
        }
        Ok(parameters)
    }

    /// What is asked for a checkpoint: the same each time.
    fn readback(
        &self,
        operation: OperationType,
        checkpoint: &Checkpoint,
        parameters: &Parameters,
        accept_unsealed: bool,
    ) -> Readback {
        Readback {
            id: ReadbackId(self.id_for(&checkpoint.id.to_string())),
            operation,
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
        }
    }

    async fn await_readback(
        &self,
        operation: OperationType,
        id: ReadbackId,
    ) -> Step<ReadbackStatus> {
        let (mut awaited, mut delay) = (Some(OperationLogId(id.0)), DELAYS.0);
        loop {
            let runs = &self.engine.stores.runs;
            let status = runs.readback_get(operation, id).await?.status;
            if status != ReadbackStatus::InProgress {
                return Ok(Some(status));
            }
            if self.pause_or_end(&mut awaited, &mut delay).await {
                return Ok(None);
            }
        }
    }
}
