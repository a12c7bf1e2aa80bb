//! The resource types of OpenStack, as the original had them, by name: which there are and how they
//! depend on each other. Nothing here asks OpenStack what resources there are.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_model::{RequestContext, Resource};
use karbor_plugin::{Protectable, ProtectableError};

const PROJECT: &str = "OS::Keystone::Project";
const SERVER: &str = "OS::Nova::Server";
const POD: &str = "OS::Kubernetes::Pod";

/// Each type with the types of what depends on it.
const TYPES: [(&str, &[&str]); 8] = [
    (PROJECT, &[]),
    (SERVER, &[PROJECT]),
    ("OS::Cinder::Volume", &[SERVER, POD, PROJECT]),
    ("OS::Glance::Image", &[SERVER, PROJECT]),
    ("OS::Manila::Share", &[PROJECT]),
    ("OS::Neutron::Network", &[PROJECT]),
    ("OS::Trove::Instance", &[PROJECT]),
    (POD, &[PROJECT]),
];

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
        TYPES
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protections::OPENSTACK_TYPES;

    #[test]
    fn all_types_are_known_and_depend_on_known_ones() {
        assert_eq!(TYPES.map(|(name, _)| name), OPENSTACK_TYPES);
        let mut parents = TYPES.iter().flat_map(|(_, parents)| parents.iter());
        assert!(parents.all(|parent| OPENSTACK_TYPES.contains(parent)));
    }
}
