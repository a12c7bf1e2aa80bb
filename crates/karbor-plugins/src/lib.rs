//! The plugins: protectables and protections; and the registry, which names every plugin there is.

mod embedded;
pub mod host;
pub mod protectables;
pub mod protections;

use std::sync::Arc;

use karbor_banks::file_system;
use karbor_plugin::{PluginSpec, Registry, RegistryError};

use protections::{noop, simulated};

pub use embedded::embedded_providers;
pub use host::{HostOptions, SQLITE_WORKER, applications, sqlite_worker};

/// Every plugin there is. `host` says how those for what the operator declares on this host are set up; it is shown the
/// banks, whose places are off limits to them.
///
/// # Errors
/// [`RegistryError::DeclaredTwice`].
pub fn registry(host: impl FnOnce(&Registry) -> HostOptions) -> Result<Registry, RegistryError> {
    let mut registry = Registry::new();
    registry.add(file_system::spec())?;
    registry.add(PluginSpec::protection(noop::NAME, Arc::new(noop::Noop)))?;
    registry.add(PluginSpec::protection(
        simulated::NAME,
        Arc::new(simulated::Simulated),
    ))?;
    for protectable in protectables::openstack::OpenStackType::all() {
        registry.add_protectable(protectable)?;
    }
    let host = host(&registry);
    host::register(&mut registry, host)?;
    Ok(registry)
}
