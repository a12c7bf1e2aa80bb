//! The worker: begins runs, carries them out, ends them, and goes on with those that a crash left.
//!
//! The order of writes is what makes a run survive anything. The flow record comes first; whatever
//! follows (`claim`, `prepare`, the hooks, `conclude`) may be repeated. The flow record is closed last. So a
//! run is either not there, or there and unfinished and will be taken up again, or closed with
//! every other record telling how it ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use karbor_db::{Db, DbError, FlowRecord, OperationLogUpdate};
use karbor_flow::{Executor, FlowOutcome, FlowStatus as Ending, FlowTime, ProgressBoard, plan};
use karbor_manager::{Clock, TaskSet};
use karbor_model::{
    ApiError, FlowStatus, OperationLog, OperationLogId, OperationLogStatus, OperationType, Restore,
    RestoreStatus, Verification, VerificationStatus,
};
use karbor_plugin::BankError;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::{
    conclude::{Conclusion, conclude_in_bank},
    error::bank_error,
    hooks::RunHooks,
    journal::DbJournal,
    keys::MasterKey,
    leases::{self, CheckpointLease, Purpose},
    providers::{Provider, Providers},
    run::Run,
};

/// How often the operation log hears of a run's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before trying again to write down how a run goes: at first, and at most.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the worker works with.
pub(crate) struct Worker {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) time: Arc<dyn FlowTime>,
    pub(crate) tasks: TaskSet,
    pub(crate) providers: Arc<Providers>,
    pub(crate) key: MasterKey,
    pub(crate) host: String,
    pub(crate) owner: String,
    pub(crate) executor: Executor,
    /// How many runs may be under way; `None` is no limit.
    pub(crate) slots: Option<Semaphore>,
    pub(crate) running: Mutex<HashMap<OperationLogId, CancellationToken>>,
    /// Runs that wait because what they must write cannot be written, with the reason.
    pub(crate) stuck: Mutex<HashMap<OperationLogId, String>>,
}

impl Worker {
    /// Begins a run: enters it, claims its checkpoint, and lets it go on in the background.
    ///
    /// # Errors
    /// Why it cannot begin. The operation log has it as failed then.
    pub(crate) async fn start(self: &Arc<Self>, run: Run) -> Result<(), ApiError> {
        let provider = self.providers.get(run.checkpoint.provider_id)?.clone();
        let hooks = self.hooks(&run, &provider)?;
        self.db.flow_create(&self.flow_record(&run)?).await?;
        let lease = match self.claim(&run, &provider).await {
            Ok(lease) => lease,
            // Somebody else may be at work on the checkpoint: the bank is left alone.
            Err(error) => return Err(self.refuse(&run, error).await),
        };
        match self.prepare(&run, &provider).await {
            Ok(()) => {
                self.spawn(run, provider, hooks, lease);
                Ok(())
            }
            Err(error) => {
                let failed = Conclusion::failed(error.message.clone());
                if let Err(error) = conclude_in_bank(&run, &provider, &failed).await {
                    tracing::warn!(run = %run.id, ?error, "the bank could not be told that a run did not begin");
                }
                release(lease).await;
                Err(self.refuse(&run, error).await)
            }
        }
    }

    /// A run that could not begin: its records say so, and nothing of it stays in progress.
    async fn refuse(self: &Arc<Self>, run: &Run, error: ApiError) -> ApiError {
        let conclusion = Conclusion::failed(error.message.clone());
        if let Err(error) = self.record(run, &conclusion).await {
            tracing::error!(run = %run.id, ?error, "a run that could not begin could not be closed yet");
            // Left open, a restart would carry out what was refused.
            let (worker, run) = (self.clone(), run.clone());
            self.tasks.spawn(format!("close {}", run.id), async move {
                worker.record_at_last(&run, &conclusion).await;
            });
        }
        error
    }

