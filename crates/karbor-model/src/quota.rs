//! What a project may have, and what it has.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::UnknownState;

/// The limit that is none.
pub const UNLIMITED: i64 = -1;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaResource {
    /// Plans.
    Plans,
    /// Checkpoints, from when they are begun until they are deleted.
    Checkpoints,
    /// Bytes that checkpoints added to their banks. Not of the original.
    Bytes,
}

impl QuotaResource {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::Plans, Self::Checkpoints, Self::Bytes];

    /// The name in the API and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plans => "plans",
            Self::Checkpoints => "checkpoints",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for QuotaResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for QuotaResource {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|known| known.as_str() == text);
        known.copied().ok_or_else(|| UnknownState {
            what: "quota resource",
            value: text.to_owned(),
        })
    }
}

/// Limits by resource; [`UNLIMITED`] or more.
pub type QuotaLimits = BTreeMap<QuotaResource, i64>;

/// What a project has, by resource. A checkpoint that is being made is in use already.
pub type QuotaUsage = BTreeMap<QuotaResource, i64>;

/// What an administrator says of a project: what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// Limits to set.
    pub limits: QuotaLimits,
    /// The class to put the project in, or out of its class.
    pub class: Option<Option<String>>,
}

/// A checkpoint that counts against its project's quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaHolding {
    /// The checkpoint.
    pub checkpoint_id: crate::CheckpointId,
    /// Whose it is.
    pub project_id: String,
    /// Where it is.
    pub provider_id: crate::ProviderId,
    /// What it added to the bank, in bytes; 0 while it is being made.
    pub bytes: i64,
    /// `false` while it is being made.
    pub settled: bool,
}
