//! The registry: which plugins there are, by the names that configuration uses. It is filled by one
//! explicit function (`karbor_plugins::registry`), so a reader finds every plugin there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use karbor_model::{ConfigError, GivenOption, OptionDef, Options, ProviderId, Source};

use crate::{
    Bank, Open, OpenError, PluginKind, PluginSpec, Protectable, ProtectionPlugin,
    late::{LateBank, OpenBank},
    layers::{self, BankMetrics, Limits},
};

/// One `providers.d/*.conf`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The file; none for a provider that is built in.
    pub file: Option<PathBuf>,
    /// Id.
    pub id: ProviderId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Name of the bank plugin.
    pub bank: String,
    /// Name of the plugin of the bank that copies go to; its sections are those called `copy.…`.
    pub copy_bank: Option<String>,
    /// Names of the protection plugins.
    pub plugins: Vec<String>,
    /// Is it in use?
    pub enabled: bool,
    /// Every other section of the file, option by option: a plugin is given those that it declares.
    pub sections: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl ProviderConfig {
    /// The provider as messages to the operator name it: where it is declared, too.
    #[must_use]
    pub fn label(&self) -> String {
        let name = &self.name;
        match &self.file {
            Some(file) => format!("provider '{name}' in {}", file.display()),
            None => format!("provider '{name}'"),
        }
    }

    /// The values of declared options: those of the file, taken literally, or the defaults.
    fn options(&self, defs: &[OptionDef]) -> Result<Options, ConfigError> {
        Options::check(self.given(defs))
    }

    fn given(&self, defs: &[OptionDef]) -> impl Iterator<Item = GivenOption> {
        let file = self.file.clone();
        let source = file.map_or(Source::Override, Source::File);
        defs.iter().map(move |def| {
            let section = self.sections.get(def.group);
            match section.and_then(|options| options.get(def.name)) {
                Some(values) => GivenOption {
                    def: *def,
                    values: values.clone(),
                    source: source.clone(),
                },
                None => GivenOption::from(*def),
            }
        })
    }
}

/// The section of a provider's file that says what the provider is.
const PROVIDER: &str = "provider";

/// What the names of sections begin with that configure the copy bank.
const COPY: &str = "copy.";

impl ProviderConfig {
    /// The configuration of the copy bank, if there is one: as if it were the bank, of the sections
    /// `copy.…` alone.
    #[must_use]
    pub fn of_copy_bank(&self) -> Option<Self> {
        let bank = self.copy_bank.clone()?;
        Some(self.with_copy_sections(bank))
    }

    /// The configuration of a bank by the sections `copy.…` alone.
    fn with_copy_sections(&self, bank: String) -> Self {
        let sections = self.sections.iter().filter_map(|(name, options)| {
            let name = name.strip_prefix(COPY)?.to_owned();
            Some((name, options.clone()))
        });
        Self {
            bank,
            copy_bank: None,
            sections: sections.collect(),
            ..self.clone()
        }
    }
}

