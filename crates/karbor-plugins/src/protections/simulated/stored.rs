//! What a simulated resource leaves in the bank.

use bytes::Bytes;
use karbor_model::Resource;
use karbor_plugin::{BankError, BankKey, BankSection, OperationContext, PluginError, ReadSection};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const CHUNK: u64 = 1024 * 1024;

/// What `metadata` says of a protected resource.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Metadata {
    name: String,
    resource_type: String,
    id: String,
    pub(super) bytes: u64,
    /// SHA-256 of each data object, in hex.
    sha256: Vec<String>,
}

/// A data object as it must be.
pub(super) struct Chunk<'a> {
    pub(super) key: BankKey,
    pub(super) length: u64,
    sha256: &'a str,
}

fn metadata_key() -> Result<BankKey, BankError> {
    Ok(BankKey::parse("metadata")?)
}

fn damaged(key: &BankKey, reason: String) -> PluginError {
    PluginError::from(BankError::Corrupt {
        key: key.clone(),
        reason,
    })
}

/// SHA-256 in hex.
pub(super) fn digest(data: &[u8]) -> String {
    let digest = Sha256::digest(data);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Key and length of each data object of `bytes` bytes.
pub(super) fn chunks(bytes: u64) -> impl Iterator<Item = Result<(BankKey, u64), BankError>> {
    (0..bytes.div_ceil(CHUNK)).map(move |n| {
        let key = BankKey::parse(&format!("data/{n:08}"))?;
        Ok((key, CHUNK.min(bytes - n * CHUNK)))
    })
}

impl Metadata {
    pub(super) fn new(resource: &Resource, bytes: u64, sha256: Vec<String>) -> Self {
        Self {
            name: resource.name.clone(),
            resource_type: resource.resource_type.clone(),
            id: resource.id.clone(),
            bytes,
            sha256,
        }
    }

    pub(super) async fn put(&self, section: &BankSection) -> Result<(), PluginError> {
        let text = serde_json::to_vec(self).map_err(|error| {
            PluginError::new("the metadata could not be written").with_cause(error)
        })?;
        Ok(section.put(&metadata_key()?, text.into()).await?)
    }

    /// Reads it; it has to be there, about this resource and whole.
    pub(super) async fn get(context: &OperationContext) -> Result<Self, PluginError> {
        let (key, resource) = (metadata_key()?, &context.resource);
        let metadata: Self = serde_json::from_slice(&context.data.get(&key).await?)
            .map_err(|error| damaged(&key, error.to_string()))?;
        let is_about = (&metadata.resource_type, &metadata.id, &metadata.name);
        if is_about != (&resource.resource_type, &resource.id, &resource.name) {
            return Err(damaged(&key, "it is about another resource".to_owned()));
        }
        if metadata.sha256.len() as u64 != metadata.bytes.div_ceil(CHUNK) {
            let reason = "its digests are not as many as its data objects".to_owned();
            return Err(damaged(&key, reason));
        }
        Ok(metadata)
    }

    /// The data objects it describes.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Result<Chunk<'_>, BankError>> {
        chunks(self.bytes).zip(&self.sha256).map(|(chunk, sha256)| {
            let (key, length) = chunk?;
            Ok(Chunk {
                key,
                length,
                sha256,
            })
        })
    }

    /// Which data objects a sample of so many percent reads: evenly spread, others each time, and
    /// one at least unless it is 0 percent.
    pub(super) fn sample(
        &self,
        percent: u8,
        context: &OperationContext,
    ) -> impl Iterator<Item = bool> {
        let (percent, count) = (u64::from(percent), self.sha256.len() as u64);
        let salt = u64::from(context.operation_id.0.as_fields().0);
        let step = move |n: u64| (n + salt) * percent / 100;
        let chosen = move |n: u64| step(n) != step(n + 1);
        let none = percent > 0 && !(0..count).any(chosen);
        (0..count).map(move |n| chosen(n) || none && n == salt % count)
    }
}

impl Chunk<'_> {
    /// Reads it and compares it with its digest.
    pub(super) async fn read(&self, section: &ReadSection) -> Result<Bytes, PluginError> {
        let data = section.get(&self.key).await?;
        self.check_size(data.len() as u64)?;
        if digest(&data) != self.sha256 {
            let reason = "it is not what was written".to_owned();
            return Err(damaged(&self.key, reason));
        }
        Ok(data)
    }

    /// Looks whether it is there, and as large as it must be.
    pub(super) async fn look(&self, section: &ReadSection) -> Result<(), PluginError> {
        self.check_size(section.stat(&self.key).await?.size)
    }

    fn check_size(&self, size: u64) -> Result<(), PluginError> {
        if size == self.length {
            return Ok(());
        }
        let reason = format!("it has {size} bytes, not {}", self.length);
        Err(damaged(&self.key, reason))
    }
}
