//! Protection plugins: how resources of some types are protected.

pub mod noop;
pub mod simulated;
pub(crate) mod verify;

use karbor_model::Resource;
use karbor_plugin::{PluginError, ProtectionPlugin};

/// The resource types of the original, in its order.
pub const OPENSTACK_TYPES: [&str; 8] = [
    "OS::Keystone::Project",
    "OS::Nova::Server",
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Manila::Share",
    "OS::Neutron::Network",
    "OS::Trove::Instance",
    "OS::Kubernetes::Pod",
];

/// Fails unless `plugin` protects resources of this type.
pub(crate) fn refuse_type(
    plugin: &dyn ProtectionPlugin,
    resource: &Resource,
) -> Result<(), PluginError> {
    let known = plugin.resource_types();
    if known.contains(&resource.resource_type.as_str()) {
        return Ok(());
    }
    Err(PluginError::new(format!(
        "{} does not protect resources of type '{}'; it protects {}",
        plugin.name(),
        resource.resource_type,
        known.join(", ")
    )))
}
