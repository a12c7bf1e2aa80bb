//! What can go wrong between keystone and us.

use karbor_model::{ApiError, ErrorKind};
use reqwest::StatusCode;

/// Why keystone gave no answer that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be reached, does not answer in time, or has troubles of its own.
    #[error("keystone gives no answer: {0}")]
    Away(String),
    /// It does not know our own user, or its password is another.
    #[error(
        "keystone refuses the service's own credentials ({0}); mend user and password in \
         [keystone_authtoken] (or [trustee]) and restart"
    )]
    Credentials(String),
    /// Our own user may not do what it has to.
    #[error(
        "keystone does not let the service's own user {what} ({told}); give it the role 'service' or \
         'admin' in its project"
    )]
    NotAllowed {
        /// What it may not do.
        what: &'static str,
        /// What keystone said.
        told: String,
    },
    /// It answers what keystone does not answer.
    #[error("what answers at [keystone_authtoken] auth_url is no keystone v3: {0}")]
    Strange(String),
}

impl From<IdentityError> for ApiError {
    /// Never the client's fault: a 503, with the cause in the log.
    fn from(error: IdentityError) -> Self {
        let message = match error {
            IdentityError::Away(_) => {
                "The identity service gives no answer, so nobody knows who you are. Try again in a moment."
            }
            _ => {
                "The identity service does not work with this service as it is configured, so nobody \
                 knows who you are. Its operator finds the reason in the log."
            }
        };
        ApiError::unavailable(message, error)
    }
}

/// Why a trust could not be made, used or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no such trust any more, or its owner lost the user, the project or a role.
    #[error(
        "Its owner does not let it run any more: the trust {trust_id} is gone, or its owner lost the \
         project or a role ({told})."
    )]
    Gone {
        /// The trust.
        trust_id: String,
        /// What keystone said.
        told: String,
    },
    /// The user's token may not make trusts: it came from an application credential or a trust.
    #[error(
        "keystone does not let this token give a trust ({0}); use a token that was got with a password"
    )]
    NotGiven(String),
    /// No user of ours can take trusts.
    #[error("an application credential cannot take trusts; set a user and a password in [trustee]")]
    NoTrustee,
    /// Keystone gave no answer that we can use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        let message = error.to_string();
        match error {
            TrustError::Identity(error) => error.into(),
            TrustError::NoTrustee => ApiError::unavailable(
                "Operations cannot be scheduled: the service has no user to take trusts. Its operator \
                 finds the reason in the log.",
                message,
            ),
            TrustError::NotGiven(_) | TrustError::Gone { .. } => {
                ApiError::new(ErrorKind::Forbidden, "AuthorizationFailure", message)
            }
        }
    }
}

/// A transport's error with what caused it, without the URL.
pub(crate) fn away(error: &reqwest::Error) -> IdentityError {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let timed_out = if error.is_timeout() {
        "no answer in time: "
    } else {
        ""
    };
    IdentityError::Away(format!("{timed_out}{innermost}"))
}

/// A status that keystone has no reason for.
pub(crate) fn unexpected(what: &'static str, status: StatusCode, told: String) -> IdentityError {
    match status.as_u16() {
        429 | 500.. => IdentityError::Away(format!("it answered {status} when asked to {what}")),
        403 => IdentityError::NotAllowed { what, told },
        _ => IdentityError::Strange(format!("it answered {status} when asked to {what}: {told}")),
    }
}
