//! The form in which notifications leave.

use karbor_model::{Notification, Priority};
use serde::Serialize;
use serde_json::Value;

/// A notification as `oslo.messaging` writes it (version 2 of its envelope has this inside).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Envelope {
    /// Tells repetitions.
    pub message_id: String,
    /// `karbor.<host>`.
    pub publisher_id: String,
    /// E.g. `karbor.checkpoint_create.end`.
    pub event_type: String,
    /// How loud.
    pub priority: Priority,
    /// What it is about.
    pub payload: Value,
    /// When it happened, UTC: `2026-11-22 10:20:28.123456`.
    pub timestamp: String,
}

impl Envelope {
    /// Of a notification, from a host.
    #[must_use]
    pub fn new(notification: &Notification, host: &str) -> Self {
        Self {
            message_id: notification.id.clone(),
            publisher_id: format!("karbor.{host}"),
            event_type: notification.event_type.clone(),
            priority: notification.priority,
            payload: notification.payload.clone(),
            timestamp: notification
                .created_at
                .format("%Y-%m-%d %H:%M:%S%.6f")
                .to_string(),
        }
    }
}
