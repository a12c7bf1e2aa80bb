//! A services table in memory that can be made to fail, and a harness to run services with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_manager::{
    Clock, Config, InProcess, Manager, ManagerBase, OPTIONS, RunningService, Service,
    ServiceOptions, ServiceStore, TaskReport,
};
use karbor_model::{ApiError, ServiceRecord};

use crate::FakeClock;

/// How the table answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreMode {
    /// As it should.
    #[default]
    Up,
    /// With `Unavailable`.
    Down,
    /// Never.
    Hanging,
    /// With a panic.
    Panicking,
}

/// The services table. Cheap to clone; clones are the same table.
#[derive(Clone)]
pub struct MemoryServices {
    clock: FakeClock,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    mode: StoreMode,
    latency: Duration,
    next: i64,
    rows: BTreeMap<i64, ServiceRecord>,
    reports: BTreeMap<(i64, String), TaskReport>,
    heartbeats: Vec<DateTime<Utc>>,
    reports_saved: usize,
}

impl MemoryServices {
    /// An empty table.
    #[must_use]
    pub fn new(clock: FakeClock) -> Self {
        Self {
            clock,
            table: Arc::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(clippy::panic, reason = "that is what the mode is for")]
    async fn reach(&self) -> Result<MutexGuard<'_, Table>, ApiError> {
        let (mode, latency) = {
            let table = self.table();
            (table.mode, table.latency)
        };
        if !latency.is_zero() {
            self.clock.sleep(latency).await;
        }
        match mode {
            StoreMode::Panicking => panic!("a driver's bug (by the test)"),
            StoreMode::Up => Ok(self.table()),
            StoreMode::Down => Err(ApiError::unavailable(
                "The database is away; try again.",
                "connection refused (by the test)",
            )),
            StoreMode::Hanging => std::future::pending().await,
        }
    }

    /// How it answers from now on.
    pub fn set_mode(&self, mode: StoreMode) {
        self.table().mode = mode;
    }

    /// How long every request takes from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.table().latency = latency;
    }

    /// Every row.
    #[must_use]
    pub fn rows(&self) -> Vec<ServiceRecord> {
        self.table().rows.values().cloned().collect()
    }

    /// Removes a row behind the service's back.
    pub fn remove(&self, id: i64) {
        self.table().rows.remove(&id);
    }

    /// How often a task's report was kept.
    #[must_use]
    pub fn reports_saved(&self) -> usize {
        self.table().reports_saved
    }

    /// When heartbeats came, of all services.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<DateTime<Utc>> {
        self.table().heartbeats.clone()
    }
}

#[async_trait]
impl ServiceStore for MemoryServices {
    async fn register(
        &self,
        host: &str,
        binary: &str,
        topic: &str,
    ) -> Result<ServiceRecord, ApiError> {
        let mut table = self.reach().await?;
        let same = |row: &&ServiceRecord| row.host == host && row.binary == binary;
        if let Some(row) = table.rows.values().find(same) {
            return Ok(row.clone());
        }
        table.next += 1;
        let row = ServiceRecord {
            id: table.next,
            host: host.to_owned(),
            binary: binary.to_owned(),
            topic: topic.to_owned(),
            report_count: 0,
            disabled: false,
            disabled_reason: None,
            created_at: self.clock.now(),
            updated_at: None,
        };
        table.rows.insert(row.id, row.clone());
        Ok(row)
    }

    async fn report(&self, id: i64, at: DateTime<Utc>) -> Result<(), ApiError> {
        let mut table = self.reach().await?;
        let row = table
            .rows
            .get_mut(&id)
            .ok_or_else(|| ApiError::not_found("Service", id))?;
        row.report_count += 1;
        row.updated_at = Some(at);
        table.heartbeats.push(at);
        Ok(())
    }

    async fn save_task_report(&self, service_id: i64, report: &TaskReport) -> Result<(), ApiError> {
        let key = (service_id, report.name.clone());
        let mut table = self.reach().await?;
        table.reports_saved += 1;
        table.reports.insert(key, report.clone());
        Ok(())
    }

    async fn task_reports(&self, service_id: i64) -> Result<Vec<TaskReport>, ApiError> {
        let table = self.reach().await?;
        let of_service = table
            .reports
            .iter()
            .filter(|((id, _), _)| *id == service_id);
        Ok(of_service.map(|(_, report)| report.clone()).collect())
    }
}

/// All that a service needs, in memory and on a [`FakeClock`].
pub struct ServiceHarness {
    /// The clock.
    pub clock: FakeClock,
    /// The services table.
    pub store: MemoryServices,
    /// RPC.
    pub transport: InProcess,
    /// How services are started: as by default, but without a fuzzy delay.
    pub options: ServiceOptions,
}

impl ServiceHarness {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        let clock = FakeClock::new();
        Self {
            store: MemoryServices::new(clock.clone()),
            transport: InProcess::with_clock(clock.shared()),
            clock,
            options: ServiceOptions {
                periodic_fuzzy_delay: Duration::ZERO,
                ..ServiceOptions::default()
            },
        }
    }

    /// What a manager on `host` embeds, with the default configuration.
    ///
    /// # Errors
    /// None: the defaults are good.
    pub fn base<D>(&self, host: &str, db: D) -> Result<ManagerBase<D>, ApiError> {
        let config = Config::builder().options(OPTIONS).build()?;
        let host = Some(host.to_owned());
        Ok(ManagerBase::new(host, db, config, self.clock.shared()))
    }

    /// Wraps `manager` and starts the service.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn start<M: Manager>(&self, manager: &Arc<M>) -> Result<RunningService<M>, ApiError> {
        Service::new(
            manager.clone(),
            self.options.clone(),
            Arc::new(self.store.clone()),
            Arc::new(self.transport.clone()),
        )
        .start()
        .await
    }
}

impl Default for ServiceHarness {
    fn default() -> Self {
        Self::new()
    }
}
