//! What runs on this host: declared, found, protected, wrecked, restored.

mod applications;
mod contract;
mod damage;
mod directory;
mod mariadb;
mod postgresql;
mod protectables;
mod quiesce;
mod sqlite;
mod validate;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt;
use karbor_model::{
    CheckpointId, OperationId, OperationType, PlanId, ProviderId, RequestContext, Resource,
};
use karbor_plugin::{
    Bank, BankKey, BankSection, DataSection, HookReport, NoProgress, Operation, OperationContext,
    PluginError, ProtectionPlugin, ProviderConfig, Registry, Secret, VaultAccess,
};
use karbor_plugins::{HostOptions, registry};
use karbor_testkit::MemoryBank;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const DIRECTORY: &str = "Host::Directory";
pub(crate) const SQLITE: &str = "Host::SQLite::Database";
pub(crate) const POSTGRESQL: &str = "Host::PostgreSQL::Database";
pub(crate) const MARIADB: &str = "Host::MariaDB::Database";

/// Says where the program for SQLite is, when it is not where it was built.
pub(crate) const WORKER: &str = "KARBOR_TEST_SQLITE_WORKER";

pub(crate) fn sqlite_worker() -> PathBuf {
    let told = std::env::var_os(WORKER).map(PathBuf::from);
    told.unwrap_or_else(|| env!("CARGO_BIN_EXE_sqlite-worker").into())
}

