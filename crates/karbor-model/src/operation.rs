//! Which operations there are, and what they are called.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{OperationLogStatus, UnknownState};

/// The five operations that run over a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationType {
    /// Makes a checkpoint.
    Protect,
    /// Brings back what a checkpoint holds.
    Restore,
    /// Removes a checkpoint and its data.
    Delete,
    /// Checks that a checkpoint can be restored.
    Verify,
    /// Copies checkpoints into a second bank.
    Copy,
}

impl OperationLogStatus {
    /// What the API calls it: the original logged the status of the checkpoint, restore or
    /// verification that the operation leaves.
    #[must_use]
    pub fn after(self, operation: OperationType) -> &'static str {
        use OperationType::{Copy, Delete, Protect, Restore, Verify};
        match (self, operation) {
            (Self::InProgress, Protect) => "protecting",
            (Self::InProgress, Copy) => "copying",
            (Self::InProgress, Delete) => "deleting",
            (Self::InProgress, Restore | Verify) => "in_progress",
            (Self::Success, Protect | Copy) => "available",
            (Self::Success, Delete) => "deleted",
            (Self::Success, Restore | Verify) => "success",
            (Self::Failed, Protect | Copy) => "error",
            (Self::Failed, Delete) => "error-deleting",
            (Self::Failed, Restore | Verify) => "fail",
            (Self::Missed, _) => "missed",
        }
    }
}

impl OperationType {
    /// Every type.
    pub const ALL: &'static [Self] = &[
        Self::Protect,
        Self::Restore,
        Self::Delete,
        Self::Verify,
        Self::Copy,
    ];

    /// Does it read a checkpoint back, and leave a [`Readback`](crate::Readback)?
    #[must_use]
    pub fn is_readback(self) -> bool {
        matches!(self, Self::Restore | Self::Verify)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Restore => "restore",
            Self::Delete => "delete",
            Self::Verify => "verify",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for OperationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OperationType {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter().copied();
        all.find(|operation| operation.as_str() == text)
            .ok_or_else(|| UnknownState {
                what: "operation",
                value: text.to_owned(),
            })
    }
}
