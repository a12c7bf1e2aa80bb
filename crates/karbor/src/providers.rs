//! What providers' files may say, and what an operator should know of the providers there are.

use std::{fs, path::PathBuf};

use karbor_manager::{OptionDef, config::closest};
use karbor_plugin::{ProviderConfig, Registry, RegistryError};
use karbor_plugins::{HostOptions, applications::Protector, host::TYPES};
use karbor_protection::{PROVIDER_OPTIONS, Providers, Unusable};

use crate::original;

/// Every option that a provider's file may hold, whatever is configured.
pub(crate) fn options() -> Result<Vec<OptionDef>, RegistryError> {
    let nowhere = |_: &Registry| HostOptions {
        applications_dir: PathBuf::new(),
        scratch_dir: PathBuf::new(),
        sqlite_worker: PathBuf::new(),
        off_limits: Vec::new(),
    };
    Ok(known(&karbor_plugins::registry(nowhere)?))
}

fn known(registry: &Registry) -> Vec<OptionDef> {
    [PROVIDER_OPTIONS, &registry.options()].concat()
}

/// Providers that cannot be used, with what they miss, and options that mean nothing to any plugin.
pub(crate) fn remarks(
    configs: &[ProviderConfig],
    providers: &Providers,
    registry: &Registry,
) -> Vec<String> {
    let unusable = providers.unusable().iter().map(|unusable| {
        let Unusable { config, missing } = unusable;
        let missing = missing
            .iter()
            .map(|plugin| absent(config, plugin, registry));
        let missing: Vec<_> = missing.collect();
        format!("{} is not usable: {}", config.label(), missing.join("; "))
    });
    let known = known(registry);
    let unknown = configs.iter().flat_map(|config| {
        let options = original::unknown_options(config, &known);
        let of = move |option| format!("{}: unknown option {option}", config.label());
        options.into_iter().map(of)
    });
    unusable.chain(unknown).collect()
}

/// Where a provider names a plugin that is not here, and whether it ever will be.
fn absent(config: &ProviderConfig, plugin: &str, registry: &Registry) -> String {
    let place = line(config, plugin).map_or_else(|| "it".to_owned(), |line| format!("line {line}"));
    match original::missing_plugin(plugin) {
        Some(what) => format!("{place} names '{plugin}' ({what}), which is not here yet"),
        None => {
            let meant = closest(plugin, registry.names());
            let meant = meant.map(|name| format!(" (did you mean '{name}'?)"));
            let meant = meant.unwrap_or_default();
            format!("{place} names '{plugin}', which does not exist{meant}")
        }
    }
}

/// The line of a provider's file that names a plugin.
fn line(config: &ProviderConfig, plugin: &str) -> Option<usize> {
    let text = fs::read_to_string(config.file.as_ref()?).ok()?;
    let names = |line: &str| {
        let (option, value) = line.split_once(['=', ':'])?;
        let option = ["bank", "copy_bank", "plugin"].contains(&option.trim());
        Some(option && value.trim() == plugin)
    };
    let at = text.lines().position(|line| names(line) == Some(true));
    Some(at? + 1)
}

/// What each provider that can be used protects of what applications are made of.
pub(crate) fn protectors(configs: &[ProviderConfig], providers: &Providers) -> Vec<Protector> {
    let usable = configs.iter().filter(|config| config.enabled);
    let protector = |config: &ProviderConfig| {
        let provider = providers.get(config.id).ok()?;
        let types = TYPES.into_iter().filter(|kind| provider.protects(kind));
        Some(Protector {
            label: config.label(),
            types: types.collect(),
        })
    };
    usable.filter_map(protector).collect()
}
