//! As whom scheduled operations run: by the trust of their owner, where users come from keystone.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_api::AuthStrategy;
use karbor_identity::{Keystone, TrustError};
use karbor_manager::{Clock, Config};
use karbor_model::{ApiError, ErrorKind, RequestContext, RequestId, ScheduledOperation};
use karbor_operationengine::{OwnerContexts, RecordedOwners};

type Failure = Box<dyn std::error::Error>;

/// What the configuration says.
pub(crate) fn owners(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn OwnerContexts>, Failure> {
    if karbor_api::Settings::read(config)?.auth_strategy != AuthStrategy::Keystone {
        return Ok(Arc::new(RecordedOwners));
    }
    let settings = karbor_identity::Settings::read(config)?;
    Ok(Arc::new(TrustingOwners(Keystone::new(settings, clock)?)))
}

/// Owners that keystone vouches for.
struct TrustingOwners(Keystone);

#[async_trait]
impl OwnerContexts for TrustingOwners {
    async fn context(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<RequestContext, ApiError> {
        let trust_id = trust_id.ok_or_else(|| {
            refused(
                "It was made when users did not come from keystone, so its owner trusts nobody to \
                 run it: delete it and make it anew.",
            )
        })?;
        let context = self.0.by_trust(trust_id, RequestId::new()).await;
        let context = context.map_err(untaken)?;
        let is_owner = context.user_id.as_ref() == Some(&operation.user_id);
        if !is_owner || context.project_id != operation.project_id {
            return Err(refused(
                "Its trust is another owner's: delete it and make it anew.",
            ));
        }
        Ok(context)
    }
}

/// Trying again gives the service no user to take trusts.
fn untaken(error: TrustError) -> ApiError {
    match error {
        TrustError::NoTrustee => {
            let message = format!("The service cannot act for the owner: {error}, and restart it.");
            ApiError::new(ErrorKind::Internal, "AuthorizationFailure", message)
        }
        other => other.into(),
    }
}

fn refused(message: &str) -> ApiError {
    ApiError::forbidden("AuthorizationFailure", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_a_trustee_fails_the_run_and_blames_nobody_else() {
        let error = untaken(TrustError::NoTrustee);
        assert_eq!(
            error.kind,
            ErrorKind::Internal,
            "neither tried again nor the owner's doing"
        );
        assert_eq!(
            error.message,
            "The service cannot act for the owner: an application credential cannot take trusts; set a user \
             and a password in [trustee], and restart it."
        );
    }
}
