//! The operation engine's manager.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use karbor_db::DbError;
use karbor_interfaces::{OperationEngineApi, OperationEngineEndpoint, ProtectionApi};
use karbor_manager::{
    Health, Manager, ManagerBase, PeriodicTask, PeriodicTasks, TaskOutcome, TaskReport,
    rpc::{RpcEndpoint, RpcVersion},
};
use karbor_model::{
    ApiError, OperationId, RequestContext, ScheduledOperation, ScheduledOperationId, ServiceRecord,
    Trigger, TriggerId,
};
use tokio::sync::Notify;

use crate::{
    clock::{ClockReading, Watch},
    ends::Ends,
    engine::{Counters, Engine, EngineReport, EngineStores, Settings, lock},
    owners::OwnerContexts,
    schedule::Schedule,
};

/// How often the report is made, in seconds.
const REPORT_SPACING: i64 = 60;

/// The periodic task that reports.
const REPORT: &str = "scheduled_operations";

/// The operation engine's manager.
pub struct OperationEngineManager {
    base: ManagerBase<EngineStores>,
    engine: Arc<Engine>,
}

impl OperationEngineManager {
    /// `base` brings host, stores, configuration and clock; `protection` is the manager itself or
    /// a client of it; `owners` makes the contexts that operations run in.
    ///
    /// # Errors
    /// A 500 when the configuration lacks one of [`OPTIONS`](crate::OPTIONS), or they do not fit
    /// together.
    pub fn new(
        base: ManagerBase<EngineStores>,
        protection: Arc<dyn ProtectionApi>,
        owners: Arc<dyn OwnerContexts>,
    ) -> Result<Self, ApiError> {
        let settings = Settings::from_config(base.config())?;
        let owner = format!("{}{}", owners_of(base.host()), OperationId::new());
        let schedules = base.db().schedules.clone();
        let engine = Engine {
            stores: base.db().clone(),
            clock: base.clock().clone(),
            tasks: base.tasks().clone(),
            protection,
            owners,
            ends: Ends::new(schedules, owner.clone(), settings.keep_logs),
            settings,
            host: base.host().to_owned(),
            watch: Mutex::new(Watch::new(base.clock().now(), base.clock().monotonic())),
            owner,
            service_id: Mutex::new(None),
            changed: Notify::new(),
            running: Mutex::new(HashMap::new()),
            trouble: Mutex::new(None),
            counters: Counters::default(),
        };
        Ok(Self {
            base,
            engine: Arc::new(engine),
        })
    }

    async fn set_enabled(
        &self,
        context: &RequestContext,
        id: ScheduledOperationId,
        enabled: bool,
    ) -> Result<(), ApiError> {
        let schedules = &self.base.db().schedules;
        schedules
            .asked_by(context)
            .operation_set_enabled(id, enabled)
            .await?;
        self.engine.changed.notify_one();
        Ok(())
    }
}

/// How it stood with the clock when an engine last reported.
fn clock_before(report: &TaskReport) -> Option<ClockReading> {
    let TaskOutcome::Ok { details } = &report.outcome else {
        return None;
    };
    let engine: EngineReport = serde_json::from_value(details.clone())
        .ok()
        .filter(|_| report.name == REPORT)?;
    engine.clock
}

/// What the names of all engines that ever ran on a host begin with.
fn owners_of(host: &str) -> String {
    format!("{host}/")
}

impl Manager for OperationEngineManager {
    type Db = EngineStores;

    const BINARY: &'static str = "karbor-operationengine";
    const TOPIC: &'static str = "karbor-operationengine";
    const RPC_API_VERSION: RpcVersion = OperationEngineEndpoint::VERSION;

