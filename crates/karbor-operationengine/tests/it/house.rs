//! Engines around one database, on one clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_db::{Db, ListQuery};
use karbor_interfaces::OperationEngineApi;
use karbor_manager::{
    Clock, Config, InProcess, ManagerBase, RunningService, Service, ServiceOptions,
};
use karbor_model::{
    ApiError, ErrorKind, OperationLog, OperationLogStatus, Plan, PlanId, PlanStatus, ProviderId,
    RequestContext, ScheduledOperation, ScheduledOperationId, ScheduledOperationType, Trigger,
    TriggerId,
};
use karbor_operationengine::{EngineStores, OPTIONS, OperationEngineManager, OwnerContexts};
use karbor_testkit::FakeClock;
use serde_json::json;

use crate::fake::Fake;

pub const PROJECT: &str = "p1";
pub const USER: &str = "owner";

pub type Engine = RunningService<OperationEngineManager>;

/// Owners of whom the test may make an end.
#[derive(Default)]
pub struct Owners {
    pub gone: std::sync::atomic::AtomicBool,
    /// The service is configured so that it can act for nobody.
    pub misconfigured: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl OwnerContexts for Owners {
    async fn context(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<RequestContext, ApiError> {
        if self.gone.load(std::sync::atomic::Ordering::Relaxed) {
            let trust = trust_id.unwrap_or("?");
            return Err(ApiError::forbidden(
                "TrustGone",
                format!("The trust {trust} is gone."),
            ));
        }
        if self
            .misconfigured
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return Err(ApiError::new(
                ErrorKind::Internal,
                "NoTrustee",
                "The service has no user to take trusts.",
            ));
        }
        Ok(RequestContext::for_project(
            &operation.user_id,
            &operation.project_id,
            false,
        ))
    }
}

pub struct House {
    folder: tempfile::TempDir,
    pub clock: FakeClock,
    pub db: Db,
    pub fake: Arc<Fake>,
    pub owners: Arc<Owners>,
    pub plan: Plan,
}

impl House {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = FakeClock::new();
        let db = Self::open(&folder, &clock).await;
        db.migrate().await.unwrap();
        let plan = plan(PROJECT);
        db.plans().create(&plan).await.unwrap();
        Self {
            fake: Fake::new(db.clone(), clock.clone()),
            folder,
            clock,
            db,
            owners: Arc::default(),
            plan,
        }
    }

    async fn open(folder: &tempfile::TempDir, clock: &FakeClock) -> Db {
        let db = Db::open(&folder.path().join("karbor.db")).await.unwrap();
        db.with_clock(clock.shared())
    }

    /// An engine of its own, as another process would have it.
    pub async fn engine(&self, host: &str) -> Engine {
        let config = Config::builder()
            .options(karbor_manager::service::OPTIONS)
            .options(OPTIONS)
            .set("DEFAULT", "min_interval", "2".to_owned())
            .set("DEFAULT", "min_window_time", "0".to_owned())
            .set("DEFAULT", "max_window_time", "1".to_owned())
            .build()
            .unwrap();
        let db = Self::open(&self.folder, &self.clock).await;
        let base = ManagerBase::new(
            Some(host.to_owned()),
            EngineStores {
                schedules: db.schedules(),
                plans: db.plan_views(),
                runs: db.run_views(),
                services: db.service_views(),
                announcements: db.announcements(),
            },
            config,
            self.clock.shared(),
        );
        let manager =
            OperationEngineManager::new(base, self.fake.clone(), self.owners.clone()).unwrap();
        let transport = InProcess::with_clock(self.clock.shared());
        let options = ServiceOptions {
            periodic_fuzzy_delay: Duration::ZERO,
            ..ServiceOptions::default()
        };
        Service::new(
            Arc::new(manager),
            options,
            Arc::new(db.services()),
            Arc::new(transport),
        )
        .start()
        .await
        .unwrap()
    }

    /// A trigger that fires every hour, with a window of a quarter of one.
    pub async fn hourly(&self) -> Trigger {
        let trigger = Trigger {
            id: TriggerId::new(),
            name: "hourly".to_owned(),
            project_id: PROJECT.to_owned(),
            trigger_type: "time".to_owned(),
            properties: properties("0 * * * *", 900),
            created_at: Some(self.clock.now()),
            updated_at: None,
        };
        self.db.schedules().trigger_create(&trigger).await.unwrap();
        trigger
    }

