//! The courier: from the outbox to the sinks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{join, join_all, try_join_all};
use karbor_manager::{Clock, NotificationOutbox};
use karbor_model::{ApiError, Notification, Outgoing};
use tokio_util::sync::CancellationToken;

use crate::{Envelope, Sink, SinkError};

/// How often the outbox is looked into.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many are taken out at once for a sink.
const BATCH: u64 = 50;

/// For how long nobody else takes out what this courier has; longer than a round lasts.
const LEASE: TimeDelta = TimeDelta::minutes(2);

/// How long a round may last: then the rest goes back.
const ROUND: TimeDelta = TimeDelta::minutes(1);

/// How long to wait before a failed delivery is tried again: at first, and at most.
const RETRY_DELAYS: (TimeDelta, TimeDelta) = (TimeDelta::seconds(5), TimeDelta::minutes(10));

/// What became of notifications since the start, each counted for each sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// A sink took it.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Grew too old.
    pub given_up: u64,
}

/// Takes notifications to the sinks.
pub struct Courier {
    outbox: Arc<dyn NotificationOutbox>,
    sinks: Vec<Arc<dyn Sink>>,
    clock: Arc<dyn Clock>,
    host: String,
    max_age: TimeDelta,
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

impl Courier {
    /// A courier on `host`, that gives up what is older than `max_age`.
    #[must_use]
    pub fn new(
        outbox: Arc<dyn NotificationOutbox>,
        sinks: Vec<Arc<dyn Sink>>,
        clock: Arc<dyn Clock>,
        host: impl Into<String>,
        max_age: Duration,
    ) -> Self {
        Self {
            outbox,
            sinks,
            clock,
            host: host.into(),
            max_age: TimeDelta::from_std(max_age).unwrap_or(TimeDelta::MAX),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        }
    }

    /// What became of notifications since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    /// Delivers until `stop`. What is on its way then is delivered again at the next start.
    pub async fn run(&self, stop: &CancellationToken) {
        let deal_out = async {
            loop {
                if let Err(error) = self.deal_out().await {
                    tracing::warn!(?error, "notifications wait in the database");
                }
                self.clock.sleep(INTERVAL).await;
            }
        };
        let serve = join_all(self.sinks.iter().map(|sink| self.serve(&**sink)));
        tokio::select! {
            ((), _) = join(deal_out, serve) => {}
            () = stop.cancelled() => {}
        }
        let Counts {
            delivered,
            failed,
            given_up,
        } = self.counts();
        tracing::info!(
            delivered,
            failed,
            given_up,
            "no more notifications are delivered"
        );
    }

    /// Takes out what is due for every sink, oldest first; answers how many deliveries were done with.
    ///
    /// # Errors
    /// When the outbox cannot be used.
    pub async fn round(&self) -> Result<u64, ApiError> {
        self.deal_out().await?;
        let turns = self.sinks.iter().map(|sink| self.turn(&**sink));
        Ok(try_join_all(turns).await?.into_iter().sum())
    }

    async fn deal_out(&self) -> Result<(), ApiError> {
        let names: Vec<_> = self.sinks.iter().map(|sink| sink.name()).collect();
        self.outbox.deal_out(&names).await
    }

    /// Each sink has its own pace: none waits for another.
    async fn serve(&self, sink: &dyn Sink) {
        loop {
            match self.turn(sink).await {
                Ok(BATCH) => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(?error, "notifications wait in the database"),
            }
            self.clock.sleep(INTERVAL).await;
        }
    }

    /// Takes what is due to a sink. After a failure the rest goes back, in its order: a sink that does
    /// not answer for one will hardly answer for the next.
    async fn turn(&self, sink: &dyn Sink) -> Result<u64, ApiError> {
        let begun = self.clock.now();
        let taken = self
            .outbox
            .take(sink.name(), begun, begun + LEASE, BATCH)
            .await?;
        let (mut done, mut back) = (Vec::new(), Vec::new());
        let mut trouble = None;
        for mut outgoing in taken {
            let now = self.clock.now();
            let envelope = Envelope::new(&outgoing.notification, &self.host);
            if trouble.is_none() && now - begun <= ROUND {
                match sink.take(&envelope, now).await {
                    Ok(()) => {
                        self.delivered.fetch_add(1, Ordering::Relaxed);
                        done.push(envelope.message_id);
                        continue;
                    }
                    Err(error) => {
                        self.failed.fetch_add(1, Ordering::Relaxed);
                        put_off(&mut outgoing, sink, &error, now);
                        trouble = Some(error);
                    }
                }
            } else {
                outgoing.next_at = now;
            }
            match &trouble {
                Some(error) if now - outgoing.notification.created_at >= self.max_age => {
                    self.give_up(&envelope, sink, error);
                    done.push(envelope.message_id);
                }
                _ => back.push(outgoing),
            }
        }
        self.outbox.settle(sink.name(), &done, &back).await?;
        Ok(u64::try_from(done.len()).unwrap_or_default())
    }

    fn give_up(&self, envelope: &Envelope, sink: &dyn Sink, error: &SinkError) {
        let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        let Envelope {
            message_id,
            event_type,
            payload,
            ..
        } = envelope;
        let sink = sink.name();
        tracing::error!(message_id, event_type, sink, %error, given_up, %payload, "a notification is given up: it is too old");
    }
}

fn put_off(outgoing: &mut Outgoing, sink: &dyn Sink, error: &SinkError, now: DateTime<Utc>) {
    let delay = retry_delay(outgoing.attempts);
    let (sink, retry_in) = (sink.name(), delay.num_seconds());
    let Notification { id, event_type, .. } = &outgoing.notification;
    tracing::warn!(message_id = id, event_type, sink, %error, retry_in, "a notification could not be delivered yet");
    outgoing.attempts = outgoing.attempts.saturating_add(1);
    outgoing.next_at = now + delay;
}

fn retry_delay(attempts: u32) -> TimeDelta {
    let (first, most) = RETRY_DELAYS;
    let factor = 1_i32 << attempts.min(16);
    (first * factor).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down() {
        let delays: Vec<_> = (0..9).map(|n| retry_delay(n).num_seconds()).collect();
        assert_eq!(delays, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(retry_delay(u32::MAX).num_seconds(), 600);
    }
}
