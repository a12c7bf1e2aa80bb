//! Whose turn it is: how many operations are at work at once, and how the others wait.
//!
//! An operation that waits has been entered, has claimed its checkpoint and has told the bank, so a
//! restart goes on with it. While it waits only its id is kept here: what it is made of is in its flow
//! record, and is read again when its turn comes. Its record in the operation log says that it waits.

use std::sync::Arc;

use karbor_db::OperationLogUpdate;
use karbor_model::{ApiError, OperationId, OperationLogId, OperationType, RunProgress, RunReport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{RETRY_DELAYS, Worker, execution::Stop};
use crate::{
    conclusion::Conclusion,
    hooks::RunHooks,
    operations::{Line, rules},
    providers::Provider,
    run::Run,
};

/// How many operations may be at work.
pub(crate) struct Slots {
    /// Of every kind but restores; `None` is no limit.
    all: Option<Arc<Semaphore>>,
    /// Of restores: as many again, so that nobody waits for the night's backups to get something back.
    restores: Option<Arc<Semaphore>>,
    /// Of verifications: half, so that a flood of them keeps no backup waiting for long.
    verifications: Option<Arc<Semaphore>>,
    copies: Arc<Semaphore>,
    most: usize,
}

/// An operation's place among those at work, until it is dropped.
pub(super) type Turn = Vec<OwnedSemaphorePermit>;

impl Slots {
    /// For `operations` at once (0: no limit), of which `copies` may be copies.
    pub(crate) fn new(operations: usize, copies: usize) -> Self {
        let limit = |slots: usize| Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)));
        let is_limited = operations > 0;
        Self {
            all: is_limited.then(|| limit(operations)),
            restores: is_limited.then(|| limit(operations)),
            verifications: is_limited.then(|| limit(operations.div_ceil(2))),
            copies: limit(copies.max(1)),
            most: operations,
        }
    }

    /// What an operation needs one of each of, in this order.
    fn needed(&self, operation: OperationType) -> impl Iterator<Item = &Arc<Semaphore>> {
        let (own, shared) = match rules(operation).line() {
            Line::Copies => (Some(&self.copies), &self.all),
            Line::Verifications => (self.verifications.as_ref(), &self.all),
            Line::Restores => (None, &self.restores),
            Line::Common => (None, &self.all),
        };
        own.into_iter().chain(shared)
    }

    /// A turn, if nobody has to be waited for.
    pub(super) fn free(&self, operation: OperationType) -> Option<Turn> {
        self.needed(operation)
            .map(|slots| slots.clone().try_acquire_owned().ok())
            .collect()
    }

    /// Waits for a turn; first come, first served. `None` never comes: nobody closes the semaphores.
    pub(super) async fn turn(&self, operation: OperationType) -> Option<Turn> {
        let mut turn = Turn::new();
        for slots in self.needed(operation) {
            turn.push(slots.clone().acquire_owned().await.ok()?);
        }
        Some(turn)
    }

    /// Why an operation waits, for people.
    fn why(&self, operation: OperationType) -> String {
        let copies = "max_parallel_copies";
        match rules(operation).line() {
            Line::Copies => format!(
                "waits for its turn: as many operations are at work as may be at once ({copies}, \
                 max_concurrent_operations)"
            ),
            Line::Verifications => format!(
                "waits for its turn: {} operations may be at work at once (max_concurrent_operations), half of \
                 them verifications",
                self.most
            ),
            Line::Restores => format!(
                "waits for its turn: {} restores are at work, and no more may be at once \
                 (max_concurrent_operations)",
                self.most
            ),
            Line::Common => format!(
                "waits for its turn: {} operations are at work, and no more may be at once \
                 (max_concurrent_operations)",
                self.most
            ),
        }
    }
}

/// What is kept of a run that waits.
pub(super) struct Waiting {
    pub(super) id: OperationId,
    pub(super) operation: OperationType,
    pub(super) log: OperationLogId,
}

/// What is left to do with a run that had its place in the line.
pub(super) enum Left {
    Nothing,
    /// It waited, and its claim lapsed meanwhile. Nothing of it has begun.
    ToClaimAnew(Box<Run>),
}

impl Worker {
    /// Has a run wait for its turn, and carries it out then. One that is cancelled ends at once; one that
    /// waits when the service stops stays as it is, for the next start.
    pub(super) async fn in_line(self: Arc<Self>, waiting: Waiting, stop: Stop) -> Left {
        let why = RunReport::waits(self.slots.why(waiting.operation));
        self.tell_log(waiting.log, why).await;
        let turn = tokio::select! {
            turn = self.slots.turn(waiting.operation) => turn,
            () = stop.cancel.cancelled() => None,
            () = stop.lost.cancelled() => None,
            () = self.tasks.cancelled().cancelled() => return Left::Nothing,
        };
        if turn.is_some() {
            let begun = RunReport::working(RunProgress::default());
            self.tell_log(waiting.log, begun).await;
        }
        let Some((run, provider, hooks)) = self.read_again(&waiting).await else {
            return Left::Nothing;
        };
        if stop.lost.is_cancelled() && !stop.cancel.is_cancelled() {
            return Left::ToClaimAnew(Box::new(run));
        }
        let turn = turn.unwrap_or_default();
        // Boxed, for those that wait are many.
        Box::pin(self.execute_despite_panics(&run, &provider, &hooks, &stop, turn)).await;
        Left::Nothing
    }

    /// What the log says meanwhile is a courtesy: the run goes on without it.
    async fn tell_log(&self, log: OperationLogId, report: RunReport) {
        let update = OperationLogUpdate {
            report: Some(report),
            ..OperationLogUpdate::default()
        };
        if let Err(error) = self.ground.runs.operation_log_update(log, &update).await {
            tracing::warn!(%log, %error, "whether an operation waits could not be recorded");
        }
    }

    /// Reads a run that waited from its flow record, as often as it takes. `None` when there is nothing to
    /// carry out: the service stops, or the run has ended.
    async fn read_again(&self, waiting: &Waiting) -> Option<(Run, Arc<Provider>, Arc<RunHooks>)> {
        let mut delay = RETRY_DELAYS.0;
        loop {
            let error = match self.read_run(waiting.id).await {
                Ok(run) => {
                    self.unstuck(waiting.log);
                    return self.with_hooks(run).await;
                }
                Err(error) => error,
            };
            tracing::error!(run = %waiting.id, ?error, "a run whose turn has come cannot be read yet");
            self.stuck(waiting.log, error.message);
            if self.wait_or_stop(delay).await {
                return None;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    async fn read_run(&self, id: OperationId) -> Result<Run, ApiError> {
        let flow = self.ground.runs.flow_get(id).await?;
        serde_json::from_value(flow.payload).map_err(ApiError::internal)
    }

    async fn with_hooks(&self, run: Run) -> Option<(Run, Arc<Provider>, Arc<RunHooks>)> {
        // It was there when the run began, and providers do not change while the service runs.
        let provider = self
            .ground
            .providers
            .get(run.checkpoint.provider_id)
            .ok()?
            .clone();
        match self.hooks(&run, &provider) {
            Ok(hooks) => Some((run, provider, hooks)),
            Err(error) => {
                let failed = Conclusion::failed(error.message);
                self.conclude(&run, &provider, &failed).await;
                None
            }
        }
    }
}
