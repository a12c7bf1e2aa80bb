//! The providers that a service has when nobody declared any.

use std::{collections::BTreeMap, path::Path};

use karbor_banks::file_system;
use karbor_model::ProviderId;
use karbor_plugin::ProviderConfig;
use uuid::uuid;

use crate::{host::PLUGINS, protections::noop};

/// Id of the provider for this host: the same everywhere, so that a bank that is carried to another machine is found
/// there.
const LOCAL: ProviderId = ProviderId(uuid!("cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72"));

/// Id of the no-op provider, as the original shipped it.
const NOOP: ProviderId = ProviderId(uuid!("b766f37c-d011-4026-8228-28730d734a3f"));

/// A provider that protects this host's applications into a bank at `bank`, and one that does nothing.
#[must_use]
pub fn embedded_providers(bank: &Path) -> Vec<ProviderConfig> {
    let sections = BTreeMap::from([file_system::section(bank)]);
    let provider = |id, name: &str, description: &str, plugins: &[&str]| ProviderConfig {
        file: None,
        id,
        name: name.to_owned(),
        description: description.to_owned(),
        bank: file_system::NAME.to_owned(),
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
            &[noop::NAME],
        ),
    ]
}
