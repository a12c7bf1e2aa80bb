//! `karbor-simulated-protection-plugin`: stands in for a real plugin in tests, demonstrations and
//! chaos. It owns no resources; it does what the resource's *name* says, a few words separated by
//! spaces, and what the parameters say:
//!
//! | word | effect |
//! |---|---|
//! | `sleep=N` | protect takes N seconds (a fraction is fine) |
//! | `bytes=N` | protect writes N bytes of data, restore and verify read them back |
//! | `fail_protect`, `fail_restore`, `fail_verify`, `fail_delete` | that operation fails, after its work |
//! | `hold_<operation>_<hook>` | that hook does its work and then does not end, the first time that a run comes there |
//!
//! Other words are only a name. Parameters: `sleep` and `fail`, and for restore `restore_name`.
//!
//! Each resource leaves one object `metadata` in its section, written last, and `data/<n>` of at
//! most 1 MiB each. `metadata` holds the digest of the data, so a damaged checkpoint is noticed.
//!
//! **Holding** (`hold_protect_main`, `hold_delete_undo`, …; the hooks are `prepare_begin`,
//! `prepare_finish`, `main`, `complete` and `undo`) is for tests that kill the service in the middle
//! of a hook: its work is done, but nobody knows yet. It waits until the process dies or the
//! operation is cancelled. A run that was held at a hook leaves the file
//! `<operation id>-<resource id>-<hook>` in the directory that the environment variable
//! `KARBOR_SIMULATED_HOLD_DIR` of the service names; where that file is, the hook goes on. Without
//! the variable nothing is held, so no user of an API can make a service wait.

mod directives;
mod hold;

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::{OperationType, Resource};
use karbor_plugin::{
    BankError, BankKey, BankSection, HookReport, ListRequest, Operation, OperationContext,
    PluginError, ProtectionPlugin, ReadSection, SchemaKind,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::{directives::Directives, hold::Holding};
use super::{OPENSTACK_TYPES, refuse_type};

/// The name in configuration.
pub const NAME: &str = "karbor-simulated-protection-plugin";

/// A type that no other plugin knows.
pub const RESOURCE_TYPE: &str = "Simulated::Resource";

const TYPES: [&str; 9] = {
    let mut types = [RESOURCE_TYPE; 9];
    let mut at = 0;
    while at < OPENSTACK_TYPES.len() {
        types[at] = OPENSTACK_TYPES[at];
        at += 1;
    }
    types
};

const CHUNK: u64 = 1024 * 1024;

/// The plugin that simulates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Simulated;

impl ProtectionPlugin for Simulated {
    fn name(&self) -> &str {
        NAME
    }

    fn resource_types(&self) -> &[&str] {
        &TYPES
    }

    fn schema(&self, resource_type: &str, kind: SchemaKind) -> Value {
        if !TYPES.contains(&resource_type) {
            return json!({});
        }
        let sleep = json!({
            "type": ["string", "number"], "title": "Sleep",
            "description": "How many seconds it takes."
        });
        let fail = json!({
            "type": ["string", "boolean", "integer"], "title": "Fail",
            "description": "Whether it fails."
        });
        let (title, properties) = match kind {
            SchemaKind::Options => (
                "Simulated Protection Options",
                json!({"sleep": sleep, "fail": fail}),
            ),
            SchemaKind::Verify => (
                "Simulated Verification",
                json!({"sleep": sleep, "fail": fail}),
            ),
            SchemaKind::Restore => (
                "Simulated Restore",
                json!({
                    "restore_name": {
                        "type": "string", "title": "Restore Resource Name",
                        "description": "The name of what is restored."
                    },
                    "sleep": sleep,
                    "fail": fail
                }),
            ),
            SchemaKind::SavedInfo => (
                "Simulated Saved Info",
                json!({
                    "bytes": {"type": "integer", "title": "Bytes", "description": "How much was kept."}
                }),
            ),
        };
        json!({
            "title": title, "type": "object", "properties": properties,
            "additionalProperties": false
        })
    }

    fn operation(
        &self,
        operation: OperationType,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        let simulated: Box<dyn Operation> = match operation {
            OperationType::Protect => Box::new(Protect),
            OperationType::Restore | OperationType::Verify => Box::new(ReadBack),
            OperationType::Delete => Box::new(Delete),
            OperationType::Copy => return Err(PluginError::new(format!("{NAME} cannot copy"))),
        };
        Ok(Box::new(Holding(simulated)))
    }
}

/// What `metadata` says of a protected resource.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Metadata {
    name: String,
    resource_type: String,
    id: String,
    bytes: u64,
    sha256: String,
}

