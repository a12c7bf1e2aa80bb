//! Finds the endpoint for a message and runs its method.

use std::sync::Arc;

use karbor_model::{ApiError, ErrorKind};
use serde_json::Value;
use tracing::{debug, error};

use super::{RpcEndpoint, RpcError, RpcMessage, RpcVersion};
use crate::caught;

/// The endpoints of a server.
#[derive(Clone)]
pub struct Dispatcher {
    endpoints: Arc<[Arc<dyn RpcEndpoint>]>,
}

impl Dispatcher {
    /// For these endpoints; the first that fits gets a message.
    #[must_use]
    pub fn new(endpoints: Vec<Arc<dyn RpcEndpoint>>) -> Self {
        Self {
            endpoints: endpoints.into(),
        }
    }

    fn find(&self, message: &RpcMessage) -> Result<&Arc<dyn RpcEndpoint>, RpcError> {
        let mut compatible = false;
        for endpoint in self.endpoints.iter() {
            let target = endpoint.target();
            let version = target.version.unwrap_or(RpcVersion::new(1, 0));
            if target.namespace != message.namespace || !version.accepts(message.version) {
                continue;
            }
            if endpoint.methods().iter().any(|m| m.name == message.method) {
                return Ok(endpoint);
            }
            compatible = true;
        }
        let method = message.method.clone();
        Err(if compatible {
            RpcError::NoSuchMethod { method }
        } else {
            RpcError::UnsupportedVersion {
                version: message.version,
                method,
            }
        })
    }

    /// Runs the message's method. A panic in it is an internal error; the cause of an error is
    /// logged here, since it goes no further.
    ///
    /// # Errors
    /// The method's, `UnsupportedVersion` or `NoSuchMethod`.
    pub async fn dispatch(&self, message: RpcMessage) -> Result<Value, ApiError> {
        let request_id = message.context.request_id.clone();
        let method = message.method.clone();
        let outcome = match self.find(&message) {
            Ok(endpoint) => {
                let (context, args) = (&message.context, message.args);
                caught(async { endpoint.dispatch(context, &message.method, args).await })
                    .await
                    .flatten()
            }
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = &outcome {
            if failure.kind == ErrorKind::Internal || failure.cause.is_some() {
                error!(%request_id, %method, "RPC method failed: {failure:?}");
            } else {
                debug!(%request_id, %method, "RPC method refused: {failure:?}");
            }
        }
        outcome
    }
}
