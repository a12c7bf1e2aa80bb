//! A bank that was away, or did not answer, when it was to be opened: every use tries anew, until it is there.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use crate::{
    Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo, OpenError, Opening,
};

/// Opens a bank as it is configured.
pub(crate) type OpenBank = Arc<dyn Fn() -> Opening<dyn Bank> + Send + Sync>;

/// How long anybody waits for a bank to be opened: a file server that is down lets it hang, and what needs another bank is
/// not to wait for that.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct LateBank {
    /// Which bank, in words.
    name: String,
    open: OpenBank,
    bank: OnceLock<Arc<dyn Bank>>,
    /// The try that goes on. There is one at a time, however many wait: each may hold a thread.
    opening: Mutex<Option<Try>>,
}

type Try = Shared<BoxFuture<'static, Result<Arc<dyn Bank>, OpenError>>>;

impl LateBank {
    pub(crate) fn new(name: String, open: OpenBank) -> Self {
        Self {
            name,
            open,
            bank: OnceLock::new(),
            opening: Mutex::default(),
        }
    }

    /// The bank, opened if it was not. One that does not answer is [`OpenError::Away`]; the try goes on, and its end
    /// serves those who come later.
    pub(crate) async fn opened(&self) -> Result<&Arc<dyn Bank>, OpenError> {
        if let Some(bank) = self.bank.get() {
            return Ok(bank);
        }
        let opening = self.goes_on();
        let Ok(opened) = tokio::time::timeout(PATIENCE, opening.clone()).await else {
            return Err(OpenError::Away(format!(
                "it has not answered for {} seconds: look whether its disk or file server is in order",
                PATIENCE.as_secs()
            )));
        };
        let mut slot = self.opening();
        if slot.as_ref().is_some_and(|other| other.ptr_eq(&opening)) {
            *slot = None;
        }
        drop(slot);
        let opened = opened?;
        Ok(self.bank.get_or_init(|| {
            tracing::info!(bank = self.name, "the bank is there");
            opened
        }))
    }

    /// The try that goes on, begun if none does.
    fn goes_on(&self) -> Try {
        let begin = || {
            let opening = tokio::spawn((self.open)());
            let opened = async {
                let opened = opening.await;
                opened.unwrap_or_else(|error| Err(OpenError::Away(error.to_string())))
            };
            opened.boxed().shared()
        };
        self.opening().get_or_insert_with(begin).clone()
    }

    fn opening(&self) -> MutexGuard<'_, Option<Try>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bank(&self) -> Result<&Arc<dyn Bank>, BankError> {
        let opened = self.opened().await;
        opened.map_err(|error| BankError::Away {
            bank: self.name.clone(),
            reason: error.to_string(),
        })
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
