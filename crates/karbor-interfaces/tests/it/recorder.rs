//! A protection manager that writes down what it is asked, and a transport that listens in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_interfaces::ProtectionApi;
use karbor_manager::{InProcess, RpcEndpoint, RpcServer, RpcTransport, Target, rpc::RpcArgs};
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointPlan, CheckpointProperties,
    CheckpointStatus, INDEX_VERSION, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, Parameters, Plan, PlanId, PlanStatus, ProtectableInstance, ProtectableType,
    Provider, ProviderId, Readback, ReadbackId, ReadbackStatus, RequestContext, Resource,
};
use serde_json::{Map, Value, json};

const ID: &str = "cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72";

pub fn provider_id() -> ProviderId {
    ID.parse().unwrap()
}

pub fn checkpoint_id() -> CheckpointId {
    ID.parse().unwrap()
}

pub fn operation_log_id() -> OperationLogId {
    ID.parse().unwrap()
}

pub fn operation_log() -> OperationLog {
    OperationLog {
        id: operation_log_id(),
        project_id: "p".to_owned(),
        operation_type: OperationType::Protect,
        checkpoint_id: None,
        plan_id: Some(ID.parse().unwrap()),
        provider_id: Some(provider_id()),
        readback_id: None,
        scheduled_operation_id: Some(ID.to_owned()),
        status: OperationLogStatus::Missed,
        started_at: noon(),
        ended_at: Some(noon()),
        error_info: Some("missed".to_owned()),
        extra_info: None,
    }
}

