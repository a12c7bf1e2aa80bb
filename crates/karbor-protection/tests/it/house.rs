//! A protection manager with everything around it, that can be stopped as a crash would and started
//! again on the same database and banks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_db::{Db, ListQuery};
use karbor_interfaces::protection::ProtectionApi;
use karbor_manager::{
    Clock, Config, InProcess, RunningService, Service, ServiceOptions, SystemClock,
};
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointProperties, CheckpointStatus,
    OperationLog, OperationLogStatus, OperationType, Parameters, Plan, PlanId, PlanStatus,
    ProviderId, Readback, ReadbackId, ReadbackStatus, RequestContext, Resource,
};
use karbor_plugin::{
    Bank, BankKey, PluginSpec, Protectable, ProtectableError, ProviderConfig, Registry,
};
use karbor_plugins::protectables::openstack::OpenStackType;
use karbor_plugins::protections::{noop, simulated};
use karbor_protection::{
    MasterKey, OPTIONS, ProtectionManager, ProtectionParts, Providers,
    checkpoints::CheckpointCollection,
};
use karbor_testkit::{FakeClock, FaultyBank, MemoryBank};

pub const SIMULATED: &str = "Simulated::Resource";
pub const PROJECT: &str = "p1";
/// A resource that is called as the caller's project.
pub const WHO_ASKS: &str = "00000000-0000-4000-8000-ffffffffffff";

/// A protectable whose answers the test decides.
#[derive(Default)]
pub struct Inventory {
    pub resources: Vec<Resource>,
    pub edges: Vec<(String, String)>,
    pub broken: bool,
}

struct Things(Arc<Mutex<Inventory>>);

#[async_trait]
impl Protectable for Things {
    fn resource_type(&self) -> &str {
        SIMULATED
    }

    fn parent_types(&self) -> &[&str] {
        &[SIMULATED]
    }

    async fn list(&self, _: &RequestContext) -> Result<Vec<Resource>, ProtectableError> {
        Ok(self.0.lock().unwrap().resources.clone())
    }

