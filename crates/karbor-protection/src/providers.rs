//! Providers: a bank joined with protection plugins, as `providers.d/*.conf` declares them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ini::{Ini, ParseOption};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointStatus, ErrorKind, OptionDef, OptionKind,
    Provider as ProviderRecord, ProviderId, Resource,
};
use karbor_plugin::{
    Bank, BankKey, BankSection, HookSet, OpenedBank, Operation, ProtectionPlugin, ProviderConfig,
    Registry, RegistryError, SchemaKind, VaultAccess,
    layers::{BankCounts, BankMetrics},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    checkpoints::{CheckpointCollection, CheckpointQuery, in_time, is_unreadable},
    error::{CheckpointError, bank_error, flow_error, plugin_refusal},
    keys::MasterKey,
};

/// The options in the section of a provider's file that says what the provider is.
pub const PROVIDER_OPTIONS: &[OptionDef] = &[
    option(
        "bank",
        OptionKind::Str,
        "",
        "The plugin of the bank that protects write to. It must be set.",
    ),
    option(
        "copy_bank",
        OptionKind::Str,
        "",
        "The plugin of the bank that copies go to. Its sections are called as those of the bank, with `copy.` before the name.",
    ),
    option(
        "description",
        OptionKind::Str,
        "",
        "What the provider is for, as the API shows it.",
    ),
    option(
        "enabled",
        OptionKind::Bool,
        "false",
        "Whether the provider is in use.",
    ),
    option(
        "id",
        OptionKind::Str,
        "",
        "The provider's id, a UUID: checkpoints are found in the bank by it. It must be set.",
    ),
    option(
        "name",
        OptionKind::Str,
        "",
        "The provider's name. It must be set.",
    ),
    option(
        "plugin",
        OptionKind::Str,
        "",
        "A protection plugin; may be repeated. Of two that protect the same type the first does.",
    ),
];

const fn option(
    name: &'static str,
    kind: OptionKind,
    default: &'static str,
    help: &'static str,
) -> OptionDef {
    OptionDef {
        group: "provider",
        name,
        kind,
        default,
        help,
        secret: false,
    }
}

/// Why the providers cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A file or folder cannot be read.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A file is not what a provider's file must be.
    #[error("{path}: {reason}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A plugin that it names cannot be made.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Two providers have the same id.
    #[error("providers '{0}' and '{1}' have the same id {2}; give one of them another")]
    Duplicate(String, String, ProviderId),
}

/// Reads every `*.conf` in `folder`, in the order of the names. A folder that is not there holds none.
///
/// # Errors
/// [`ProviderError`] names the file and what is wrong with it.
pub fn load_provider_configs(folder: &Path) -> Result<Vec<ProviderConfig>, ProviderError> {
    let io = |cause| ProviderError::Io {
        path: folder.to_owned(),
        cause,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(io)?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "conf")
    });
    paths.sort();
    paths
        .iter()
        .map(|path| load_provider_config(path))
        .collect()
}

fn load_provider_config(path: &Path) -> Result<ProviderConfig, ProviderError> {
    let malformed = |reason: String| ProviderError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|cause| ProviderError::Io {
        path: path.to_owned(),
        cause,
    })?;
    let options = ParseOption {
        enabled_escape: false,
        enabled_quote: false,
        enabled_indented_mutiline_value: true,
        ..ParseOption::default()
    };
    let ini = Ini::load_from_str_opt(&text, options).map_err(|e| malformed(e.to_string()))?;
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (section, properties) in &ini {
        let section = sections
            .entry(section.unwrap_or("DEFAULT").to_owned())
            .or_default();
        for (name, value) in properties {
            section
                .entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    let provider = sections
        .get("provider")
        .cloned()
        .ok_or_else(|| malformed("it has no [provider] section".into()))?;
    let all = |name: &str| provider.get(name).cloned().unwrap_or_default();
    let last = |name: &str| all(name).pop();
    let required = |name: &str| {
        last(name)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| malformed(format!("[provider] {name} is missing")))
    };
    let id = required("id")?;
    Ok(ProviderConfig {
        file: Some(path.to_owned()),
        id: id
            .parse()
            .map_err(|e| malformed(format!("[provider] id: {e}")))?,
        name: required("name")?,
        description: last("description").unwrap_or_default(),
        bank: required("bank")?,
        copy_bank: last("copy_bank").filter(|name| !name.is_empty()),
        plugins: all("plugin"),
        enabled: boolean(last("enabled").as_deref().unwrap_or("false"))
            .ok_or_else(|| malformed("[provider] enabled must be True or False".into()))?,
        sections,
    })
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// How long what is not found in the first bank is looked for in the second: whoever asks has an answer before his
/// request is given up.
const FIND_PATIENCE: Duration = Duration::from_secs(15);

/// Which of a provider's banks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankRole {
    /// The bank that protects write to.
    #[default]
    Bank,
    /// The bank that copies go to.
    CopyBank,
}

