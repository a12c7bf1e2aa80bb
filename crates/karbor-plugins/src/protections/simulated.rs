//! `karbor-simulated-protection-plugin`: stands in for a real plugin in tests, demonstrations and
//! chaos. It owns no resources; it does what the resource's *name* says, a few words separated by
//! spaces, and what the parameters say:
//!
//! | word | effect |
//! |---|---|
//! | `sleep=N` | protect takes N seconds (a fraction is fine) |
//! | `bytes=N` | protect writes N bytes of data, restore, verify and copy read them back |
//! | `fail_protect`, `fail_restore`, `fail_verify`, `fail_copy`, `fail_delete` | that operation fails, after its work |
//! | `hold_<operation>_<hook>` | that hook does its work and then does not end, the first time that a run comes there |
//!
//! Other words are only a name. Parameters: `sleep` and `fail`, for restore `restore_name`, and for
//! verify `level` and `percent`.
//!
//! Each resource leaves one object `metadata` in its section, written last, and `data/<n>` of at
//! most 1 MiB each. `metadata` holds the digests of the data, so a damaged checkpoint is noticed.
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
mod stored;

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::{OPENSTACK_TYPES, Resource};
use karbor_plugin::{
    BankError, BankKey, BankSection, HookReport, HookSet, ListRequest, Operation, OperationContext,
    PluginError, ProtectionPlugin, SchemaKind,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::{
    directives::Directives,
    hold::Holding,
    stored::{Metadata, chunks, digest},
};
use super::{
    refuse_type,
    verify::{self, Level, VerifyParameters},
};

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
            SchemaKind::Verify => {
                let mut properties = verify::properties();
                properties.insert("sleep".to_owned(), sleep);
                properties.insert("fail".to_owned(), fail);
                ("Simulated Verification", Value::Object(properties))
            }
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
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        let simulated: Box<dyn Operation> = match hooks {
            HookSet::Protect => Box::new(Protect),
            HookSet::Restore => Box::new(Restore),
            HookSet::Verify => Box::new(Verify),
            HookSet::Delete => Box::new(Delete),
            HookSet::Copy => Box::new(Copy),
        };
        Ok(Box::new(Holding(simulated)))
    }

    fn tells_success(&self) -> bool {
        false
    }
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
        let mut digests = Vec::new();
        for chunk in chunks(directives.bytes) {
            check_cancel(context)?;
            let (key, length) = chunk?;
            let data = content(&context.resource, &key, length);
            digests.push(digest(&data));
            section.put(&key, data).await?;
            context.progress.add_bytes(length);
        }
        directives.fail_if_told(context)?;
        Metadata::new(&context.resource, directives.bytes, digests)
            .put(section)
            .await?;
        Ok(moved(directives.bytes))
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        Ok(remove_all(context.writable()?).await?)
    }
}

/// The whole of what protect wrote is read and compared.
struct Restore;

#[async_trait]
impl Operation for Restore {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let directives = Directives::of(context)?;
        sleep(context, &directives).await?;
        let metadata = Metadata::get(context).await?;
        context.progress.expect_bytes(metadata.bytes);
        for chunk in metadata.chunks() {
            check_cancel(context)?;
            let chunk = chunk?;
            chunk.read(&context.data).await?;
            context.progress.add_bytes(chunk.length);
        }
        directives.fail_if_told(context)?;
        Ok(moved(metadata.bytes))
    }
}

struct Verify;

#[async_trait]
impl Operation for Verify {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let directives = Directives::of(context)?;
        let parameters = Value::Object(context.parameters.clone());
        let parameters: VerifyParameters = serde_json::from_value(parameters)
            .map_err(|error| PluginError::new(format!("the parameters are wrong: {error}")))?;
        sleep(context, &directives).await?;
        let metadata = Metadata::get(context).await?;
        let percent = match parameters.level() {
            Level::Metadata => 0,
            Level::Data(percent) => percent,
        };
        let mut bytes = 0;
        for (chunk, is_read) in metadata.chunks().zip(metadata.sample(percent, context)) {
            check_cancel(context)?;
            let chunk = chunk?;
            if is_read {
                chunk.read(&context.data).await?;
                bytes += chunk.length;
                context.progress.add_bytes(chunk.length);
            } else {
                chunk.look(&context.data).await?;
            }
        }
        directives.fail_if_told(context)?;
        Ok(moved(bytes))
    }
}

struct Copy;

#[async_trait]
impl Operation for Copy {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let target = &context.target()?.data;
        let directives = Directives::of(context)?;
        sleep(context, &directives).await?;
        let metadata = Metadata::get(context).await?;
        context.progress.expect_bytes(metadata.bytes);
        for chunk in metadata.chunks() {
            check_cancel(context)?;
            let chunk = chunk?;
            let data = chunk.read(&context.data).await?;
            target.put(&chunk.key, data).await?;
            context.progress.add_bytes(chunk.length);
        }
        directives.fail_if_told(context)?;
        metadata.put(target).await?;
        Ok(moved(metadata.bytes))
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        Ok(remove_all(&context.target()?.data).await?)
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
