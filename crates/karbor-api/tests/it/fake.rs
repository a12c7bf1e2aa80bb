use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use karbor_db::{Db, FlowRecord};
use karbor_interfaces::ProtectionApi;
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointPlan, CheckpointProperties,
    CheckpointStatus, ErrorKind, FlowStatus, OperationId, OperationLog, OperationLogId,
    OperationLogStatus, OperationType, Plan, ProtectableInstance, ProtectableType, Provider,
    ProviderId, Readback, ReadbackStatus, RequestContext, Resource, ResourceGraph,
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::app::{HOST, NOOP};

type Answer<T> = Result<T, ApiError>;

/// A protection manager that keeps checkpoints in memory and refuses on command.
#[derive(Default)]
pub struct Fake {
    pub checkpoints: Mutex<Vec<Checkpoint>>,
    /// Where it records readbacks, as the real one.
    pub db: OnceLock<Db>,
    /// What restore, verification and protect answer instead.
    pub refusal: Mutex<Option<ApiError>>,
    pub panics: AtomicBool,
    /// Lists instances without what they depend on, as an original service does.
    pub lists_bare: AtomicBool,
    /// What was asked for, with its arguments.
    pub calls: Mutex<Vec<Value>>,
    /// `protect` waits for this if `waits` is set.
    pub waits: AtomicBool,
    pub reached: Notify,
    pub go_on: Notify,
}

pub fn volume_types() -> Vec<String> {
    vec![
        "OS::Nova::Server".to_owned(),
        "OS::Cinder::Volume".to_owned(),
    ]
}

fn providers() -> Vec<Provider> {
    let schemas = |options: Value| {
        let Value::Object(map) = json!({
            "options_schema": options,
            "restore_schema": {}, "saved_info_schema": {}, "verify_schema": {},
        }) else {
            unreachable!()
        };
        Arc::new(map)
    };
    vec![
        Provider {
            id: NOOP.parse().unwrap(),
            name: "No-Op Provider".into(),
            description: "This provider does nothing for each protect and restore operation. Used for testing".into(),
            extended_info_schema: schemas(json!({"OS::Cinder::Volume": {}})),
        },
        Provider {
            id: HOST.parse().unwrap(),
            name: "local".into(),
            description: "This host".into(),
            extended_info_schema: schemas(json!({
                "OS::Cinder::Volume": {"properties": {
                    "backup_mode": {"enum": ["full", "incremental"]},
                    "backup_name": {}, "force": {"type": "boolean"},
                }},
                "Host::Directory": {"properties": {
                    "overwrite": {"enum": ["never", "always"]}, "level": {},
                }},
            })),
        },
    ]
}

