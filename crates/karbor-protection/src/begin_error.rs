//! Why a run cannot begin.

use chrono::{DateTime, Utc};
use karbor_db::DbError;
use karbor_model::{ApiError, Checkpoint, CheckpointId, OperationLogId};
use karbor_plugin::BankError;

use crate::error::{CheckpointError, bank_error, not_available, not_deleted, not_sealed};

/// Why a run cannot begin, as the service tells the cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// A run was entered under its id before.
    Known,
    /// The record with its id says that the run came to nothing.
    Ended,
    /// The time in which it might begin is over.
    Late,
    /// The bank has no such checkpoint.
    NotFound,
    /// The checkpoint is in a state that does not allow it.
    NotAvailable,
    /// Nothing vouches for the checkpoint.
    NotSealed,
    /// Somebody changed the checkpoint in the bank.
    Tampered,
    /// The checkpoint's record in the bank is damaged.
    Corrupt,
    /// The record could not be believed when the checkpoint's deletion was asked for, and can be read now.
    Mended,
    /// The checkpoint is copied already.
    Copied,
    /// Somebody else works on the checkpoint.
    Held,
    /// Anything else.
    Other,
}

/// Why a run cannot begin, and how a person hears of it.
#[derive(Debug, Clone)]
pub(crate) struct BeginError {
    pub(crate) why: Why,
    pub(crate) error: ApiError,
}

impl BeginError {
    fn new(why: Why, error: ApiError) -> Self {
        Self { why, error }
    }

    /// A run was entered under its id before, which the database told with `message`.
    pub(crate) fn known(message: String) -> Self {
        Self::new(Why::Known, ApiError::conflict("OperationKnown", message))
    }

    /// The run's id is that of another record, which `message` tells.
    pub(crate) fn another(message: String) -> Self {
        Self::new(Why::Other, ApiError::conflict("OperationKnown", message))
    }

    /// The record with the run's id is not its own: the caller noted that it came to nothing.
    pub(crate) fn ended(log: OperationLogId) -> Self {
        let message = format!("Operation {log} was given up before it began.");
        Self::new(Why::Ended, ApiError::conflict("OperationEnded", message))
    }

    /// It may not begin after `end`.
    pub(crate) fn late(end: DateTime<Utc>) -> Self {
        let message = format!("It could not begin before {end}, the end of its window.");
        Self::new(Why::Late, ApiError::conflict("WindowMissed", message))
    }

    pub(crate) fn not_available(checkpoint: &Checkpoint) -> Self {
        Self::new(Why::NotAvailable, not_available(checkpoint))
    }

    pub(crate) fn not_sealed(checkpoint: &Checkpoint) -> Self {
        Self::new(Why::NotSealed, not_sealed(checkpoint))
    }

    pub(crate) fn copied(id: CheckpointId) -> Self {
        let message = format!("The checkpoint {id} is copied already.");
        let error = ApiError::conflict("CheckpointAlreadyCopied", message);
        Self::new(Why::Copied, error)
    }

    /// The checkpoint's deletion was asked for while it could not be read, and it can be read now.
    pub(crate) fn mended(id: CheckpointId) -> Self {
        let reason =
            "its index was damaged, and can be read again. Delete it again if it is to go.";
        Self::new(Why::Mended, not_deleted(id, reason))
    }

    /// Is it the bank's last word: does it hold nothing that the run could go on with, or what it was to make?
    pub(crate) fn is_last_word(&self) -> bool {
        match self.why {
            Why::Late
            | Why::NotFound
            | Why::NotAvailable
            | Why::NotSealed
            | Why::Tampered
            | Why::Corrupt
            | Why::Mended
            | Why::Copied => true,
            Why::Known | Why::Ended | Why::Held | Why::Other => false,
        }
    }

    /// The same, where the operation log has the error already.
    pub(crate) fn logged(mut self) -> Self {
        self.error.is_logged = true;
        self
    }
}

impl From<BeginError> for ApiError {
    fn from(begin: BeginError) -> Self {
        begin.error
    }
}

impl From<ApiError> for BeginError {
    fn from(error: ApiError) -> Self {
        Self::new(Why::Other, error)
    }
}

impl From<DbError> for BeginError {
    fn from(error: DbError) -> Self {
        Self::new(Why::Other, error.into())
    }
}

impl From<CheckpointError> for BeginError {
    fn from(error: CheckpointError) -> Self {
        let why = match &error {
            CheckpointError::NotFound(_) => Why::NotFound,
            CheckpointError::Tampered(_) => Why::Tampered,
            CheckpointError::Corrupt { .. } => Why::Corrupt,
            CheckpointError::Transition(_) => Why::NotAvailable,
            CheckpointError::Bank(BankError::LeaseHeld { .. }) => Why::Held,
            _ => Why::Other,
        };
        Self::new(why, error.into())
    }
}

impl From<BankError> for BeginError {
    fn from(error: BankError) -> Self {
        let why = match error {
            BankError::LeaseHeld { .. } => Why::Held,
            _ => Why::Other,
        };
        Self::new(why, bank_error(&error))
    }
}
