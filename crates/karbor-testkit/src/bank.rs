//! A bank in memory. It keeps the contract of [`Bank`] but for durability.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use karbor_plugin::{
    Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo, SortDirection,
    too_large,
};

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<BankKey, Bytes>,
    leases: BTreeMap<BankKey, Lease>,
    ahead: TimeDelta,
}

/// A bank in memory. Shared as `Arc<MemoryBank>`; everything in it dies with it.
#[derive(Debug, Default)]
pub struct MemoryBank {
    state: Mutex<State>,
}

impl MemoryBank {
    /// An empty bank.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the bank's clock forward, so that leases end without anybody waiting.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        state.ahead = state.ahead.checked_add(&by).unwrap_or(TimeDelta::MAX);
    }

    /// Every key, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.state();
        state.objects.keys().map(ToString::to_string).collect()
    }

    /// Everything in the bank: to compare what was there with what is there now.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<BankKey, Bytes> {
        self.state().objects.clone()
    }

    /// Puts bytes under a key without anybody noticing: what a rotten disk does.
    pub fn tamper(&self, key: &BankKey, data: Bytes) {
        self.state().objects.insert(key.clone(), data);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while holding the lock left whole maps behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> DateTime<Utc> {
        let now = Utc::now().checked_add_signed(self.ahead);
        now.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    fn object(&self, key: &BankKey) -> Result<&Bytes, BankError> {
        let object = self.objects.get(key);
        object.ok_or_else(|| BankError::NotFound(key.clone()))
    }
}

/// Is `key` below `prefix`, by whole parts?
fn below(key: &BankKey, prefix: Option<&BankKey>) -> bool {
    let Some(prefix) = prefix else { return true };
    let rest = key.as_str().strip_prefix(prefix.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn end_of(now: DateTime<Utc>, ttl: Duration) -> DateTime<Utc> {
    let ttl = TimeDelta::from_std(ttl).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(ttl)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[async_trait]
impl Bank for MemoryBank {
    fn capabilities(&self) -> BankCapabilities {
        BankCapabilities {
            conditional_put: true,
            durable: false,
        }
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        self.state().objects.insert(key.clone(), data);
        Ok(())
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Err(BankError::AlreadyExists(key.clone()));
        }
        state.objects.insert(key.clone(), data);
        Ok(())
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let data = self.state().object(key)?.clone();
        match data.len() as u64 > most {
            true => Err(too_large(key, most)),
            false => Ok(data),
        }
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        let object = self.state().object(key)?.clone();
        let size = object.len();
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .and_then(|(from, length)| Some(from..from.checked_add(length)?))
            .filter(|range| range.end <= size)
            .ok_or_else(|| BankError::Corrupt {
                key: key.clone(),
                reason: format!("it has {size} bytes, not {length} from {offset} on"),
            })?;
        Ok(object.slice(range))
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let size = self.state().object(key)?.len() as u64;
        let key = key.clone();
        Ok(ObjectInfo { key, size })
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        self.state().objects.remove(key);
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        let state = self.state();
        let limit = request.limit.unwrap_or(usize::MAX);
        let info = |(key, data): (&BankKey, &Bytes)| ObjectInfo {
            key: key.clone(),
            size: data.len() as u64,
        };
        let wanted = |entry: &(&BankKey, &Bytes)| below(entry.0, request.prefix.as_ref());
        let marker = request.marker.clone();
        let marker = marker.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(match request.sort {
            SortDirection::Ascending => {
                let range = state.objects.range((marker, Bound::Unbounded));
                range.filter(wanted).take(limit).map(info).collect()
            }
            SortDirection::Descending => {
                let range = state.objects.range((Bound::Unbounded, marker)).rev();
                range.filter(wanted).take(limit).map(info).collect()
            }
        })
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        let mut state = self.state();
        let now = state.now();
        if let Some(held) = state.leases.get(name)
            && held.owner != owner
            && held.expires_at > now
        {
            return Err(BankError::LeaseHeld {
                name: held.name.clone(),
                owner: held.owner.clone(),
                expires_at: held.expires_at,
            });
        }
        let lease = Lease {
            name: name.to_string(),
            owner: owner.to_owned(),
            expires_at: end_of(now, ttl),
        };
        state.leases.insert(name.clone(), lease.clone());
        Ok(lease)
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        let mut state = self.state();
        let ends = end_of(state.now(), ttl);
        match state.leases.get_mut(&BankKey::parse(&lease.name)?) {
            Some(held) if held.owner == lease.owner => {
                held.expires_at = ends;
                Ok(held.clone())
            }
            _ => Err(BankError::LeaseLost(lease.name.clone())),
        }
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        let mut state = self.state();
        let name = BankKey::parse(&lease.name)?;
        if state
            .leases
            .get(&name)
            .is_some_and(|held| held.owner == lease.owner)
        {
            state.leases.remove(&name);
        }
        Ok(())
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        let state = self.state();
        let now = state.now();
        let held = state.leases.iter();
        Ok(held
            .filter(|(key, lease)| {
                (*key == name || below(key, Some(name))) && lease.expires_at > now
            })
            .map(|(_, lease)| lease.clone())
            .collect())
    }
}
