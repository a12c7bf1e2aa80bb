//! Protection plugins: how resources of some types are protected.

pub mod noop;
pub mod simulated;
pub(crate) mod verify;

use karbor_model::Resource;
use karbor_plugin::{PluginError, ProtectionPlugin};

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