impl Fake {
    fn note(&self, call: Value) -> Answer<()> {
        self.calls.lock().unwrap().push(call);
        assert!(
            !self.panics.load(Ordering::Relaxed),
            "told to panic: hunter2"
        );
        match &*self.refusal.lock().unwrap() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Records a readback; one that is refused has failed, but nobody knows that of one whose answer is late.
    async fn recorded(
        &self,
        context: &RequestContext,
        readback: Readback,
        asked: Answer<()>,
    ) -> Answer<()> {
        let db = self.db.get().expect("a database");
        let (provider, checkpoint) = (readback.provider_id, readback.checkpoint_id);
        let found = asked.and_then(|()| self.find(context, provider, checkpoint).map(drop));
        match &found {
            Err(error) if error.kind != ErrorKind::Timeout => {
                let about = format!("Checkpoint#{checkpoint}");
                let refused = Readback {
                    status: ReadbackStatus::Fail,
                    resources_reason: BTreeMap::from([(about, error.message.clone())]),
                    ..readback
                };
                let now = refused.created_at;
                let log = OperationLog {
                    id: OperationLogId(refused.id.0),
                    project_id: refused.project_id.clone(),
                    operation_type: refused.operation,
                    checkpoint_id: Some(checkpoint),
                    plan_id: None,
                    provider_id: Some(provider),
                    readback_id: Some(refused.id),
                    scheduled_operation_id: None,
                    status: OperationLogStatus::Failed,
                    started_at: now,
                    ended_at: Some(now),
                    error_info: Some(error.message.clone()),
                    extra_info: None,
                };
                db.runs().readback_refuse(&refused, &log).await?;
            }
            _ => {
                let flow = FlowRecord {
                    operation_id: OperationId(readback.id.0),
                    operation_type: readback.operation,
                    host: "fake".to_owned(),
                    payload: Value::Null,
                    status: FlowStatus::Running,
                };
                db.runs().readback_begin(&readback, &flow).await?;
            }
        }
        found
    }

    fn find(
        &self,
        context: &RequestContext,
        provider: ProviderId,
        id: CheckpointId,
    ) -> Answer<Checkpoint> {
        known(provider)?;
        let checkpoints = self.checkpoints.lock().unwrap();
        let found = checkpoints
            .iter()
            .find(|c| c.id == id && c.provider_id == provider);
        let found = found.ok_or_else(|| ApiError::not_found("Checkpoint", id))?;
        if context.may_access(&found.project_id) {
            Ok(found.clone())
        } else {
            Err(ApiError::forbidden(
                "AccessCheckpointNotAllowed",
                format!("Access checkpoint {id} is not allowed"),
            ))
        }
    }
}

fn dependents_of(resource_type: &str, id: &str) -> Vec<Resource> {
    let mut volume = Resource::new("OS::Cinder::Volume", format!("vol-of-{id}"), "volume-1");
    volume.extra_info = Some(json!({"availability_zone": "nova"}));
    if resource_type == "OS::Nova::Server" {
        vec![volume]
    } else {
        Vec::new()
    }
}

fn known(provider: ProviderId) -> Answer<Provider> {
    let found = providers().into_iter().find(|p| p.id == provider);
    found.ok_or_else(|| ApiError::not_found("Provider", provider))
}

fn page<T>(
    items: Vec<T>,
    marker: Option<&str>,
    limit: Option<usize>,
    id: impl Fn(&T) -> String,
) -> Vec<T> {
    let from = marker
        .and_then(|m| items.iter().position(|i| id(i) == m))
        .map_or(0, |at| at + 1);
    items
        .into_iter()
        .skip(from)
        .take(limit.unwrap_or(usize::MAX))
        .collect()
}

#[async_trait]
impl ProtectionApi for Fake {
    async fn protect(
        &self,
        context: &RequestContext,
        plan: Plan,
        checkpoint_properties: CheckpointProperties,
    ) -> Answer<CheckpointId> {
        if self.waits.load(Ordering::Relaxed) {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
        self.note(json!({"protect": plan.id, "properties": checkpoint_properties}))?;
        if let Some(odd) = plan
            .resources
            .iter()
            .find(|r| r.resource_type == "OS::Bogus")
        {
            return Err(ApiError::new(
                ErrorKind::NotFound,
                "ProtectionPluginNotFound",
                format!(
                    "Protection Plugin for {} could not be found.",
                    odd.resource_type
                ),
            ));
        }
        let id = CheckpointId::new();
        let mut graph = ResourceGraph::new();
        for resource in &plan.resources {
            graph.add(resource.clone());
        }
        self.checkpoints.lock().unwrap().push(Checkpoint {
            version: "0.9".into(),
            id,
            status: CheckpointStatus::Available,
            owner_id: String::new(),
            provider_id: plan.provider_id,
            project_id: context.project_id.clone(),
            protection_plan: CheckpointPlan {
                id: plan.id,
                name: plan.name,
                provider_id: plan.provider_id,
                resources: plan.resources,
            },
            extra_info: checkpoint_properties.extra_info,
            created_at: Some("2026-11-22".parse().unwrap()),
            timestamp: 0,
            resource_graph: Some(graph.pack().unwrap()),
            seal: Some(karbor_model::Seal::default()),
        });
        Ok(id)
    }

    async fn restore(
        &self,
        context: &RequestContext,
        restore: Readback,
        restore_auth: Option<Map<String, Value>>,
    ) -> Answer<()> {
        let asked = self.note(json!({"restore": restore.id, "auth": restore_auth}));
        self.recorded(context, restore, asked).await
    }

    async fn verification(&self, context: &RequestContext, verification: Readback) -> Answer<()> {
        let asked = self.note(json!({"verification": verification.id}));
        self.recorded(context, verification, asked).await
    }

    async fn read_back(
        &self,
        context: &RequestContext,
        operation: OperationType,
        readback: Readback,
    ) -> Answer<()> {
        let asked = self.note(json!({ operation.as_str(): readback.id }));
        let readback = Readback {
            operation,
            ..readback
        };
        self.recorded(context, readback, asked).await
    }

    async fn copy(&self, context: &RequestContext, plan: Plan) -> Answer<Vec<CheckpointCopy>> {
        self.note(json!({"copy": plan.id, "parameters": plan.parameters}))?;
        let own = |checkpoint: &&Checkpoint| checkpoint.protection_plan.id == plan.id;
        let checkpoints = self.checkpoints.lock().unwrap();
        let pair = |source: &Checkpoint| CheckpointCopy {
            checkpoint_protect_id: source.id,
            checkpoint_copy_id: CheckpointId::new(),
        };
        assert!(context.may_access(&plan.project_id));
        Ok(checkpoints.iter().filter(own).map(pair).collect())
    }

    async fn delete(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Answer<()> {
        let found = self.find(context, provider_id, checkpoint_id)?;
        if found.status == CheckpointStatus::Deleted {
            return Err(ApiError::conflict(
                "CheckpointNotBeDeleted",
                format!("The checkpoint {checkpoint_id} can not be deleted."),
            ));
        }
        let mut checkpoints = self.checkpoints.lock().unwrap();
        checkpoints
            .iter_mut()
            .filter(|c| c.id == checkpoint_id)
            .for_each(|c| c.status = CheckpointStatus::Deleted);
        Ok(())
    }

    async fn accept_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Answer<()> {
        self.find(context, provider_id, checkpoint_id)?;
        let mut checkpoints = self.checkpoints.lock().unwrap();
        let mut found = checkpoints.iter_mut();
        let found = found.find(|c| c.id == checkpoint_id).unwrap();
        let mut info = found.info();
        if !info.accept(chrono::Utc::now()) {
            return Err(ApiError::conflict(
                "CheckpointNotAccepted",
                format!(
                    "The checkpoint {checkpoint_id} can not be accepted: it is not suspicious."
                ),
            ));
        }
        found.extra_info = info.to_extra_info();
        Ok(())
    }

    async fn reset_state(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String,
    ) -> Answer<()> {
        let found = self.find(context, provider_id, checkpoint_id)?;
        if found.status == CheckpointStatus::Deleted {
            return Err(ApiError::new(
                ErrorKind::BadRequest,
                "CheckpointNotBeReset",
                format!("The checkpoint {checkpoint_id} can not be reset."),
            ));
        }
        let mut checkpoints = self.checkpoints.lock().unwrap();
        checkpoints
            .iter_mut()
            .filter(|c| c.id == checkpoint_id)
            .for_each(|c| c.status = state.parse().unwrap());
        Ok(())
    }

    async fn show_checkpoint(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
    ) -> Answer<Checkpoint> {
        self.find(context, provider_id, checkpoint_id)
    }

    async fn list_checkpoints(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        marker: Option<CheckpointId>,
        limit: Option<usize>,
        sort_keys: Vec<String>,
        sort_dirs: Vec<String>,
        filters: BTreeMap<String, String>,
        all_tenants: bool,
    ) -> Answer<Vec<Checkpoint>> {
        self.note(json!({"list_checkpoints": filters, "sort": [sort_keys, sort_dirs], "all": all_tenants}))?;
        known(provider_id)?;
        let all = self.checkpoints.lock().unwrap().clone();
        let mine = all.into_iter().filter(|c| {
            c.provider_id == provider_id
                && (all_tenants || c.project_id == context.project_id)
                && filters
                    .get("status")
                    .is_none_or(|s| c.status.to_string() == *s)
        });
        let marker = marker.map(|m| m.to_string());
        Ok(page(mine.collect(), marker.as_deref(), limit, |c| {
            c.id.to_string()
        }))
    }

    async fn list_protectable_types(&self, _: &RequestContext) -> Answer<Vec<String>> {
        self.note(json!("list_protectable_types"))?;
        Ok(volume_types())
    }

    async fn show_protectable_type(
        &self,
        _: &RequestContext,
        protectable_type: String,
    ) -> Answer<ProtectableType> {
        Ok(ProtectableType {
            name: protectable_type,
            dependent_types: vec!["OS::Cinder::Volume".into()],
        })
    }

    async fn list_protectable_instances(
        &self,
        _: &RequestContext,
        protectable_type: String,
        marker: Option<String>,
        limit: Option<usize>,
        _: Vec<String>,
        _: Vec<String>,
        _: BTreeMap<String, String>,
        parameters: Option<Map<String, Value>>,
    ) -> Answer<Vec<ProtectableInstance>> {
        self.note(json!({"list_protectable_instances": parameters}))?;
        let bare = self.lists_bare.load(Ordering::Relaxed);
        let all = (1..=3).map(|n| {
            let (id, name) = (format!("id-{n}"), format!("name-{n}"));
            let dependents = dependents_of(&protectable_type, &id);
            ProtectableInstance {
                resource: Resource::new(protectable_type.clone(), id, name),
                dependent_resources: (!bare).then_some(dependents),
            }
        });
        Ok(page(all.collect(), marker.as_deref(), limit, |instance| {
            instance.resource.id.clone()
        }))
    }

    async fn show_protectable_instance(
        &self,
        _: &RequestContext,
        protectable_type: String,
        protectable_id: String,
        _: Option<Map<String, Value>>,
    ) -> Answer<Option<Resource>> {
        let found = protectable_id == "id-1";
        Ok(found.then(|| Resource::new(protectable_type, protectable_id, "name-1")))
    }

    async fn list_protectable_dependents(
        &self,
        _: &RequestContext,
        protectable_id: String,
        protectable_type: String,
        _: String,
    ) -> Answer<Vec<Resource>> {
        self.note(json!({"list_protectable_dependents": protectable_id}))?;
        Ok(dependents_of(&protectable_type, &protectable_id))
    }

    async fn list_providers(
        &self,
        _: &RequestContext,
        marker: Option<ProviderId>,
        limit: Option<usize>,
        _: Vec<String>,
        _: Vec<String>,
        filters: BTreeMap<String, String>,
    ) -> Answer<Vec<Provider>> {
        let all = providers()
            .into_iter()
            .filter(|p| filters.get("name").is_none_or(|n| p.name == *n));
        let marker = marker.map(|m| m.to_string());
        Ok(page(all.collect(), marker.as_deref(), limit, |p| {
            p.id.to_string()
        }))
    }

    async fn show_provider(&self, _: &RequestContext, provider_id: ProviderId) -> Answer<Provider> {
        self.note(json!("show_provider"))?;
        known(provider_id)
    }

    async fn cancel_operation(&self, _: &RequestContext, _: OperationLogId) -> Answer<()> {
        Ok(())
    }

    async fn record_operation(&self, _: &RequestContext, _: OperationLog) -> Answer<bool> {
        unreachable!("the API enters nothing in the operation log")
    }

    async fn await_operation(
        &self,
        _: &RequestContext,
        _: OperationLogId,
        _: u64,
    ) -> Answer<OperationLog> {
        unreachable!("clients of the API ask again")
    }
}
