//! What is configured: the plugins there are, and the providers made of them.

use std::{path::PathBuf, sync::Arc};

use karbor_manager::Config;
use karbor_plugin::Registry;
use karbor_plugins::{HostOptions, applications::Surroundings};
use karbor_protection::{Providers, load_provider_configs};

use crate::{
    providers::{protectors, remarks},
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
    pub(crate) async fn load(state: &StateDir, config: &Config) -> Result<Self, Failure> {
        let folder = settings::folder(config, state, "provider_config_dir")?;
        if folder.exists() {
            settings::obeyed(&folder)?;
        }
        let mut configs = load_provider_configs(&folder)?;
        for file in configs.iter().filter_map(|config| config.file.as_ref()) {
            settings::obeyed(file)?;
        }
        if configs.is_empty() {
            configs = karbor_plugins::embedded_providers(&state.join("bank"));
        }
        let applications_dir = settings::folder(config, state, "application_config_dir")?;
        let mut off_limits = vec![state.path().to_owned()];
        let registry = karbor_plugins::registry(|banks| {
            for provider in &configs {
                off_limits.extend(banks.places(provider));
            }
            HostOptions {
                applications_dir,
                scratch_dir: state.join("scratch"),
                sqlite_worker: PathBuf::from(SELF),
                off_limits: off_limits.clone(),
            }
        })?;
        let providers = Providers::open(&configs, &registry).await?;
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
