//! Protectables: which resources there are, and what they depend on.

use async_trait::async_trait;
use karbor_model::{RequestContext, Resource};

/// Why a lookup failed. A failed lookup fails the operation that asked: it never means "none".
#[derive(Debug, Clone, thiserror::Error)]
#[error("{resource_type} could not be looked up: {message}")]
pub struct ProtectableError {
    /// The type that was looked up.
    pub resource_type: String,
    /// What happened and what to do.
    pub message: String,
    /// Can trying again help?
    pub retryable: bool,
}

/// Finds resources of one type. Every protectable passes `karbor_plugin::contract::protectable`.
#[async_trait]
pub trait Protectable: Send + Sync + 'static {
    /// The type it finds.
    fn resource_type(&self) -> &str;

    /// Can resources of the type be looked up? One that cannot only says that there is the type and
    /// what it can depend on: plans take such resources as they are given, and nothing is found to
    /// depend on them.
    fn can_look_up(&self) -> bool {
        true
    }

    /// Types of the resources that can depend on one of this type.
    fn parent_types(&self) -> &[&str];

    /// Every resource of the type that the project in `context` may see.
    async fn list(&self, context: &RequestContext) -> Result<Vec<Resource>, ProtectableError>;

    /// One resource, if the project in `context` may see it.
    async fn show(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> Result<Option<Resource>, ProtectableError>;

    /// The resources of this type that `parent` depends on directly.
    async fn dependents(
        &self,
        context: &RequestContext,
        parent: &Resource,
    ) -> Result<Vec<Resource>, ProtectableError>;
}
