//! What runs do with checkpoints: make one, verify some, delete those that need not be kept.

use std::collections::BTreeMap;

use chrono::DateTime;
use karbor_db::{DbError, RunOutcome};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointInfo, CheckpointProperties, CheckpointStatus,
    ErrorKind, OperationLogStatus, OperationType, Parameters, ProviderId, Readback, ReadbackId,
    ReadbackStatus, RequestContext, ScheduledOperationId,
};
use serde_json::Value;

use crate::{
    definition::{Definition, Verify},
    retention::{Candidate, RetentionPolicy},
    runner::{DELAYS, Runner, Step},
};

/// Checkpoints of one page.
const PAGE: usize = 500;

impl Runner {
    /// Makes a checkpoint and sees it to its end; then, if it is good, deletes those before it that
    /// need not be kept.
    pub(crate) async fn protect(
        &mut self,
        context: &RequestContext,
        definition: &Definition,
        policy: Option<&RetentionPolicy>,
    ) -> Step<RunOutcome> {
        let id = match self.run.checkpoint_id {
            Some(id) => id,
            None => self.ask_for_checkpoint(context, definition).await?,
        };
        if self.run.checkpoint_id != Some(id) && !self.made(id).await? {
            return Ok(None);
        }
        match self
            .await_checkpoint(context, definition.provider_id, id)
            .await?
        {
            None => return Ok(None),
            Some(false) => return Ok(Some(RunOutcome::Failed)),
            Some(true) => {}
        }
        let Some(policy) = policy else {
            return Ok(Some(RunOutcome::Success));
        };
        let own = Some(self.operation.id);
        let kept = self.candidates(context, definition, own).await?;
        if !kept.iter().any(|one| one.id == id) {
            return Err(ApiError::conflict(
                "CheckpointNotListed",
                format!("The bank does not list the new checkpoint {id}: nothing was deleted."),
            ));
        }
        self.delete_what_expired(context, definition, policy, &kept)
            .await
    }

    async fn ask_for_checkpoint(
        &self,
        context: &RequestContext,
        definition: &Definition,
    ) -> Result<CheckpointId, ApiError> {
        let plan = self.engine.db.plan_get(definition.plan_id).await?;
        definition.check_plan(&self.operation, &plan)?;
        let info = CheckpointInfo::of_schedule(self.operation.trigger_id, self.operation.id);
        let properties = CheckpointProperties {
            extra_info: info.to_extra_info(),
            operation_id: Some(self.run.id),
            begin_before: Some(self.run.run_before),
        };
        self.engine
            .protection
            .protect(context, plan, properties)
            .await
    }

