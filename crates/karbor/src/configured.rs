//! What is configured: the plugins there are, and the providers made of them.

use std::{path::PathBuf, sync::Arc};

use karbor_manager::Config;
use karbor_plugin::{ProviderConfig, Registry};
use karbor_plugins::{HostOptions, applications::Surroundings};
use karbor_protection::{Providers, load_provider_configs};

use crate::{
    providers::{embedded, protectors, remarks},
    settings,
    state::StateDir,
};

type Failure = Box<dyn std::error::Error>;

/// The program that runs, also after a newer one was put in its place.
const SELF: &str = "/proc/self/exe";

/// What is configured: the plugins there are, and the providers made of them.
pub(crate) struct Configured {
    pub(crate) registry: Arc<Registry>,
    pub(crate) providers: Providers,
    /// What the applications have to get along with.
    pub(crate) surroundings: Surroundings,
    /// What an operator should know of the providers' files.
    pub(crate) remarks: Vec<String>,
}

impl Configured {
    /// Reads `providers.d`, or takes the embedded providers when there is none.
    pub(crate) fn load(state: &StateDir, config: &Config) -> Result<Self, Failure> {
        let folder = settings::folder(config, state, "provider_config_dir")?;
        if folder.exists() {
            settings::obeyed(&folder)?;
        }
        let mut configs = load_provider_configs(&folder)?;
        for file in configs.iter().filter_map(|config| config.file.as_ref()) {
            settings::obeyed(file)?;
        }
        if configs.is_empty() {
            configs = embedded(state);
        }
        let banks = configs.iter().flat_map(ProviderConfig::banks);
        let banks = banks.filter_map(|bank| {
            bank.option("file_system_bank_plugin", "file_system_bank_path")
                .map(PathBuf::from)
        });
        let off_limits: Vec<PathBuf> = std::iter::once(state.path().to_owned())
            .chain(banks)
            .collect();
        let registry = karbor_plugins::registry_with_host(HostOptions {
            applications_dir: settings::folder(config, state, "application_config_dir")?,
            scratch_dir: state.join("scratch"),
            sqlite_worker: PathBuf::from(SELF),
            off_limits: off_limits.clone(),
        });
        let providers = Providers::new(&configs, &registry)?;
        let remarks = remarks(&configs, &providers, &registry);
        let surroundings = Surroundings {
            off_limits,
            protectors: protectors(&configs, &providers),
            sqlite_worker: PathBuf::from(SELF),
        };
        Ok(Self {
            registry: Arc::new(registry),
            providers,
            surroundings,
            remarks,
        })
    }
}
