//! Sections: the part of a bank that somebody may see. Keys given to a section are relative to it,
//! and keys it answers with too.
//!
//! A section's whole reach is `prefix/...`, never `prefix` itself: every key is checked when it is
//! parsed, can hold no `..`, and is only ever joined to the prefix.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Bank, BankError, BankKey, Lease, ListRequest, ObjectInfo};

/// A part of a bank that may be read and written.
#[derive(Clone)]
pub struct BankSection {
    read: ReadSection,
}

/// A part of a bank that may be read. It has no write methods.
///
/// ```compile_fail,E0599
/// async fn write(section: karbor_plugin::ReadSection, key: karbor_plugin::BankKey) {
///     let _ = section.put(&key, "data".into()).await;
/// }
/// ```
/// ```compile_fail,E0599
/// async fn delete(section: karbor_plugin::ReadSection, key: karbor_plugin::BankKey) {
///     let _ = section.delete(&key).await;
/// }
/// ```
/// ```compile_fail,E0599
/// async fn lease(section: karbor_plugin::ReadSection, key: karbor_plugin::BankKey) {
///     let _ = section.acquire_lease(&key, "me", std::time::Duration::MAX).await;
/// }
/// ```
/// A smaller section of it, and what a writable one gives to be read, can write no more than it:
/// ```compile_fail,E0308
/// fn widen(section: karbor_plugin::ReadSection) -> karbor_plugin::BankSection {
///     section.sub_section("below").unwrap()
/// }
/// ```
#[derive(Clone)]
pub struct ReadSection {
    bank: Arc<dyn Bank>,
    prefix: BankKey,
}

/// The section that an operation gets for its data: writable for protect and delete, read-only for
/// restore, verify and copy.
#[derive(Debug, Clone)]
pub enum DataSection {
    /// May be written.
    Writable(BankSection),
    /// May only be read.
    ReadOnly(ReadSection),
}

impl ReadSection {
    /// The part of `bank` below `prefix`.
    #[must_use]
    pub fn new(bank: Arc<dyn Bank>, prefix: BankKey) -> Self {
        Self { bank, prefix }
    }

    fn full(&self, key: &BankKey) -> Result<BankKey, BankError> {
        Ok(self.prefix.join(key.as_str())?)
    }

    fn relative(&self, key: &BankKey) -> Result<BankKey, BankError> {
        let below = key.as_str().strip_prefix(self.prefix.as_str());
        match below.and_then(|rest| rest.strip_prefix('/')) {
            Some(below) => Ok(BankKey::parse(below)?),
            None => Err(BankError::Other {
                message: format!(
                    "it answered with '{key}', which is not below '{}'",
                    self.prefix
                ),
                at: None,
                retryable: false,
            }),
        }
    }

    fn relative_lease(&self, lease: Lease) -> Result<Lease, BankError> {
        let name = self.relative(&BankKey::parse(&lease.name)?)?.to_string();
        Ok(Lease { name, ..lease })
    }

    fn relative_error(&self, error: BankError) -> BankError {
        let short = |name: String| match BankKey::parse(&name).map(|name| self.relative(&name)) {
            Ok(Ok(below)) => below.to_string(),
            _ => name,
        };
        match error {
            BankError::LeaseHeld {
                name,
                owner,
                expires_at,
            } => BankError::LeaseHeld {
                name: short(name),
                owner,
                expires_at,
            },
            BankError::LeaseLost(name) => BankError::LeaseLost(short(name)),
            other => other,
        }
    }

    /// The live leases in this section.
    ///
    /// # Errors
    /// As [`Bank::leases`].
    pub async fn leases(&self) -> Result<Vec<Lease>, BankError> {
        let leases = self.bank.leases(&self.prefix).await?;
        // One on the section itself was taken by somebody who sees more than this section.
        let below = leases
            .into_iter()
            .filter(|lease| lease.name != self.prefix.as_str());
        below.map(|lease| self.relative_lease(lease)).collect()
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As [`Bank::get`].
    pub async fn get(&self, key: &BankKey) -> Result<Bytes, BankError> {
        self.bank.get(&self.full(key)?).await
    }

    /// Reads an object that may have at most `most` bytes.
    ///
    /// # Errors
    /// As [`Bank::get_at_most`].
    pub async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        self.bank.get_at_most(&self.full(key)?, most).await
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    /// As [`Bank::get_range`].
    pub async fn get_range(
        &self,
        key: &BankKey,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, BankError> {
        self.bank.get_range(&self.full(key)?, offset, length).await
    }

    /// What is known of an object.
    ///
    /// # Errors
    /// As [`Bank::stat`].
    pub async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let info = self.bank.stat(&self.full(key)?).await?;
        Ok(ObjectInfo {
            key: key.clone(),
            ..info
        })
    }

    /// One page of objects, keys relative to the section.
    ///
    /// # Errors
    /// As [`Bank::list`].
    pub async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        let prefix = match &request.prefix {
            Some(prefix) => self.full(prefix)?,
            None => self.prefix.clone(),
        };
        let marker = request
            .marker
            .as_ref()
            .map(|marker| self.full(marker))
            .transpose()?;
        let request = ListRequest {
            prefix: Some(prefix),
            marker,
            ..request.clone()
        };
        let page = self.bank.list(&request).await?;
        page.into_iter()
            .map(|info| {
                Ok(ObjectInfo {
                    key: self.relative(&info.key)?,
                    ..info
                })
            })
            .collect()
    }

