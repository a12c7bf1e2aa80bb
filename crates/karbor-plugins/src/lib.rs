//! The plugins: banks, protectables and protections, and the registry that names them.

pub mod applications;
pub mod banks;
pub mod protectables;
pub mod protections;
mod rename;

use std::sync::Arc;

use karbor_plugin::Registry;

pub use protections::host::{HostOptions, SQLITE_WORKER, sqlite_worker};

/// Every plugin there is, by the names that configuration uses.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .bank(banks::file_system::NAME, |config| {
            let bank = banks::file_system::FileSystemBank::from_config(config)?;
            Ok(Arc::new(bank))
        })
        .protection(protections::noop::NAME, |_| {
            Ok(Arc::new(protections::noop::Noop))
        })
        .protection(protections::simulated::NAME, |_| {
            Ok(Arc::new(protections::simulated::Simulated))
        });
    for protectable in protectables::openstack::OpenStackType::all() {
        registry.protectable(protectable);
    }
    registry
}

/// As [`registry`], and with the plugins for what the operator declares on this host.
#[must_use]
pub fn registry_with_host(options: HostOptions) -> Registry {
    let mut registry = registry();
    protections::host::register(&mut registry, options);
    registry
}
