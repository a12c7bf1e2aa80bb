//! Notifications: what happened, for those who listen.
//!
//! **Where they come from.** The database writes a notification in the transaction that writes
//! what it tells of (`karbor_db`, its `notifications`): a plan that was made, an operation that
//! ended, a run that was missed. So whatever kills a service, what is recorded will be told, and
//! what is not recorded will not.
//!
//! **Where they go.** The [`Courier`] takes them from there to every [`Sink`]: the log, and a webhook.
//! A sink that fails is tried again, ever more slowly, until the notification is too old; then
//! that is an error in the log and a number in the courier's count. Each sink gets each at least
//! once; its `message_id` tells repetitions.
//!
//! A sink for AMQP is one more implementation of [`Sink`], beside these.

mod courier;
mod envelope;
mod log;
mod manager;
mod options;
mod webhook;

pub use courier::{Counts, Courier};
pub use envelope::Envelope;
pub use log::LogSink;
pub use manager::NotificationManager;
pub use options::{OPTIONS, SetupError, sinks};
pub use webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookSink, signature};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

/// Why a sink did not take a notification. It will be offered again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Where notifications go.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Its name, noted with a notification that it has taken: never changed.
    fn name(&self) -> &'static str;

    /// Takes a notification, `now`. May be called again with one that it has taken.
    ///
    /// # Errors
    /// [`SinkError`] says why not, without secrets.
    async fn take(&self, envelope: &Envelope, now: DateTime<Utc>) -> Result<(), SinkError>;
}
