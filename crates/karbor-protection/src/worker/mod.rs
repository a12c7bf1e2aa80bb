//! The worker: begins runs, carries them out, ends them, and goes on with those that a crash left.
//!
//! The order of writes is what makes a run survive anything. The flow record comes first; whatever
//! follows (`claim`, `prepare`, the hooks, `conclude`) may be repeated. A run that has time to begin is tried
//! again while the bank or the database is away. The flow record is closed last. So a
//! run is either not there, or there and unfinished and will be taken up again, or closed with
//! every other record telling how it ended.

mod begin;
mod carry;
mod copies;
mod record;
mod resume;
mod turns;

pub(crate) use turns::Slots;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use karbor_db::{Db, DbError, FlowRecord, QuotaDefaults};
use karbor_flow::{Executor, FlowTime, plan};
use karbor_manager::{Clock, TaskSet};
use karbor_model::{ApiError, FlowStatus, OperationLogId};
use tokio_util::sync::CancellationToken;

use crate::{
    conclude::{Conclusion, conclude_in_bank},
    hooks::RunHooks,
    keys::MasterKey,
    leases::CheckpointLease,
    providers::{Provider, Providers},
    quota,
    run::Run,
};

/// How long to wait before trying again to write down how a run goes: at first, and at most.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Class of the error that a run was entered before.
pub(crate) const KNOWN: &str = "OperationKnown";

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
    pub(crate) quotas: QuotaDefaults,
    pub(crate) executor: Executor,
    /// How much less a resource may hold than before.
    pub(crate) suspicious_share: f64,
    /// How many runs may be at work.
    pub(crate) slots: Slots,
    pub(crate) running: Mutex<HashMap<OperationLogId, CancellationToken>>,
    /// Runs that wait because what they must write cannot be written, with the reason.
    pub(crate) stuck: Mutex<HashMap<OperationLogId, String>>,
}

impl Worker {
    /// Begins a run: enters it, claims its checkpoint, and lets it go on in the background.
    ///
    /// # Errors
    /// Why it cannot begin. The operation log has it as failed then. A run that has time and may
    /// begin later is no error.
    pub(crate) async fn start(self: &Arc<Self>, run: Run) -> Result<(), ApiError> {
        let provider = self.providers.get(run.checkpoint.provider_id)?.clone();
        let hooks = self.hooks(&run, &provider)?;
        self.enter(&run).await?;
        let lease = match self.claim(&run, &provider).await {
            Ok(lease) => lease,
            Err(error) if run.may_wait(&error, self.clock.now()) => {
                self.begin_later(run, error);
                return Ok(());
            }
            // Somebody else may be at work on the checkpoint: the bank is left alone.
            Err(error) => {
                let failed = Conclusion::failed(error.message.clone());
                self.refuse(&run, &failed, Some(&failed)).await;
                return Err(logged(error));
            }
        };
        match self.prepare(&run, &provider).await {
            Ok(()) => {
                self.spawn(run, provider, hooks, lease);
                Ok(())
            }
            Err(error) if run.may_wait(&error, self.clock.now()) => {
                release(lease).await;
                self.begin_later(run, error);
                Ok(())
            }
            Err(error) => {
                let failed = Conclusion::failed(error.message.clone());
                let told = conclude_in_bank(&run, &provider, &failed, self.suspicious_share).await;
                release(lease).await;
                self.refuse(&run, &failed, told.ok().as_ref()).await;
                Err(logged(error))
            }
        }
    }

    /// Writes the run down, if the quota of its project allows it.
    async fn enter(&self, run: &Run) -> Result<(), ApiError> {
        let flow = self.flow_record(run)?;
        let entered = match quota::reserved(run) {
            Some(holding) => {
                self.db
                    .flow_create_holding(&flow, &holding, &self.quotas)
                    .await
            }
            None => self.db.flow_create(&flow).await,
        };
        entered.map_err(|error| match error {
            DbError::Conflict { message, .. } => ApiError::conflict(KNOWN, message),
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
        let plan = plan(&run.graph()?, run.operation).map_err(ApiError::invalid_input)?;
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

/// The operation log has the error already.
fn logged(error: ApiError) -> ApiError {
    ApiError {
        is_logged: true,
        ..error
    }
}

async fn release(claims: Vec<CheckpointLease>) {
    for claim in claims {
        claim.release().await;
    }
}
