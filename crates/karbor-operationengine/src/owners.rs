//! As whom scheduled operations run.

use async_trait::async_trait;
use karbor_model::{ApiError, RequestContext, ScheduledOperation};

/// Makes contexts for the owners of scheduled operations.
#[async_trait]
pub trait OwnerContexts: Send + Sync + 'static {
    /// A context for the owner of `operation`, in its project. `trust_id`: the trust that the owner
    /// gave for it, where users come from an identity service.
    ///
    /// # Errors
    /// A retryable one when it cannot be told now. [`ErrorKind::Forbidden`] when the owner does not let
    /// the operation run any more: it is disabled. Any other fails the run.
    ///
    /// [`ErrorKind::Forbidden`]: karbor_model::ErrorKind::Forbidden
    async fn context(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<RequestContext, ApiError>;
}

/// Owners that nobody vouches for: the user and project that are recorded with the operation.
#[derive(Debug, Clone, Copy)]
pub struct RecordedOwners;

#[async_trait]
impl OwnerContexts for RecordedOwners {
    async fn context(
        &self,
        operation: &ScheduledOperation,
        _trust_id: Option<&str>,
    ) -> Result<RequestContext, ApiError> {
        Ok(RequestContext::for_project(
            &operation.user_id,
            &operation.project_id,
            false,
        ))
    }
}
