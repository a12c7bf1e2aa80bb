//! One run of a scheduled operation, from its claim to its end.
//!
//! A run may be carried out again from its beginning at any time: by the engine that adopts it
//! after a crash, or after a failure that may pass. Four things make that safe.
//! * Its id is the id of the operation that it asks the protection manager for, and of that
//!   operation's record in the log. However often it asks, one checkpoint is made.
//! * That record is also where a run that came to nothing is noted, so what is noted as missed can
//!   make no checkpoint any more, and what makes a checkpoint cannot be noted as missed.
//! * Until when it may begin goes with it: the protection manager tries so long while the bank is
//!   away, under the same ids.
//! * Verifications have ids worked out from the run's and the checkpoint's; and what is deleted
//!   twice is deleted.

use std::{sync::Arc, time::Duration};

use karbor_db::{DbError, RunOutcome, ScheduledRun};
use karbor_manager::caught;
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, RequestContext, ScheduledOperation,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    definition::{Definition, Task},
    engine::{Engine, count, lock},
};

/// How long to wait before trying again: at first, and at most.
pub(crate) const DELAYS: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(15));

/// What came of a step: `None` when the run stopped, because the service does or because the run is
/// another engine's now.
pub(crate) type Step<T> = Result<Option<T>, ApiError>;

/// Why a run does not go on.
enum Halt {
    /// Not now; it is tried again.
    NotYet(ApiError),
    /// It failed.
    Failed(ApiError),
    /// It is not to begin.
    Missed(String),
}

impl From<ApiError> for Halt {
    fn from(error: ApiError) -> Self {
        match error.kind.is_retryable() {
            true => Self::NotYet(error),
            false => Self::Failed(error),
        }
    }
}

impl From<DbError> for Halt {
    fn from(error: DbError) -> Self {
        ApiError::from(error).into()
    }
}

/// A run that this engine has claimed.
pub(crate) struct Runner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) run: ScheduledRun,
    pub(crate) operation: ScheduledOperation,
    pub(crate) stop: CancellationToken,
    /// This engine, or one before it, decided that it runs.
    begun: bool,
    /// No engine had it before this one, which has not tried yet: there is nothing of it to be found.
    is_untouched: bool,
    /// Why the last try inside the window came to nothing.
    trouble: Option<ApiError>,
}

impl Runner {
    pub(crate) fn new(
        engine: Arc<Engine>,
        run: ScheduledRun,
        operation: ScheduledOperation,
        stop: CancellationToken,
    ) -> Self {
        Self {
            engine,
            begun: run.started_at.is_some(),
            is_untouched: run.started_at.is_none(),
            run,
            operation,
            stop,
            trouble: None,
        }
    }

    /// Carries the run out and writes down how it ended; or gives it up, for another engine or the
    /// next start to go on with.
    pub(crate) async fn go(mut self) {
        let ended = match self.carry_out().await {
            Some(outcome) => self.end(outcome).await,
            None => None,
        };
        if ended.is_none()
            && let Err(error) = self
                .engine
                .stores
                .schedules
                .run_release(self.run.id, &self.engine.owner)
                .await
        {
            tracing::warn!(run = %self.run.id, %error, "a run is free when its lease ends");
        }
        lock(&self.engine.running).remove(&self.run.id);
        // Its operation may be due again.
        self.engine.changed.notify_one();
    }

