//! A protection manager that keeps checkpoints in memory, does as the test says, and outlives every
//! engine.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use karbor_db::{Db, DbError, FlowRecord};
use karbor_interfaces::ProtectionApi;
use karbor_manager::Clock;
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointPlan, CheckpointProperties,
    CheckpointStatus, FlowStatus, OperationId, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, Plan, ProtectableInstance, ProtectableType, Provider, ProviderId, Readback,
    ReadbackStatus, RequestContext, Resource,
};
use karbor_testkit::FakeClock;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

type Answer<T> = Result<T, ApiError>;

/// Where a call can be made to hang for ever, as far as the caller can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    BeforeProtect,
    AfterProtect,
    AfterDelete,
}

#[derive(Default)]
pub struct State {
    pub checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    pub by_operation: BTreeMap<OperationId, CheckpointId>,
    /// Who asked for each checkpoint, in order.
    pub asked: Vec<(RequestContext, CheckpointProperties)>,
    pub deleted: Vec<CheckpointId>,
    pub verified: Vec<Readback>,
    pub hang: Option<Hang>,
    /// Checkpoints stay `protecting`.
    pub slow: bool,
    /// What protect answers, once for each.
    pub refusals: Vec<ApiError>,
    /// Checkpoints and verifications end badly.
    pub bad: bool,
    /// The bank is away: no checkpoint can be looked at.
    pub away: bool,
    /// So often protect panics.
    pub panics: usize,
    /// How often protect was called.
    pub calls: usize,
    /// So much time passes before protect answers, and the answer is lost.
    pub lost_after: Option<Duration>,
}

pub struct Fake {
    pub db: Db,
    pub clock: FakeClock,
    pub state: Mutex<State>,
    pub hung: Notify,
}

