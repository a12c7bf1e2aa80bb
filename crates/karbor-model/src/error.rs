//! The error that people see. What went wrong inside travels beside it, to the log only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What sort of failure, which decides the HTTP status and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong in itself (400).
    BadRequest,
    /// Nobody was authenticated (401).
    Unauthorized,
    /// Somebody was, and may not (403).
    Forbidden,
    /// No such thing, or not for this project (404).
    NotFound,
    /// The thing is in a state that does not allow it (409).
    Conflict,
    /// Too large, or over a quota (413).
    OverLimit,
    /// Something else still depends on the thing (424).
    FailedDependency,
    /// The body is not JSON (415).
    UnsupportedMediaType,
    /// Not built (501).
    NotImplemented,
    /// A service or database is away; try again (503).
    Unavailable,
    /// A service did not answer in time; try again (504).
    Timeout,
    /// A fault of ours (500).
    Internal,
}

impl ErrorKind {
    /// The HTTP status code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::OverLimit => 413,
            Self::UnsupportedMediaType => 415,
            Self::FailedDependency => 424,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// Can the same request succeed later, unchanged?
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

/// A failure as the caller gets it. `class` is the name of the original's exception where
/// it had one, so that an original service or client over RPC can raise it again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What sort.
    pub kind: ErrorKind,
    /// The original's exception class, e.g. `PlanNotFound`.
    pub class: String,
    /// What happened and what to do, for a person.
    pub message: String,
    /// What went wrong inside. For the log; never serialised, so it can reach no client.
    #[serde(skip)]
    pub cause: Option<String>,
    /// Does the operation log tell of it? Then the caller need not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_logged: bool,
    /// Does it stay until the operator has mended something? Then a run that has time can be tried again, and a person
    /// who waits for the answer need not ask again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_mending: bool,
}

impl ApiError {
    /// An error with a class and a message.
    pub fn new(kind: ErrorKind, class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            class: class.into(),
            message: message.into(),
            cause: None,
            is_logged: false,
            needs_mending: false,
        }
    }

    /// `<what> <id> could not be found.`, class `<what>NotFound`.
    pub fn not_found(what: &str, id: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("{what}NotFound"),
            format!("{what} {id} could not be found."),
        )
    }

    /// A wrong value for a named field, in the original's words.
    pub fn invalid_field(field: &str, value: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::BadRequest,
            "ValidationError",
            format!("Invalid input for field/attribute {field}. Value: {value}. {reason}"),
        )
    }

    /// `Invalid input received: <reason>`, class `InvalidInput`.
    pub fn invalid_input(reason: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::BadRequest,
            "InvalidInput",
            format!("Invalid input received: {reason}"),
        )
    }

    /// A plain 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, "Invalid", message)
    }

    /// The thing is in a state that does not allow what was asked.
    pub fn conflict(class: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, class, message)
    }

    /// `Access checkpoint <id> is not allowed` and the like.
    pub fn forbidden(class: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, class, message)
    }

    /// A service or database that is away for now.
    pub fn unavailable(message: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unavailable, "ServiceUnavailable", message).with_cause(cause)
    }

    /// A fault of ours: the person reads a general sentence, the log reads `cause`.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::Internal,
            "KarborException",
            "The server has either erred or is incapable of performing the requested operation.",
        )
        .with_cause(cause)
    }

    /// Adds what went wrong inside, for the log.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}): {}", self.class, self.kind, self.message)?;
        match &self.cause {
            Some(cause) => write!(f, " [cause: {cause}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_never_serialised() {
        let error = ApiError::internal("password=hunter2");
        assert!(!serde_json::to_string(&error).unwrap().contains("hunter2"));
        assert!(!error.to_string().contains("hunter2"));
    }
}
