//! What the protection manager can fail with, and how a person hears of it.

use karbor_model::{ApiError, Checkpoint, CheckpointId, ErrorKind, IllegalTransition};
use karbor_plugin::{BankError, KeyError, PluginError};

use crate::leases;

/// Why something with a checkpoint in a bank failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bank has no such checkpoint of this provider.
    #[error("Checkpoint {0} could not be found.")]
    NotFound(CheckpointId),
    /// Its index file is not what was written.
    #[error("the index of checkpoint {id} cannot be read: {reason}")]
    Corrupt {
        /// The checkpoint.
        id: CheckpointId,
        /// What is wrong.
        reason: String,
    },
    /// Its seal does not fit its index file.
    #[error(
        "the index of checkpoint {0} is not what this service wrote: its seal does not fit, so it was changed \
         since, or made with another master key"
    )]
    Tampered(CheckpointId),
    /// It has a seal, which cannot be made or checked.
    #[error("the seal of checkpoint {0} needs the master key")]
    NoKey(CheckpointId),
    /// No checkpoint of the listing has this id.
    #[error("marker {0} is not a checkpoint in this list")]
    UnknownMarker(CheckpointId),
    /// It is in a state that does not allow it.
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    /// A resource's id cannot name a place in the bank.
    #[error(
        "resource id '{0}' cannot be used: only letters, digits, '_', '.', '-' and '@' are allowed"
    )]
    ResourceId(String),
    /// The bank failed.
    #[error(transparent)]
    Bank(#[from] BankError),
}

impl CheckpointError {
    /// Is it about this one checkpoint, so that it says nothing of others in the bank?
    #[must_use]
    pub fn is_of_the_checkpoint(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Corrupt { .. } | Self::Tampered(_) => true,
            // A link, a directory or a broken sector where the index file should be.
            Self::Bank(BankError::Other { retryable, .. }) => !retryable,
            _ => false,
        }
    }

    /// Was something read that cannot be believed, or is nothing there? That alone is damage: what could not be read
    /// now (rights, a disk that fails, a link) may be whole.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::Corrupt { .. } | Self::Tampered(_)
        )
    }
}

impl From<KeyError> for CheckpointError {
    fn from(error: KeyError) -> Self {
        Self::Bank(error.into())
    }
}

impl From<CheckpointError> for ApiError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::NotFound(id) => Self::not_found("Checkpoint", id),
            CheckpointError::UnknownMarker(_) | CheckpointError::ResourceId(_) => {
                Self::invalid_input(error)
            }
            CheckpointError::Transition(_) => Self::conflict("CheckpointNotAvailable", error.to_string()),
            CheckpointError::Corrupt { id, .. } => Self::conflict(
                "CheckpointIndexCorrupt",
                format!(
                    "The index of checkpoint {id} is damaged in the bank. Use another checkpoint, and ask the \
                     operator to look at the bank; `karbor checkpoint delete {id}` removes this one."
                ),
            )
            .with_cause(error),
            CheckpointError::Tampered(id) => Self::conflict(
                "CheckpointTampered",
                format!(
                    "The index of checkpoint {id} is not what this service wrote: its seal does not fit. First \
                     the operator has to look at the key: if the master key is another than it was made with, \
                     the checkpoint is whole as soon as the right one is back. If the key is right, somebody \
                     changed it in the bank: use another checkpoint; `karbor checkpoint delete {id}` then \
                     removes this one."
                ),
            )
            .with_cause(error),
            CheckpointError::NoKey(_) => Self::internal(error),
            CheckpointError::Bank(error) => bank_error(&error),
        }
    }
}

/// A checkpoint that cannot be read from in its state.
pub(crate) fn not_available(checkpoint: &Checkpoint) -> ApiError {
    let message = format!(
        "The checkpoint {} is not available: its status is '{}'",
        checkpoint.id, checkpoint.status
    );
    ApiError::new(ErrorKind::BadRequest, "CheckpointNotAvailable", message)
}

/// A checkpoint that cannot be deleted now, for a reason that is a sentence.
pub(crate) fn not_deleted(id: CheckpointId, reason: &str) -> ApiError {
    let message = format!("The checkpoint {id} can not be deleted: {reason}");
    ApiError::conflict("CheckpointNotBeDeleted", message)
}

/// A checkpoint that nothing vouches for, and that nobody said he accepts.
pub(crate) fn not_sealed(checkpoint: &Checkpoint) -> ApiError {
    let message = format!(
        "The checkpoint {} has no seal: it was made by the original or by a version without seals, or \
         somebody changed it in the bank. Nothing vouches for what it says. If you trust the bank, ask \
         again with --accept-unsealed (\"accept_unsealed\": true).",
        checkpoint.id
    );
    ApiError::new(ErrorKind::BadRequest, "CheckpointNotSealed", message)
}

/// A bank's failure as the API tells it.
#[must_use]
pub fn bank_error(error: &BankError) -> ApiError {
    match error {
        BankError::InvalidKey(key) => ApiError::invalid_input(key),
        BankError::Full(_) => {
            ApiError::unavailable("The bank is full. Free space in it, then try again.", error)
        }
        BankError::Away { bank, .. } => {
            let message = format!(
                "It needs {bank}, which is away. Once the operator has brought it back (nothing has to be \
                 restarted), try again."
            );
            ApiError::unavailable(message, error)
        }
        BankError::LeaseHeld { name, owner, .. } => {
            ApiError::conflict("LeaseHeld", leases::told(name, owner))
        }
        // Where it was is for the log.
        BankError::Gone(_) => ApiError::unavailable(
            "The bank's directory was moved, removed or unmounted. Once the operator has brought it back (nothing \
             has to be restarted), try again.",
            error,
        ),
        BankError::Other {
            message,
            retryable: false,
            ..
        } => {
            let message = format!(
                "The bank fails, and trying again does not mend it: {message}. The operator has to see to it; \
                 then try again."
            );
            ApiError::unavailable(message, error)
        }
        // Where it is on the host is for the log.
        _ => ApiError::unavailable("The bank cannot be used right now; try again later.", error),
    }
}

/// `Flow: <flow>, Error: <reason>`, the original's words for an operation that cannot start.
#[must_use]
pub fn flow_error(kind: ErrorKind, flow: &str, reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(kind, "FlowError", format!("Flow: {flow}, Error: {reason}"))
}

/// A plugin that cannot do what it is asked.
#[must_use]
pub fn plugin_refusal(flow: &str, error: &PluginError) -> ApiError {
    let kind = if error.retryable {
        ErrorKind::Unavailable
    } else {
        ErrorKind::BadRequest
    };
    let refusal = flow_error(kind, flow, &error.message);
    match &error.cause {
        Some(cause) => refusal.with_cause(cause),
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_that_went_is_told_without_its_place() {
        let told = bank_error(&BankError::Gone("'/srv/secret/karbor' is gone".to_owned()));
        assert!(
            told.message.contains("moved, removed or unmounted"),
            "{told}"
        );
        assert!(!told.message.contains("secret"), "{told}");
        assert!(told.cause.is_some_and(|cause| cause.contains("secret")));
        // Nor is that of any other failure, which is told in its own words.
        let failed = BankError::Other {
            message: "looking for its directory: no rights; mend them".to_owned(),
            at: Some("/srv/secret/karbor".to_owned()),
            retryable: false,
        };
        let told = bank_error(&failed);
        assert!(told.message.contains("no rights; mend them"), "{told}");
        assert!(!told.message.contains("secret"), "{told}");
        assert!(told.cause.is_some_and(|cause| cause.contains("secret")));
    }
}