impl Metadata {
    fn new(resource: &Resource, bytes: u64, digest: Sha256) -> Self {
        let sha256 = digest.finalize();
        Self {
            name: resource.name.clone(),
            resource_type: resource.resource_type.clone(),
            id: resource.id.clone(),
            bytes,
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

fn metadata_key() -> Result<BankKey, BankError> {
    Ok(BankKey::parse("metadata")?)
}

/// Key and length of each data object of `bytes` bytes.
fn chunks(bytes: u64) -> impl Iterator<Item = Result<(BankKey, u64), BankError>> {
    (0..bytes.div_ceil(CHUNK)).map(move |n| {
        let key = BankKey::parse(&format!("data/{n:08}"))?;
        Ok((key, CHUNK.min(bytes - n * CHUNK)))
    })
}

/// Bytes that look random and are always the same for one resource and chunk.
fn content(resource: &Resource, key: &BankKey, length: u64) -> Bytes {
    let seed = Sha256::digest(format!("{}/{key}", resource.key()));
    let mut word = seed
        .iter()
        .take(8)
        .fold(1, |word: u64, &byte| word << 8 | u64::from(byte))
        | 1;
    let mut data = Vec::new();
    while (data.len() as u64) < length {
        // xorshift64: quick, and neither compresses nor repeats.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        data.extend_from_slice(&word.to_le_bytes());
    }
    data.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    data.into()
}

fn check_cancel(context: &OperationContext) -> Result<(), PluginError> {
    if context.cancel.is_cancelled() {
        return Err(PluginError::cancelled());
    }
    Ok(())
}

async fn sleep(context: &OperationContext, directives: &Directives) -> Result<(), PluginError> {
    check_cancel(context)?;
    if directives.sleep.is_zero() {
        return Ok(());
    }
    tokio::select! {
        () = context.cancel.cancelled() => Err(PluginError::cancelled()),
        () = tokio::time::sleep(directives.sleep) => Ok(()),
    }
}

async fn remove_all(section: &BankSection) -> Result<(), BankError> {
    let page = ListRequest {
        limit: Some(1000),
        ..ListRequest::default()
    };
    loop {
        let objects = section.list(&page).await?;
        if objects.is_empty() {
            return Ok(());
        }
        for object in objects {
            section.delete(&object.key).await?;
        }
    }
}

struct Protect;

#[async_trait]
impl Operation for Protect {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let section = context.writable()?;
        let directives = Directives::of(context)?;
        sleep(context, &directives).await?;
        context.progress.expect_bytes(directives.bytes);
        let mut digest = Sha256::new();
        for chunk in chunks(directives.bytes) {
            check_cancel(context)?;
            let (key, length) = chunk?;
            let data = content(&context.resource, &key, length);
            digest.update(&data);
            section.put(&key, data).await?;
            context.progress.add_bytes(length);
        }
        directives.fail_if_told(context)?;
        let metadata = Metadata::new(&context.resource, directives.bytes, digest);
        let text = serde_json::to_vec(&metadata).map_err(|error| {
            PluginError::new("the metadata could not be written").with_cause(error)
        })?;
        section.put(&metadata_key()?, text.into()).await?;
        Ok(moved(directives.bytes))
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        Ok(remove_all(context.writable()?).await?)
    }
}

/// Restore and verify: the whole of what protect wrote is read and compared.
struct ReadBack;

#[async_trait]
impl Operation for ReadBack {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let directives = Directives::of(context)?;
        sleep(context, &directives).await?;
        let section: &ReadSection = &context.data;
        let damaged = |key: &BankKey, reason: String| {
            PluginError::from(BankError::Corrupt {
                key: key.clone(),
                reason,
            })
        };
        let key = metadata_key()?;
        let metadata: Metadata = serde_json::from_slice(&section.get(&key).await?)
            .map_err(|error| damaged(&key, error.to_string()))?;
        context.progress.expect_bytes(metadata.bytes);
        let mut digest = Sha256::new();
        for chunk in chunks(metadata.bytes) {
            check_cancel(context)?;
            let (key, length) = chunk?;
            let data = section.get(&key).await?;
            if data.len() as u64 != length {
                let reason = format!("it has {} bytes, not {length}", data.len());
                return Err(damaged(&key, reason));
            }
            digest.update(&data);
            context.progress.add_bytes(length);
        }
        if metadata != Metadata::new(&context.resource, metadata.bytes, digest) {
            return Err(damaged(
                &key,
                "the data are not those it describes".to_owned(),
            ));
        }
        directives.fail_if_told(context)?;
        Ok(moved(metadata.bytes))
    }
}

struct Delete;

#[async_trait]
impl Operation for Delete {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        Directives::of(context)?.fail_if_told(context)?;
        remove_all(context.writable()?).await?;
        Ok(HookReport::new())
    }
}

fn moved(bytes: u64) -> HookReport {
    HookReport::from_iter([("bytes".to_owned(), json!(bytes))])
}
