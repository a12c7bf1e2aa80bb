//! Repeats what failed in passing.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use super::layer::{Answer, Asked, Layer, Layered, Request, Verb};
use crate::{Bank, BankError};

/// The pauses before the repeats, in milliseconds; each is a quarter longer or shorter, so that those who failed
/// together do not come back together.
const PAUSES: [u64; 3] = [100, 500, 2000];

/// A bank that asks `bank` again, three times in a few seconds, when it says that trying again can help
/// ([`BankError::Other`], retryable), and when a request that was carried out though its answer was lost may be made
/// once more: reads, [`Bank::put`], [`Bank::delete`].
///
/// Not [`Bank::put_new`], whose repeat would find what the first one wrote and call it somebody else's, and not what
/// changes leases: who holds one must know when the bank did not answer, and has a rhythm of his own. A bank that is
/// away or did not answer in time is not asked again either: a few seconds do not bring it back.
#[must_use]
pub fn retry(bank: Arc<dyn Bank>) -> Arc<dyn Bank> {
    let layer = Retry;
    Arc::new(Layered { bank, layer })
}

struct Retry;

impl Layer for Retry {
    async fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> Result<T, BankError> {
        if !may_be_repeated(request.verb) {
            return ask().await;
        }
        for pause in PAUSES {
            match ask().await {
                Err(BankError::Other {
                    message,
                    retryable: true,
                    ..
                }) => {
                    let pause = jittered(pause);
                    tracing::warn!(%message, ?pause, "the bank failed; trying again");
                    tokio::time::sleep(pause).await;
                }
                done => return done,
            }
        }
        ask().await
    }
}

fn may_be_repeated(verb: Verb) -> bool {
    match verb {
        Verb::Put
        | Verb::Get
        | Verb::GetRange
        | Verb::Stat
        | Verb::Delete
        | Verb::List
        | Verb::Leases => true,
        Verb::PutNew | Verb::AcquireLease | Verb::RenewLease | Verb::ReleaseLease => false,
    }
}

/// From three quarters to five quarters of so many milliseconds.
fn jittered(pause: u64) -> Duration {
    // Every such state is keyed anew, at random.
    let random = RandomState::new().hash_one(());
    Duration::from_millis(pause * 3 / 4 + random % (pause / 2 + 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pauses_differ_by_a_quarter_either_way() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(500).as_millis()).collect();
        assert!(pauses.iter().all(|pause| (375..=625).contains(pause)));
        assert!(pauses.iter().any(|&pause| pause != pauses[0]));
    }
}
