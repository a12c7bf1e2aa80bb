//! The courier: from the outbox to the sinks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use karbor_manager::{Clock, NotificationOutbox};
use karbor_model::{ApiError, Outgoing};
use tokio_util::sync::CancellationToken;

use crate::{Envelope, Sink};

/// How often the outbox is looked into.
const INTERVAL: Duration = Duration::from_secs(2);

/// How many are taken out at once.
const BATCH: u64 = 50;

/// For how long nobody else takes out what this courier has; longer than a round lasts.
const LEASE: TimeDelta = TimeDelta::minutes(2);

/// How long a round may last: then the rest goes back.
const ROUND: TimeDelta = TimeDelta::minutes(1);

/// How long to wait before a failed delivery is tried again: at first, and at most.
const RETRY_DELAYS: (TimeDelta, TimeDelta) = (TimeDelta::seconds(5), TimeDelta::minutes(10));

/// What became of notifications since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Every sink has them.
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
        let deliver = async {
            loop {
                match self.round().await {
                    Ok(BATCH) => continue,
                    Ok(_) => {}
                    Err(error) => tracing::warn!(?error, "notifications wait in the database"),
                }
                self.clock.sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            never = deliver => never,
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

    /// Takes out what is due, oldest first, and takes it to the sinks; answers how many were
    /// done with. After a failure the rest goes back, in its order: whoever does not answer for one
    /// will hardly answer for the next.
    ///
    /// # Errors
    /// When the outbox cannot be used.
    pub async fn round(&self) -> Result<u64, ApiError> {
        let begun = self.clock.now();
        let taken = self.outbox.take(begun, begun + LEASE, BATCH).await?;
        let (mut done, mut back) = (Vec::new(), Vec::new());
        let mut trouble = false;
        for mut outgoing in taken {
            let now = self.clock.now();
            if trouble || now - begun > ROUND {
                outgoing.next_at = now;
                back.push(outgoing);
            } else if self.deliver(&mut outgoing, now).await {
                done.push(outgoing.notification.id);
            } else {
                trouble = true;
                back.push(outgoing);
            }
        }
        self.outbox.settle(&done, &back).await?;
        Ok(u64::try_from(done.len()).unwrap_or_default())
    }

    /// `true` when there is nothing more to do with it.
    async fn deliver(&self, outgoing: &mut Outgoing, now: DateTime<Utc>) -> bool {
        let envelope = Envelope::new(&outgoing.notification, &self.host);
        let mut failure = None;
        for sink in &self.sinks {
            if outgoing.taken_by.iter().any(|name| name == sink.name()) {
                continue;
            }
            match sink.take(&envelope, now).await {
                Ok(()) => outgoing.taken_by.push(sink.name().to_owned()),
                Err(error) => failure = Some((sink.name(), error)),
            }
        }
        let Some((sink, error)) = failure else {
            self.delivered.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let Envelope {
            message_id,
            event_type,
            ..
        } = &envelope;
        if now - outgoing.notification.created_at >= self.max_age {
            let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!(message_id, event_type, sink, %error, given_up, payload = %envelope.payload, "a notification is given up: it is too old");
            return true;
        }
        let delay = retry_delay(outgoing.attempts);
        tracing::warn!(message_id, event_type, sink, %error, retry_in = delay.num_seconds(), "a notification could not be delivered yet");
        outgoing.attempts = outgoing.attempts.saturating_add(1);
        outgoing.next_at = now + delay;
        false
    }
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