    /// A smaller section.
    ///
    /// # Errors
    /// [`BankError::InvalidKey`].
    pub fn sub_section(&self, prefix: &str) -> Result<Self, BankError> {
        Ok(Self::new(self.bank.clone(), self.prefix.join(prefix)?))
    }

    /// Tells apart sections of several banks under the same prefix, for as long as the banks are open.
    #[must_use]
    pub fn identity(&self) -> (usize, &BankKey) {
        (Arc::as_ptr(&self.bank).cast::<()>() as usize, &self.prefix)
    }

    /// Where in the bank this section lies.
    #[must_use]
    pub fn prefix(&self) -> &BankKey {
        &self.prefix
    }
}

impl BankSection {
    /// The part of `bank` below `prefix`.
    #[must_use]
    pub fn new(bank: Arc<dyn Bank>, prefix: BankKey) -> Self {
        Self {
            read: ReadSection::new(bank, prefix),
        }
    }

    /// The same section, to be read only.
    #[must_use]
    pub fn read_only(&self) -> ReadSection {
        self.read.clone()
    }

    /// Writes an object.
    ///
    /// # Errors
    /// As [`Bank::put`].
    pub async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        self.read.bank.put(&self.read.full(key)?, data).await
    }

    /// Writes an object if there is none.
    ///
    /// # Errors
    /// As [`Bank::put_new`].
    pub async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        self.read.bank.put_new(&self.read.full(key)?, data).await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// As [`Bank::delete`].
    pub async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        self.read.bank.delete(&self.read.full(key)?).await
    }

    /// Claims a name in this section. The lease's name is relative to the section, as keys are.
    ///
    /// # Errors
    /// As [`Bank::acquire_lease`].
    pub async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        let full = self.read.full(name)?;
        let answer = self.read.bank.acquire_lease(&full, owner, ttl).await;
        let lease = answer.map_err(|error| self.read.relative_error(error))?;
        self.read.relative_lease(lease)
    }

    /// Makes a lease of this section last longer.
    ///
    /// # Errors
    /// As [`Bank::renew_lease`].
    pub async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        let answer = self
            .read
            .bank
            .renew_lease(&self.full_lease(lease)?, ttl)
            .await;
        let lease = answer.map_err(|error| self.read.relative_error(error))?;
        self.read.relative_lease(lease)
    }

    /// Gives a lease of this section up.
    ///
    /// # Errors
    /// As [`Bank::release_lease`].
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        self.read.bank.release_lease(&self.full_lease(lease)?).await
    }

    fn full_lease(&self, lease: &Lease) -> Result<Lease, BankError> {
        Ok(Lease {
            name: self.read.full(&BankKey::parse(&lease.name)?)?.to_string(),
            ..lease.clone()
        })
    }

    /// A smaller section.
    ///
    /// # Errors
    /// [`BankError::InvalidKey`].
    pub fn sub_section(&self, prefix: &str) -> Result<Self, BankError> {
        Ok(Self {
            read: self.read.sub_section(prefix)?,
        })
    }
}

impl std::ops::Deref for BankSection {
    type Target = ReadSection;

    fn deref(&self) -> &ReadSection {
        &self.read
    }
}

impl std::ops::Deref for DataSection {
    type Target = ReadSection;

    fn deref(&self) -> &ReadSection {
        match self {
            Self::Writable(section) => section,
            Self::ReadOnly(section) => section,
        }
    }
}

impl fmt::Debug for ReadSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadSection({})", self.prefix)
    }
}

impl fmt::Debug for BankSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BankSection({})", self.read.prefix)
    }
}
