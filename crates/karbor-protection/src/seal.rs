//! Seals: what lets nobody without the master key change what a restore, a verification or a copy acts on.
//!
//! A checkpoint's `index.json` carries, in the field `seal`, an HMAC-SHA256 over the canonical form of all the
//! rest of it, known fields and unknown, with a key of its provider and project; and, covered by that, the
//! SHA-256 of every object that the plugins keep below `resource-data`. So plan, graph, state, times, marks
//! and the plugins' records stand or fall together, and belong to one checkpoint of one project of one
//! provider. One write changes the record and its seal: there is no moment between the two. Why a field, and
//! what a seal cannot tell: `docs/adr/0027`.
//!
//! The hashes are taken from what the plugins write while they write it ([`Witness::written`]) and wait for
//! the end of the run in its journal, so that nothing that lies in the bank meanwhile is believed.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use karbor_model::Seal;
use karbor_plugin::{
    Bank, BankCapabilities, BankError, BankKey, HookReport, Lease, ListRequest, ObjectInfo,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Where a record keeps its seal.
const SEAL: &str = "seal";
const MAC: &str = "mac";

/// The key that seals the checkpoints of one project with one provider.
pub(crate) struct SealKey(Hmac<Sha256>);

impl SealKey {
    pub(crate) fn new(keyed: Hmac<Sha256>) -> Self {
        Self(keyed)
    }

    fn mac(&self, record: &Value) -> Hmac<Sha256> {
        let mut text = b"karbor checkpoint 1\n".to_vec();
        canonical(&without_mac(record), &mut text);
        let mut mac = self.0.clone();
        mac.update(&text);
        mac
    }

    /// Puts the MAC into a record that has a seal.
    pub(crate) fn seal(&self, record: &mut Value) {
        let mac = hex(&self.mac(record).finalize().into_bytes());
        if let Some(Value::Object(seal)) = record.get_mut(SEAL) {
            seal.insert(MAC.to_owned(), Value::String(mac));
        }
    }

    /// Is a record what was sealed? The time it takes tells nothing.
    pub(crate) fn fits(&self, record: &Value, seal: &Seal) -> bool {
        let told = unhex(&seal.mac);
        told.is_some_and(|told| self.mac(record).verify_slice(&told).is_ok())
    }
}

fn without_mac(record: &Value) -> Value {
    let mut record = record.clone();
    if let Some(Value::Object(seal)) = record.get_mut(SEAL) {
        seal.remove(MAC);
    }
    record
}

/// JSON without spaces and with sorted fields: the same for the same content, in whatever form it was written. What is
/// given was parsed, so it is not nested deeper than the parser allows.
fn canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            text.push(b'{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                text.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                text.push(b':');
                canonical(value, text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (at, value) in items.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                canonical(value, text);
            }
            text.push(b']');
        }
        plain => text.extend_from_slice(plain.to_string().as_bytes()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn hash(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// The key of a hook's report under which [`Witness`] notes what the hook wrote.
const OBJECTS: &str = "objects";

/// What a plugin's hook wrote: the hash by the key below `resource-data`; none of what it removed.
type Written = BTreeMap<String, Option<String>>;

/// A bank as a plugin sees it for a resource's data: what the plugin writes is noted, and what it reads is
/// what was sealed.
pub(crate) struct Witness {
    bank: Arc<dyn Bank>,
    /// `checkpoints/<id>/resource-data`.
    root: BankKey,
    /// What there is to read, if it was sealed.
    sealed: Option<Arc<BTreeMap<String, String>>>,
    written: Mutex<Written>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bank.fmt(f)
    }
}

impl Witness {
    /// The data below `root`, to be written.
    pub(crate) fn of_writing(bank: Arc<dyn Bank>, root: BankKey) -> Arc<Self> {
        Self::new(bank, root, None)
    }

    /// The data below `root`, to be read; compared with what `seal` says, if there is one.
    pub(crate) fn of_reading(bank: Arc<dyn Bank>, root: BankKey, seal: Option<&Seal>) -> Arc<Self> {
        let sealed = seal.map(|seal| Arc::new(seal.objects.clone()));
        Self::new(bank, root, sealed)
    }

    fn new(
        bank: Arc<dyn Bank>,
        root: BankKey,
        sealed: Option<Arc<BTreeMap<String, String>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bank,
            root,
            sealed,
            written: Mutex::default(),
        })
    }

    /// Adds to a hook's report what the hook wrote, for [`objects`] to find.
    pub(crate) fn tell(&self, report: &mut HookReport) {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !written.is_empty() {
            let list: Vec<_> = written
                .iter()
                .map(|(key, hash)| json!([key, hash]))
                .collect();
            report.insert(OBJECTS.to_owned(), Value::Array(list));
        }
    }

    fn name<'a>(&self, key: &'a BankKey) -> Option<&'a str> {
        let below = key.as_str().strip_prefix(self.root.as_str())?;
        below.strip_prefix('/')
    }

    fn note(&self, key: &BankKey, hash: Option<String>) {
        if let Some(name) = self.name(key) {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.insert(name.to_owned(), hash);
        }
    }

    fn check(&self, key: &BankKey, data: &[u8]) -> Result<(), BankError> {
        let Some(sealed) = &self.sealed else {
            return Ok(());
        };
        let reason = match self.name(key).and_then(|name| sealed.get(name)) {
            Some(wanted) if *wanted == hash(data) => return Ok(()),
            Some(_) => "it was changed after the checkpoint was sealed",
            None => "it is not of this checkpoint: its seal does not know it",
        };
        Err(BankError::Corrupt {
            key: key.clone(),
            reason: reason.to_owned(),
        })
    }
}

/// Takes what [`Witness::tell`] noted out of the merged report of a resource.
pub(crate) fn objects(report: &mut Map<String, Value>, into: &mut BTreeMap<String, String>) {
    let Some(Value::Array(noted)) = report.shift_remove(OBJECTS) else {
        return;
    };
    for entry in noted {
        match serde_json::from_value(entry) {
            Ok((key, Some(hash))) => {
                into.insert(key, hash);
            }
            Ok((key, None)) => {
                into.remove::<String>(&key);
            }
            Err(error) => tracing::error!(%error, "a note of what a hook wrote cannot be read"),
        }
    }
}

#[async_trait]
impl Bank for Witness {
    fn capabilities(&self) -> BankCapabilities {
        self.bank.capabilities()
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let hash = hash(&data);
        self.bank.put(key, data).await?;
        self.note(key, Some(hash));
        Ok(())
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let hash = hash(&data);
        self.bank.put_new(key, data).await?;
        self.note(key, Some(hash));
        Ok(())
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let data = self.bank.get_at_most(key, most).await?;
        self.check(key, &data)?;
        Ok(data)
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        if self.sealed.is_none() {
            return self.bank.get_range(key, offset, length).await;
        }
        // A part cannot be compared with the hash of the whole.
        let data = self.get(key).await?;
        let part = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(length).ok())
            .and_then(|(from, length)| Some(from..from.checked_add(length)?))
            .filter(|part| part.end <= data.len());
        part.map(|part| data.slice(part))
            .ok_or_else(|| BankError::Corrupt {
                key: key.clone(),
                reason: format!("it has {} bytes, not {length} from {offset} on", data.len()),
            })
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        self.bank.stat(key).await
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        self.bank.delete(key).await?;
        self.note(key, None);
        Ok(())
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        self.bank.list(request).await
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        self.bank.acquire_lease(name, owner, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        self.bank.renew_lease(lease, ttl).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        self.bank.release_lease(lease).await
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        self.bank.leases(name).await
    }
}
