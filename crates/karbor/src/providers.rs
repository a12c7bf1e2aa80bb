//! The providers that a state directory without `providers.d` starts with.

use std::collections::BTreeMap;

use karbor_model::ProviderId;
use karbor_plugin::ProviderConfig;
use uuid::uuid;

use crate::state::StateDir;

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
        id,
        name: name.to_owned(),
        description: description.to_owned(),
        bank: "karbor-fs-bank-plugin".to_owned(),
        copy_bank: None,
        plugins: plugins.iter().map(|&plugin| plugin.to_owned()).collect(),
        enabled: true,
        sections: sections.clone(),
    };
    let host = [
        "karbor-host-application-plugin",
        "karbor-host-directory-plugin",
        "karbor-host-sqlite-plugin",
        "karbor-host-postgresql-plugin",
        "karbor-simulated-protection-plugin",
    ];
    vec![
        provider(
            LOCAL,
            "local",
            "Protects this host's applications into the service's own bank",
            &host,
        ),
        provider(
            NOOP,
            "No-Op Provider",
            "This provider does nothing for each protect and restore operation. Used for testing",
            &["karbor-noop-protection-plugin"],
        ),
    ]
}
