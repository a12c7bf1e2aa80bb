//! Counts the requests to a bank.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::layer::{Answer, Asked, Layer, Layered, Request, Verb};
use crate::{Bank, BankError};

/// `bank`, and where its requests are counted.
#[must_use]
pub fn metrics(bank: Arc<dyn Bank>) -> (Arc<dyn Bank>, Arc<BankMetrics>) {
    let counts = Arc::<BankMetrics>::default();
    let layer = Metrics(counts.clone());
    (Arc::new(Layered { bank, layer }), counts)
}

/// What was asked of a bank since it was opened, counted as it goes.
#[derive(Debug, Default)]
pub struct BankMetrics {
    puts: AtomicU64,
    gets: AtomicU64,
    deletes: AtomicU64,
    looks: AtomicU64,
    leases: AtomicU64,
    errors: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
    microseconds: AtomicU64,
}

/// What was asked of a bank since it was opened. Every attempt of a request that was repeated is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BankCounts {
    /// Objects that were to be written.
    pub puts: u64,
    /// Objects, and parts of objects, that were to be read.
    pub gets: u64,
    /// Objects that were to be removed.
    pub deletes: u64,
    /// Pages listed, and objects looked at without being read.
    pub looks: u64,
    /// Leases taken, renewed, given up and listed.
    pub leases: u64,
    /// Requests that failed. That something is not there, is there already or is held by another is an answer.
    pub errors: u64,
    /// Bytes of the objects that were written.
    pub bytes_written: u64,
    /// Bytes of objects that were read.
    pub bytes_read: u64,
    /// How long the bank took for all requests that ended, one after the other; in seconds where it is shown.
    #[serde(serialize_with = "as_seconds")]
    pub time: Duration,
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl BankMetrics {
    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> BankCounts {
        BankCounts {
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            looks: self.looks.load(Relaxed),
            leases: self.leases.load(Relaxed),
            errors: self.errors.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            time: Duration::from_micros(self.microseconds.load(Relaxed)),
        }
    }

    fn requests(&self, verb: Verb) -> &AtomicU64 {
        match verb {
            Verb::Put | Verb::PutNew => &self.puts,
            Verb::Get | Verb::GetRange => &self.gets,
            Verb::Delete => &self.deletes,
            Verb::Stat | Verb::List => &self.looks,
            Verb::AcquireLease | Verb::RenewLease | Verb::ReleaseLease | Verb::Leases => {
                &self.leases
            }
        }
    }
}

struct Metrics(Arc<BankMetrics>);

impl Layer for Metrics {
    async fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> Result<T, BankError> {
        let Self(counts) = self;
        counts.requests(request.verb).fetch_add(1, Relaxed);
        let begun = Instant::now();
        let answer = ask().await;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.microseconds.fetch_add(took, Relaxed);
        match &answer {
            Ok(answer) => {
                counts.bytes_read.fetch_add(answer.bytes(), Relaxed);
                if matches!(request.verb, Verb::Put | Verb::PutNew) {
                    counts.bytes_written.fetch_add(request.bytes, Relaxed);
                }
            }
            Err(
                BankError::NotFound(_)
                | BankError::AlreadyExists(_)
                | BankError::LeaseHeld { .. }
                | BankError::LeaseLost(_),
            ) => {}
            Err(_) => {
                counts.errors.fetch_add(1, Relaxed);
            }
        }
        answer
    }
}