/// A bank of a provider and the checkpoints in it. Both banks of a provider are laid out alike, under
/// the same provider id, so that either can be the bank of the provider when the other is gone.
#[derive(Clone)]
pub struct Home {
    bank: Arc<dyn Bank>,
    metrics: Arc<BankMetrics>,
    checkpoints: CheckpointCollection,
    provider_id: ProviderId,
}

impl Home {
    fn new(opened: OpenedBank, provider_id: ProviderId) -> Self {
        let OpenedBank { bank, metrics } = opened;
        Self {
            checkpoints: CheckpointCollection::new(bank.clone(), provider_id),
            bank,
            metrics,
            provider_id,
        }
    }

    /// What was asked of the bank since it was opened.
    #[must_use]
    pub fn counts(&self) -> BankCounts {
        self.metrics.counts()
    }

    /// The bank.
    #[must_use]
    pub fn bank(&self) -> &Arc<dyn Bank> {
        &self.bank
    }

    /// The checkpoints in it.
    #[must_use]
    pub fn checkpoints(&self) -> &CheckpointCollection {
        &self.checkpoints
    }

    /// The repository of a project: where it lies in the bank, and what opens it.
    ///
    /// # Errors
    /// A 400 when the project's id cannot be part of a key.
    pub fn vault(&self, project_id: &str, key: &MasterKey) -> Result<VaultAccess, ApiError> {
        let place = BankKey::parse(&format!("vaults/{}/{project_id}", self.provider_id));
        let place = place.map_err(ApiError::invalid_input)?;
        Ok(VaultAccess {
            section: BankSection::new(self.bank.clone(), place),
            password: key.vault_password(self.provider_id, project_id),
        })
    }
}

/// A provider in use.
#[derive(Clone)]
pub struct Provider {
    record: ProviderRecord,
    bank: Home,
    copy_bank: Option<Home>,
    plugins: HashMap<String, Arc<dyn ProtectionPlugin>>,
}