    /// Tries until it has an outcome.
    async fn carry_out(&mut self) -> Option<RunOutcome> {
        let mut delay = DELAYS.0;
        loop {
            let (run, operation) = (self.run.id, self.operation.id);
            let attempt = caught(self.attempt()).await;
            match attempt.unwrap_or_else(|panic| Err(Halt::NotYet(panic))) {
                Ok(outcome) => return outcome,
                Err(Halt::NotYet(error)) => {
                    tracing::warn!(%run, %operation, ?error, "a scheduled run cannot go on yet");
                    if !self.is_late() {
                        self.trouble = Some(error);
                    }
                }
                Err(Halt::Failed(error)) => {
                    tracing::error!(%run, %operation, ?error, "a scheduled run failed");
                    if self.note(OperationLogStatus::Failed, error.message).await? {
                        return Some(RunOutcome::Failed);
                    }
                }
                Err(Halt::Missed(reason)) => {
                    if self.note(OperationLogStatus::Missed, reason).await? {
                        count(&self.engine.counters.missed, 1);
                        return Some(RunOutcome::Missed);
                    }
                }
            }
            if self.pause(&mut delay).await {
                return None;
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<RunOutcome>, Halt> {
        match self
            .engine
            .stores
            .schedules
            .operation_get(self.operation.id)
            .await
        {
            Ok(operation) => self.operation = operation,
            // And with it the run.
            Err(DbError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let begun = match self.earlier_record().await? {
            Some(log) if log.checkpoint_id.is_some() => {
                self.run.checkpoint_id = log.checkpoint_id;
                true
            }
            Some(log) if log.status == OperationLogStatus::Missed => {
                return Ok(Some(RunOutcome::Missed));
            }
            Some(_) => return Ok(Some(RunOutcome::Failed)),
            None => !self.is_untouched && self.was_begun().await?,
        };
        self.is_untouched = false;
        let definition = Definition::parse(&self.operation)?;
        if !begun {
            self.may_begin(&definition).await?;
        }
        self.begun = true;
        let context = self.context().await?;
        let outcome = match &definition.task {
            Task::Protect => self.protect(&context, &definition, None).await,
            Task::RetentionProtect(policy) => {
                self.protect(&context, &definition, Some(policy)).await
            }
            Task::Readback(operation, how) => {
                self.read_back(&context, &definition, *operation, how).await
            }
            Task::Delete { policy, made_by } => {
                self.delete_expired(&context, &definition, policy, *made_by)
                    .await
            }
        };
        Ok(outcome?)
    }

    /// The record that an earlier try may have left.
    async fn earlier_record(&self) -> Result<Option<OperationLog>, ApiError> {
        match self.is_untouched {
            true => Ok(None),
            false => self.record().await,
        }
    }

    /// The record in the operation log that carries the run's id.
    pub(crate) async fn record(&self) -> Result<Option<OperationLog>, ApiError> {
        match self
            .engine
            .stores
            .runs
            .operation_log_get(self.log_id())
            .await
        {
            Ok(log) => Ok(Some(log)),
            Err(DbError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn makes_checkpoint(&self) -> bool {
        self.operation.operation_type.operation() == OperationType::Protect
    }

    /// Was it begun before? The protection manager enters what it was asked for before the record in the
    /// log; for what makes no checkpoint it is enough that an engine decided that it runs.
    async fn was_begun(&self) -> Result<bool, ApiError> {
        if !self.makes_checkpoint() {
            return Ok(self.begun);
        }
        match self.engine.stores.runs.flow_get(self.run.id).await {
            Ok(_) => Ok(true),
            Err(DbError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A checkpoint is begun inside the window; what is begun is seen to its end.
    async fn may_begin(&mut self, definition: &Definition) -> Result<(), Halt> {
        let (due, plan) = (self.run.due_at, definition.plan_id);
        if self.is_late() {
            return Err(match self.trouble.take() {
                Some(error) => Halt::Failed(error),
                None => Halt::Missed(format!(
                    "The run due at {due} was missed: no operation engine began it inside its \
                     window, which ended at {}.",
                    self.run.run_before
                )),
            });
        }
        if !self.operation.enabled {
            return Err(Halt::Missed(format!(
                "The run due at {due} was left out: the operation was disabled meanwhile."
            )));
        }
        if self.engine.stores.plans.is_held(plan).await? {
            return Err(Halt::Missed(format!(
                "The run due at {due} was left out: the plan {plan} is suspended. Start it to let \
                 its scheduled operations run."
            )));
        }
        Ok(())
    }

    /// As whom the run acts. An owner who does not allow it any more ends the operation.
    async fn context(&self) -> Result<RequestContext, ApiError> {
        let (schedules, id) = (&self.engine.stores.schedules, self.operation.id);
        let trust = match schedules.operation_trust(id).await {
            Ok(trust) => trust,
            Err(DbError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let context = self
            .engine
            .owners
            .context(&self.operation, trust.as_deref());
        match context.await {
            Ok(context) => Ok(RequestContext {
                scheduled_operation_id: Some(id),
                ..context
            }),
            Err(error) if error.kind != ErrorKind::Forbidden => Err(error),
            Err(error) => {
                schedules.operation_set_enabled(id, false).await?;
                let message = format!("{} The operation was disabled.", error.message);
                Err(ApiError { message, ..error })
            }
        }
    }

    fn is_late(&self) -> bool {
        self.engine.clock.now() > self.run.run_before
    }

    /// The id of the run's own record in the operation log.
    pub(crate) fn log_id(&self) -> OperationLogId {
        OperationLogId(self.run.id.0)
    }

    /// Ids of what the run asks for beside its checkpoint: the same each time it asks.
    pub(crate) fn id_for(&self, what: &str) -> Uuid {
        Uuid::new_v5(&self.run.id.0, what.as_bytes())
    }

    /// Notes which checkpoint the run makes; says whether the run still is this engine's.
    pub(crate) async fn made(&mut self, checkpoint: CheckpointId) -> Result<bool, ApiError> {
        let schedules = &self.engine.stores.schedules;
        match schedules
            .run_set_checkpoint(self.run.id, &self.engine.owner, checkpoint)
            .await
        {
            Ok(()) => {
                self.run.checkpoint_id = Some(checkpoint);
                Ok(true)
            }
            Err(DbError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what no other record tells into the operation log. `None`: stopped before it could; `false`:
    /// the run has a record already, which is to be read.
    async fn note(&self, status: OperationLogStatus, reason: String) -> Option<bool> {
        let now = self.engine.clock.now();
        let mut log = self
            .operation
            .log_record(self.log_id(), status, now, reason);
        if self.run.checkpoint_id.is_some() {
            // The checkpoint has its record; this is about what came after.
            log.id = OperationLogId(self.id_for("retention"));
            log.operation_type = OperationType::Delete;
        }
        let mut delay = DELAYS.0;
        loop {
            let admin = RequestContext::admin();
            let recorded = self.engine.protection.record_operation(&admin, log.clone());
            match recorded.await {
                Ok(true) => return Some(true),
                Ok(false) => return Some(log.id != self.log_id()),
                Err(error) => {
                    tracing::error!(run = %self.run.id, ?error, "a scheduled run cannot be noted yet");
                }
            }
            if self.pause(&mut delay).await {
                return None;
            }
        }
    }

    /// Closes the run. `None`: stopped before it could.
    async fn end(&self, outcome: RunOutcome) -> Option<()> {
        let engine = &self.engine;
        let mut delay = DELAYS.0;
        loop {
            match engine.ends.write(&self.run, outcome).await {
                Ok(true) => break,
                Ok(false) => return Some(()),
                Err(error) => {
                    tracing::error!(run = %self.run.id, %error, "the end of a scheduled run cannot be recorded yet");
                }
            }
            if self.pause(&mut delay).await {
                return None;
            }
        }
        match outcome {
            RunOutcome::Success => count(&engine.counters.succeeded, 1),
            RunOutcome::Failed => count(&engine.counters.failed, 1),
            RunOutcome::Missed => {}
        }
        Some(())
    }

    /// Waits, longer each time, but no longer than until the `awaited` operation ends; says whether to stop instead. An
    /// operation that has ended is awaited no more.
    pub(crate) async fn pause_or_end(
        &self,
        awaited: &mut Option<OperationLogId>,
        delay: &mut Duration,
    ) -> bool {
        let admin = RequestContext::admin();
        // No longer than the pause: what is asked of another host goes on there when nobody waits any more.
        let at_most = delay.as_secs().max(1);
        let ended = async {
            let Some(id) = *awaited else {
                return std::future::pending().await;
            };
            let told = self.engine.protection.await_operation(&admin, id, at_most);
            match told.await {
                Ok(log) if log.status != OperationLogStatus::InProgress => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            stopped = self.pause(delay) => return stopped,
            () = ended => {}
        }
        *awaited = None;
        false
    }

    /// Waits, longer each time; says whether to stop instead.
    pub(crate) async fn pause(&self, delay: &mut Duration) -> bool {
        let stopped = self.engine.wait_or_stop(&self.stop, *delay).await;
        *delay = (*delay * 2).min(DELAYS.1);
        stopped
    }
}
