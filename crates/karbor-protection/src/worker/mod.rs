//! The worker: begins runs, carries them out, ends them, and goes on with those that a crash left.
//!
//! The order of writes is what makes a run survive anything. The flow record comes first; whatever
//! follows (`claim`, `prepare`, the hooks, `conclude`) may be repeated. A run that has time to begin is tried
//! again while the bank or the database is away. The flow record is closed last. So a
//! run is either not there, or there and unfinished and will be taken up again, or closed with
//! every other record telling how it ended.

mod begin;
mod conclude;
mod execution;
mod record;
mod resume;
mod turns;

pub(crate) use turns::Slots;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use karbor_db::{DbError, Entered, FlowRecord, QuotaDefaults};
use karbor_flow::{Executor, plan};
use karbor_manager::TaskSet;
use karbor_model::{ApiError, FlowStatus, OperationLogId, Readback};
use tokio_util::sync::CancellationToken;

use self::conclude::conclude_in_bank;
use crate::{
    begin_error::BeginError,
    conclusion::Conclusion,
    ground::Ground,
    hooks::RunHooks,
    keys::MasterKey,
    leases::{CheckpointLease, LOST},
    operations::{id_of_another, rules},
    providers::Provider,
    run::Run,
};

/// How long to wait before trying again to write down how a run goes: at first, and at most.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A run that is at work, or waits for its turn, in this process.
#[derive(Clone)]
pub(crate) struct AtWork {
    /// Stops it.
    pub(crate) cancel: CancellationToken,
    /// Is cancelled when it is at work no more: mostly, because it has ended.
    pub(crate) left: CancellationToken,
}

/// What the worker works with.
pub(crate) struct Worker {
    pub(crate) ground: Arc<Ground>,
    pub(crate) tasks: TaskSet,
    pub(crate) key: MasterKey,
    pub(crate) host: String,
    pub(crate) quotas: QuotaDefaults,
    pub(crate) executor: Executor,
    /// How many runs may be at work.
    pub(crate) slots: Slots,
    pub(crate) running: Mutex<HashMap<OperationLogId, AtWork>>,
    /// Runs that wait because what they must write cannot be written, with the reason.
    pub(crate) stuck: Mutex<HashMap<OperationLogId, String>>,
}

impl Worker {
    /// Begins a run: enters it, claims its checkpoint, and lets it go on in the background.
    ///
    /// # Errors
    /// Why it cannot begin. The operation log has it as failed then. A run that has time and may
    /// begin later is no error.
    pub(crate) async fn start(self: &Arc<Self>, run: Run) -> Result<(), BeginError> {
        self.begin(run, None).await
    }