impl Fake {
    pub fn new(db: Db, clock: FakeClock) -> Arc<Self> {
        Arc::new(Self {
            db,
            clock,
            state: Mutex::default(),
            hung: Notify::new(),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn hang_at(&self, here: Hang) {
        if self.state().hang == Some(here) {
            self.hung.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// A checkpoint of the plan that was made so many days ago.
    pub fn add(&self, plan: &Plan, days: i64, extra_info: Value) -> CheckpointId {
        let id = CheckpointId::new();
        let made = self.clock.now() - chrono::TimeDelta::days(days);
        let checkpoint = Checkpoint {
            version: "0.9".to_owned(),
            id,
            status: CheckpointStatus::Available,
            owner_id: String::new(),
            provider_id: plan.provider_id,
            project_id: plan.project_id.clone(),
            protection_plan: CheckpointPlan {
                id: plan.id,
                name: plan.name.clone(),
                provider_id: plan.provider_id,
                resources: Vec::new(),
            },
            extra_info: Some(Value::from(extra_info.to_string())),
            created_at: Some(made.date_naive()),
            timestamp: made.timestamp(),
            resource_graph: None,
            seal: None,
        };
        self.state().checkpoints.insert(id, checkpoint);
        id
    }

    pub fn settle(&self, status: CheckpointStatus) {
        for checkpoint in self.state().checkpoints.values_mut() {
            if checkpoint.status == CheckpointStatus::Protecting {
                checkpoint.status = status;
            }
        }
    }

    pub fn status(&self, id: CheckpointId) -> CheckpointStatus {
        self.state().checkpoints[&id].status
    }

    /// As the real one: the record with the id that was asked for is there first.
    async fn record(&self, id: OperationId, plan: &Plan, checkpoint: CheckpointId) -> Answer<()> {
        let status = match self.state().bad {
            true => OperationLogStatus::Failed,
            false => OperationLogStatus::Success,
        };
        let log = OperationLog {
            id: OperationLogId(id.0),
            project_id: plan.project_id.clone(),
            operation_type: OperationType::Protect,
            checkpoint_id: Some(checkpoint),
            plan_id: Some(plan.id),
            provider_id: Some(plan.provider_id),
            readback_id: None,
            scheduled_operation_id: None,
            status,
            started_at: self.clock.now(),
            ended_at: None,
            error_info: None,
            extra_info: None,
        };
        match self.db.runs().operation_log_create(&log).await {
            Ok(()) => Ok(()),
            Err(DbError::Conflict { .. }) => Err(ApiError::conflict("OperationEnded", "ended")),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl ProtectionApi for Fake {
    async fn protect(
        &self,
        context: &RequestContext,
        plan: Plan,
        properties: CheckpointProperties,
    ) -> Answer<CheckpointId> {
        self.state().calls += 1;
        self.hang_at(Hang::BeforeProtect).await;
        let panics = self.state().panics;
        if panics > 0 {
            self.state().panics = panics - 1;
            panic!("off by one");
        }
        if let Some(refusal) = self.state().refusals.pop() {
            return Err(refusal);
        }
        let operation = properties.operation_id.unwrap();
        let known = self.state().by_operation.get(&operation).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let said = properties.extra_info.as_ref().and_then(Value::as_str);
                let id = self.add(&plan, 0, serde_json::from_str(said.unwrap()).unwrap());
                self.record(operation, &plan, id).await?;
                let mut state = self.state();
                let status = match (state.slow, state.bad) {
                    (true, _) => CheckpointStatus::Protecting,
                    (false, true) => CheckpointStatus::Error,
                    (false, false) => CheckpointStatus::Available,
                };
                state.checkpoints.get_mut(&id).unwrap().status = status;
                state.by_operation.insert(operation, id);
                state.asked.push((context.clone(), properties));
                id
            }
        };
        self.hang_at(Hang::AfterProtect).await;
        if let Some(time) = self.state().lost_after.take() {
            self.clock.turn(time);
            return Err(ApiError::unavailable("No answer came.", "test"));
        }
        Ok(id)
    }

    async fn verification(&self, context: &RequestContext, verification: Readback) -> Answer<()> {
        self.read_back(context, OperationType::Verify, verification)
            .await
    }

    async fn read_back(
        &self,
        _: &RequestContext,
        operation: OperationType,
        readback: Readback,
    ) -> Answer<()> {
        let verification = Readback {
            operation,
            ..readback
        };
        let id = verification.id;
        let flow = FlowRecord {
            operation_id: OperationId(id.0),
            operation_type: operation,
            host: "fake".to_owned(),
            payload: Value::Null,
            status: FlowStatus::Running,
        };
        self.db.runs().readback_begin(&verification, &flow).await?;
        let to = match self.state().bad {
            true => ReadbackStatus::Fail,
            false => ReadbackStatus::Success,
        };
        self.state().verified.push(verification);
        let none = BTreeMap::new();
        self.db
            .runs()
            .readback_end(operation, id, to, &none, &none)
            .await?;
        Ok(())
    }

    async fn delete(
        &self,
        context: &RequestContext,
        _: ProviderId,
        id: CheckpointId,
    ) -> Answer<()> {
        {
            let mut state = self.state();
            let checkpoint = state
                .checkpoints
                .get_mut(&id)
                .ok_or_else(|| ApiError::not_found("Checkpoint", id))?;
            assert!(context.may_access(&checkpoint.project_id));
            if checkpoint.status != CheckpointStatus::Available {
                return Err(ApiError::conflict("CheckpointNotBeDeleted", "deleted"));
            }
            checkpoint.status = CheckpointStatus::Deleted;
            state.deleted.push(id);
        }
        self.hang_at(Hang::AfterDelete).await;
        Ok(())
    }

    async fn show_checkpoint(
        &self,
        _: &RequestContext,
        _: ProviderId,
        id: CheckpointId,
    ) -> Answer<Checkpoint> {
        let state = self.state();
        if state.away {
            return Err(ApiError::unavailable("The bank is away.", "test"));
        }
        let found = state.checkpoints.get(&id).cloned();
        found.ok_or_else(|| ApiError::not_found("Checkpoint", id))
    }

    async fn list_checkpoints(
        &self,
        context: &RequestContext,
        _: ProviderId,
        marker: Option<CheckpointId>,
        _: Option<usize>,
        _: Vec<String>,
        _: Vec<String>,
        _: BTreeMap<String, String>,
        _: bool,
    ) -> Answer<Vec<Checkpoint>> {
        assert_eq!(marker, None, "one page is enough");
        let state = self.state();
        let all = state.checkpoints.values();
        Ok(all
            .filter(|one| context.may_access(&one.project_id))
            .cloned()
            .collect())
    }

    async fn show_provider(&self, _: &RequestContext, id: ProviderId) -> Answer<Provider> {
        let with_level = json!({"properties": {"level": {}}});
        let Value::Object(extended_info_schema) = json!({
            "verify_schema": {"Host::Directory": with_level, "Host::Plain": {"properties": {}}},
        }) else {
            unreachable!()
        };
        Ok(Provider {
            id,
            name: String::new(),
            description: String::new(),
            extended_info_schema: Arc::new(extended_info_schema),
        })
    }

    async fn restore(
        &self,
        _: &RequestContext,
        _: Readback,
        _: Option<Map<String, Value>>,
    ) -> Answer<()> {
        unreachable!()
    }

    async fn copy(&self, _: &RequestContext, _: Plan) -> Answer<Vec<CheckpointCopy>> {
        unreachable!()
    }

    async fn accept_checkpoint(
        &self,
        _: &RequestContext,
        _: ProviderId,
        _: CheckpointId,
    ) -> Answer<()> {
        unreachable!()
    }

    async fn reset_state(
        &self,
        _: &RequestContext,
        _: ProviderId,
        _: CheckpointId,
        _: String,
    ) -> Answer<()> {
        unreachable!()
    }

    async fn list_protectable_types(&self, _: &RequestContext) -> Answer<Vec<String>> {
        unreachable!()
    }

    async fn show_protectable_type(
        &self,
        _: &RequestContext,
        _: String,
    ) -> Answer<ProtectableType> {
        unreachable!()
    }

    async fn list_protectable_instances(
        &self,
        _: &RequestContext,
        _: String,
        _: Option<String>,
        _: Option<usize>,
        _: Vec<String>,
        _: Vec<String>,
        _: BTreeMap<String, String>,
        _: Option<Map<String, Value>>,
    ) -> Answer<Vec<ProtectableInstance>> {
        unreachable!()
    }

    async fn show_protectable_instance(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
        _: Option<Map<String, Value>>,
    ) -> Answer<Option<Resource>> {
        unreachable!()
    }

    async fn list_protectable_dependents(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
        _: String,
    ) -> Answer<Vec<Resource>> {
        unreachable!()
    }

    async fn list_providers(
        &self,
        _: &RequestContext,
        _: Option<ProviderId>,
        _: Option<usize>,
        _: Vec<String>,
        _: Vec<String>,
        _: BTreeMap<String, String>,
    ) -> Answer<Vec<Provider>> {
        unreachable!()
    }

    async fn cancel_operation(&self, _: &RequestContext, _: OperationLogId) -> Answer<()> {
        unreachable!()
    }

    async fn record_operation(&self, _: &RequestContext, log: OperationLog) -> Answer<bool> {
        match self.db.runs().operation_log_create(&log).await {
            Ok(()) => Ok(true),
            Err(DbError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn await_operation(
        &self,
        _: &RequestContext,
        id: OperationLogId,
        _: u64,
    ) -> Answer<OperationLog> {
        Ok(self.db.runs().operation_log_get(id).await?)
    }
}
