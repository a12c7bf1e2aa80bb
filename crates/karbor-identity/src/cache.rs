//! Good tokens, remembered for a while by their hashes.

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

/// What a token is remembered by: who reads our memory finds no token.
pub(crate) type Key = [u8; 32];

/// Remembers good tokens only, so nobody can fill it with bad ones.
pub(crate) struct Cache {
    window: Duration,
    known: Mutex<HashMap<Key, (Duration, Arc<Token>)>>,
}

pub(crate) fn key(secret: &Secret) -> Key {
    Sha256::digest(secret.expose().as_bytes()).into()
}

impl Cache {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            known: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &Key, clock: &dyn Clock) -> Option<Arc<Token>> {
        let known = self.lock();
        let (since, token) = known.get(key)?;
        self.is_good(*since, token, clock).then(|| token.clone())
    }

    pub(crate) fn insert(&self, key: Key, token: Arc<Token>, clock: &dyn Clock) {
        if self.window.is_zero() {
            return;
        }
        let mut known = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Duration, Arc<Token>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