impl Provider {
    /// Opens the banks and the plugins that `config` names. Where two plugins protect the same type,
    /// the first that is named does.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(config: &ProviderConfig, registry: &Registry) -> Result<Self, RegistryError> {
        let home = |opened| Home::new(opened, config.id);
        let bank = home(registry.open_bank(config).await?);
        let copy_bank = registry.open_copy_bank(config).await?.map(home);
        let mut plugins: HashMap<String, Arc<dyn ProtectionPlugin>> = HashMap::new();
        let mut schemas = SchemaKind::ALL.map(|_| Map::new());
        for plugin in registry.open_protections(config).await? {
            for &resource_type in plugin.resource_types() {
                if plugins.contains_key(resource_type) {
                    continue;
                }
                plugins.insert(resource_type.to_owned(), plugin.clone());
                for (schema, kind) in schemas.iter_mut().zip(SchemaKind::ALL) {
                    schema.insert(resource_type.to_owned(), plugin.schema(resource_type, kind));
                }
            }
        }
        let extended_info_schema = SchemaKind::ALL
            .iter()
            .zip(schemas)
            .map(|(kind, schema)| (kind.key().to_owned(), Value::Object(schema)))
            .collect();
        Ok(Self {
            record: ProviderRecord {
                id: config.id,
                name: config.name.clone(),
                description: config.description.clone(),
                extended_info_schema: Arc::new(extended_info_schema),
            },
            bank,
            copy_bank,
            plugins,
        })
    }

    /// With the key that seals its checkpoints.
    fn with_key(mut self, key: &MasterKey) -> Self {
        for home in std::iter::once(&mut self.bank).chain(&mut self.copy_bank) {
            home.checkpoints = home.checkpoints.clone().with_key(key.clone());
        }
        self
    }

    /// What the API shows.
    #[must_use]
    pub fn record(&self) -> &ProviderRecord {
        &self.record
    }

    /// One of its banks.
    ///
    /// # Errors
    /// A 503 when the provider has no copy bank any more.
    pub fn home(&self, place: BankRole) -> Result<&Home, ApiError> {
        let home = match place {
            BankRole::Bank => Some(&self.bank),
            BankRole::CopyBank => self.copy_bank.as_ref(),
        };
        home.ok_or_else(|| {
            let name = &self.record.name;
            ApiError::unavailable(
                format!("The provider '{name}' has no copy bank; the operator has to configure it again."),
                "the copy bank was removed from the configuration",
            )
        })
    }

    /// Its banks: the one that protects write to, and the copy bank if there is one.
    pub fn homes(&self) -> impl Iterator<Item = &Home> {
        std::iter::once(&self.bank).chain(&self.copy_bank)
    }

    /// Where its copies go: into the copy bank, or without one into the bank itself.
    #[must_use]
    pub fn bank_of_copies(&self) -> BankRole {
        match self.copy_bank {
            Some(_) => BankRole::CopyBank,
            None => BankRole::Bank,
        }
    }

    /// The checkpoints of both banks. A list without those of the first bank would hide a loss: it is an error, which
    /// says how to get at the copies.
    ///
    /// # Errors
    /// As [`CheckpointCollection::list_both`].
    pub(crate) async fn list(&self, query: &CheckpointQuery) -> Result<Vec<Checkpoint>, ApiError> {
        let mut homes = self.homes();
        let (Some(bank), copies) = (homes.next(), homes.next()) else {
            return Ok(Vec::new());
        };
        match copies {
            Some(copies) => {
                let second = copies.checkpoints();
                let listed = bank.checkpoints().list_both(second, query).await;
                listed.map_err(|error| match error {
                    CheckpointError::Bank(error) => with_copies(bank_error(&error)),
                    other => other.into(),
                })
            }
            None => Ok(bank.checkpoints().list(query).await?),
        }
    }

    /// Finds a checkpoint in either bank. One that is in the copy bank is found there also when the first bank is
    /// gone, or says that it is deleted, or something that cannot be believed.
    ///
    /// # Errors
    /// As [`CheckpointCollection::get`].
    pub async fn find(&self, id: CheckpointId) -> Result<(BankRole, Checkpoint), CheckpointError> {
        let is_live =
            |found: &Checkpoint| found.status != CheckpointStatus::Deleted && !is_unreadable(found);
        let first = self.bank.checkpoints.get(id).await;
        let of_first = |found| (BankRole::Bank, found);
        let Some(copies) = &self.copy_bank else {
            return first.map(of_first);
        };
        if first.as_ref().is_ok_and(is_live) {
            return first.map(of_first);
        }
        let second = copies.checkpoints.get(id);
        let second = in_time(FIND_PATIENCE, "look into the copy bank", second).await;
        match (first, second) {
            (_, Ok(second)) if is_live(&second) => Ok((BankRole::CopyBank, second)),
            (Ok(first), _) => Ok(of_first(first)),
            (Err(_), Ok(second)) => Ok((BankRole::CopyBank, second)),
            (Err(CheckpointError::NotFound(_)), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    /// The hooks of the plugin that protects the resource's type.
    ///
    /// # Errors
    /// A 400 when no plugin of this provider protects the type, or the plugin refuses.
    pub fn operation(
        &self,
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, ApiError> {
        let flow = hooks.operation().as_str();
        let plugin = self.plugins.get(&resource.resource_type).ok_or_else(|| {
            let reason = format!(
                "Protection Plugin for {} could not be found.",
                resource.resource_type
            );
            flow_error(ErrorKind::BadRequest, flow, reason)
        })?;
        plugin
            .operation(hooks, resource)
            .map_err(|error| plugin_refusal(flow, &error))
    }

    /// Does a plugin of this provider protect the type?
    #[must_use]
    pub fn protects(&self, resource_type: &str) -> bool {
        self.plugins.contains_key(resource_type)
    }

    /// The types that its plugins protect, by name.
    pub(crate) fn types(&self) -> std::collections::BTreeSet<&str> {
        self.plugins.keys().map(String::as_str).collect()
    }

    /// Does the type's plugin tell of each resource that it was restored or verified?
    pub(crate) fn tells_success(&self, resource_type: &str) -> bool {
        let plugin = self.plugins.get(resource_type);
        plugin.is_none_or(|plugin| plugin.tells_success())
    }

    /// The schema of a type's parameters, if a plugin protects the type.
    #[must_use]
    pub fn schema(&self, resource_type: &str, kind: SchemaKind) -> Option<&Value> {
        self.record
            .extended_info_schema
            .get(kind.key())?
            .get(resource_type)
    }
}

/// Every enabled provider, in the order of configuration.
pub struct Providers {
    usable: Vec<Arc<Provider>>,
    unusable: Vec<Unusable>,
}

/// An enabled provider that names a plugin which is not here.
#[derive(Debug, Clone)]
pub struct Unusable {
    /// As it is declared.
    pub config: ProviderConfig,
    /// The plugins that are missing, as it names them.
    pub missing: Vec<String>,
}

impl Providers {
    /// Opens every enabled provider of `configs`. One that names a plugin which is not here is left
    /// out and told by [`unusable`](Self::unusable): the others are not to suffer for it.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn open(
        configs: &[ProviderConfig],
        registry: &Registry,
    ) -> Result<Self, ProviderError> {
        let mut usable: Vec<Arc<Provider>> = Vec::new();
        let mut unusable: Vec<Unusable> = Vec::new();
        for config in configs.iter().filter(|config| config.enabled) {
            let others = usable
                .iter()
                .map(|provider| (provider.record.id, &provider.record.name))
                .chain(
                    unusable
                        .iter()
                        .map(|Unusable { config, .. }| (config.id, &config.name)),
                );
            if let Some((id, twin)) = others.into_iter().find(|(id, _)| *id == config.id) {
                let (twin, name) = (twin.clone(), config.name.clone());
                return Err(ProviderError::Duplicate(twin, name, id));
            }
            let missing = registry.missing(config);
            if missing.is_empty() {
                usable.push(Arc::new(Provider::open(config, registry).await?));
            } else {
                unusable.push(Unusable {
                    config: config.clone(),
                    missing,
                });
            }
        }
        Ok(Self { usable, unusable })
    }

    /// With the key that seals their checkpoints; those that are sealed cannot be read without.
    #[must_use]
    pub fn with_key(mut self, key: &MasterKey) -> Self {
        for provider in &mut self.usable {
            *provider = Arc::new(Provider::clone(provider).with_key(key));
        }
        self
    }

    /// The enabled providers that were left out.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// The provider with an id.
    ///
    /// # Errors
    /// A 404, `ProviderNotFound`.
    pub fn get(&self, id: ProviderId) -> Result<&Arc<Provider>, ApiError> {
        self.usable
            .iter()
            .find(|provider| provider.record.id == id)
            .ok_or_else(|| ApiError::not_found("Provider", id))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Provider>] {
        &self.usable
    }
}
/// The copies are within reach while the first bank is not.
fn with_copies(mut error: ApiError) -> ApiError {
    error.message.push_str(
        " What was copied into the second bank can be shown and restored meanwhile, by its id: `karbor \
         operation-log list --operation copy` names the copies.",
    );
    error
}
