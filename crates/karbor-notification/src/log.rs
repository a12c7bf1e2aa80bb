//! The log as a sink.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::Priority;

use crate::{Envelope, Sink, SinkError};

/// Writes every notification to the service's log, as loud as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogSink;

#[async_trait]
impl Sink for LogSink {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn take(&self, envelope: &Envelope, _: DateTime<Utc>) -> Result<(), SinkError> {
        let Envelope {
            message_id,
            event_type,
            payload,
            ..
        } = envelope;
        match envelope.priority {
            Priority::Info => {
                tracing::info!(target: "karbor::notification", message_id, event_type, %payload, "notification");
            }
            Priority::Warn => {
                tracing::warn!(target: "karbor::notification", message_id, event_type, %payload, "notification");
            }
            Priority::Error => {
                tracing::error!(target: "karbor::notification", message_id, event_type, %payload, "notification");
            }
        }
        Ok(())
    }
}
