//! Which operations there are, and what they are called.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{OperationLogStatus, UnknownState};

/// The operations that run over a graph.
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

/// What an operation that reads a checkpoint back is called where people and other services meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadbackNames {
    /// One of its records: in bodies and answers, in commands of the client, in policy rules and events.
    pub one: &'static str,
    /// The same in messages that begin with it.
    pub title: &'static str,
    /// Many of them: in paths and lists.
    pub many: &'static str,
    /// The schema of its parameters, in a provider's `extended_info_schema`.
    pub schema: &'static str,
    /// What is done to a resource.
    pub done: &'static str,
    /// May a schedule ask for it?
    pub is_scheduled: bool,
}

impl OperationLogStatus {
    /// What the API calls it: the original logged the status of the checkpoint, restore or
    /// verification that the operation leaves.
    #[must_use]
    pub fn after(self, operation: OperationType) -> &'static str {
        use OperationType::{Copy, Delete, Protect};
        match (self, operation) {
            (Self::Missed, _) => "missed",
            (Self::InProgress, Protect) => "protecting",
            (Self::InProgress, Copy) => "copying",
            (Self::InProgress, Delete) => "deleting",
            (Self::Success, Protect | Copy) => "available",
            (Self::Success, Delete) => "deleted",
            (Self::Failed, Protect | Copy) => "error",
            (Self::Failed, Delete) => "error-deleting",
            (Self::InProgress, _) => "in_progress",
            (Self::Success, _) => "success",
            (Self::Failed, _) => "fail",
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

    /// What it is called, if it reads a checkpoint back and leaves a [`Readback`](crate::Readback).
    #[must_use]
    pub fn readback(self) -> Option<ReadbackNames> {
        match self {
            Self::Restore => Some(ReadbackNames {
                one: "restore",
                title: "Restore",
                many: "restores",
                schema: "restore_schema",
                done: "restored",
                is_scheduled: false,
            }),
            Self::Verify => Some(ReadbackNames {
                one: "verification",
                title: "Verification",
                many: "verifications",
                schema: "verify_schema",
                done: "verified",
                is_scheduled: true,
            }),
            Self::Protect | Self::Delete | Self::Copy => None,
        }
    }

    /// Every one that reads a checkpoint back, with what it is called.
    pub fn readbacks() -> impl Iterator<Item = (Self, ReadbackNames)> {
        let all = Self::ALL.iter();
        all.filter_map(|operation| Some((*operation, operation.readback()?)))
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
