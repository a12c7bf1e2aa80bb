//! The plugins: protectables and protections; and the registry, which names every plugin there is.

pub mod host;
pub mod protectables;
pub mod protections;

use std::sync::Arc;

use karbor_banks::file_system::{self, FileSystemBank};
use karbor_plugin::Registry;

pub use host::{HostOptions, SQLITE_WORKER, applications, sqlite_worker};

/// Every plugin there is, by the names that configuration uses.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .bank(file_system::NAME, |config| {
            Ok(Arc::new(FileSystemBank::from_config(config)?))
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
    host::register(&mut registry, options);
    registry
}
