//! What the tasks of an operation engine share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use karbor_db::{Announcements, PlanViews, RunViews, ScheduleStore, ServiceViews};
use karbor_interfaces::ProtectionApi;
use karbor_manager::{Clock, Config, TaskSet};
use karbor_model::{ApiError, OperationId};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{ClockReading, Watch},
    ends::Ends,
    owners::OwnerContexts,
    schedule::ScheduleLimits,
};

/// How many triggers, or runs, one transaction is about.
pub(crate) const BATCH: u64 = 500;

/// A lease that is renewed three times before it ends takes at least this.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// What an operation engine works with in the database.
#[derive(Debug, Clone)]
pub struct EngineStores {
    /// Schedules are its own.
    pub schedules: ScheduleStore,
    /// It reads the plans that schedules are about.
    pub plans: PlanViews,
    /// It reads what came of the operations that it asked for.
    pub runs: RunViews,
    /// It reads its own record.
    pub services: ServiceViews,
    /// It tells of a clock that was wrong.
    pub announcements: Announcements,
}

/// What an engine works with.
pub(crate) struct Engine {
    pub(crate) stores: EngineStores,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskSet,
    pub(crate) protection: Arc<dyn ProtectionApi>,
    pub(crate) owners: Arc<dyn OwnerContexts>,
    pub(crate) settings: Settings,
    /// The host it runs on.
    pub(crate) host: String,
    /// This engine's name in the database: its host, and which of the engines that ever ran there.
    pub(crate) owner: String,
    /// Its service's id, once it has one.
    pub(crate) service_id: Mutex<Option<i64>>,
    /// Something changed: what is due may be another.
    pub(crate) changed: Notify,
    /// Runs that this engine has, and how to stop each.
    pub(crate) running: Mutex<HashMap<OperationId, CancellationToken>>,
    /// How the ends of its runs are written down.
    pub(crate) ends: Ends,
    /// Why the last look into the database failed.
    pub(crate) trouble: Mutex<Option<String>>,
    /// What it knows of its clock.
    pub(crate) watch: Mutex<Watch>,
    pub(crate) counters: Counters,
}

/// What was configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) limits: ScheduleLimits,
    pub(crate) poll_interval: Duration,
    pub(crate) lease: Duration,
    /// How many logs of an operation are kept.
    pub(crate) keep_logs: u64,
}

impl Settings {
    pub(crate) fn from_config(config: &Config) -> Result<Self, ApiError> {
        let seconds = |group, name| config.seconds(group, name).map_err(ApiError::internal);
        let keep = config.int("DEFAULT", "retained_operation_log_number");
        Ok(Self {
            limits: ScheduleLimits::from_config(config)
                .map_err(|error| ApiError::bad_request(format!("The configuration: {error}.")))?,
            poll_interval: seconds("DEFAULT", "trigger_poll_interval")?.max(Duration::from_secs(1)),
            lease: seconds("operationengine", "lease_duration")?.max(SHORTEST_LEASE),
            keep_logs: u64::try_from(keep.map_err(ApiError::internal)?).unwrap_or(0),
        })
    }
}

/// What an engine has done since it started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fired: AtomicU64,
    pub(crate) begun: AtomicU64,
    pub(crate) adopted: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) missed: AtomicU64,
}

/// The report of the periodic task `scheduled_operations`: what this engine has done since it
/// started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineReport {
    /// Due times that it fired.
    pub fired: u64,
    /// Runs that it began.
    pub begun: u64,
    /// Runs that another engine had begun, and it went on with.
    pub adopted: u64,
    /// Runs that ended well.
    pub succeeded: u64,
    /// Runs that did not; the operation log says why.
    pub failed: u64,
    /// Records of missed runs that it made; one may stand for many runs.
    pub missed: u64,
    /// Runs that it has now.
    pub running: usize,
    /// What is to be known of the clock: the last jump, or what a wrong clock left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// How it stands with the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockReading>,
}

impl Engine {
    pub(crate) fn report(&self) -> EngineReport {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters {
            fired,
            begun,
            adopted,
            succeeded,
            failed,
            missed,
        } = &self.counters;
        let clock = self.clock_reading();
        let notice = lock(&self.watch).notice.clone();
        EngineReport {
            fired: count(fired),
            begun: count(begun),
            adopted: count(adopted),
            succeeded: count(succeeded),
            failed: count(failed),
            missed: count(missed),
            running: lock(&self.running).len(),
            notice,
            clock: Some(clock),
        }
    }

    /// Until when a lease that is taken or renewed now lasts.
    pub(crate) fn lease_until(&self) -> DateTime<Utc> {
        let lease = TimeDelta::from_std(self.settings.lease).unwrap_or_default();
        self.clock.now() + lease
    }

    /// Waits; says whether it is to stop instead.
    pub(crate) async fn wait_or_stop(&self, stop: &CancellationToken, delay: Duration) -> bool {
        tokio::select! {
            () = stop.cancelled() => true,
            () = self.clock.sleep(delay) => false,
        }
    }
}

/// Counts one up, or several.
pub(crate) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Locks, also when a holder panicked: what we guard is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