/// Why a plugin could not be added or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// Two plugins have the same name.
    #[error("two plugins have the name '{0}'; one of them must get another")]
    DeclaredTwice(String),
    /// Two plugins declare the same option differently, or one declares an option that is not its own.
    #[error(transparent)]
    Option(ConfigError),
    /// No plugin has the name.
    #[error(
        "provider '{provider}' names the {kind} plugin '{name}', which does not exist; there are: {known}"
    )]
    Unknown {
        /// The provider.
        provider: String,
        /// What it is to be.
        kind: PluginKind,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The plugin refuses its configuration.
    #[error("provider '{provider}': {message}")]
    Config {
        /// The provider.
        provider: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// Its configuration is good, but the bank cannot be opened now.
    #[error("provider '{provider}': {message}")]
    Away {
        /// The provider.
        provider: String,
        /// Why, and what to do.
        message: String,
    },
}

impl RegistryError {
    fn of(provider: &ProviderConfig, error: OpenError) -> Self {
        let provider = provider.name.clone();
        match error {
            OpenError::Config(message) => Self::Config { provider, message },
            OpenError::Away(message) => Self::Away { provider, message },
        }
    }
}

/// A bank with its layers around it.
pub struct OpenedBank {
    /// What everybody uses.
    pub bank: Arc<dyn Bank>,
    /// What was asked of it.
    pub metrics: Arc<BankMetrics>,
}

/// Every plugin there is.
#[derive(Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, PluginSpec>,
    protectables: BTreeMap<String, Arc<dyn Protectable>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a plugin. Plugins may share an option that they declare alike.
    ///
    /// # Errors
    /// [`RegistryError::DeclaredTwice`]; [`RegistryError::Option`] when an option of it is one of another plugin, declared
    /// differently, or in a section that says what a provider is or configures the layers of its bank.
    pub fn add(&mut self, spec: PluginSpec) -> Result<(), RegistryError> {
        let name = spec.name;
        if self.plugins.contains_key(name) {
            return Err(RegistryError::DeclaredTwice(name.to_owned()));
        }
        let known = self.options();
        for def in spec.options {
            let is_taken = [PROVIDER, layers::SECTION].contains(&def.group)
                || known.iter().any(|other| {
                    (other.group, other.name) == (def.group, def.name) && other != def
                });
            if is_taken {
                return Err(RegistryError::Option(ConfigError::DeclaredTwice {
                    group: def.group.to_owned(),
                    name: def.name.to_owned(),
                }));
            }
        }
        self.plugins.insert(name, spec);
        Ok(())
    }

    /// Adds a protectable.
    ///
    /// # Errors
    /// [`RegistryError::DeclaredTwice`]: its resource type has one already.
    pub fn add_protectable(
        &mut self,
        protectable: Arc<dyn Protectable>,
    ) -> Result<(), RegistryError> {
        let name = protectable.resource_type().to_owned();
        match self.protectables.insert(name.clone(), protectable) {
            None => Ok(()),
            Some(_) => Err(RegistryError::DeclaredTwice(name)),
        }
    }

    /// The names of all plugins.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.keys().copied()
    }

    /// The options that a provider's file may hold for plugins and for the layers of banks, each once. Those of a copy
    /// bank stand in sections whose names begin with `copy.`.
    #[must_use]
    pub fn options(&self) -> Vec<OptionDef> {
        let of_plugins = self.plugins.values().flat_map(|spec| spec.options);
        let mut seen = BTreeSet::new();
        layers::OPTIONS
            .iter()
            .chain(of_plugins)
            .filter(|def| seen.insert((def.group, def.name)))
            .copied()
            .collect()
    }

    /// The plugins that a provider names and that are not here.
    #[must_use]
    pub fn missing(&self, provider: &ProviderConfig) -> Vec<String> {
        let banks = std::iter::once(&provider.bank).chain(&provider.copy_bank);
        let banks = banks.map(|name| (PluginKind::Bank, name));
        let protections = provider.plugins.iter();
        let protections = protections.map(|name| (PluginKind::Protection, name));
        banks
            .chain(protections)
            .filter(|(kind, name)| self.find(*kind, name).is_none())
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The places of this host that a provider's banks lie in, be it in use or not, and those of banks that its file
    /// configures and does not name (any more, or by a mistyped name): what lies there may be the last copy. An option
    /// with a value that it cannot have is left out: the others say where the bank is all the same.
    #[must_use]
    pub fn places(&self, provider: &ProviderConfig) -> Vec<PathBuf> {
        let copies = provider.copy_bank.clone().unwrap_or_default();
        let configs = [provider.clone(), provider.with_copy_sections(copies)];
        let places = configs.iter().flat_map(|config| {
            let banks = self.plugins.values().filter(|spec| {
                let is_configured = |def: &OptionDef| config.sections.contains_key(def.group);
                spec.kind() == PluginKind::Bank
                    && (spec.name == config.bank || spec.options.iter().any(is_configured))
            });
            banks.flat_map(|spec| {
                let given = config.given(spec.options);
                let good = given.filter(|given| Options::check([given.clone()]).is_ok());
                let options = Options::check(good);
                options.map_or_else(|_| Vec::new(), |options| (spec.places)(&options))
            })
        });
        places.collect()
    }

    /// Opens the bank of a provider.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open_bank(&self, provider: &ProviderConfig) -> Result<OpenedBank, RegistryError> {
        let (open, limits) = self.opening(provider)?;
        let bank = open().await;
        let bank = bank.map_err(|error| RegistryError::of(provider, error))?;
        Ok(with_layers(bank, limits))
    }

    /// Opens the bank that a provider's copies go to, if it names one. One that is away, a disk that is
    /// only plugged in to copy to, is opened when it is there: nothing else has to wait for it.
    ///
    /// # Errors
    /// [`RegistryError`]; also when it is the provider's bank once more.
    pub async fn open_copy_bank(
        &self,
        provider: &ProviderConfig,
    ) -> Result<Option<OpenedBank>, RegistryError> {
        let Some(config) = provider.of_copy_bank() else {
            return Ok(None);
        };
        if is_same_bank(&config, provider) {
            return Err(RegistryError::Config {
                provider: provider.name.clone(),
                message: format!(
                    "its copy bank is its bank once more: the sections [{COPY}…] must say another place"
                ),
            });
        }
        let opened = self.open_late(&config).await;
        opened.map(Some).map_err(|error| match error {
            RegistryError::Config { provider, message } => RegistryError::Config {
                provider,
                message: format!(
                    "its copy bank, which the sections [{COPY}…] configure: {message}"
                ),
            },
            error => error,
        })
    }

    /// Opens the bank that a configuration names, now or when it is there.
    async fn open_late(&self, config: &ProviderConfig) -> Result<OpenedBank, RegistryError> {
        let (open, limits) = self.opening(config)?;
        let name = format!("the copy bank of '{}'", config.name);
        let late = LateBank::new(name.clone(), open);
        let bank = match late.opened().await {
            Ok(bank) => bank.clone(),
            Err(OpenError::Away(reason)) => {
                tracing::warn!(reason, "{name} is away; it is tried anew when it is needed");
                Arc::new(late)
            }
            Err(error) => return Err(RegistryError::of(config, error)),
        };
        Ok(with_layers(bank, limits))
    }

    /// What opens the bank that a configuration names, and the limits of its layers. All options are checked: opening a
    /// bank may make its directories, and one that is away must not hide what is wrong.
    fn opening(&self, provider: &ProviderConfig) -> Result<(OpenBank, Limits), RegistryError> {
        let found = self.find(PluginKind::Bank, &provider.bank);
        let Some((spec, Open::Bank(open))) = found.map(|spec| (spec, &spec.open)) else {
            return Err(self.unknown(provider, PluginKind::Bank, &provider.bank));
        };
        let options = checked(provider, spec.options)?;
        let limits = Limits::of(&checked(provider, layers::OPTIONS)?);
        let limits = limits.map_err(|error| RegistryError::of(provider, error.into()))?;
        let open = open.clone();
        Ok((Arc::new(move || open(options.clone())), limits))
    }

    /// Opens the protection plugins of a provider, in the order that it names them.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open_protections(
        &self,
        provider: &ProviderConfig,
    ) -> Result<Vec<Arc<dyn ProtectionPlugin>>, RegistryError> {
        let mut plugins = Vec::new();
        for name in &provider.plugins {
            let found = self.find(PluginKind::Protection, name);
            let Some((spec, Open::Protection(open))) = found.map(|spec| (spec, &spec.open)) else {
                return Err(self.unknown(provider, PluginKind::Protection, name));
            };
            let opened = open(checked(provider, spec.options)?).await;
            plugins.push(opened.map_err(|error| RegistryError::of(provider, error))?);
        }
        Ok(plugins)
    }

    /// The protectables, by resource type.
    #[must_use]
    pub fn protectables(&self) -> &BTreeMap<String, Arc<dyn Protectable>> {
        &self.protectables
    }

    fn find(&self, kind: PluginKind, name: &str) -> Option<&PluginSpec> {
        self.plugins.get(name).filter(|spec| spec.kind() == kind)
    }

    fn unknown(&self, provider: &ProviderConfig, kind: PluginKind, name: &str) -> RegistryError {
        let known = self.plugins.values().filter(|spec| spec.kind() == kind);
        let known: Vec<_> = known.map(|spec| spec.name).collect();
        RegistryError::Unknown {
            provider: provider.name.clone(),
            kind,
            name: name.to_owned(),
            known: known.join(", "),
        }
    }
}

/// Is the copy bank that `config` describes the provider's bank?
fn is_same_bank(config: &ProviderConfig, provider: &ProviderConfig) -> bool {
    let own = config.sections.iter();
    let mut own = own.filter(|(name, _)| *name != layers::SECTION).peekable();
    config.bank == provider.bank
        && own.peek().is_some()
        && own.all(|(name, options)| provider.sections.get(name) == Some(options))
}

/// The one place where banks get their layers.
fn with_layers(bank: Arc<dyn Bank>, limits: Limits) -> OpenedBank {
    let (bank, metrics) = layers::layered(bank, limits);
    OpenedBank { bank, metrics }
}

fn checked(provider: &ProviderConfig, defs: &[OptionDef]) -> Result<Options, RegistryError> {
    let options = provider.options(defs);
    options.map_err(|error| RegistryError::of(provider, error.into()))
}
