//! `karbor-noop-protection-plugin`: does nothing for any resource of the original's types, and
//! succeeds. It keeps no data, so there is nothing that a verification could find wrong.

use async_trait::async_trait;
use karbor_model::{OPENSTACK_TYPES, Resource};
use karbor_plugin::{HookSet, Operation, PluginError, ProtectionPlugin, SchemaKind};
use serde_json::{Value, json};

use super::refuse_type;

/// The name in configuration.
pub const NAME: &str = "karbor-noop-protection-plugin";

/// The plugin that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

struct NoopOperation;

#[async_trait]
impl Operation for NoopOperation {}

impl ProtectionPlugin for Noop {
    fn name(&self) -> &str {
        NAME
    }

    fn resource_types(&self) -> &[&str] {
        &OPENSTACK_TYPES
    }

    fn schema(&self, _: &str, _: SchemaKind) -> Value {
        json!({})
    }

    fn operation(
        &self,
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        match hooks {
            HookSet::Copy => Err(PluginError::new(format!(
                "{NAME} keeps no data that could be copied"
            ))),
            _ => Ok(Box::new(NoopOperation)),
        }
    }

    fn tells_success(&self) -> bool {
        false
    }
}
