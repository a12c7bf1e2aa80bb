//! Gives up what a bank does not answer.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{runtime::Handle, time::Instant};

use super::layer::{Answer, Asked, Layer, Layered, Request};
use crate::{Bank, BankError};

/// No medium that is in order moves less in a second, in bytes.
const SLOWEST: u64 = 1 << 20;

/// As much of what a request may move counts for those beside it, in bytes: few objects are larger, and those that are
/// read whole say only how large they may be.
const LARGE: u64 = 64 << 20;

/// A bank that waits `limit` for each request to `bank`, and a second more for each MiB that the request, and those
/// that are at the bank beside it, may move (of each of these at most 64): a slow medium is shared among them. Then it
/// fails with [`BankError::TimedOut`].
///
/// A change that was given up, by this limit or by its caller who went before, may still be made, by a disk that wakes
/// up. It must not undo a later one: a change of the same object or lease is made only once the earlier one has ended,
/// and times out otherwise. It goes on by itself to its end, as it may hold what others wait for: a turn at the bank, or
/// the bank's opening.
#[must_use]
pub fn timeout(bank: Arc<dyn Bank>, limit: Duration) -> Arc<dyn Bank> {
    let layer = Timeout {
        limit,
        at_the_bank: AtomicU64::new(0),
        given_up: Mutex::default(),
    };
    Arc::new(Layered { bank, layer })
}

struct Timeout {
    limit: Duration,
    /// Bytes that the requests at the bank may move, of each at most [`LARGE`].
    at_the_bank: AtomicU64,
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

    /// Lets a change that was given up go on, and keeps it until it has ended.
    fn keep<T: Answer>(&self, subject: Subject, asked: Asked<T>) {
        // Without a runtime nothing goes on, and nothing comes after it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let change = runtime.spawn(asked).map(|_| ()).boxed();
        let mut given_up = self.given_up();
        given_up.retain(|_, change| change.clone().now_or_never().is_none());
        let change = match given_up.remove(&subject) {
            Some(earlier) => futures::future::join(earlier, change).map(|_| ()).boxed(),
            None => change,
        };
        given_up.insert(subject, change.shared());
    }
}

/// A change that was begun. One that is dropped before it has ended was given up, and is kept.
struct Begun<'a, T: Answer> {
    layer: &'a Timeout,
    subject: &'a Subject,
    /// Until it has ended.
    asked: Option<Asked<T>>,
}

impl<T: Answer> Future for Begun<'_, T> {
    type Output = Result<T, BankError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(asked) = &mut self.asked else {
            return Poll::Pending;
        };
        let answer = asked.as_mut().poll(context);
        if answer.is_ready() {
            self.asked = None;
        }
        answer
    }
}

impl<T: Answer> Drop for Begun<'_, T> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.layer.keep(self.subject.clone(), asked);
        }
    }
}

/// The part of a request in [`Timeout::at_the_bank`], until it is dropped.
struct Part<'a> {
    all: &'a AtomicU64,
    bytes: u64,
}

impl<'a> Part<'a> {
    fn new(all: &'a AtomicU64, bytes: u64) -> Self {
        all.fetch_add(bytes, Relaxed);
        Self { all, bytes }
    }

    /// The bytes that the other requests may move.
    fn others(&self) -> u64 {
        self.all.load(Relaxed).saturating_sub(self.bytes)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl Timeout {
    /// Waits for the answer to a request as long as it may take; then says how long that was.
    async fn wait<T>(&self, bytes: u64, asked: impl Future<Output = T>) -> Result<T, Duration> {
        let part = Part::new(&self.at_the_bank, bytes.min(LARGE));
        let allowed = || {
            let moved = bytes.saturating_add(part.others());
            self.limit
                .saturating_add(Duration::from_secs(moved / SLOWEST))
        };
        let begun = Instant::now();
        let mut asked = pin!(asked);
        let mut limit = allowed();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            if let Ok(answer) = tokio::time::timeout(left, &mut asked).await {
                return Ok(answer);
            }
            // Others may have come beside it.
            match allowed() {
                longer if longer > limit => limit = longer,
                _ => return Err(limit),
            }
        }
    }
}

impl Layer for Timeout {
    async fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> Result<T, BankError> {
        let late = |limit: Duration| BankError::TimedOut {
            request: request.to_string(),
            seconds: limit.as_secs(),
        };
        if !request.verb.writes() {
            let answer = self.wait(request.bytes, ask()).await;
            return answer.unwrap_or_else(|limit| Err(late(limit)));
        }
        let subject = (request.verb.is_of_leases(), request.key.to_owned());
        let change = async {
            if let Some(earlier) = self.earlier(&subject) {
                earlier.await;
            }
            let begun = Begun {
                layer: self,
                subject: &subject,
                asked: Some(ask()),
            };
            begun.await
        };
        let answer = self.wait(request.bytes, change).await;
        answer.unwrap_or_else(|limit| Err(late(limit)))
    }
}
