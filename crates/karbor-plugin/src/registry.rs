//! The registry: which plugins there are, by the names that configuration uses. It is filled by one
//! explicit function (`karbor_plugins::registry`), so a reader finds every plugin there.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use karbor_model::ProviderId;

use crate::{Bank, Protectable, ProtectionPlugin, late::LateBank};

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
    /// Every other section of the file, option by option: a plugin reads its own.
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

    /// The last value of an option in a section.
    #[must_use]
    pub fn option(&self, section: &str, option: &str) -> Option<&str> {
        self.sections
            .get(section)?
            .get(option)?
            .last()
            .map(String::as_str)
    }
}

/// What the names of sections begin with that configure the copy bank.
const COPY: &str = "copy.";

impl ProviderConfig {
    /// The configuration of the copy bank, if there is one: as if it were the bank, of the sections
    /// `copy.…` alone.
    #[must_use]
    pub fn of_copy_bank(&self) -> Option<Self> {
        let bank = self.copy_bank.clone()?;
        let sections = self.sections.iter().filter_map(|(name, options)| {
            let name = name.strip_prefix(COPY)?.to_owned();
            Some((name, options.clone()))
        });
        Some(Self {
            bank,
            copy_bank: None,
            sections: sections.collect(),
            ..self.clone()
        })
    }

    /// Every configuration of a bank: the bank's, then the copy bank's.
    pub fn banks(&self) -> impl Iterator<Item = Self> {
        [Some(self.clone()), self.of_copy_bank()]
            .into_iter()
            .flatten()
    }
}

/// Why a plugin could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// No plugin has the name.
    #[error(
        "provider '{provider}' names the {kind} plugin '{name}', which does not exist; there are: {known}"
    )]
    Unknown {
        /// The provider.
        provider: String,
        /// `bank` or `protection`.
        kind: &'static str,
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

type BankFactory =
    Arc<dyn Fn(&ProviderConfig) -> Result<Arc<dyn Bank>, RegistryError> + Send + Sync>;
type ProtectionFactory =
    Box<dyn Fn(&ProviderConfig) -> Result<Arc<dyn ProtectionPlugin>, RegistryError> + Send + Sync>;

/// Every plugin there is.
#[derive(Default)]
pub struct Registry {
    banks: BTreeMap<&'static str, BankFactory>,
    protections: BTreeMap<&'static str, ProtectionFactory>,
    protectables: BTreeMap<String, Arc<dyn Protectable>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bank plugin.
    pub fn bank(
        &mut self,
        name: &'static str,
        make: impl Fn(&ProviderConfig) -> Result<Arc<dyn Bank>, RegistryError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.banks.insert(name, Arc::new(make));
        self
    }

    /// Adds a protection plugin.
    pub fn protection(
        &mut self,
        name: &'static str,
        make: impl Fn(&ProviderConfig) -> Result<Arc<dyn ProtectionPlugin>, RegistryError>
        + Send
        + Sync
        + 'static,
    ) -> &mut Self {
        self.protections.insert(name, Box::new(make));
        self
    }

    /// Adds a protectable.
    pub fn protectable(&mut self, protectable: Arc<dyn Protectable>) -> &mut Self {
        self.protectables
            .insert(protectable.resource_type().to_owned(), protectable);
        self
    }

    /// The names of all banks and protections.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.banks.keys().chain(self.protections.keys()).copied()
    }

    /// The plugins that a provider names and that are not here.
    #[must_use]
    pub fn missing(&self, provider: &ProviderConfig) -> Vec<String> {
        let banks = std::iter::once(&provider.bank).chain(&provider.copy_bank);
        let banks = banks.filter(|name| !self.banks.contains_key(name.as_str()));
        let protections = provider.plugins.iter();
        let protections = protections.filter(|name| !self.protections.contains_key(name.as_str()));
        banks.chain(protections).cloned().collect()
    }

    /// Makes the bank of a provider.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn make_bank(&self, provider: &ProviderConfig) -> Result<Arc<dyn Bank>, RegistryError> {
        self.bank_factory(provider)?(provider)
    }

    fn bank_factory(&self, provider: &ProviderConfig) -> Result<&BankFactory, RegistryError> {
        let make = self.banks.get(provider.bank.as_str());
        make.ok_or_else(|| unknown(provider, "bank", &provider.bank, self.banks.keys()))
    }

    /// Makes the bank that a provider's copies go to, if it names one. One that is away, a disk that is
    /// only plugged in to copy to, is opened when it is there: nothing else has to wait for it.
    ///
    /// # Errors
    /// [`RegistryError`]; also when it is the provider's bank once more.
    pub fn make_copy_bank(
        &self,
        provider: &ProviderConfig,
    ) -> Result<Option<Arc<dyn Bank>>, RegistryError> {
        let Some(config) = provider.of_copy_bank() else {
            return Ok(None);
        };
        let refuse = |message: String| RegistryError::Config {
            provider: provider.name.clone(),
            message,
        };
        let same = |(name, options)| provider.sections.get(name) == Some(options);
        let is_bank = config.bank == provider.bank
            && !config.sections.is_empty()
            && config.sections.iter().all(same);
        if is_bank {
            return Err(refuse(format!(
                "its copy bank is its bank once more: the sections [{COPY}…] must say another place"
            )));
        }
        let make = self.bank_factory(&config)?.clone();
        match make(&config) {
            Ok(bank) => Ok(Some(bank)),
            Err(RegistryError::Away { message, .. }) => {
                let name = format!("the copy bank of '{}'", provider.name);
                tracing::warn!(
                    reason = message,
                    "{name} is away; it is tried anew when it is needed"
                );
                let open = Arc::new(move || make(&config));
                Ok(Some(Arc::new(LateBank::new(name, open))))
            }
            Err(RegistryError::Config { message, .. }) => Err(refuse(format!(
                "its copy bank, which the sections [{COPY}…] configure: {message}"
            ))),
            Err(error) => Err(error),
        }
    }

    /// Makes the protection plugins of a provider, in the order that it names them.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn make_protections(
        &self,
        provider: &ProviderConfig,
    ) -> Result<Vec<Arc<dyn ProtectionPlugin>>, RegistryError> {
        provider
            .plugins
            .iter()
            .map(|name| {
                let make = self.protections.get(name.as_str());
                make.ok_or_else(|| unknown(provider, "protection", name, self.protections.keys()))?(
                    provider,
                )
            })
            .collect()
    }

    /// The protectables, by resource type.
    #[must_use]
    pub fn protectables(&self) -> &BTreeMap<String, Arc<dyn Protectable>> {
        &self.protectables
    }
}

fn unknown<'a>(
    provider: &ProviderConfig,
    kind: &'static str,
    name: &str,
    known: impl Iterator<Item = &'a &'static str>,
) -> RegistryError {
    RegistryError::Unknown {
        provider: provider.name.clone(),
        kind,
        name: name.to_owned(),
        known: known.copied().collect::<Vec<_>>().join(", "),
    }
}