    async fn show(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> Result<Option<Resource>, ProtectableError> {
        if id == WHO_ASKS {
            return Ok(Some(Resource::new(SIMULATED, id, &context.project_id)));
        }
        Ok(self
            .0
            .lock()
            .unwrap()
            .resources
            .iter()
            .find(|r| r.id == id)
            .cloned())
    }

    async fn dependents(
        &self,
        _: &RequestContext,
        parent: &Resource,
    ) -> Result<Vec<Resource>, ProtectableError> {
        let inventory = self.0.lock().unwrap();
        if inventory.broken {
            let message = "the inventory does not answer".to_owned();
            return Err(ProtectableError {
                resource_type: SIMULATED.to_owned(),
                message,
                retryable: true,
            });
        }
        let children = inventory
            .edges
            .iter()
            .filter(|(from, _)| *from == parent.id)
            .map(|(_, to)| to);
        Ok(children
            .filter_map(|id| inventory.resources.iter().find(|r| r.id == *id).cloned())
            .collect())
    }
}

/// Everything that outlives a service.
pub struct House {
    folder: tempfile::TempDir,
    pub bank: Arc<FaultyBank<MemoryBank>>,
    /// Where copies go.
    pub copies: Arc<FaultyBank<MemoryBank>>,
    /// The bank plugins of the provider, bank and copy bank.
    pub banks: (&'static str, Option<&'static str>),
    pub inventory: Arc<Mutex<Inventory>>,
    clock: Arc<dyn Clock>,
    /// What the operator printed and locked away.
    pub recovery_key: String,
    /// What is configured, in the group DEFAULT.
    options: BTreeMap<&'static str, &'static str>,
    pub provider: ProviderId,
    pub other_provider: ProviderId,
}

impl House {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            bank: Arc::new(FaultyBank::new(MemoryBank::new())),
            copies: Arc::new(FaultyBank::new(MemoryBank::new())),
            banks: ("memory", None),
            inventory: Arc::default(),
            clock: Arc::new(SystemClock::new()),
            recovery_key: new_key(),
            options: BTreeMap::new(),
            provider: ProviderId::new(),
            other_provider: ProviderId::new(),
        }
    }

    /// Resources of the simulated type, with the ids `1`, `2`, … as UUIDs.
    pub fn with_resources(self, names: &[&str]) -> Self {
        let resources = names
            .iter()
            .enumerate()
            .map(|(at, name)| Resource::new(SIMULATED, id(at), *name))
            .collect();
        self.inventory.lock().unwrap().resources = resources;
        self
    }

    pub fn with_edges(self, edges: &[(usize, usize)]) -> Self {
        self.inventory.lock().unwrap().edges = edges.iter().map(|&(a, b)| (id(a), id(b))).collect();
        self
    }

    pub async fn open(&self) -> Running {
        let db = Db::connect(&self.url()).await.unwrap();
        db.migrate().await.unwrap();
        let mut registry = Registry::new();
        for (name, bank) in [("memory", &self.bank), ("copies", &self.copies)] {
            let bank = bank.clone();
            let open = move |_| std::future::ready(Ok(bank.clone() as Arc<dyn Bank>));
            registry.add(PluginSpec::bank(name, &[], open)).unwrap();
        }
        let (bank, copy_bank) = self.banks;
        let simulated = PluginSpec::protection(simulated::NAME, Arc::new(simulated::Simulated));
        let noop = PluginSpec::protection(noop::NAME, Arc::new(noop::Noop));
        for plugin in [simulated, noop] {
            registry.add(plugin).unwrap();
        }
        let things = Arc::new(Things(self.inventory.clone()));
        registry.add_protectable(things).unwrap();
        for protectable in OpenStackType::all() {
            registry.add_protectable(protectable).unwrap();
        }
        let config = |id, name: &str, plugin: &str| ProviderConfig {
            file: None,
            id,
            name: name.to_owned(),
            description: String::new(),
            bank: bank.to_owned(),
            copy_bank: copy_bank.map(str::to_owned),
            plugins: vec![plugin.to_owned()],
            enabled: true,
            sections: BTreeMap::new(),
        };
        let configs = [
            config(self.provider, "sim", simulated::NAME),
            config(self.other_provider, "noop", noop::NAME),
        ];
        let providers = Providers::open(&configs, &registry).await.unwrap();
        let master_key = MasterKey::from_recovery_key(&self.recovery_key).unwrap();
        let parts = ProtectionParts {
            registry: Arc::new(registry),
            providers,
            master_key,
        };
        let mut options = Config::builder()
            .options(OPTIONS)
            .options(karbor_manager::service::OPTIONS);
        for (name, value) in &self.options {
            options = options.set("DEFAULT", name, *value);
        }
        let options = options.build().unwrap();
        let (host, clock) = (Some("host".to_owned()), self.clock.clone());
        let manager = ProtectionManager::new(host, db.runs(), options, clock, parts).unwrap();
        let transport = Arc::new(InProcess::new());
        let service = Service::new(
            Arc::new(manager),
            ServiceOptions::default(),
            Arc::new(db.services()),
            transport,
        );
        Running {
            service: service.start().await.unwrap(),
            db,
            provider: self.provider,
            accept_unsealed: false,
            inventory: self.inventory.clone(),
        }
    }

    /// Configured so, in the group DEFAULT.
    pub fn with_option(mut self, name: &'static str, value: &'static str) -> Self {
        self.options.insert(name, value);
        self
    }

    /// On a clock whose hands the test turns.
    pub fn with_clock(mut self, clock: &FakeClock) -> Self {
        self.clock = clock.shared();
        self
    }

    /// With a second bank for copies.
    pub fn with_copy_bank(mut self) -> Self {
        self.banks = ("memory", Some("copies"));
        self
    }

    /// Another machine, whose provider of the same id has the copies' bank as its bank.
    pub fn after_the_loss_of_all_but_the_copies(&self) -> Self {
        Self {
            copies: self.copies.clone(),
            banks: ("copies", None),
            provider: self.provider,
            recovery_key: self.recovery_key.clone(),
            ..Self::new()
        }
    }

    pub fn url(&self) -> String {
        format!("sqlite://{}/karbor.db", self.folder.path().display())
    }

    /// The database, behind everybody's back.
    pub fn database(&self) -> rusqlite::Connection {
        let raw = rusqlite::Connection::open(self.folder.path().join("karbor.db")).unwrap();
        raw.busy_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        raw
    }

    /// Records a readback, as the original's API service does before it asks for it.
    pub fn record_without_run(&self, of: &Readback) {
        let table = match of.operation {
            OperationType::Restore => "restores",
            _ => "verifications",
        };
        let sql = format!(
            "INSERT INTO {table} (id, project_id, provider_id, checkpoint_id, status, created_at, deleted) \
             VALUES (?, ?, ?, ?, 'in_progress', ?, 0)"
        );
        let (id, provider) = (of.id.to_string(), of.provider_id.to_string());
        let (checkpoint, time) = (
            of.checkpoint_id.to_string(),
            of.created_at.format("%F %T%.6f").to_string(),
        );
        let row = [&id, &of.project_id, &provider, &checkpoint, &time];
        self.database().execute(&sql, row).unwrap();
    }

    /// Keys in the bank, without the leases.
    pub fn keys(&self) -> Vec<String> {
        self.bank
            .inner()
            .keys()
            .into_iter()
            .filter(|key| !key.starts_with("leases"))
            .collect()
    }

    pub fn tamper(&self, key: &str, data: impl Into<Bytes>) {
        let key = BankKey::parse(key).unwrap();
        self.bank.inner().tamper(&key, data.into());
    }

    /// An object of the bank, behind everybody's back.
    pub async fn object(&self, key: &str) -> Bytes {
        let key = BankKey::parse(key).unwrap();
        self.bank.inner().get(&key).await.unwrap()
    }

    /// The checkpoints of the provider in a bank, with the key.
    pub fn checkpoints(&self, bank: &Arc<FaultyBank<MemoryBank>>) -> CheckpointCollection {
        let key = MasterKey::from_recovery_key(&self.recovery_key).unwrap();
        CheckpointCollection::new(bank.clone(), self.provider).with_key(key)
    }
}