    /// Begins the run of a readback, which is recorded as in progress with it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) async fn start_readback(
        self: &Arc<Self>,
        run: Run,
        record: &Readback,
    ) -> Result<(), BeginError> {
        self.begin(run, Some(record)).await
    }

    async fn begin(
        self: &Arc<Self>,
        run: Run,
        record: Option<&Readback>,
    ) -> Result<(), BeginError> {
        let provider = self
            .ground
            .providers
            .get(run.checkpoint.provider_id)?
            .clone();
        let hooks = self.hooks(&run, &provider)?;
        self.enter(&run, record).await?;
        let mut lease = match self.claim(&run, &provider).await {
            Ok(lease) => lease,
            Err(error) if self.may_wait(&run, &error) => {
                self.begin_later(run, error.into());
                return Ok(());
            }
            // Somebody else may be at work on the checkpoint: the bank is left alone.
            Err(error) => {
                let failed = Conclusion::failed(error.error.message.clone());
                self.refuse(&run, &failed, Some(&failed)).await;
                return Err(error.logged());
            }
        };
        match self.prepare(&run, &provider, &mut lease).await {
            Ok(()) => {
                self.spawn(run, provider, hooks, lease);
                Ok(())
            }
            Err(error) if self.may_wait(&run, &error) => {
                release(lease).await;
                self.begin_later(run, error.into());
                Ok(())
            }
            Err(error) => {
                let failed = Conclusion::failed(error.error.message.clone());
                let told = conclude_in_bank(&self.ground, &run, &provider, &failed).await;
                release(lease).await;
                self.refuse(&run, &failed, told.ok().as_ref()).await;
                Err(error.logged())
            }
        }
    }

    /// Prepares the bank for a run while its claims are kept.
    async fn prepare(
        &self,
        run: &Run,
        provider: &Provider,
        claims: &mut [CheckpointLease],
    ) -> Result<(), BeginError> {
        let prepared = rules(run.operation).prepare(&self.ground, run, provider);
        let clock = self.ground.clock.as_ref();
        let prepared = CheckpointLease::during(claims, clock, prepared).await;
        prepared.unwrap_or_else(|| Err(ApiError::unavailable(LOST, run.id).into()))
    }

    /// Writes the run down, with the record of a readback, and if the quota of its project allows it.
    async fn enter(&self, run: &Run, record: Option<&Readback>) -> Result<(), BeginError> {
        let (flow, runs) = (self.flow_record(run)?, &self.ground.runs);
        if let Some(record) = record {
            return match runs.readback_begin(record, &flow).await? {
                Entered::Now => Ok(()),
                Entered::Before => Err(BeginError::known(format!("{} goes on.", run.id))),
                Entered::Ended(_) => Err(BeginError::ended(run.log)),
                Entered::OfAnother => Err(id_of_another(record)),
            };
        }
        let entered = match rules(run.operation).reserved(run) {
            Some(holding) => {
                runs.flow_create_holding(&flow, &holding, &self.quotas)
                    .await
            }
            None => runs.flow_create(&flow).await,
        };
        entered.map_err(|error| match error {
            DbError::Conflict { message, .. } => BeginError::known(message),
            other => other.into(),
        })
    }

    /// A run that could not begin: its records say so at once. What it has left in the bank is not in progress
    /// for ever: without `told`, what the bank was told, the run stays open until the bank can be told.
    async fn refuse(self: &Arc<Self>, run: &Run, failed: &Conclusion, told: Option<&Conclusion>) {
        let recorded = self.record_end(run, told.unwrap_or(failed)).await;
        let closed = match (&recorded, told) {
            (Ok(()), Some(told)) => self.close(run, told).await,
            (Ok(()), None) => Err(ApiError::unavailable(
                "The bank cannot be told yet that the operation did not begin.",
                run.id,
            )),
            (Err(error), _) => Err(error.clone()),
        };
        let Err(error) = closed else {
            return;
        };
        tracing::error!(run = %run.id, ?error, "a run that could not begin is not closed yet");
        // Left open, a restart would carry out what was refused.
        self.close_later(run, failed.clone(), recorded.is_ok());
    }

    fn hooks(&self, run: &Run, provider: &Arc<Provider>) -> Result<Arc<RunHooks>, ApiError> {
        let mut plan = plan(&run.graph()?, run.operation).map_err(ApiError::invalid_input)?;
        if rules(run.operation).goes_on() {
            plan = plan.going_on();
        }
        Ok(Arc::new(RunHooks::new(
            run.clone(),
            Arc::new(plan),
            provider,
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

    /// Is an `error` at the begin of a run worth another try? What a schedule asked to read back has all the time: its
    /// window was for the asking.
    fn may_wait(&self, run: &Run, error: &BeginError) -> bool {
        let is_scheduled = run.context.scheduled_operation_id.is_some();
        let has_time = match run.begin_before {
            Some(_) => run.late(self.ground.clock.now()).is_none(),
            None => is_scheduled && run.readback().is_some(),
        };
        has_time && error.error.kind.is_retryable()
    }

    /// Waits, unless the service stops: then the run stays as it is, for the next start.
    async fn wait_or_stop(&self, delay: Duration) -> bool {
        tokio::select! {
            () = self.ground.clock.sleep(delay) => false,
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

    pub(crate) fn running(&self) -> std::sync::MutexGuard<'_, HashMap<OperationLogId, AtWork>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn release(claims: Vec<CheckpointLease>) {
    for claim in claims {
        claim.release().await;
    }
}
