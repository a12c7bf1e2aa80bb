//! Tokens, remembered by their hashes: good ones for a while, bad ones for a moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use karbor_manager::Clock;
use karbor_model::Secret;
use sha2::{Digest as _, Sha256};

use crate::Token;

/// More than that many bearers at once are asked about anew.
const MOST: usize = 10_000;

/// As many bad tokens are remembered; the good ones' place is their own, so nobody can drive those out.
const MOST_BAD: usize = 1_000;

/// For how long a bad token stays one: who repeats it costs keystone one request in that time, and a
/// token that becomes good is refused no longer.
const BAD_WINDOW: Duration = Duration::from_secs(5);

/// What a token is remembered by: who reads our memory finds no token.
pub(crate) type Key = [u8; 32];

/// What is remembered.
pub(crate) struct Cache {
    window: Duration,
    known: Mutex<HashMap<Key, (Duration, Arc<Token>)>>,
    bad: Mutex<HashMap<Key, Duration>>,
}

pub(crate) fn key(secret: &Secret) -> Key {
    Sha256::digest(secret.expose().as_bytes()).into()
}

impl Cache {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            known: Mutex::default(),
            bad: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &Key, clock: &dyn Clock) -> Option<Arc<Token>> {
        let known = lock(&self.known);
        let (since, token) = known.get(key)?;
        self.is_good(*since, token, clock).then(|| token.clone())
    }

    pub(crate) fn insert(&self, key: Key, token: Arc<Token>, clock: &dyn Clock) {
        if self.window.is_zero() {
            return;
        }
        let mut known = lock(&self.known);
        if known.len() >= MOST {
            known.retain(|_, (since, token)| self.is_good(*since, token, clock));
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, (clock.monotonic(), token));
    }

    fn is_good(&self, since: Duration, token: &Token, clock: &dyn Clock) -> bool {
        clock.monotonic().saturating_sub(since) < self.window && token.expires_at > clock.now()
    }

    /// Did keystone say a moment ago that this is no token?
    pub(crate) fn is_bad(&self, key: &Key, clock: &dyn Clock) -> bool {
        let bad = lock(&self.bad);
        bad.get(key).is_some_and(|since| is_fresh(*since, clock))
    }

    /// Keystone says that this is no token.
    pub(crate) fn insert_bad(&self, key: Key, clock: &dyn Clock) {
        if self.window.is_zero() {
            return;
        }
        let mut bad = lock(&self.bad);
        if bad.len() >= MOST_BAD {
            bad.retain(|_, since| is_fresh(*since, clock));
        }
        if bad.len() < MOST_BAD {
            bad.insert(key, clock.monotonic());
        }
    }
}

fn is_fresh(since: Duration, clock: &dyn Clock) -> bool {
    clock.monotonic().saturating_sub(since) < BAD_WINDOW
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
