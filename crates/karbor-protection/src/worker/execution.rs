//! Carries a run out: its flow, its progress.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::future::join_all;
use karbor_db::OperationLogUpdate;
use karbor_flow::{FlowOutcome, FlowStatus as Ending, ProgressBoard};
use karbor_manager::caught;
use karbor_model::{ApiError, RunReport};
use tokio_util::sync::CancellationToken;

use super::{
    AtWork, RETRY_DELAYS, Worker,
    conclude::conclusion,
    turns::{Left, Turn, Waiting},
};
use crate::{
    hooks::RunHooks,
    journal::DbJournal,
    leases::{CheckpointLease, LOST},
    operations::rules,
    providers::Provider,
    run::Run,
};

/// How often the operation log hears of a run's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What ends a run before its time.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// A person gave it up, or it cannot go on.
    pub(super) cancel: CancellationToken,
    /// A claim of it lapsed: somebody else may be at work on the same checkpoint.
    pub(super) lost: CancellationToken,
}

impl Worker {
    pub(super) fn spawn(
        self: &Arc<Self>,
        run: Run,
        provider: Arc<Provider>,
        hooks: Arc<RunHooks>,
        claims: Vec<CheckpointLease>,
    ) {
        let stop = Stop::default();
        let left = CancellationToken::new();
        let at_work = AtWork {
            cancel: stop.cancel.clone(),
            left: left.clone(),
        };
        self.running().insert(run.log, at_work);
        let (worker, log) = (self.clone(), run.log);
        let name = format!("{} {}", run.operation, run.checkpoint.id);
        let waiting = Waiting {
            id: run.id,
            operation: run.operation,
            log,
        };
        type Work = Pin<Box<dyn Future<Output = Left> + Send>>;
        let work: Work = match self.slots.free(run.operation) {
            Some(turn) => {
                let (worker, stop) = (worker.clone(), stop.clone());
                Box::pin(async move {
                    worker
                        .execute_despite_panics(&run, &provider, &hooks, &stop, turn)
                        .await;
                    Left::Nothing
                })
            }
            None => Box::pin(worker.clone().in_line(waiting, stop.clone())),
        };
        self.tasks.spawn(name, async move {
            let done = CancellationToken::new();
            let work = async {
                let left = work.await;
                done.cancel();
                left
            };
            // The claims are kept while the run waits for its turn, too.
            let keep = async {
                let keep = |claim: CheckpointLease| {
                    claim.keep(&*worker.ground.clock, done.clone(), stop.lost.clone())
                };
                join_all(claims.into_iter().map(keep)).await
            };
            let (remains, _) = tokio::join!(work, keep);
            worker.running().remove(&log);
            left.cancel();
            if let Left::ToClaimAnew(run) = remains {
                worker.begin_later(*run, ApiError::unavailable(LOST, log));
            }
        });
    }

    /// Carries a run out, also when a panic interrupts that.
    pub(super) async fn execute_despite_panics(
        &self,
        run: &Run,
        provider: &Provider,
        hooks: &Arc<RunHooks>,
        stop: &Stop,
        turn: Turn,
    ) {
        let mut delay = RETRY_DELAYS.0;
        let mut turn = Some(turn);
        loop {
            let carried = self.execute(run, provider, hooks.clone(), stop, turn.take());
            let cancel_if_lost = async {
                stop.lost.cancelled().await;
                stop.cancel.cancel();
                std::future::pending::<()>().await;
            };
            let carried = tokio::select! {
                carried = caught(carried) => carried,
                () = cancel_if_lost => return,
            };
            let Err(panic) = carried else {
                return;
            };
            tracing::error!(run = %run.id, error = ?panic, "a run was interrupted and waits");
            self.stuck(run.log, panic.message);
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// Runs the flow to its end and writes the end down; as often as it takes. A turn is for work: it is not
    /// kept while the end cannot be written down, or the flow cannot go on.
    async fn execute(
        &self,
        run: &Run,
        provider: &Provider,
        hooks: Arc<RunHooks>,
        stop: &Stop,
        mut turn: Option<Turn>,
    ) {
        let journal = Arc::new(DbJournal::new(self.ground.runs.clone(), run.id));
        let board = Arc::new(ProgressBoard::new(self.ground.clock.clone()));
        let mut delay = RETRY_DELAYS.0;
        loop {
            // One that is cancelled undoes what it did, and waits for nobody.
            let turn = match turn.take() {
                Some(turn) => turn,
                None => tokio::select! {
                    turn = self.slots.turn(run.operation) => turn.unwrap_or_default(),
                    () = stop.cancel.cancelled() => Turn::default(),
                    () = self.tasks.cancelled().cancelled() => return,
                },
            };
            let begun = match rules(run.operation).take_turn(run, provider).await {
                Ok(()) => journal.events().await.map_err(ApiError::from),
                Err(error) => Err(error),
            };
            let outcome = match begun {
                Ok(events) => {
                    let flow = self.executor.run(
                        hooks.plan().clone(),
                        hooks.clone(),
                        journal.clone(),
                        board.clone(),
                        stop.cancel.clone(),
                        events,
                    );
                    self.watched(run, &board, flow).await
                }
                Err(error) => interrupted(&error.to_string()),
            };
            drop(turn);
            if outcome.status != Ending::Interrupted {
                self.unstuck(run.log);
                let mut ended = conclusion(run, &outcome).with_told_successes_of(provider);
                if stop.lost.is_cancelled() && !ended.is_success() {
                    ended.add_reason(LOST);
                }
                return self.conclude(run, provider, &ended).await;
            }
            let reason = outcome.interrupted.unwrap_or_default();
            tracing::error!(run = %run.id, reason, "a run was interrupted and waits");
            self.stuck(run.log, reason);
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// Runs a flow and tells the operation log of its progress meanwhile. The two are polled side by
    /// side: a flow that is not polled may hold the very lock that the telling waits for.
    async fn watched(
        &self,
        run: &Run,
        board: &ProgressBoard,
        flow: impl Future<Output = FlowOutcome>,
    ) -> FlowOutcome {
        let tell = async {
            loop {
                self.ground.clock.sleep(PROGRESS_INTERVAL).await;
                let update = OperationLogUpdate {
                    report: Some(RunReport::working(board.snapshot())),
                    ..OperationLogUpdate::default()
                };
                // Progress is a courtesy: the run goes on without it.
                if let Err(error) = self
                    .ground
                    .runs
                    .operation_log_update(run.log, &update)
                    .await
                {
                    tracing::warn!(run = %run.id, %error, "progress could not be recorded");
                }
            }
        };
        tokio::select! {
            outcome = flow => outcome,
            never = tell => never,
        }
    }
}

fn interrupted(reason: &str) -> FlowOutcome {
    FlowOutcome {
        status: Ending::Interrupted,
        failures: Vec::new(),
        reports: std::collections::BTreeMap::new(),
        interrupted: Some(reason.to_owned()),
    }
}
