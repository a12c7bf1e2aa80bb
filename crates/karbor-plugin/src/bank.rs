//! The [`Bank`]: where data go.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{BankKey, KeyError};

/// What a bank can do beyond the basics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BankCapabilities {
    /// [`Bank::put_new`] is atomic against other writers.
    pub conditional_put: bool,
    /// A returned `put` has reached stable storage.
    pub durable: bool,
}

/// What a bank knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key.
    pub key: BankKey,
    /// Size in bytes.
    pub size: u64,
}

/// Which way a listing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortDirection {
    /// By key, `a` first.
    #[default]
    Ascending,
    /// By key, `z` first.
    Descending,
}

/// What to list: one page, sorted by key in byte order.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only keys that are below this one (`prefix/...`); `None` is the whole bank. Matches whole
    /// parts: `a` finds `a/b`, not `ab`.
    pub prefix: Option<BankKey>,
    /// Only keys after this one in the chosen direction. It need not exist.
    pub marker: Option<BankKey>,
    /// At most this many; `None` is all.
    pub limit: Option<usize>,
    /// Direction.
    pub sort: SortDirection,
}

/// A claim on a name in the bank that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What is leased, as a key. Leases have names of their own: a lease is never an object.
    pub name: String,
    /// Who holds it.
    pub owner: String,
    /// When it ends, UTC, unless renewed.
    pub expires_at: DateTime<Utc>,
}

/// Why a bank could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BankError {
    /// No object has this key.
    #[error("there is no object '{0}' in the bank")]
    NotFound(BankKey),
    /// An object with this key is there already.
    #[error("there is already an object '{0}' in the bank")]
    AlreadyExists(BankKey),
    /// The text is not a key.
    #[error(transparent)]
    InvalidKey(#[from] KeyError),
    /// Somebody else holds the lease.
    #[error("'{name}' is held by {owner} until {expires_at}")]
    LeaseHeld {
        /// The lease.
        name: String,
        /// Its holder.
        owner: String,
        /// When it ends unless renewed.
        expires_at: DateTime<Utc>,
    },
    /// The lease is no longer ours.
    #[error("the lease on '{0}' was lost")]
    LeaseLost(String),
    /// The bank is full.
    #[error("the bank is full: {0}")]
    Full(String),
    /// An object is not what was written.
    #[error("the object '{key}' is corrupt: {reason}")]
    Corrupt {
        /// Key.
        key: BankKey,
        /// What was found.
        reason: String,
    },
    /// It could not be reached since the start, and still cannot; it is tried anew at every use.
    #[error("{bank} is away: {reason}")]
    Away {
        /// Which bank, in words.
        bank: String,
        /// Why it cannot be reached.
        reason: String,
    },
    /// What it lies in was there, and is not: it was moved, removed or unmounted. It is tried anew at every use.
    #[error("the bank failed: {0}")]
    Gone(String),
    /// It did not answer in time. A change may have been made nevertheless, or may be made yet.
    #[error(
        "the bank did not answer within {seconds} s ({request}); see whether its disk or its server hangs"
    )]
    TimedOut {
        /// What was asked of it.
        request: String,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// Anything else; `retryable` says whether trying again can help.
    #[error("the bank failed: {message}{}", at.as_ref().map(|at| format!(" ('{at}')")).unwrap_or_default())]
    Other {
        /// What happened and what to do, without a path of the host: clients read it.
        message: String,
        /// Where on the host, for the operator.
        at: Option<String>,
        /// Can trying again help?
        retryable: bool,
    },
}

impl BankError {
    /// Can trying again help?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Away { .. }
                | Self::Gone(_)
                | Self::TimedOut { .. }
                | Self::Other {
                    retryable: true,
                    ..
                }
        )
    }
}

/// No object that is read whole is larger, in bytes; most are far smaller.
pub const MAX_OBJECT: u64 = 1 << 30;

/// What an object is that has more bytes than it may.
#[must_use]
pub fn too_large(key: &BankKey, most: u64) -> BankError {
    BankError::Corrupt {
        key: key.clone(),
        reason: format!("it has more than the {most} bytes that such an object may have"),
    }
}

/// A store of objects under keys. An object is whole or absent, whatever dies when.
///
/// Every bank passes `karbor_plugin::contract::bank`.
#[async_trait]
pub trait Bank: Send + Sync + fmt::Debug + 'static {
    /// What it can do.
    fn capabilities(&self) -> BankCapabilities;

    /// Writes an object, replacing what was there. When it returns, the object is durable (see
    /// [`BankCapabilities::durable`]); if it fails or dies, what was there is still there, whole.
    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError>;

    /// Writes an object only if there is none: [`BankError::AlreadyExists`] otherwise.
    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError>;

    /// Reads an object that may have at most `most` bytes; of a larger one nothing is kept, and it is
    /// [`BankError::Corrupt`]. Memory grows with what arrives: a size that somebody claims is no reason to
    /// allocate.
    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError>;

    /// Reads an object of at most [`MAX_OBJECT`] bytes.
    async fn get(&self, key: &BankKey) -> Result<Bytes, BankError> {
        self.get_at_most(key, MAX_OBJECT).await
    }

    /// Reads `length` bytes from `offset` (bytes). A range that ends beyond the object is
    /// [`BankError::Corrupt`]: a short answer is never given.
    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError>;

    /// What is known of an object, without reading it.
    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError>;

    /// Removes an object. One that is not there is no error: deletes are repeated.
    async fn delete(&self, key: &BankKey) -> Result<(), BankError>;

    /// One page of objects.
    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError>;

    /// Claims `name` for `owner`. The same owner may claim again (and so renews); a lease that has
    /// ended may be taken over; otherwise [`BankError::LeaseHeld`].
    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError>;

    /// Makes a lease last `ttl` from now; [`BankError::LeaseLost`] if somebody took it over.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError>;

    /// Gives a lease up. One that was lost already is no error.
    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError>;

    /// The live leases at or below `name`.
    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError>;
}

/// Every object below `prefix`, page by page so that memory holds only the answer.
///
/// # Errors
/// Whatever [`Bank::list`] fails with.
pub async fn list_all(bank: &dyn Bank, prefix: &BankKey) -> Result<Vec<ObjectInfo>, BankError> {
    const PAGE: usize = 1000;
    let mut request = ListRequest {
        prefix: Some(prefix.clone()),
        limit: Some(PAGE),
        ..ListRequest::default()
    };
    let mut objects = Vec::new();
    loop {
        let page = bank.list(&request).await?;
        let last = page.len() < PAGE;
        objects.extend(page);
        if last {
            return Ok(objects);
        }
        request.marker = objects.last().map(|object| object.key.clone());
    }
}