    fn base(&self) -> &ManagerBase<EngineStores> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        vec![Arc::new(OperationEngineEndpoint::new(self.clone()))]
    }

    fn periodic_tasks(self: &Arc<Self>) -> PeriodicTasks<Self> {
        let report = |manager: Arc<Self>, _| async move { Ok(manager.engine.report()) };
        PeriodicTasks::new(self.base.clock().clone())
            .with(PeriodicTask::new(REPORT, report).spacing(REPORT_SPACING))
    }

    /// What an engine on this host had when it died need not wait for its lease to run out.
    async fn init_host(self: &Arc<Self>, service: &ServiceRecord) -> Result<(), ApiError> {
        *lock(&self.engine.service_id) = Some(service.id);
        let reports = self.base.db().services.task_reports(service.id).await?;
        let reported = reports.iter().find_map(clock_before);
        // One that was there for less than a report has left heartbeats.
        let beat = service.updated_at.map(|seen_at| ClockReading {
            seen_at,
            doubts: Vec::new(),
        });
        if let Some(before) = reported.or(beat) {
            lock(&self.engine.watch).go_on_from(&before);
        }
        let left = self
            .base
            .db()
            .schedules
            .runs_release(&owners_of(self.base.host()))
            .await?;
        if left > 0 {
            tracing::info!(left, "going on with scheduled runs that were begun before");
        }
        Ok(())
    }

    fn registered_again(self: &Arc<Self>, service: &ServiceRecord) {
        *lock(&self.engine.service_id) = Some(service.id);
        // Operations that the record before was needed for can be taken on now.
        self.engine.changed.notify_one();
    }

    async fn init_host_with_rpc(self: &Arc<Self>) -> Result<(), ApiError> {
        let (tasks, clock) = (self.base.tasks(), self.base.clock());
        let engine = self.engine.clone();
        tasks.supervise("scheduler", clock.clone(), move || {
            engine.clone().schedule()
        });
        let engine = self.engine.clone();
        tasks.supervise("leases", clock.clone(), move || {
            engine.clone().keep_leases()
        });
        Ok(())
    }

    async fn cleanup_host(self: &Arc<Self>) {
        if let Err(error) = self
            .base
            .db()
            .schedules
            .runs_release(&self.engine.owner)
            .await
        {
            tracing::warn!(%error, "scheduled runs are free when their leases end");
        }
    }

    fn is_working(&self) -> Health {
        match lock(&self.engine.trouble).clone() {
            None => Health::Working,
            Some(reason) => Health::NotWorking { reason },
        }
    }
}

#[async_trait]
impl OperationEngineApi for OperationEngineManager {
    async fn verify_trigger(&self, _: &RequestContext, trigger: Trigger) -> Result<(), ApiError> {
        if trigger.trigger_type != "time" {
            let reason = format!("Invalid trigger type:{}", trigger.trigger_type);
            return Err(ApiError::bad_request(reason));
        }
        let schedule = Schedule::parse(&trigger.properties, &self.engine.settings.limits)?;
        schedule.first_after(self.base.clock().now())?;
        Ok(())
    }

    async fn create_trigger(&self, _: &RequestContext, _: Trigger) -> Result<(), ApiError> {
        self.engine.changed.notify_one();
        Ok(())
    }

    async fn update_trigger(&self, _: &RequestContext, _: Trigger) -> Result<(), ApiError> {
        self.engine.changed.notify_one();
        Ok(())
    }

    async fn delete_trigger(&self, _: &RequestContext, _: TriggerId) -> Result<(), ApiError> {
        self.engine.changed.notify_one();
        Ok(())
    }

    async fn create_scheduled_operation(
        &self,
        _: &RequestContext,
        operation: ScheduledOperation,
        trust_id: Option<String>,
    ) -> Result<(), ApiError> {
        let trust_id = trust_id.as_deref();
        self.engine.take_on(&operation, trust_id).await
    }

    async fn delete_scheduled_operation(
        &self,
        _: &RequestContext,
        operation_id: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        let schedules = &self.base.db().schedules;
        match schedules.operation_set_enabled(operation_id, false).await {
            Ok(()) | Err(DbError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn suspend_scheduled_operation(
        &self,
        context: &RequestContext,
        operation_id: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        self.set_enabled(context, operation_id, false).await
    }

    async fn resume_scheduled_operation(
        &self,
        context: &RequestContext,
        operation_id: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        self.set_enabled(context, operation_id, true).await
    }
}
