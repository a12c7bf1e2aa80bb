//! The providers that a state directory without `providers.d` starts with, and what an operator should
//! know of the providers there are.

use std::{collections::BTreeMap, fs};

use karbor_manager::config::closest;
use karbor_model::ProviderId;
use karbor_plugin::{ProviderConfig, Registry};
use karbor_plugins::{
    applications::Protector,
    host::{PLUGINS, TYPES},
};
use karbor_protection::{Providers, Unusable};
use uuid::uuid;

use crate::{original, state::StateDir};

/// Id of the embedded provider: the same everywhere, so that a bank that is carried to another
/// machine is found there.
const LOCAL: ProviderId = ProviderId(uuid!("cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72"));

/// Id of the no-op provider, as the original shipped it.
const NOOP: ProviderId = ProviderId(uuid!("b766f37c-d011-4026-8228-28730d734a3f"));

/// A provider that protects this host's applications into `bank/`, and one that does nothing.
pub(crate) fn embedded(state: &StateDir) -> Vec<ProviderConfig> {
    let bank_path = state.join("bank").display().to_string();
    let bank: BTreeMap<_, _> = [("file_system_bank_path".to_owned(), vec![bank_path])].into();
    let sections: BTreeMap<_, _> = [("file_system_bank_plugin".to_owned(), bank)].into();
    let provider = |id, name: &str, description: &str, plugins: &[&str]| ProviderConfig {
        file: None,
        id,
        name: name.to_owned(),
        description: description.to_owned(),
        bank: "karbor-fs-bank-plugin".to_owned(),
        copy_bank: None,
        plugins: plugins.iter().map(|&plugin| plugin.to_owned()).collect(),
        enabled: true,
        sections: sections.clone(),
    };
    vec![
        provider(
            LOCAL,
            "local",
            "Protects this host's applications into the service's own bank",
            &PLUGINS,
        ),
        provider(
            NOOP,
            "No-Op Provider",
            "This provider does nothing for each protect and restore operation. Used for testing",
            &["karbor-noop-protection-plugin"],
        ),
    ]
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
    let unknown = configs.iter().flat_map(|config| {
        let options = original::unknown_options(config);
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
