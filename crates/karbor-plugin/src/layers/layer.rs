//! What every layer is made of: a bank that does something around each request to another.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo};

/// A method of [`Bank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Bank::put`].
    Put,
    /// [`Bank::put_new`].
    PutNew,
    /// [`Bank::get`] and [`Bank::get_at_most`].
    Get,
    /// [`Bank::get_range`].
    GetRange,
    /// [`Bank::stat`].
    Stat,
    /// [`Bank::delete`].
    Delete,
    /// [`Bank::list`].
    List,
    /// [`Bank::acquire_lease`].
    AcquireLease,
    /// [`Bank::renew_lease`].
    RenewLease,
    /// [`Bank::release_lease`].
    ReleaseLease,
    /// [`Bank::leases`].
    Leases,
}

impl Verb {
    /// Does the method change the bank?
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::Put
                | Self::PutNew
                | Self::Delete
                | Self::AcquireLease
                | Self::RenewLease
                | Self::ReleaseLease
        )
    }

    /// Is it about leases, not objects?
    #[must_use]
    pub fn is_of_leases(self) -> bool {
        matches!(
            self,
            Self::AcquireLease | Self::RenewLease | Self::ReleaseLease | Self::Leases
        )
    }
}

/// A request on its way to the bank.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) verb: Verb,
    /// The key or the lease's name; of a listing its prefix, empty for the whole bank.
    pub(super) key: &'a str,
    /// How many bytes it may move, at most.
    pub(super) bytes: u64,
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of '{}'", self.verb, self.key)
    }
}

/// What a bank answers with.
pub(super) trait Answer: Send + 'static {
    /// How many bytes of objects are in it.
    fn bytes(&self) -> u64 {
        0
    }
}

impl Answer for () {}
impl Answer for ObjectInfo {}
impl Answer for Vec<ObjectInfo> {}
impl Answer for Lease {}
impl Answer for Vec<Lease> {}
impl Answer for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// A request that is made when it is awaited.
pub(super) type Asked<T> = BoxFuture<'static, Result<T, BankError>>;

/// What a layer does around every request.
pub(super) trait Layer: Send + Sync + 'static {
    fn around<T: Answer>(
        &self,
        request: Request<'_>,
        ask: impl Fn() -> Asked<T> + Send + Sync,
    ) -> impl Future<Output = Result<T, BankError>> + Send;
}

/// A bank with one layer around it.
pub(super) struct Layered<L> {
    pub(super) bank: Arc<dyn Bank>,
    pub(super) layer: L,
}

impl<L> fmt::Debug for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bank.fmt(f)
    }
}

#[async_trait]
impl<L: Layer> Bank for Layered<L> {
    fn capabilities(&self) -> BankCapabilities {
        self.bank.capabilities()
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let request = Request {
            verb: Verb::Put,
            key: key.as_str(),
            bytes: data.len() as u64,
        };
        let ask = || {
            let (bank, key, data) = (self.bank.clone(), key.clone(), data.clone());
            Box::pin(async move { bank.put(&key, data).await }) as Asked<_>
        };
        self.layer.around(request, ask).await
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let request = Request {
            verb: Verb::PutNew,
            key: key.as_str(),
            bytes: data.len() as u64,
        };
        let ask = || {
            let (bank, key, data) = (self.bank.clone(), key.clone(), data.clone());
            Box::pin(async move { bank.put_new(&key, data).await }) as Asked<_>
        };
        self.layer.around(request, ask).await
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let request = Request {
            verb: Verb::Get,
            key: key.as_str(),
            bytes: most,
        };
        let ask = || {
            let (bank, key) = (self.bank.clone(), key.clone());
            Box::pin(async move { bank.get_at_most(&key, most).await }) as Asked<_>
        };
        self.layer.around(request, ask).await
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        let request = Request {
            verb: Verb::GetRange,
            key: key.as_str(),
            bytes: length,
        };
        let ask = || {
            let (bank, key) = (self.bank.clone(), key.clone());
            Box::pin(async move { bank.get_range(&key, offset, length).await }) as Asked<_>
        };
        self.layer.around(request, ask).await
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let ask = || {
            let (bank, key) = (self.bank.clone(), key.clone());
            Box::pin(async move { bank.stat(&key).await }) as Asked<_>
        };
        self.layer.around(small(Verb::Stat, key), ask).await
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        let ask = || {
            let (bank, key) = (self.bank.clone(), key.clone());
            Box::pin(async move { bank.delete(&key).await }) as Asked<_>
        };
        self.layer.around(small(Verb::Delete, key), ask).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        let ask = || {
            let (bank, request) = (self.bank.clone(), request.clone());
            Box::pin(async move { bank.list(&request).await }) as Asked<_>
        };
        let below = Request {
            verb: Verb::List,
            key: request.prefix.as_ref().map_or("", BankKey::as_str),
            bytes: 0,
        };
        self.layer.around(below, ask).await
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        let ask = || {
            let (bank, name, owner) = (self.bank.clone(), name.clone(), owner.to_owned());
            Box::pin(async move { bank.acquire_lease(&name, &owner, ttl).await }) as Asked<_>
        };
        self.layer
            .around(small(Verb::AcquireLease, name), ask)
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        let ask = || {
            let (bank, lease) = (self.bank.clone(), lease.clone());
            Box::pin(async move { bank.renew_lease(&lease, ttl).await }) as Asked<_>
        };
        self.layer.around(of(Verb::RenewLease, lease), ask).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        let ask = || {
            let (bank, lease) = (self.bank.clone(), lease.clone());
            Box::pin(async move { bank.release_lease(&lease).await }) as Asked<_>
        };
        self.layer.around(of(Verb::ReleaseLease, lease), ask).await
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        let ask = || {
            let (bank, name) = (self.bank.clone(), name.clone());
            Box::pin(async move { bank.leases(&name).await }) as Asked<_>
        };
        self.layer.around(small(Verb::Leases, name), ask).await
    }
}

/// A request that moves no object.
fn small(verb: Verb, key: &BankKey) -> Request<'_> {
    Request {
        verb,
        key: key.as_str(),
        bytes: 0,
    }
}

/// A request about a lease that is held.
fn of(verb: Verb, lease: &Lease) -> Request<'_> {
    Request {
        verb,
        key: &lease.name,
        bytes: 0,
    }
}