fn new_key() -> String {
    let folder = tempfile::tempdir().unwrap();
    let key = MasterKey::load_or_create(&folder.path().join("master.key"), true).unwrap();
    key.recovery_key().expose().to_owned()
}

pub fn id(at: usize) -> String {
    format!("00000000-0000-4000-8000-{:012}", at + 1)
}

/// A service. Dropping it is a crash: nothing is drained.
pub struct Running {
    pub service: RunningService<ProtectionManager>,
    pub db: Db,
    pub provider: ProviderId,
    /// Whether restores and verifications say that they take what has no seal.
    pub accept_unsealed: bool,
    pub inventory: Arc<Mutex<Inventory>>,
}

impl Running {
    pub fn api(&self) -> &ProtectionManager {
        self.service.manager()
    }

    /// A plan of the inventory's first `count` resources.
    pub fn plan(&self, count: usize) -> Plan {
        let resources = self.inventory.lock().unwrap().resources[..count].to_vec();
        plan(self.provider, resources)
    }

    pub async fn protect(&self, plan: Plan) -> Result<CheckpointId, ApiError> {
        let properties = CheckpointProperties::default();
        self.api().protect(&member(), plan, properties).await
    }

    pub async fn checkpoint(&self, id: CheckpointId) -> Checkpoint {
        self.api()
            .show_checkpoint(&RequestContext::admin(), self.provider, id)
            .await
            .unwrap()
    }

    /// Waits until the checkpoint is in a state that it stays in.
    pub async fn settled(&self, id: CheckpointId) -> CheckpointStatus {
        until(async || {
            let status = self.checkpoint(id).await.status;
            (!matches!(
                status,
                CheckpointStatus::Protecting
                    | CheckpointStatus::Deleting
                    | CheckpointStatus::WaitCopying
                    | CheckpointStatus::Copying
            ))
            .then_some(status)
        })
        .await
    }

    pub async fn available(&self, count: usize) -> CheckpointId {
        let id = self.protect(self.plan(count)).await.unwrap();
        assert_eq!(self.settled(id).await, CheckpointStatus::Available);
        self.log_of(id).await;
        id
    }

    /// The latest record in the operation log of a checkpoint, once it has ended.
    pub async fn log_of(&self, id: CheckpointId) -> OperationLog {
        until(async || {
            let logs = self
                .db
                .runs()
                .operation_log_list(&ListQuery::of_every_project())
                .await
                .unwrap();
            let log = logs.into_iter().find(|log| log.checkpoint_id == Some(id))?;
            (log.status != OperationLogStatus::InProgress).then_some(log)
        })
        .await
    }

    /// Begins to copy a plan: sources and copies.
    pub async fn copy(&self, plan: &Plan) -> Result<Vec<(CheckpointId, CheckpointId)>, ApiError> {
        let copies = self.api().copy(&member(), plan.clone()).await?;
        let pair = |copy: CheckpointCopy| (copy.checkpoint_protect_id, copy.checkpoint_copy_id);
        Ok(copies.into_iter().map(pair).collect())
    }

