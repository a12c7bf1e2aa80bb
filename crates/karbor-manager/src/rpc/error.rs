//! What can go wrong on the way, apart from the method's own error.

use std::time::Duration;

use karbor_model::{ApiError, ErrorKind};

use super::{RpcVersion, Target};

/// Why a message was not answered by the method that it was for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// No endpoint has a version that can take the message.
    #[error("Endpoint does not support RPC version {version}. Attempted method: {method}")]
    UnsupportedVersion {
        /// The version that the message asked for.
        version: RpcVersion,
        /// The method.
        method: String,
    },
    /// An endpoint would take the version, but has no such method.
    #[error("Endpoint does not support RPC method {method}")]
    NoSuchMethod {
        /// The method.
        method: String,
    },
    /// An argument is missing or of the wrong form.
    #[error("Invalid input received: argument '{argument}': {reason}")]
    BadArgument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The target cannot be used for what was to be done with it.
    #[error("{reason}:{target}")]
    InvalidTarget {
        /// What it lacks, or has too much.
        reason: &'static str,
        /// The target.
        target: Box<Target>,
    },
    /// Nobody listens.
    #[error("No service is listening on {address}. Check that it is running, then try again.")]
    NoServer {
        /// The topic, with the server if one was named.
        address: String,
    },
    /// The service stopped before it had answered.
    #[error(
        "The service on {address} stopped before it had answered {method}. \
         It may have begun: look before you try again."
    )]
    Stopped {
        /// The topic, with the server if one was named.
        address: String,
        /// The method.
        method: String,
    },
    /// No answer in time.
    #[error(
        "The service on {address} did not answer {method} within {seconds} s. \
         It may still be at work: look before you try again.",
        seconds = .after.as_secs_f64()
    )]
    Timeout {
        /// The topic, with the server if one was named.
        address: String,
        /// The method.
        method: String,
        /// How long we waited.
        after: Duration,
    },
}

impl From<RpcError> for ApiError {
    fn from(error: RpcError) -> Self {
        // Classes are the names of oslo.messaging's exceptions.
        let (kind, class) = match &error {
            RpcError::UnsupportedVersion { .. } => {
                (ErrorKind::NotImplemented, "UnsupportedVersion")
            }
            RpcError::NoSuchMethod { .. } => (ErrorKind::NotImplemented, "NoSuchMethod"),
            // What code of ours got wrong, not the client that it works for.
            RpcError::InvalidTarget { .. } => (ErrorKind::Internal, "InvalidTarget"),
            RpcError::BadArgument { .. } => (ErrorKind::BadRequest, "InvalidInput"),
            RpcError::NoServer { .. } => (ErrorKind::Unavailable, "MessageUndeliverable"),
            RpcError::Stopped { .. } | RpcError::Timeout { .. } => {
                (ErrorKind::Timeout, "MessagingTimeout")
            }
        };
        ApiError::new(kind, class, error.to_string())
    }
}
