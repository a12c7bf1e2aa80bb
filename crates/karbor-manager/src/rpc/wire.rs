//! Messages and replies, and how values get in and out of them.

use karbor_model::{ApiError, RequestContext};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{RpcArgs, RpcError, RpcVersion};

/// A message to a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RpcMessage {
    /// The method.
    pub method: String,
    /// Its arguments.
    #[serde(default)]
    pub args: RpcArgs,
    /// Which interface.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The interface version it asks for.
    #[serde(default)]
    pub version: RpcVersion,
    /// Who asks.
    pub context: RequestContext,
}

/// The answer to a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RpcReply {
    /// What the method returned.
    #[serde(default)]
    pub result: Value,
    /// Why it did not.
    #[serde(default)]
    pub failure: Option<ApiError>,
}

impl From<Result<Value, ApiError>> for RpcReply {
    fn from(outcome: Result<Value, ApiError>) -> Self {
        match outcome {
            Ok(result) => Self {
                result,
                failure: None,
            },
            Err(failure) => Self {
                result: Value::Null,
                failure: Some(failure),
            },
        }
    }
}

impl From<RpcReply> for Result<Value, ApiError> {
    fn from(reply: RpcReply) -> Self {
        match reply.failure {
            Some(failure) => Err(failure),
            None => Ok(reply.result),
        }
    }
}

/// A value as it goes into a message.
///
/// # Errors
/// `Internal` when the value has no JSON form.
pub fn encode<T: Serialize>(value: &T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| {
        ApiError::internal(format!(
            "{} cannot be put into an RPC message: {error}",
            std::any::type_name::<T>()
        ))
    })
}

/// Takes an argument out of a message; one that is missing counts as null.
///
/// # Errors
/// [`RpcError::BadArgument`] naming it.
pub fn argument<T: DeserializeOwned>(args: &mut RpcArgs, name: &str) -> Result<T, ApiError> {
    let value = args.remove(name);
    let missing = value.is_none();
    serde_json::from_value(value.unwrap_or(Value::Null)).map_err(|error| {
        let reason = if missing {
            "it is missing".to_owned()
        } else {
            error.to_string()
        };
        RpcError::BadArgument {
            argument: name.to_owned(),
            reason,
        }
        .into()
    })
}

/// Takes an argument out of a message; one that is missing or null has the `default`.
///
/// # Errors
/// [`RpcError::BadArgument`] naming it.
pub fn argument_or<T: DeserializeOwned>(
    args: &mut RpcArgs,
    name: &str,
    default: impl FnOnce() -> T,
) -> Result<T, ApiError> {
    match args.get(name) {
        None => Ok(default()),
        Some(Value::Null) => {
            args.remove(name);
            Ok(default())
        }
        Some(_) => argument(args, name),
    }
}

/// Looks at what is left of a message once the method's arguments have been taken out.
///
/// # Errors
/// [`RpcError::BadArgument`] naming one that the method does not have.
pub fn no_more_arguments(args: &RpcArgs, method: &str) -> Result<(), ApiError> {
    match args.keys().next() {
        None => Ok(()),
        Some(name) => Err(RpcError::BadArgument {
            argument: name.clone(),
            reason: format!("{method} has no such argument"),
        }
        .into()),
    }
}

/// What a method returned, out of its reply.
///
/// # Errors
/// `Internal` when the service answered in a form that is not ours.
pub fn result<T: DeserializeOwned>(method: &str, value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| {
        ApiError::internal(format!("the answer to {method} cannot be read: {error}"))
    })
}
