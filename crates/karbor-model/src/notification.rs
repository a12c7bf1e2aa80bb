//! What notifications say.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How loud. Written as `oslo.messaging` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    /// As it should be.
    Info,
    /// Somebody should look at it.
    Warn,
    /// Something failed, or did not happen.
    Error,
}

impl Priority {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// What a text in the database means; what is not known is loud.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text {
            "info" => Self::Info,
            "warn" => Self::Warn,
            _ => Self::Error,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Tells repetitions.
    pub id: String,
    /// `karbor.<what>.<start, end, error, ..>`, the original's names where it had them.
    pub event_type: String,
    /// How loud.
    pub priority: Priority,
    /// What it is about.
    pub payload: Value,
    /// When, UTC.
    pub created_at: DateTime<Utc>,
}

/// A notification that was taken out of the outbox to be delivered to a sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// What to deliver.
    pub notification: Notification,
    /// How often a delivery failed.
    pub attempts: u32,
    /// When it may be taken out again.
    pub next_at: DateTime<Utc>,
}