    /// Every checkpoint of the project, oldest first.
    pub async fn list(&self) -> Vec<Checkpoint> {
        let api = self.api();
        let up = vec!["asc".to_owned()];
        let (keys, filters) = (Vec::new(), BTreeMap::new());
        let provider = self.provider;
        api.list_checkpoints(&member(), provider, None, None, keys, up, filters, false)
            .await
            .unwrap()
    }

    /// The ids of the `limit` checkpoints of the project that come after `marker`, newest first.
    pub async fn page(&self, marker: Option<CheckpointId>, limit: usize) -> Vec<CheckpointId> {
        self.page_in("desc", marker, limit).await
    }

    async fn page_in(
        &self,
        direction: &str,
        marker: Option<CheckpointId>,
        limit: usize,
    ) -> Vec<CheckpointId> {
        let direction = vec![direction.to_owned()];
        let (keys, filters) = (Vec::new(), BTreeMap::new());
        let (asker, provider, limit) = (member(), self.provider, Some(limit));
        let page = self.api().list_checkpoints(
            &asker, provider, marker, limit, keys, direction, filters, false,
        );
        page.await.unwrap().iter().map(|one| one.id).collect()
    }

    /// The ids of every checkpoint of the project, asked for in pages of `limit`.
    pub async fn pages(&self, direction: &str, limit: usize) -> Vec<CheckpointId> {
        let mut all = Vec::new();
        loop {
            let page = self.page_in(direction, all.last().copied(), limit).await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    pub async fn delete(&self, id: CheckpointId) -> Result<(), ApiError> {
        self.api().delete(&member(), self.provider, id).await
    }

    pub async fn restore(
        &self,
        checkpoint: CheckpointId,
        parameters: Parameters,
    ) -> Result<ReadbackId, ApiError> {
        let restore = Readback {
            operation: OperationType::Restore,
            id: ReadbackId::new(),
            project_id: PROJECT.to_owned(),
            provider_id: self.provider,
            checkpoint_id: checkpoint,
            restore_target: None,
            parameters,
            accept_unsealed: self.accept_unsealed,
            status: ReadbackStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: chrono::Utc::now(),
        };
        self.api()
            .restore(&member(), restore.clone(), None)
            .await
            .map(|()| restore.id)
    }

    pub async fn restored(&self, id: ReadbackId) -> Readback {
        until(async || {
            let restore = self
                .db
                .runs()
                .readback_get(OperationType::Restore, id)
                .await
                .unwrap();
            (restore.status != ReadbackStatus::InProgress).then_some(restore)
        })
        .await
    }

    pub async fn verify(
        &self,
        context: &RequestContext,
        checkpoint: CheckpointId,
    ) -> Result<ReadbackId, ApiError> {
        self.verify_with(context, checkpoint, Parameters::new())
            .await
    }

    pub async fn verify_with(
        &self,
        context: &RequestContext,
        checkpoint: CheckpointId,
        parameters: Parameters,
    ) -> Result<ReadbackId, ApiError> {
        let verification = Readback {
            operation: OperationType::Verify,
            restore_target: None,
            id: ReadbackId::new(),
            project_id: context.project_id.clone(),
            provider_id: self.provider,
            checkpoint_id: checkpoint,
            parameters,
            accept_unsealed: self.accept_unsealed,
            status: ReadbackStatus::InProgress,
            resources_status: BTreeMap::new(),
            resources_reason: BTreeMap::new(),
            created_at: chrono::Utc::now(),
        };
        self.api()
            .verification(context, verification.clone())
            .await
            .map(|()| verification.id)
    }

    pub async fn verified(&self, id: ReadbackId) -> Readback {
        until(async || {
            let verification = self
                .db
                .runs()
                .readback_get(OperationType::Verify, id)
                .await
                .unwrap();
            (verification.status != ReadbackStatus::InProgress).then_some(verification)
        })
        .await
    }
}

pub fn plan(provider_id: ProviderId, resources: Vec<Resource>) -> Plan {
    Plan {
        id: PlanId::new(),
        name: "plan".to_owned(),
        description: None,
        provider_id,
        project_id: PROJECT.to_owned(),
        status: PlanStatus::Suspended,
        parameters: Parameters::new(),
        resources,
        created_at: chrono::Utc::now(),
        updated_at: None,
    }
}

pub fn member() -> RequestContext {
    RequestContext::for_project("user", PROJECT, false)
}

pub fn stranger() -> RequestContext {
    RequestContext::for_project("stranger", "p2", false)
}

/// Asks again and again until there is an answer; the whole test is bounded.
pub async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let bound = tokio::time::Duration::from_secs(120);
    tokio::time::timeout(bound, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("this never happened")
}
