//! Where notifications wait until they are delivered.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::{ApiError, Outgoing};

/// The notifications that are not delivered yet. What writes them is the store itself, in the
/// transaction that writes what they tell of.
#[async_trait]
pub trait NotificationOutbox: Send + Sync + 'static {
    /// Takes out at most `limit` that are due `now`, oldest first; nobody else gets them before
    /// `until`.
    async fn take(
        &self,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<Outgoing>, ApiError>;

    /// Forgets those that are done with, by id, and puts the others back as they are.
    async fn settle(&self, done: &[String], back: &[Outgoing]) -> Result<(), ApiError>;
}
