//! The resource types of OpenStack, by name. Nothing here asks OpenStack what resources there are.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_model::{OPENSTACK_PARENTS, RequestContext, Resource};
use karbor_plugin::{Protectable, ProtectableError};

/// A type whose resources cannot be looked up.
#[derive(Debug, Clone, Copy)]
pub struct OpenStackType {
    resource_type: &'static str,
    parents: &'static [&'static str],
}

impl OpenStackType {
    /// One for each type.
    #[must_use]
    pub fn all() -> Vec<Arc<dyn Protectable>> {
        OPENSTACK_PARENTS
            .into_iter()
            .map(|(resource_type, parents)| {
                Arc::new(Self {
                    resource_type,
                    parents,
                }) as Arc<dyn Protectable>
            })
            .collect()
    }

    fn error(self) -> ProtectableError {
        ProtectableError {
            resource_type: self.resource_type.to_owned(),
            message: "this service is not connected to OpenStack".to_owned(),
            retryable: false,
        }
    }
}

#[async_trait]
impl Protectable for OpenStackType {
    fn resource_type(&self) -> &str {
        self.resource_type
    }

    fn can_look_up(&self) -> bool {
        false
    }

    fn parent_types(&self) -> &[&str] {
        self.parents
    }

    async fn list(&self, _: &RequestContext) -> Result<Vec<Resource>, ProtectableError> {
        Err(self.error())
    }

    async fn show(
        &self,
        _: &RequestContext,
        _: &str,
    ) -> Result<Option<Resource>, ProtectableError> {
        Err(self.error())
    }

    async fn dependents(
        &self,
        _: &RequestContext,
        _: &Resource,
    ) -> Result<Vec<Resource>, ProtectableError> {
        Err(self.error())
    }
}