    async fn record_at_last(&self, run: &Run, conclusion: &Conclusion) {
        let mut delay = RETRY_DELAYS.0;
        while let Err(error) = self.record(run, conclusion).await {
            tracing::error!(run = %run.id, ?error, "the end of a run cannot be recorded yet");
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// Goes on with every run of this host that has not ended.
    ///
    /// # Errors
    /// When the database cannot tell which.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<usize, ApiError> {
        self.release_leftovers().await;
        let flows = self.db.flows_unfinished(&self.host).await?;
        let count = flows.len();
        for flow in flows {
            let worker = self.clone();
            self.tasks
                .spawn(format!("resume {}", flow.operation_id), async move {
                    worker.resume_one(flow).await;
                });
        }
        Ok(count)
    }

    /// A service that died between the end of a run and the release of its claim left the claim
    /// behind. What our own database knows as ended is nobody's any more.
    async fn release_leftovers(&self) {
        for provider in self.providers.all() {
            let bank = provider.bank();
            let claims = match leases::claims_of(bank.as_ref(), &self.owner).await {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::warn!(provider = provider.record().name, %error, "left claims cannot be looked for");
                    continue;
                }
            };
            for (run, lease) in claims {
                let flow = self.db.flow_get(run).await;
                if flow.is_ok_and(|flow| flow.status != FlowStatus::Running)
                    && let Err(error) = bank.release_lease(&lease).await
                {
                    tracing::warn!(lease = lease.name, %error, "a left claim ends by itself");
                }
            }
        }
    }

