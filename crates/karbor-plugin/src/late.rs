//! A bank that was away when it was to be opened: every use tries anew, until it is there.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::{Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo, Opening};

/// Opens a bank as it is configured.
pub(crate) type OpenBank = Arc<dyn Fn() -> Opening<dyn Bank> + Send + Sync>;

pub(crate) struct LateBank {
    /// Which bank, in words.
    name: String,
    open: OpenBank,
    bank: OnceCell<Arc<dyn Bank>>,
}

impl LateBank {
    pub(crate) fn new(name: String, open: OpenBank) -> Self {
        Self {
            name,
            open,
            bank: OnceCell::new(),
        }
    }

    async fn bank(&self) -> Result<&Arc<dyn Bank>, BankError> {
        let opening = async || {
            let opened = (self.open)().await;
            let bank = opened.map_err(|error| BankError::Away {
                bank: self.name.clone(),
                reason: error.to_string(),
            })?;
            tracing::info!(bank = self.name, "a bank that was away is there");
            Ok(bank)
        };
        self.bank.get_or_try_init(opening).await
    }
}

impl fmt::Debug for LateBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bank.get() {
            Some(bank) => bank.fmt(f),
            None => write!(f, "LateBank({})", self.name),
        }
    }
}

#[async_trait]
impl Bank for LateBank {
    /// Of a bank that is not there nothing is promised.
    fn capabilities(&self) -> BankCapabilities {
        let none = BankCapabilities {
            conditional_put: false,
            durable: false,
        };
        self.bank.get().map_or(none, |bank| bank.capabilities())
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        self.bank().await?.put(key, data).await
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        self.bank().await?.put_new(key, data).await
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        self.bank().await?.get_at_most(key, most).await
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        self.bank().await?.get_range(key, offset, length).await
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        self.bank().await?.stat(key).await
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        self.bank().await?.delete(key).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        self.bank().await?.list(request).await
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        self.bank().await?.acquire_lease(name, owner, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        self.bank().await?.renew_lease(lease, ttl).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        self.bank().await?.release_lease(lease).await
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        self.bank().await?.leases(name).await
    }
}
