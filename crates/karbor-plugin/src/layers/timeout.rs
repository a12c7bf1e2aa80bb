//! Gives up what a bank does not answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use super::layer::{Answer, Asked, Layer, Layered, Request};
use crate::{Bank, BankError};

/// No medium that is in order moves less in a second, in bytes.
const SLOWEST: u64 = 1 << 20;

/// A bank that waits `limit` for each request to `bank`, and a second more for each MiB that the request may move;
/// then it fails with [`BankError::TimedOut`].
///
/// A change that was given up may still be made, by a disk that wakes up. It must not undo a later one: a change of
/// the same object or lease is made only once the earlier one has ended, and times out otherwise.
#[must_use]
pub fn timeout(bank: Arc<dyn Bank>, limit: Duration) -> Arc<dyn Bank> {
    let layer = Timeout {
        limit,
        given_up: Mutex::default(),
    };
    Arc::new(Layered { bank, layer })
}

struct Timeout {
    limit: Duration,
    /// Changes that were given up and may not have ended.
    given_up: Mutex<HashMap<Subject, Change>>,
}

/// What is changed: a lease (`true`) or an object, and its name.
type Subject = (bool, String);

/// Ends when a change has.
type Change = Shared<BoxFuture<'static, ()>>;

impl Timeout {
    fn given_up(&self) -> MutexGuard<'_, HashMap<Subject, Change>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has to end before `subject` is changed.
    fn earlier(&self, subject: &Subject) -> Option<Change> {
        self.given_up().get(subject).cloned()
    }

    /// Keeps a change that was given up until it has ended.
    fn keep(&self, subject: Subject, change: BoxFuture<'static, ()>) {
        let mut given_up = self.given_up();
        given_up.retain(|_, change| change.clone().now_or_never().is_none());
        let change = match given_up.remove(&subject) {
            Some(earlier) => futures::future::join(earlier, change).map(|_| ()).boxed(),
            None => change,
        };
        given_up.insert(subject, change.shared());
    }
}

impl Layer for Timeout {
    async fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> Result<T, BankError> {
        let allowed = Duration::from_secs(request.bytes / SLOWEST);
        let limit = self.limit.saturating_add(allowed);
        let late = || BankError::TimedOut {
            request: request.to_string(),
            seconds: limit.as_secs(),
        };
        let mut asked = ask();
        if !request.verb.writes() {
            let answer = tokio::time::timeout(limit, asked).await;
            return answer.unwrap_or_else(|_| Err(late()));
        }
        let subject = (request.verb.is_of_leases(), request.key.to_owned());
        let mut is_begun = false;
        let change = async {
            if let Some(earlier) = self.earlier(&subject) {
                earlier.await;
            }
            is_begun = true;
            (&mut asked).await
        };
        match tokio::time::timeout(limit, change).await {
            Ok(answer) => answer,
            Err(_) => {
                if is_begun {
                    self.keep(subject, asked.map(|_| ()).boxed());
                }
                Err(late())
            }
        }
    }
}