    async fn resume_one(self: Arc<Self>, flow: FlowRecord) {
        let id = flow.operation_id;
        let run: Run = match serde_json::from_value(flow.payload) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(run = %id, %error, "a run cannot be resumed: its record cannot be read");
                return;
            }
        };
        tracing::info!(run = %id, operation = %run.operation, checkpoint = %run.checkpoint.id, "resuming a run");
        let mut delay = RETRY_DELAYS.0;
        loop {
            match self.try_resume(&run).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(run = %id, ?error, "a run cannot be resumed yet");
                    self.stuck(run.log, error.message);
                }
            }
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// An `Err` is worth another try.
    async fn try_resume(self: &Arc<Self>, run: &Run) -> Result<(), ApiError> {
        let provider = match self.providers.get(run.checkpoint.provider_id) {
            Ok(provider) => provider.clone(),
            Err(error) => {
                // Nothing can be told to a bank that is not configured any more.
                let conclusion =
                    Conclusion::failed(format!("{error} It was removed while the operation ran."));
                return self.record(run, &conclusion).await;
            }
        };
        let lease = self.claim(run, &provider).await?;
        if let Err(error) = self.prepare(run, &provider).await {
            release(lease).await;
            return Err(error);
        }
        match self.hooks(run, &provider) {
            Ok(hooks) => self.spawn(run.clone(), provider, hooks, lease),
            Err(error) => {
                self.conclude(run, &provider, &Conclusion::failed(error.message))
                    .await;
                release(lease).await;
            }
        }
        self.unstuck(run.log);
        Ok(())
    }

    fn hooks(&self, run: &Run, provider: &Arc<Provider>) -> Result<Arc<RunHooks>, ApiError> {
        let plan = plan(&run.graph()?, run.operation).map_err(ApiError::invalid_input)?;
        Ok(Arc::new(RunHooks::new(
            run.clone(),
            Arc::new(plan),
            provider.clone(),
            &self.key,
        )?))
    }

    fn flow_record(&self, run: &Run) -> Result<FlowRecord, ApiError> {
        Ok(FlowRecord {
            operation_id: run.id,
            operation_type: run.operation,
            host: self.host.clone(),
            payload: serde_json::to_value(run).map_err(ApiError::internal)?,
            status: FlowStatus::Running,
        })
    }

    /// Enters the run in the operation log and claims its checkpoint. Safe to repeat.
    ///
    /// What can be read can be restored: where a claim cannot be written (the bank is full, or was
    /// mounted read-only because it is failing) a restore or verification goes on without one.
    async fn claim(
        &self,
        run: &Run,
        provider: &Provider,
    ) -> Result<Option<CheckpointLease>, ApiError> {
        match self.db.operation_log_create(&run.log_record()).await {
            Ok(()) | Err(DbError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (bank, checkpoint) = (provider.bank().clone(), run.checkpoint.id);
        let purpose = Purpose::Operation(run.operation);
        let clock = self.clock.as_ref();
        match CheckpointLease::acquire(bank, clock, checkpoint, purpose, run.id, &self.owner).await
        {
            Ok(lease) => Ok(Some(lease)),
            Err(error @ BankError::LeaseHeld { .. }) => Err(bank_error(&error)),
            Err(error) if run.reads_only() => {
                tracing::warn!(run = %run.id, %error, "the checkpoint cannot be claimed; reading goes on without");
                Ok(None)
            }
            Err(error) => Err(bank_error(&error)),
        }
    }

    /// What the bank is told before the first hook. Safe to repeat.
    async fn prepare(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        match run.operation {
            OperationType::Protect => self.prepare_protect(run, provider).await,
            OperationType::Delete => self.prepare_delete(run, provider).await,
            OperationType::Restore | OperationType::Verify | OperationType::Copy => Ok(()),
        }
    }

    /// On a resume the checkpoint may be there already, perhaps ended: it is not set back.
    async fn prepare_protect(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use crate::error::CheckpointError::NotFound;
        let checkpoints = provider.checkpoints();
        let written = match checkpoints.get(run.checkpoint.id).await {
            Ok(there) => there,
            Err(NotFound(_)) => run.checkpoint.clone(),
            Err(error) => return Err(error.into()),
        };
        Ok(checkpoints.create(&written).await?)
    }

    async fn prepare_delete(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        use karbor_model::CheckpointStatus::{Deleted, Deleting, ErrorDeleting};
        let there = provider.checkpoints().get(run.checkpoint.id).await?;
        if there.status == Deleted {
            return Ok(());
        }
        let ended = there.status == ErrorDeleting && run.checkpoint.status != ErrorDeleting;
        if !ended {
            provider
                .checkpoints()
                .transition(run.checkpoint.id, Deleting)
                .await?;
        }
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        run: Run,
        provider: Arc<Provider>,
        hooks: Arc<RunHooks>,
        lease: Option<CheckpointLease>,
    ) {
        let cancel = CancellationToken::new();
        self.running().insert(run.log, cancel.clone());
        let worker = self.clone();
        self.tasks.spawn(
            format!("{} {}", run.operation, run.checkpoint.id),
            async move {
                let done = CancellationToken::new();
                let work = async {
                    if let Some(_slot) = worker.slot().await {
                        worker
                            .carry_out(&run, &provider, hooks, cancel.clone())
                            .await;
                    }
                    done.cancel();
                };
                // The claim is kept while the run waits for its turn, too.
                let keep = async {
                    match lease {
                        Some(lease) => {
                            lease
                                .keep(&*worker.clock, done.clone(), cancel.clone())
                                .await
                        }
                        None => done.cancelled().await,
                    }
                };
                tokio::join!(work, keep);
                worker.running().remove(&run.log);
            },
        );
    }

    /// Waits for the run's turn; `None` when the service stops first: the next start goes on.
    async fn slot(&self) -> Option<Option<SemaphorePermit<'_>>> {
        let Some(slots) = &self.slots else {
            return Some(None);
        };
        tokio::select! {
            slot = slots.acquire() => slot.ok().map(Some),
            () = self.tasks.cancelled().cancelled() => None,
        }
    }

    /// Runs the flow to its end and writes the end down; as often as it takes.
    async fn carry_out(
        &self,
        run: &Run,
        provider: &Provider,
        hooks: Arc<RunHooks>,
        cancel: CancellationToken,
    ) {
        let journal = Arc::new(DbJournal::new(self.db.clone(), run.id));
        let board = Arc::new(ProgressBoard::new(self.time.clone()));
        let mut delay = RETRY_DELAYS.0;
        loop {
            let outcome = match journal.events().await {
                Ok(events) => {
                    let flow = self.executor.run(
                        hooks.plan().clone(),
                        hooks.clone(),
                        journal.clone(),
                        board.clone(),
                        cancel.clone(),
                        events,
                    );
                    self.watched(run, &board, flow).await
                }
                Err(error) => interrupted(&error.to_string()),
            };
            if outcome.status != Ending::Interrupted {
                self.unstuck(run.log);
                return self
                    .conclude(run, provider, &Conclusion::of(run, &outcome))
                    .await;
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
                self.clock.sleep(PROGRESS_INTERVAL).await;
                let update = OperationLogUpdate {
                    extra_info: Some(json!({ "progress": board.snapshot() })),
                    ..OperationLogUpdate::default()
                };
                // Progress is a courtesy: the run goes on without it.
                if let Err(error) = self.db.operation_log_update(run.log, &update).await {
                    tracing::warn!(run = %run.id, %error, "progress could not be recorded");
                }
            }
        };
        tokio::select! {
            outcome = flow => outcome,
            never = tell => never,
        }
    }

    /// Writes down how a run ended, first where the user looks, last in the flow record.
    async fn conclude(&self, run: &Run, provider: &Provider, conclusion: &Conclusion) {
        let mut delay = RETRY_DELAYS.0;
        loop {
            let told = match conclude_in_bank(run, provider, conclusion).await {
                Ok(conclusion) => self.record(run, &conclusion).await,
                Err(error) => Err(error),
            };
            let Err(error) = told else {
                self.unstuck(run.log);
                return;
            };
            tracing::error!(run = %run.id, ?error, "the end of a run cannot be written down yet");
            self.stuck(run.log, error.message);
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// Writes down in the database how a run ended. Safe to repeat.
    async fn record(&self, run: &Run, conclusion: &Conclusion) -> Result<(), ApiError> {
        let ok = conclusion.is_success();
        let (status, reason) = (&conclusion.resources_status, &conclusion.resources_reason);
        if let Some(id) = run.restore_id {
            self.db.restore_update_resources(id, status, reason).await?;
            let end = if ok {
                RestoreStatus::Success
            } else {
                RestoreStatus::Fail
            };
            once(
                self.db
                    .transition::<Restore>(id, RestoreStatus::InProgress, end)
                    .await,
            )?;
        }
        if let Some(id) = run.verification_id {
            self.db
                .verification_update_resources(id, status, reason)
                .await?;
            let end = if ok {
                VerificationStatus::Success
            } else {
                VerificationStatus::Fail
            };
            once(
                self.db
                    .transition::<Verification>(id, VerificationStatus::InProgress, end)
                    .await,
            )?;
        }
        let update = OperationLogUpdate {
            extra_info: Some(conclusion.extra_info.clone()),
            error_info: conclusion.error_info.clone(),
            ended_at: Some(self.clock.now()),
            ..OperationLogUpdate::default()
        };
        self.db.operation_log_update(run.log, &update).await?;
        let end = if ok {
            OperationLogStatus::Success
        } else {
            OperationLogStatus::Failed
        };
        once(
            self.db
                .transition::<OperationLog>(run.log, OperationLogStatus::InProgress, end)
                .await,
        )?;
        once(
            self.db
                .transition::<FlowRecord>(run.id, FlowStatus::Running, conclusion.status)
                .await,
        )?;
        tracing::info!(
            run = %run.id, operation = %run.operation, checkpoint = %run.checkpoint.id,
            request = %run.context.request_id, status = %conclusion.status, error = conclusion.error_info,
            "a run ended"
        );
        Ok(())
    }

    /// Waits, unless the service stops: then the run stays as it is, for the next start.
    async fn wait_or_stop(&self, delay: Duration) -> bool {
        tokio::select! {
            () = self.clock.sleep(delay) => false,
            () = self.tasks.cancelled().cancelled() => true,
        }
    }

    fn stuck(&self, log: OperationLogId, reason: String) {
        self.stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(log, reason);
    }

    fn unstuck(&self, log: OperationLogId) {
        self.stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&log);
    }

    pub(crate) fn running(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<OperationLogId, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn release(lease: Option<CheckpointLease>) {
    if let Some(lease) = lease {
        lease.release().await;
    }
}

/// A change of state that an earlier attempt made already is no error.
fn once(changed: Result<(), DbError>) -> Result<(), ApiError> {
    match changed {
        Ok(()) | Err(DbError::Conflict { .. } | DbError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
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

/// What the operation log keeps of the reports.
pub(crate) fn reports(outcome: &FlowOutcome) -> Value {
    json!({ "resources": outcome.reports })
}
