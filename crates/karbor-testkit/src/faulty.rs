//! A bank that fails on command.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_plugin::{
    Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo, layers::Verb,
};
use tokio::sync::watch;

/// A call that reached the bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its place among all calls, from 1.
    pub number: usize,
    /// The method.
    pub verb: Verb,
    /// The key; of a listing its prefix, empty for the whole bank.
    pub key: String,
}

/// What happens to a call instead of, or besides, what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; an error that trying again may mend.
    Fail,
    /// Nothing is done; an error that trying again will not mend.
    FailForGood,
    /// Nothing is done: [`BankError::Full`].
    Full,
    /// It is done, but the caller hears of a failure: an answer lost on the way.
    AnswerLost,
    /// It is done, and then found to be there: an answer lost on the way, and the call made again by what the bank stands on.
    FoundAgain,
    /// It never returns: for cancelling.
    Hang,
    /// It is done when the bank is healed.
    Hold,
    /// `get` and `get_range` answer with one bit flipped in the middle; other calls pass.
    FlipBit,
    /// `get` answers with the first half of the object; other calls pass.
    Truncate,
}

type Rule = (Box<dyn Fn(&Call) -> bool + Send>, Fault, usize);

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    rules: Vec<Rule>,
}

/// A bank around another that counts calls and fails the ones it is told to.
///
/// ```
/// # use karbor_testkit::{FaultyBank, Fault, MemoryBank, Verb};
/// let bank = FaultyBank::new(MemoryBank::new());
/// bank.fail_call(3, Fault::Fail);
/// bank.inject(Fault::Full, usize::MAX, |call| call.verb == Verb::Put && call.key.contains("/data/"));
/// ```
pub struct FaultyBank<B> {
    inner: B,
    state: Arc<Mutex<State>>,
    healed: watch::Sender<()>,
}

impl<B> std::fmt::Debug for FaultyBank<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyBank")
    }
}

impl<B: Bank> FaultyBank<B> {
    /// Wraps a bank; all calls pass until told otherwise.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            state: Arc::default(),
            healed: watch::Sender::new(()),
        }
    }

    /// The bank inside, to look at or to change behind everybody's back.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The next `times` calls that `matches` get `fault`.
    pub fn inject(
        &self,
        fault: Fault,
        times: usize,
        matches: impl Fn(&Call) -> bool + Send + 'static,
    ) -> &Self {
        self.state().rules.push((Box::new(matches), fault, times));
        self
    }

    /// The call with this number (from 1, over all methods since [`new`](Self::new) or
    /// [`forget_calls`](Self::forget_calls)) gets `fault`.
    pub fn fail_call(&self, number: usize, fault: Fault) -> &Self {
        self.inject(fault, 1, move |call| call.number == number)
    }

    /// The `nth` coming call (from 1) that changes the bank gets `fault`.
    pub fn fail_write(&self, nth: usize, fault: Fault) -> &Self {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        self.inject(fault, 1, move |call| {
            call.verb.writes() && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == nth
        })
    }

    /// From now on all calls pass, and so do those that are held.
    pub fn heal(&self) -> &Self {
        self.state().rules.clear();
        self.healed.send_replace(());
        self
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls of a method there were.
    #[must_use]
    pub fn count(&self, verb: Verb) -> usize {
        let state = self.state();
        state.calls.iter().filter(|call| call.verb == verb).count()
    }

    /// Starts counting anew.
    pub fn forget_calls(&self) -> &Self {
        self.state().calls.clear();
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, verb: Verb, key: &str) -> Option<Fault> {
        let mut state = self.state();
        let call = Call {
            number: state.calls.len() + 1,
            verb,
            key: key.to_owned(),
        };
        let rule = state
            .rules
            .iter_mut()
            .find(|(matches, _, left)| *left > 0 && matches(&call));
        let fault = rule.map(|(_, fault, left)| {
            *left -= 1;
            *fault
        });
        state.calls.push(call);
        fault
    }

    async fn call<T>(
        &self,
        verb: Verb,
        key: &str,
        run: impl Future<Output = Result<T, BankError>>,
        spoil: impl FnOnce(T, Fault) -> T,
    ) -> Result<T, BankError> {
        let failure = |retryable| BankError::Other {
            message: format!("injected failure of {verb:?} '{key}'"),
            at: None,
            retryable,
        };
        let mut healed = self.healed.subscribe();
        match self.note(verb, key) {
            None => run.await,
            Some(Fault::Fail) => Err(failure(true)),
            Some(Fault::FailForGood) => Err(failure(false)),
            Some(Fault::Full) => Err(BankError::Full(format!(
                "injected: no space left for '{key}'"
            ))),
            Some(Fault::AnswerLost) => run.await.and(Err(failure(true))),
            Some(Fault::FoundAgain) => {
                run.await?;
                Err(BankError::AlreadyExists(BankKey::parse(key)?))
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Hold) => {
                // The sender is in `self`.
                let _ = healed.changed().await;
                run.await
            }
            Some(fault @ (Fault::FlipBit | Fault::Truncate)) => Ok(spoil(run.await?, fault)),
        }
    }
}