/// A host with declarations, a bank in memory and all plugins.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) bank: Arc<MemoryBank>,
    pub(crate) registry: Registry,
    pub(crate) plugins: Vec<Arc<dyn ProtectionPlugin>>,
    pub(crate) provider: ProviderId,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("applications.d")).unwrap();
        fs::create_dir(dir.path().join("restore")).unwrap();
        Self::over(dir, Arc::new(MemoryBank::new()))
    }

    fn over(dir: TempDir, bank: Arc<MemoryBank>) -> Self {
        let registry = registry(|_| HostOptions {
            applications_dir: dir.path().join("applications.d"),
            scratch_dir: dir.path().join("state/scratch"),
            sqlite_worker: sqlite_worker(),
            off_limits: vec![dir.path().join("state")],
        })
        .unwrap();
        let names = [
            "application",
            "directory",
            "sqlite",
            "postgresql",
            "mariadb",
        ];
        let config = ProviderConfig {
            file: None,
            copy_bank: None,
            id: ProviderId::new(),
            name: "local".to_owned(),
            description: String::new(),
            bank: "karbor-fs-bank-plugin".to_owned(),
            plugins: names
                .iter()
                .map(|name| format!("karbor-host-{name}-plugin"))
                .collect(),
            enabled: true,
            sections: BTreeMap::new(),
        };
        let plugins = registry.open_protections(&config).now_or_never();
        let plugins = plugins.unwrap().unwrap();
        Self {
            dir,
            bank,
            registry,
            plugins,
            provider: config.id,
        }
    }

    /// The same host and bank after a restart of the service.
    pub(crate) fn restarted(self) -> Self {
        let provider = self.provider;
        Self {
            provider,
            ..Self::over(self.dir, self.bank)
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Declares an application `shop` with restore root `restore`; `more` is what follows.
    pub(crate) fn declare(&self, more: &str) -> &Self {
        let text = format!(
            "name = \"shop\"\nprojects = [\"default\"]\nrestore_roots = [\"{}\"]\n{more}",
            self.path("restore").display()
        );
        fs::write(self.path("applications.d/shop.toml"), text).unwrap();
        self
    }

    pub(crate) async fn resources(&self, resource_type: &str) -> Vec<Resource> {
        let protectable = &self.registry.protectables()[resource_type];
        protectable.list(&request()).await.unwrap()
    }

    pub(crate) async fn resource(&self, resource_type: &str) -> Resource {
        self.resources(resource_type).await.remove(0)
    }

    pub(crate) fn operation(&self, kind: OperationType, resource: &Resource) -> Box<dyn Operation> {
        let knows = |p: &&Arc<dyn ProtectionPlugin>| {
            p.resource_types()
                .contains(&resource.resource_type.as_str())
        };
        let plugin = self.plugins.iter().find(knows).unwrap();
        let hooks = karbor_plugin::HookSet::of(kind).unwrap();
        plugin.operation(hooks, resource).unwrap()
    }

    pub(crate) fn context(
        &self,
        kind: OperationType,
        checkpoint: CheckpointId,
        resource: &Resource,
        parameters: Value,
    ) -> OperationContext {
        let bank: Arc<dyn Bank> = self.bank.clone();
        let section = |path: String| BankSection::new(bank.clone(), BankKey::parse(&path).unwrap());
        let data = section(format!(
            "checkpoints/{checkpoint}/resource-data/{}",
            resource.id
        ));
        OperationContext {
            request: request(),
            operation: kind,
            operation_id: OperationId::new(),
            checkpoint_id: checkpoint,
            plan_id: PlanId::new(),
            provider_id: self.provider,
            project_id: "default".to_owned(),
            resource: resource.clone(),
            dependents: Vec::new(),
            parameters: object(parameters),
            data: match kind {
                OperationType::Protect | OperationType::Delete => DataSection::Writable(data),
                _ => DataSection::ReadOnly(data.read_only()),
            },
            vault: VaultAccess {
                section: section(format!("vaults/{}/default", self.provider)),
                password: Secret::new("correct horse".to_owned()),
            },
            copy_target: None,
            progress: Arc::new(NoProgress),
            cancel: CancellationToken::new(),
        }
    }

    /// Runs all hooks; undoes after a failure, as a flow would.
    pub(crate) async fn run(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let operation = self.operation(context.operation, &context.resource);
        let hooks = async {
            operation.prepare_begin(context).await?;
            operation.prepare_finish(context).await?;
            let report = operation.main(context).await?;
            operation.complete(context).await?;
            Ok(report)
        };
        let done = hooks.await;
        if done.is_err() {
            operation.undo(context).await.unwrap();
        }
        done
    }

    pub(crate) async fn protect(
        &self,
        resource: &Resource,
    ) -> Result<(CheckpointId, HookReport), PluginError> {
        let checkpoint = CheckpointId::new();
        let context = self.context(OperationType::Protect, checkpoint, resource, json!({}));
        self.run(&context).await.map(|report| (checkpoint, report))
    }

    pub(crate) async fn restore(
        &self,
        checkpoint: CheckpointId,
        resource: &Resource,
        parameters: Value,
    ) -> Result<HookReport, PluginError> {
        self.run(&self.context(OperationType::Restore, checkpoint, resource, parameters))
            .await
    }

    pub(crate) async fn verify(
        &self,
        checkpoint: CheckpointId,
        resource: &Resource,
        parameters: Value,
    ) -> Result<HookReport, PluginError> {
        self.run(&self.context(OperationType::Verify, checkpoint, resource, parameters))
            .await
    }

    /// The snapshots in the vault.
    pub(crate) fn snapshots(&self) -> usize {
        self.bank
            .keys()
            .iter()
            .filter(|key| key.contains("/snapshots/"))
            .count()
    }

    /// Objects in the checkpoints' sections.
    pub(crate) fn sections(&self) -> Vec<String> {
        let keys = self.bank.keys();
        keys.into_iter()
            .filter(|key| key.starts_with("checkpoints/"))
            .collect()
    }

    /// Is anything left in the scratch directory?
    pub(crate) fn scratch(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("state/scratch"))
            .into_iter()
            .flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn request() -> RequestContext {
    RequestContext::for_project("user", "default", false)
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// Every file below, with its content; directories end in `/`, links in ` -> target`.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, at: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_symlink() {
                into.insert(
                    format!("{name} -> {}", fs::read_link(&path).unwrap().display()),
                    Vec::new(),
                );
            } else if kind.is_dir() {
                into.insert(format!("{name}/"), Vec::new());
                walk(root, &path, into);
            } else {
                into.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}
