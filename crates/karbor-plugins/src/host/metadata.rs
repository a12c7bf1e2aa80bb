//! What a checkpoint keeps of a component besides its snapshot: the object `metadata`. It carries a
//! hash of itself, so that a bit that flips in the bank is noticed.

use std::path::PathBuf;

use bytes::Bytes;
use karbor_model::CheckpointId;
use karbor_plugin::{
    BankError, BankKey, BankSection, HookReport, OperationContext, PluginError, ReadSection,
};
use karbor_vault::{Snapshot, SnapshotId, Vault, VaultError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

const KEY: &str = "metadata";

/// The object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The resource's type.
    pub(crate) kind: String,
    /// The application it belonged to.
    pub(crate) application: String,
    /// Its name then.
    pub(crate) name: String,
    /// The snapshot that holds it.
    pub(crate) snapshot: SnapshotId,
    /// The part of the snapshot: a folder or a file.
    pub(crate) item: String,
    /// Where it came from; each kind has its own.
    pub(crate) place: Value,
    /// What the operator left out of a directory by choice. Checkpoints of earlier versions do not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<LeftOut>,
    /// What was reported when it was made.
    pub(crate) summary: HookReport,
}

/// What a declaration said of a directory when it was protected. Who restores may not take for extra what it left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// The patterns of files that were stored; all, if there are none.
    pub(crate) include: Vec<String>,
    /// The patterns of what was not.
    pub(crate) exclude: Vec<String>,
    /// Other file systems were not entered.
    pub(crate) one_file_system: bool,
    /// Caches were stored with their mark alone.
    pub(crate) exclude_caches: bool,
    /// Databases that were left to their own components, by their paths in the directory.
    pub(crate) databases: Vec<PathBuf>,
}

pub(crate) fn key() -> Result<BankKey, PluginError> {
    BankKey::parse(KEY).map_err(|e| PluginError::new(e.to_string()))
}

const HASH: &str = "sha256";

/// An object as it is written: with a hash of the rest.
pub(crate) fn hashed(mut object: Value) -> Bytes {
    object[HASH] = Value::from(hash(&object));
    Bytes::from(object.to_string())
}

/// Reads what [`hashed`] made, without the hash; or why it is not what was written.
pub(crate) fn unhashed(bytes: &[u8]) -> Result<Value, String> {
    let mut object: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let told = object
        .as_object_mut()
        .and_then(|object| object.remove(HASH));
    match told == Some(Value::from(hash(&object))) {
        true => Ok(object),
        false => Err("it was changed after it was written".to_owned()),
    }
}

fn hash(object: &Value) -> String {
    let digest = Sha256::digest(object.to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Metadata {
    /// Writes it; durable on return.
    pub(crate) async fn put(&self, section: &BankSection) -> Result<(), PluginError> {
        let unwritable = |e| PluginError::new("the metadata could not be written").with_cause(e);
        let object = serde_json::to_value(self).map_err(unwritable)?;
        Ok(section.put(&key()?, hashed(object)).await?)
    }

    /// Reads it, if it is there.
    pub(crate) async fn find(section: &ReadSection) -> Result<Option<Self>, PluginError> {
        let bytes = match section.get(&key()?).await {
            Ok(bytes) => bytes,
            Err(BankError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = unhashed(&bytes)
            .and_then(|object| serde_json::from_value(object).map_err(|error| error.to_string()));
        let kept = read.map_err(|reason| {
            PluginError::new(format!(
                "the object '{}/{KEY}' is corrupt: {reason}; restore or verify an earlier checkpoint",
                section.prefix()
            ))
        })?;
        Ok(Some(kept))
    }

    /// Reads it; it has to be there and about this resource.
    pub(crate) async fn get(context: &OperationContext) -> Result<Self, PluginError> {
        let kept = Self::find(&context.data).await?.ok_or_else(|| {
            PluginError::new(format!(
                "the checkpoint holds nothing of {}: the object '{}/{KEY}' is not in the bank",
                context.resource,
                context.data.prefix()
            ))
        })?;
        if kept.kind != context.resource.resource_type {
            return Err(PluginError::new(format!(
                "the object '{}/{KEY}' is corrupt: it is about a '{}'",
                context.data.prefix(),
                kept.kind
            )));
        }
        Ok(kept)
    }

    /// The snapshot, which must say itself that it belongs to this checkpoint and resource: the
    /// snapshot is authenticated, this object is not.
    pub(crate) async fn snapshot(
        &self,
        vault: &Vault,
        context: &OperationContext,
    ) -> Result<Snapshot, PluginError> {
        let wanted = [checkpoint_tag(context.checkpoint_id), resource_tag(context)];
        let snapshot = match vault.snapshot(&self.snapshot).await {
            Err(error @ VaultError::NoSuchSnapshot(_)) => {
                self.copied(vault, &wanted).await?.ok_or(error)?
            }
            other => other?,
        };
        if wanted.iter().all(|tag| snapshot.tags.contains(tag)) {
            return Ok(snapshot);
        }
        Err(PluginError::new(format!(
            "the snapshot {} belongs to another checkpoint or resource: the object '{}/{KEY}' was tampered with",
            self.snapshot,
            context.data.prefix()
        )))
    }
}

impl Metadata {
    /// The snapshot under another id: `restic copy` and `restic rewrite` give new ones, and note which it was
    /// at first. One that does not is taken if it is the only one with the tags.
    async fn copied(
        &self,
        vault: &Vault,
        tags: &[String],
    ) -> Result<Option<Snapshot>, PluginError> {
        let mut found = vault.find(tags).await?;
        let of_ours = found
            .iter()
            .position(|snapshot| snapshot.was(&self.snapshot));
        let found = match (of_ours, found.len()) {
            (Some(at), _) => Some(found.swap_remove(at)),
            (None, 1) => found.pop(),
            (None, _) => None,
        };
        if let Some(found) = &found {
            tracing::info!(was = %self.snapshot, is = %found.id, "a snapshot has another id in this vault");
        }
        Ok(found)
    }
}

pub(crate) fn checkpoint_tag(checkpoint: CheckpointId) -> String {
    format!("karbor:checkpoint={checkpoint}")
}

pub(crate) fn resource_tag(context: &OperationContext) -> String {
    format!("karbor:resource={}", context.resource.key())
}

const INCOMPLETE: &str = "karbor:incomplete=";

/// Says that so much of the source could not be read, and is not in the snapshot.
pub(crate) fn incomplete_tag(total: u64) -> String {
    format!("{INCOMPLETE}{total}")
}

/// How much of its source is not in a snapshot, because it could not be read.
pub(crate) fn missing(snapshot: &Snapshot) -> u64 {
    let mut tags = snapshot.tags.iter();
    let total = tags.find_map(|tag| tag.strip_prefix(INCOMPLETE)?.parse().ok());
    total.unwrap_or_default()
}

pub(crate) fn operation_tag(context: &OperationContext) -> String {
    format!("karbor:operation={}", context.operation_id)
}
