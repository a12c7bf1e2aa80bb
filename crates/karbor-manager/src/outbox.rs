//! Where notifications wait until they are delivered.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::{ApiError, Outgoing};

/// The notifications that are not delivered yet. What writes them is the store itself, in the
/// transaction that writes what they tell of.
#[async_trait]
pub trait NotificationOutbox: Send + Sync + 'static {
    /// Deals what is new out to the sinks, by name, each of which has its own from then on; forgets what
    /// waits for sinks that are no more.
    async fn deal_out(&self, sinks: &[&str]) -> Result<(), ApiError>;

    /// Takes out at most `limit` for a sink that are due `now`, oldest first; nobody else gets them
    /// before `until`.
    async fn take(
        &self,
        sink: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<Outgoing>, ApiError>;

    /// Forgets those of a sink that are done with, by id, and puts the others back as they are.
    async fn settle(&self, sink: &str, done: &[String], back: &[Outgoing]) -> Result<(), ApiError>;
}
