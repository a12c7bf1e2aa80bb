//! Lets only so many requests to a bank at once.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::layer::{Answer, Asked, Layer, Layered, Request};
use crate::{Bank, BankError};

/// How many requests there are at once unless the configuration says another number.
pub const AT_ONCE: usize = 40;

/// A bank that makes at most `at_once` requests to `bank` at the same time; the others wait for their turn, first
/// come, first served. What is about leases does not wait: a lease that is renewed late is lost.
#[must_use]
pub fn concurrency(bank: Arc<dyn Bank>, at_once: usize) -> Arc<dyn Bank> {
    let layer = Concurrency {
        turns: Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)),
    };
    Arc::new(Layered { bank, layer })
}

struct Concurrency {
    turns: Semaphore,
}

impl Layer for Concurrency {
    async fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> Result<T, BankError> {
        if request.verb.is_of_leases() {
            return ask().await;
        }
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|error| BankError::Other {
            message: format!("no turn was given: {error}"),
            at: None,
            retryable: false,
        })?;
        ask().await
    }
}