fn noon() -> DateTime<Utc> {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn parameters() -> Parameters {
    let options = serde_json::from_value(json!({"excludes": ["*.tmp"], "dry_run": true}));
    Parameters::from([("Host::Directory#i".to_owned(), options.unwrap())])
}

fn resource() -> Resource {
    Resource {
        extra_info: Some(json!({"zone": "n\u{f6}rd"})),
        ..Resource::new("Host::Directory", "i", "home")
    }
}

pub fn plan() -> Plan {
    Plan {
        id: ID.parse::<PlanId>().unwrap(),
        name: "my plan".to_owned(),
        description: None,
        provider_id: provider_id(),
        project_id: "p".to_owned(),
        status: PlanStatus::Suspended,
        parameters: parameters(),
        resources: vec![resource()],
        created_at: noon(),
        updated_at: None,
    }
}

pub fn restore() -> Readback {
    Readback {
        operation: OperationType::Restore,
        id: ID.parse::<ReadbackId>().unwrap(),
        project_id: "p".to_owned(),
        provider_id: provider_id(),
        checkpoint_id: checkpoint_id(),
        restore_target: Some("http://elsewhere".to_owned()),
        parameters: parameters(),
        accept_unsealed: false,
        status: ReadbackStatus::InProgress,
        resources_status: BTreeMap::new(),
        resources_reason: BTreeMap::from([("a#b".to_owned(), "why".to_owned())]),
        created_at: noon(),
    }
}

pub fn verification() -> Readback {
    Readback {
        operation: OperationType::Verify,
        restore_target: None,
        id: ID.parse::<ReadbackId>().unwrap(),
        project_id: "p".to_owned(),
        provider_id: provider_id(),
        checkpoint_id: checkpoint_id(),
        parameters: parameters(),
        accept_unsealed: false,
        status: ReadbackStatus::InProgress,
        resources_status: BTreeMap::new(),
        resources_reason: BTreeMap::new(),
        created_at: noon(),
    }
}

fn checkpoint(id: CheckpointId) -> Checkpoint {
    let plan = plan();
    Checkpoint {
        version: INDEX_VERSION.to_owned(),
        id,
        status: CheckpointStatus::Available,
        owner_id: String::new(),
        provider_id: provider_id(),
        project_id: "p".to_owned(),
        protection_plan: CheckpointPlan {
            id: plan.id,
            name: plan.name,
            provider_id: plan.provider_id,
            resources: plan.resources,
        },
        extra_info: Some(json!("{}")),
        created_at: Some(noon().date_naive()),
        timestamp: noon().timestamp(),
        resource_graph: None,
        seal: None,
    }
}

fn provider(id: ProviderId) -> Provider {
    Provider {
        id,
        name: "local".to_owned(),
        description: String::new(),
        extended_info_schema: Arc::default(),
    }
}

#[derive(Default)]
pub struct Recorder(Mutex<Vec<Value>>);

impl Recorder {
    fn note(&self, context: &RequestContext, what: Value) {
        self.0.lock().unwrap().push(json!([context, what]));
    }

    pub fn seen(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }
}

type Filters = BTreeMap<String, String>;
type Map_ = Map<String, Value>;
type Answer<T> = Result<T, ApiError>;
type Context = RequestContext;

#[async_trait]
impl ProtectionApi for Recorder {
    async fn protect(
        &self,
        c: &Context,
        plan: Plan,
        properties: CheckpointProperties,
    ) -> Answer<CheckpointId> {
        self.note(c, json!(["protect", plan, properties]));
        Ok(checkpoint_id())
    }

    async fn restore(&self, c: &Context, restore: Readback, auth: Option<Map_>) -> Answer<()> {
        self.note(c, json!(["restore", restore, auth]));
        Err(ApiError::forbidden("PolicyNotAuthorized", "You may not."))
    }

    async fn read_back(
        &self,
        c: &Context,
        operation: OperationType,
        readback: Readback,
    ) -> Answer<()> {
        self.note(c, json!(["read_back", operation, readback]));
        Ok(())
    }

    async fn verification(&self, c: &Context, verification: Readback) -> Answer<()> {
        self.note(c, json!(["verification", verification]));
        Ok(())
    }

    async fn copy(&self, c: &Context, plan: Plan) -> Answer<Vec<CheckpointCopy>> {
        self.note(c, json!(["copy", plan]));
        Ok(Vec::new())
    }

    async fn delete(&self, c: &Context, p: ProviderId, id: CheckpointId) -> Answer<()> {
        self.note(c, json!(["delete", p, id]));
        Err(ApiError::conflict("InvalidCheckpoint", "It is being made."))
    }

    async fn reset_state(
        &self,
        c: &Context,
        p: ProviderId,
        id: CheckpointId,
        state: String,
    ) -> Answer<()> {
        self.note(c, json!(["reset_state", p, id, state]));
        Ok(())
    }

    async fn accept_checkpoint(&self, c: &Context, p: ProviderId, id: CheckpointId) -> Answer<()> {
        self.note(c, json!(["accept_checkpoint", p, id]));
        Ok(())
    }

    async fn show_checkpoint(
        &self,
        c: &Context,
        p: ProviderId,
        id: CheckpointId,
    ) -> Answer<Checkpoint> {
        self.note(c, json!(["show_checkpoint", p, id]));
        Ok(checkpoint(id))
    }

    async fn list_checkpoints(
        &self,
        c: &Context,
        p: ProviderId,
        marker: Option<CheckpointId>,
        limit: Option<usize>,
        keys: Vec<String>,
        dirs: Vec<String>,
        filters: Filters,
        all: bool,
    ) -> Answer<Vec<Checkpoint>> {
        let what = json!([
            "list_checkpoints",
            p,
            marker,
            limit,
            keys,
            dirs,
            filters,
            all
        ]);
        self.note(c, what);
        Ok(vec![checkpoint(checkpoint_id()); 2])
    }

    async fn list_protectable_types(&self, c: &Context) -> Answer<Vec<String>> {
        self.note(c, json!(["list_protectable_types"]));
        Ok(vec!["Host::Directory".to_owned()])
    }

    async fn show_protectable_type(&self, c: &Context, name: String) -> Answer<ProtectableType> {
        self.note(c, json!(["show_protectable_type", name]));
        let dependent_types = Vec::new();
        Ok(ProtectableType {
            name,
            dependent_types,
        })
    }

    async fn list_protectable_instances(
        &self,
        c: &Context,
        kind: String,
        marker: Option<String>,
        limit: Option<usize>,
        keys: Vec<String>,
        dirs: Vec<String>,
        filters: Filters,
        parameters: Option<Map_>,
    ) -> Answer<Vec<ProtectableInstance>> {
        let page = json!([marker, limit, keys, dirs, filters, parameters]);
        self.note(c, json!(["list_protectable_instances", kind, page]));
        let whole = ProtectableInstance {
            resource: resource(),
            dependent_resources: Some(vec![resource()]),
        };
        Ok(vec![resource().into(), whole])
    }

    async fn show_protectable_instance(
        &self,
        c: &Context,
        kind: String,
        id: String,
        parameters: Option<Map_>,
    ) -> Answer<Option<Resource>> {
        self.note(
            c,
            json!(["show_protectable_instance", kind, id, parameters]),
        );
        Ok(None)
    }

    async fn list_protectable_dependents(
        &self,
        c: &Context,
        id: String,
        kind: String,
        name: String,
    ) -> Answer<Vec<Resource>> {
        self.note(c, json!(["list_protectable_dependents", id, kind, name]));
        let error = ApiError::unavailable("The directory is away.", "EIO");
        Err(ApiError {
            cause: None,
            ..error
        })
    }

    async fn list_providers(
        &self,
        c: &Context,
        marker: Option<ProviderId>,
        limit: Option<usize>,
        keys: Vec<String>,
        dirs: Vec<String>,
        filters: Filters,
    ) -> Answer<Vec<Provider>> {
        self.note(
            c,
            json!(["list_providers", marker, limit, keys, dirs, filters]),
        );
        Ok(vec![provider(provider_id())])
    }

    async fn show_provider(&self, c: &Context, id: ProviderId) -> Answer<Provider> {
        self.note(c, json!(["show_provider", id]));
        Ok(provider(id))
    }

    async fn cancel_operation(&self, c: &Context, id: OperationLogId) -> Answer<()> {
        self.note(c, json!(["cancel_operation", id]));
        Ok(())
    }

    async fn record_operation(&self, c: &Context, log: OperationLog) -> Answer<bool> {
        self.note(c, json!(["record_operation", log]));
        Ok(true)
    }

    async fn await_operation(
        &self,
        c: &Context,
        id: OperationLogId,
        seconds: u64,
    ) -> Answer<OperationLog> {
        self.note(c, json!(["await_operation", id, seconds]));
        Ok(operation_log())
    }
}

pub struct Sent {
    pub target: Target,
    pub method: String,
    pub args: RpcArgs,
}

/// Hands everything on, and keeps a copy.
pub struct Wiretap {
    transport: InProcess,
    sent: Mutex<Vec<Sent>>,
}

impl Wiretap {
    pub fn new(transport: InProcess) -> Self {
        Self {
            transport,
            sent: Mutex::default(),
        }
    }

    pub fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap()
    }
}

#[async_trait]
impl RpcTransport for Wiretap {
    async fn call(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
        timeout: Duration,
    ) -> Answer<Value> {
        self.sent().push(Sent {
            target: target.clone(),
            method: method.to_owned(),
            args: args.clone(),
        });
        let answer = self.transport.call(target, context, method, args, timeout);
        answer.await
    }

    async fn cast(
        &self,
        target: &Target,
        context: &RequestContext,
        method: &str,
        args: RpcArgs,
    ) -> Answer<()> {
        self.transport.cast(target, context, method, args).await
    }

    async fn serve(
        &self,
        target: Target,
        endpoints: Vec<std::sync::Arc<dyn RpcEndpoint>>,
    ) -> Answer<Box<dyn RpcServer>> {
        self.transport.serve(target, endpoints).await
    }
}