    pub fn operation(
        &self,
        trigger: &Trigger,
        operation_type: ScheduledOperationType,
        more: &[(&str, &str)],
    ) -> ScheduledOperation {
        let mut definition = BTreeMap::from([
            ("plan_id".to_owned(), self.plan.id.to_string()),
            ("provider_id".to_owned(), self.plan.provider_id.to_string()),
        ]);
        for (key, value) in more {
            definition.insert((*key).to_owned(), (*value).to_owned());
        }
        ScheduledOperation {
            id: ScheduledOperationId::new(),
            name: "n".to_owned(),
            description: None,
            operation_type,
            user_id: USER.to_owned(),
            project_id: PROJECT.to_owned(),
            trigger_id: trigger.id,
            operation_definition: definition,
            enabled: true,
            created_at: self.clock.now(),
            updated_at: None,
        }
    }

    pub async fn recorded(&self, operation: &ScheduledOperation, trust: Option<&str>) {
        let schedules = self.db.schedules();
        let recorded = schedules.operation_create(operation, trust);
        recorded.await.unwrap();
    }

    /// As the API does it: recorded, and then taken on by an engine.
    pub async fn take_on(&self, engine: &Engine, operation: &ScheduledOperation) {
        let trust = Some("trust-1".to_owned());
        self.recorded(operation, trust.as_deref()).await;
        let context = RequestContext::for_project(USER, PROJECT, false);
        engine
            .manager()
            .create_scheduled_operation(&context, operation.clone(), trust)
            .await
            .unwrap();
    }

    /// An hourly operation.
    pub async fn scheduled(
        &self,
        engine: &Engine,
        operation_type: ScheduledOperationType,
        more: &[(&str, &str)],
    ) -> ScheduledOperation {
        let trigger = self.hourly().await;
        let operation = self.operation(&trigger, operation_type, more);
        self.take_on(engine, &operation).await;
        let context = RequestContext::admin();
        engine
            .manager()
            .create_trigger(&context, trigger)
            .await
            .unwrap();
        let planned = async || self.db.schedules().next_execution().await.unwrap();
        until(planned).await;
        operation
    }

    /// The clock goes on in steps, as engines want to do something in between.
    pub async fn pass(&self, seconds: u64) {
        for _ in 0..seconds.div_ceil(10) {
            self.clock.turn(Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn logs(&self) -> Vec<OperationLog> {
        let logs = self
            .db
            .runs()
            .operation_log_list(&ListQuery::of_every_project())
            .await;
        logs.unwrap()
    }

    /// Reasons of records with this status, once there is one.
    pub async fn reason(&self, status: OperationLogStatus) -> String {
        until(async || {
            self.clock.turn(Duration::from_secs(1));
            let logs = self.logs().await;
            let log = logs.into_iter().find(|log| log.status == status)?;
            Some(log.error_info.unwrap_or_default())
        })
        .await
    }

    /// How the ended runs ended, in the original's words, once there are so many.
    pub async fn ended(&self, count: usize) -> Vec<String> {
        until(async || {
            self.clock.turn(Duration::from_millis(500));
            let raw = self.raw();
            let mut query = raw
                .prepare("SELECT state FROM scheduled_operation_logs ORDER BY id")
                .unwrap();
            let states: Vec<String> = query
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            (states.len() >= count).then_some(states)
        })
        .await
    }

    /// The database, behind everybody's back.
    pub fn raw(&self) -> rusqlite::Connection {
        let raw = rusqlite::Connection::open(self.folder.path().join("karbor.db")).unwrap();
        raw.busy_timeout(Duration::from_secs(60)).unwrap();
        raw
    }

    /// Is any run an engine's?
    pub fn running(&self) -> bool {
        let raw = self.raw();
        let query = "SELECT count(*) FROM scheduled_runs WHERE status = 'running'";
        raw.query_row(query, [], |row| row.get::<_, i64>(0))
            .unwrap()
            > 0
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }
}

pub fn properties(pattern: &str, window: u32) -> serde_json::Map<String, serde_json::Value> {
    let properties = json!({
        "format": "crontab",
        "pattern": pattern,
        "start_time": "2026-01-01 00:00:00",
        "window": window.to_string(),
    });
    properties.as_object().unwrap().clone()
}

pub fn plan(project: &str) -> Plan {
    Plan {
        id: PlanId::new(),
        name: "plan".to_owned(),
        description: None,
        provider_id: ProviderId::new(),
        project_id: project.to_owned(),
        status: PlanStatus::Suspended,
        parameters: BTreeMap::new(),
        resources: Vec::new(),
        created_at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
        updated_at: None,
    }
}

/// Waits for what comes of itself.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..5000 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not come");
}
