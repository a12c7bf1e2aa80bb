//! A clock whose hands the test turns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use karbor_manager::Clock;
use tokio::sync::{Notify, oneshot};

/// How often [`FakeClock::settle`] lets other tasks run: more than any chain of wake-ups in a test.
const ROUNDS: usize = 100;

/// See the module. It stands still until [`advance`](FakeClock::advance)d. Cheap to clone; clones
/// are the same clock. Meant for `#[tokio::test]`'s single-threaded runtime, where letting others
/// run means that they do.
#[derive(Clone)]
pub struct FakeClock {
    inner: Arc<Inner>,
}

struct Inner {
    hands: Mutex<Hands>,
    /// Somebody has begun to sleep.
    slept: Notify,
}

struct Hands {
    elapsed: Duration,
    time_of_day: DateTime<Utc>,
    next: u64,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl FakeClock {
    /// A clock that stands at 2026-01-01 00:00:00 UTC.
    #[must_use]
    pub fn new() -> Self {
        let time_of_day = DateTime::UNIX_EPOCH + TimeDelta::seconds(1_767_225_600);
        Self {
            inner: Arc::new(Inner {
                hands: Mutex::new(Hands {
                    // Not zero, so that a task may look back.
                    elapsed: Duration::from_secs(1_000_000),
                    time_of_day,
                    next: 0,
                    sleepers: BTreeMap::new(),
                }),
                slept: Notify::new(),
            }),
        }
    }

    /// This clock, to be injected.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.inner
            .hands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `duration` pass: every sleeper wakes in its turn, at its time, and what it then does is
    /// done before time goes on.
    pub async fn advance(&self, duration: Duration) {
        self.settle().await;
        let end = self.hands().elapsed + duration;
        loop {
            let next = self.hands().sleepers.keys().next().map(|(at, _)| *at);
            match next.filter(|at| *at <= end) {
                Some(at) => self.turn_to(at),
                None => break,
            }
            self.settle().await;
        }
        self.turn_to(end);
        self.settle().await;
    }

    /// Lets `duration` pass, without waiting for what that sets off.
    pub fn turn(&self, duration: Duration) {
        let to = self.hands().elapsed + duration;
        self.turn_to(to);
    }

    fn turn_to(&self, to: Duration) {
        let mut hands = self.hands();
        let passed = to.saturating_sub(hands.elapsed);
        hands.elapsed += passed;
        hands.time_of_day += passed;
        while let Some(entry) = hands.sleepers.first_entry() {
            if entry.key().0 > to {
                break;
            }
            // A sleeper that was dropped meanwhile needs no waking.
            let _ = entry.remove().send(());
        }
    }

    /// Moves the time of day only, as an operator or NTP does.
    pub fn set_time_of_day(&self, to: DateTime<Utc>) {
        self.hands().time_of_day = to;
    }

    /// Lets other tasks run until they wait for something.
    pub async fn settle(&self) {
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
        }
    }

    /// How many sleep on this clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.hands().sleepers.len()
    }

    /// Returns once at least `count` sleep.
    pub async fn wait_for_sleepers(&self, count: usize) {
        loop {
            let slept = self.inner.slept.notified();
            if self.sleepers() >= count {
                return;
            }
            slept.await;
        }
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> DateTime<Utc> {
        self.hands().time_of_day
    }

    fn monotonic(&self) -> Duration {
        self.hands().elapsed
    }

    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        let key = {
            let mut hands = self.hands();
            hands.next += 1;
            let key = (hands.elapsed + duration, hands.next);
            hands.sleepers.insert(key, sender);
            key
        };
        let _sleeper = Sleeper { clock: self, key };
        self.inner.slept.notify_waiters();
        let _ = receiver.await;
    }
}

/// Takes a sleeper off the list when its future is dropped.
struct Sleeper<'a> {
    clock: &'a FakeClock,
    key: (Duration, u64),
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.hands().sleepers.remove(&self.key);
    }
}
