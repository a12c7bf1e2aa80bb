//! What a checkpoint keeps of a component besides its snapshot: the object `metadata`.

use bytes::Bytes;
use karbor_plugin::{
    BankError, BankKey, BankSection, HookReport, OperationContext, PluginError, ReadSection,
};
use karbor_vault::{Snapshot, SnapshotId, Vault};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const KEY: &str = "metadata";

/// The object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The resource's type.
    pub(crate) kind: String,
    /// The application it belonged to.
    pub(crate) application: String,
    /// Its name then.
    pub(crate) name: String,
    /// The snapshot that holds it.
    pub(crate) snapshot: SnapshotId,
    /// What of the snapshot: a folder or a file.
    pub(crate) item: String,
    /// Where it came from; each kind has its own.
    pub(crate) place: Value,
    /// What was reported when it was made.
    pub(crate) summary: HookReport,
}

pub(crate) fn key() -> Result<BankKey, PluginError> {
    BankKey::parse(KEY).map_err(|e| PluginError::new(e.to_string()))
}

impl Kept {
    /// Writes it; durable on return.
    pub(crate) async fn put(&self, section: &BankSection) -> Result<(), PluginError> {
        let text = serde_json::to_vec(self)
            .map_err(|e| PluginError::new("the metadata could not be written").with_cause(e))?;
        Ok(section.put(&key()?, Bytes::from(text)).await?)
    }

    /// Reads it, if it is there.
    pub(crate) async fn find(section: &ReadSection) -> Result<Option<Self>, PluginError> {
        let bytes = match section.get(&key()?).await {
            Ok(bytes) => bytes,
            Err(BankError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let kept = serde_json::from_slice(&bytes).map_err(|error| {
            PluginError::new(format!(
                "the object '{}/{KEY}' is corrupt: {error}; restore or verify an earlier checkpoint",
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
        let snapshot = vault.snapshot(&self.snapshot).await?;
        let wanted = [checkpoint_tag(context), resource_tag(context)];
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

pub(crate) fn checkpoint_tag(context: &OperationContext) -> String {
    format!("karbor:checkpoint={}", context.checkpoint_id)
}

pub(crate) fn resource_tag(context: &OperationContext) -> String {
    format!("karbor:resource={}", context.resource.key())
}

pub(crate) fn operation_tag(context: &OperationContext) -> String {
    format!("karbor:operation={}", context.operation_id)
}