    /// Waits until the checkpoint is made; says whether it is good.
    async fn await_checkpoint(
        &self,
        context: &RequestContext,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Step<bool> {
        let mut delay = DELAYS.0;
        loop {
            let shown = self
                .engine
                .protection
                .show_checkpoint(context, provider, id);
            match shown.await.map(|checkpoint| checkpoint.status) {
                Ok(CheckpointStatus::Available) => return Ok(Some(true)),
                Ok(CheckpointStatus::Protecting) => {
                    // Its bank may have gone before it was told that the run failed. Read after the bank: a
                    // run that went well meanwhile is seen there next time.
                    let log = self.record().await?;
                    if log.is_some_and(|log| log.status == OperationLogStatus::Failed) {
                        return Ok(Some(false));
                    }
                }
                Ok(_) => return Ok(Some(false)),
                // Not in the bank yet, or never, or the bank is away: its record knows.
                Err(error) if error.kind == ErrorKind::NotFound || error.kind.is_retryable() => {
                    tracing::debug!(run = %self.run.id, checkpoint = %id, ?error, "a checkpoint cannot be looked at yet");
                    match self.record().await?.map(|log| log.status) {
                        None | Some(OperationLogStatus::InProgress) => {}
                        Some(status) => return Ok(Some(status == OperationLogStatus::Success)),
                    }
                }
                Err(error) => return Err(error),
            }
            if self.pause(&mut delay).await {
                return Ok(None);
            }
        }
    }

    /// The available checkpoints of the plan that scheduled operations made, or one of them.
    async fn candidates(
        &self,
        context: &RequestContext,
        definition: &Definition,
        made_by: Option<ScheduledOperationId>,
    ) -> Result<Vec<Candidate>, ApiError> {
        let checkpoints = self.available(context, definition).await?;
        let made = checkpoints.iter().filter(|checkpoint| {
            let info = checkpoint.info();
            info.is_scheduled()
                && made_by.is_none_or(|id| info.scheduled_operation_id() == Some(id))
        });
        Ok(made.map(candidate).collect())
    }

    /// Every available checkpoint of the plan, in its project.
    async fn available(
        &self,
        context: &RequestContext,
        definition: &Definition,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let filters = BTreeMap::from([
            ("plan_id".to_owned(), definition.plan_id.to_string()),
            ("status".to_owned(), CheckpointStatus::Available.to_string()),
        ]);
        let mut all: Vec<Checkpoint> = Vec::new();
        loop {
            let marker = all.last().map(|checkpoint| checkpoint.id);
            let page = self.engine.protection.list_checkpoints(
                context,
                definition.provider_id,
                marker,
                Some(PAGE),
                Vec::new(),
                Vec::new(),
                filters.clone(),
                false,
            );
            let page = page.await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                break;
            }
        }
        // An original service leaves filters aside (Q25).
        all.retain(|checkpoint| {
            checkpoint.status == CheckpointStatus::Available
                && checkpoint.project_id == self.operation.project_id
                && checkpoint.protection_plan.id == definition.plan_id
        });
        Ok(all)
    }

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

    async fn delete_what_expired(
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
            let id = self
                .ask_for_verification(context, &checkpoint, &parameters, accept_unsealed)
                .await?;
            match self.await_verification(id).await? {
                None => return Ok(None),
                Some(ReadbackStatus::Success) => {}
                Some(_) => outcome = RunOutcome::Failed,
            }
        }
        Ok(Some(outcome))
    }

    async fn check_plan(&self, definition: &Definition) -> Result<(), ApiError> {
        let plan = self.engine.db.plan_get(definition.plan_id).await?;
        definition.check_plan(&self.operation, &plan)
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
        let db = &self.engine.db;
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
        match db.readback_create(&verification).await {
            Ok(()) => {}
            // Asked for before; whether it was heard is not known, unless it has ended.
            Err(DbError::Conflict { .. }) => {
                let status = db.readback_get(OperationType::Verify, id).await?.status;
                if status != ReadbackStatus::InProgress {
                    return Ok(id);
                }
            }
            Err(error) => return Err(error.into()),
        }
        let asked = self.engine.protection.verification(context, verification);
        match asked.await {
            Ok(()) => Ok(id),
            Err(error) if error.kind.is_retryable() => Err(error),
            Err(error) => {
                let reason = (
                    format!("Checkpoint#{}", checkpoint.id),
                    error.message.clone(),
                );
                let reasons = BTreeMap::from([reason]);
                let (operation, end) = (OperationType::Verify, ReadbackStatus::Fail);
                let none = BTreeMap::new();
                match db.readback_end(operation, id, end, &none, &reasons).await {
                    Ok(()) | Err(DbError::Conflict { .. }) => Err(error),
                    Err(other) => Err(other.into()),
                }
            }
        }
    }

    async fn await_verification(&self, id: ReadbackId) -> Step<ReadbackStatus> {
        let mut delay = DELAYS.0;
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
            if self.pause(&mut delay).await {
                return Ok(None);
            }
        }
    }
}

/// A checkpoint as retention sees it.
fn candidate(checkpoint: &Checkpoint) -> Candidate {
    Candidate {
        id: checkpoint.id,
        created_at: DateTime::from_timestamp(checkpoint.timestamp, 0).unwrap_or_default(),
        flawed: checkpoint.info().is_flawed(),
    }
}