fn as_is<T>(value: T, _: Fault) -> T {
    value
}

fn spoiled(data: Bytes, fault: Fault) -> Bytes {
    let middle = data.len() / 2;
    if fault == Fault::Truncate {
        return data.slice(..middle);
    }
    let mut data = data.to_vec();
    if let Some(byte) = data.get_mut(middle) {
        *byte ^= 0x10;
    }
    data.into()
}

#[async_trait]
impl<B: Bank> Bank for FaultyBank<B> {
    fn capabilities(&self) -> BankCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let run = self.inner.put(key, data);
        self.call(Verb::Put, key.as_str(), run, as_is).await
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let run = self.inner.put_new(key, data);
        self.call(Verb::PutNew, key.as_str(), run, as_is).await
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let run = self.inner.get_at_most(key, most);
        self.call(Verb::Get, key.as_str(), run, spoiled).await
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        let run = self.inner.get_range(key, offset, length);
        let flip = |data, fault| match fault {
            // A range is never short: that is the contract of the bank itself.
            Fault::Truncate => data,
            _ => spoiled(data, fault),
        };
        self.call(Verb::GetRange, key.as_str(), run, flip).await
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let run = self.inner.stat(key);
        self.call(Verb::Stat, key.as_str(), run, as_is).await
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        let run = self.inner.delete(key);
        self.call(Verb::Delete, key.as_str(), run, as_is).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        let prefix = request.prefix.as_ref().map_or("", BankKey::as_str);
        let run = self.inner.list(request);
        self.call(Verb::List, prefix, run, as_is).await
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        let run = self.inner.acquire_lease(name, owner, ttl);
        self.call(Verb::AcquireLease, name.as_str(), run, as_is)
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        let run = self.inner.renew_lease(lease, ttl);
        self.call(Verb::RenewLease, &lease.name, run, as_is).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        let run = self.inner.release_lease(lease);
        self.call(Verb::ReleaseLease, &lease.name, run, as_is).await
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        let run = self.inner.leases(name);
        self.call(Verb::Leases, name.as_str(), run, as_is).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBank;

    fn key(text: &str) -> BankKey {
        BankKey::parse(text).unwrap()
    }

    #[tokio::test]
    async fn the_call_that_was_named_fails_and_no_other() {
        let bank = FaultyBank::new(MemoryBank::new());
        bank.fail_call(2, Fault::Full);
        bank.put(&key("a"), "1".into()).await.unwrap();
        let error = bank.put(&key("b"), "1".into()).await.unwrap_err();
        assert!(matches!(error, BankError::Full(_)));
        bank.put(&key("b"), "1".into()).await.unwrap();
        assert_eq!((bank.count(Verb::Put), bank.inner().keys().len()), (3, 2));
        let call = Call {
            number: 2,
            verb: Verb::Put,
            key: "b".to_owned(),
        };
        assert_eq!(bank.calls()[1], call);
    }

    #[tokio::test]
    async fn writes_are_counted_by_themselves() {
        let bank = FaultyBank::new(MemoryBank::new());
        bank.fail_write(2, Fault::Fail);
        bank.put(&key("a"), "1".into()).await.unwrap();
        bank.get(&key("a")).await.unwrap();
        bank.delete(&key("a")).await.unwrap_err();
        bank.delete(&key("a")).await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_answer_is_of_something_done() {
        let bank = FaultyBank::new(MemoryBank::new());
        bank.fail_write(1, Fault::AnswerLost);
        bank.put_new(&key("a"), "1".into()).await.unwrap_err();
        let again = bank.put_new(&key("a"), "1".into()).await.unwrap_err();
        assert!(matches!(again, BankError::AlreadyExists(_)));
    }

    #[tokio::test]
    async fn corruption_is_of_the_answer_and_ends_when_healed() {
        let bank = FaultyBank::new(MemoryBank::new());
        bank.put(&key("a"), "0123".into()).await.unwrap();
        bank.inject(Fault::FlipBit, 2, |call| call.key == "a");
        assert_eq!(bank.get(&key("a")).await.unwrap(), "01\"3");
        assert_eq!(bank.get_range(&key("a"), 1, 1).await.unwrap(), "!");
        bank.inject(Fault::Truncate, usize::MAX, |_| true);
        assert_eq!(bank.get(&key("a")).await.unwrap(), "01");
        bank.heal();
        assert_eq!(bank.get(&key("a")).await.unwrap(), "0123");
    }
}
