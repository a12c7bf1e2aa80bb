//! What directories and databases have in common: one snapshot each, found again by its tags.

use std::{fmt, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use chrono::Utc;
use karbor_model::Resource;
use karbor_plugin::{
    HookReport, HookSet, Operation, OperationContext, PluginError, ProtectionPlugin, SchemaKind,
};
use karbor_vault::{
    Catalog, Control, Mishaps, Snapshot, SnapshotBrief, SnapshotMeta, SnapshotSummary,
    SnapshotWriter, Vault, VaultError,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    applications::{ComponentChecks, KindNames, Source},
    copy::Copy,
    metadata::{self, LeftOut, Metadata, checkpoint_tag, missing, operation_tag, resource_tag},
    notes::Marker,
    parameters, schemas,
    shared::{Declared, Host},
    vaults::Vaults,
};
use crate::protections::{refuse_type, verify::VerifyParameters};

/// How one kind of component is read and written.
#[async_trait]
pub(crate) trait Kind: Send + Sync + Sized + 'static {
    /// The plugin's name.
    const PLUGIN: &'static str;
    /// The resource type.
    const TYPE: &'static str;
    /// The same for people.
    const TITLE: &'static str;

    /// A component as a declaration has it.
    type Table: DeserializeOwned + fmt::Debug + Send;
    /// What a declaration says of a component, once it is checked.
    type Source: Source;
    /// What a restore may be told.
    type Parameters: DeserializeOwned + Send + Sync;

    /// Name and id of a component in a declaration.
    fn identity(table: &Self::Table) -> (&str, Option<Uuid>);

    /// Checks what a declaration says.
    fn declare(table: Self::Table, checks: &mut ComponentChecks<'_>) -> Self::Source;

    /// The properties of the schema of [`Parameters`](Self::Parameters).
    fn restore_schema() -> Value;

    /// Where it comes from, as a restore needs to know; fails if it is not there.
    async fn place(host: &Host, declared: &Declared) -> Result<Value, PluginError>;

    /// Puts it into a snapshot.
    async fn save(
        host: &Host,
        context: &OperationContext,
        declared: &Declared,
        writer: &mut SnapshotWriter,
    ) -> Result<Saved, PluginError>;

    /// Warns where the component's place leads to another one than in the snapshot before.
    fn led_elsewhere(_: &Declared, _before: &Snapshot, _now: &Snapshot) -> Option<String> {
        None
    }

    /// The part of the snapshot that is the component.
    fn item(snapshot: &Snapshot, name: &str) -> Result<String, PluginError>;

    /// Brings it back.
    async fn restore(run: &Restoring<'_, Self::Parameters>) -> Result<HookReport, PluginError>;

    /// Removes what a protect that failed or died left on this host.
    async fn discard_save(_host: &Host, _context: &OperationContext) -> Result<(), PluginError> {
        Ok(())
    }

    /// What is left to do when a restore is complete. Answers with warnings.
    async fn keep_restore(
        _host: &Host,
        _context: &OperationContext,
    ) -> Result<Vec<String>, PluginError> {
        Ok(Vec::new())
    }

    /// Removes what a restore that failed or died left on this host and nobody has use for.
    async fn discard_restore(_host: &Host, _context: &OperationContext) -> Result<(), PluginError> {
        Ok(())
    }
}

impl KindNames {
    /// Those of a kind that declarations know under this name.
    pub(crate) const fn of<K: Kind>(name: &'static str) -> Self {
        Self {
            name,
            resource_type: K::TYPE,
            plugin: K::PLUGIN,
        }
    }
}

/// What there is to say of what was put into a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) warnings: Vec<String>,
    /// Of a directory.
    pub(crate) left_out: Option<LeftOut>,
}

/// All that a restore needs.
pub(crate) struct Restoring<'a, P> {
    pub(crate) host: &'a Host,
    pub(crate) context: &'a OperationContext,
    pub(crate) kept: &'a Metadata,
    pub(crate) vault: &'a Vault,
    pub(crate) parameters: P,
    pub(crate) marker: Marker,
}

impl<P> Restoring<'_, P> {
    pub(crate) fn control(&self) -> Control {
        control(self.context)
    }
}

pub(super) fn control(context: &OperationContext) -> Control {
    Control {
        progress: context.progress.clone(),
        cancel: context.cancel.clone(),
    }
}

/// The plugin for one kind.
pub(crate) struct ComponentPlugin<K> {
    host: Arc<Host>,
    types: [&'static str; 1],
    kind: PhantomData<K>,
}

impl<K: Kind> ComponentPlugin<K> {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self {
            host,
            types: [K::TYPE],
            kind: PhantomData,
        }
    }
}

impl<K: Kind> ProtectionPlugin for ComponentPlugin<K> {
    fn name(&self) -> &str {
        K::PLUGIN
    }

    fn resource_types(&self) -> &[&str] {
        &self.types
    }

    fn schema(&self, resource_type: &str, kind: SchemaKind) -> Value {
        match resource_type == K::TYPE {
            true => schemas::schema(K::TITLE, kind, K::restore_schema(), schemas::saved_info()),
            false => json!({}),
        }
    }

    fn operation(
        &self,
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        let host = self.host.clone();
        match hooks {
            HookSet::Protect => Ok(Box::new(Protect::<K>(host, PhantomData))),
            HookSet::Restore => Ok(Box::new(Restore::<K>(host, PhantomData))),
            HookSet::Verify => Ok(Box::new(Verify)),
            HookSet::Delete => Ok(Box::new(Delete(host))),
            HookSet::Copy => Ok(Box::new(Copy(host))),
        }
    }
}

struct Protect<K>(Arc<Host>, PhantomData<K>);

impl<K: Kind> Protect<K> {
    async fn make(
        &self,
        context: &OperationContext,
        declared: &Declared,
        vault: &Vault,
        known: &Catalog,
    ) -> Result<(Snapshot, HookReport, Option<LeftOut>), PluginError> {
        let earlier = known.with_tags(&[resource_tag(context)]);
        let parent = newest(vault, &earlier).await?;
        // With data: whatever made a source look empty once must not become its measure.
        let with_data = |snapshot: &Snapshot| {
            snapshot
                .numbers
                .as_ref()
                .is_some_and(|numbers| numbers.total_files_processed > 0)
        };
        let measure = match &parent {
            Some(parent) if with_data(parent) => Some(parent.clone()),
            _ => {
                let with_data: Vec<_> = earlier
                    .into_iter()
                    .filter(|brief| brief.files > 0)
                    .collect();
                newest(vault, &with_data).await?
            }
        };
        let before = measure.as_ref().and_then(|snapshot| {
            let numbers = snapshot.numbers.as_ref()?;
            // What could not be read then was there.
            let files = numbers.total_files_processed + missing(snapshot);
            Some(json!({"files": files, "bytes": numbers.total_bytes_processed}))
        });
        let meta = SnapshotMeta {
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            username: "karbor".to_owned(),
            time: Utc::now(),
            tags: vec![
                checkpoint_tag(context.checkpoint_id),
                resource_tag(context),
                operation_tag(context),
            ],
            parent: parent.as_ref().map(|snapshot| snapshot.id),
        };
        if let Some(numbers) = parent.as_ref().and_then(|parent| parent.numbers.as_ref()) {
            // A guess, and mostly a good one: as much as the last time.
            context.progress.expect_bytes(numbers.total_bytes_processed);
        }
        let mut writer = vault.writer(meta, control(context)).await?;
        let mut saved = K::save(&self.0, context, declared, &mut writer).await?;
        let summary = writer.commit().await?;
        let snapshot = vault.snapshot(&summary.id).await?;
        let before_this = parent.as_ref();
        let warning = before_this.and_then(|it| K::led_elsewhere(declared, it, &snapshot));
        saved.warnings.extend(warning);
        let mut report = report(&summary, saved.warnings);
        report.extend(before.map(|before| ("before".to_owned(), before)));
        Ok((snapshot, report, saved.left_out))
    }
}

#[async_trait]
impl<K: Kind> Operation for Protect<K> {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let section = context.writable()?;
        let declared = self.0.declared_component(context).await?;
        let place = K::place(&self.0, &declared).await?;
        let vault = self.0.vaults.open_or_init(&context.vault).await?;
        let known = vault.catalog().await?;
        let ours = known.with_tags(&[operation_tag(context), resource_tag(context)]);
        let (snapshot, summary, left_out) = match newest(&vault, &ours).await? {
            Some(made_before) => {
                let kept = Metadata::find(&context.data).await?;
                // What the declaration said then, it may not say any more.
                let (summary, left_out) = kept
                    .filter(|kept| kept.snapshot == made_before.id)
                    .map_or_else(
                        || (report_again(&made_before), None),
                        |kept| (kept.summary, kept.left_out),
                    );
                (made_before, summary, left_out)
            }
            None => self.make(context, &declared, &vault, &known).await?,
        };
        let kept = Metadata {
            kind: K::TYPE.to_owned(),
            application: declared.application.name.clone(),
            name: declared.component.name.clone(),
            snapshot: snapshot.id,
            item: K::item(&snapshot, &declared.component.name)?,
            place,
            left_out,
            summary: summary.clone(),
        };
        kept.put(section).await?;
        Ok(summary)
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        K::discard_save(&self.0, context).await?;
        if let Some(vault) = self.0.vaults.existing(&context.vault).await? {
            forget(&vault, &[operation_tag(context), resource_tag(context)]).await?;
        }
        Ok(context.writable()?.delete(&metadata::key()?).await?)
    }
}

pub(super) fn report(summary: &SnapshotSummary, mut warnings: Vec<String>) -> HookReport {
    let SnapshotSummary {
        changed,
        left_out,
        unreadable,
        ..
    } = summary;
    if unreadable.total > 0 {
        warnings.push(format!(
            "{} files or directories cannot be read and are not in the checkpoint, which is incomplete: {}",
            unreadable.total,
            unreadable.brief()
        ));
    }
    if changed.total > 0 {
        warnings.push(format!(
            "{} files were written to while they were read: quiesce the application to have them consistent: {}",
            changed.total,
            changed.brief()
        ));
    }
    if left_out.total > 0 {
        warnings.push(format!(
            "{} files or directories vanished while they were read and are not in the checkpoint: quiesce the application to have all of them: {}",
            left_out.total,
            left_out.brief()
        ));
    }
    if summary.warnings.total > 0 {
        warnings.push(format!(
            "{} files or directories are stored with something missing: {}",
            summary.warnings.total,
            summary.warnings.brief()
        ));
    }
    let mut report = HookReport::new();
    report.insert("snapshot".to_owned(), json!(summary.id));
    report.insert("bytes".to_owned(), json!(summary.bytes));
    report.insert("new_bytes".to_owned(), json!(summary.new_bytes));
    report.insert("files".to_owned(), json!(summary.files));
    report.insert("left_out".to_owned(), json!(left_out.total));
    if unreadable.total > 0 {
        report.insert("incomplete".to_owned(), json!(unreadable));
    }
    if !warnings.is_empty() {
        report.insert("warnings".to_owned(), json!(warnings));
    }
    report
}

/// The report of a snapshot that was made just before a crash: what was warned of died with the run.
fn report_again(snapshot: &Snapshot) -> HookReport {
    let mut report = numbers(snapshot);
    let warning = "the service ended just after the data were saved: whether files vanished or were written to meanwhile is not known";
    report.insert("warnings".to_owned(), json!([warning]));
    report
}

/// What a snapshot says of itself.
pub(super) fn numbers(snapshot: &Snapshot) -> HookReport {
    let numbers = snapshot.numbers.clone().unwrap_or_default();
    let mut report = HookReport::new();
    report.insert("snapshot".to_owned(), json!(snapshot.id));
    report.insert("bytes".to_owned(), json!(numbers.total_bytes_processed));
    report.insert("new_bytes".to_owned(), json!(numbers.data_added_packed));
    report.insert("files".to_owned(), json!(numbers.total_files_processed));
    if let total @ 1.. = missing(snapshot) {
        let unnamed = Mishaps {
            total,
            named: Vec::new(),
        };
        report.insert("incomplete".to_owned(), json!(unnamed));
    }
    report
}

/// The first of these snapshots that can be read.
async fn newest(vault: &Vault, briefs: &[SnapshotBrief]) -> Result<Option<Snapshot>, PluginError> {
    for brief in briefs {
        match vault.snapshot(&brief.id).await {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(error @ (VaultError::Damaged { .. } | VaultError::NoSuchSnapshot(_))) => {
                tracing::warn!(%error, "a snapshot is passed over");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

pub(super) async fn forget(vault: &Vault, tags: &[String]) -> Result<(), PluginError> {
    for snapshot in vault.find(tags).await? {
        vault.forget(&snapshot.id).await?;
    }
    Ok(())
}

/// The vault that a checkpoint's metadata points into.
pub(super) async fn vault_of(
    host: &Host,
    context: &OperationContext,
) -> Result<Vault, PluginError> {
    let vault = host.vaults.existing(&context.vault).await?;
    vault.ok_or_else(|| no_vault(context))
}

fn no_vault(context: &OperationContext) -> PluginError {
    PluginError::new(format!(
        "the vault '{}' is not in the bank: is this the bank the checkpoint was made in, and is the vault's 'config' there?",
        context.vault.section.prefix()
    ))
}

struct Restore<K>(Arc<Host>, PhantomData<K>);

#[async_trait]
impl<K: Kind> Operation for Restore<K> {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let parameters: K::Parameters = parameters::read(&context.parameters)?;
        let mut kept = Metadata::get(context).await?;
        let vault = vault_of(&self.0, context).await?;
        // It may have another id by now.
        kept.snapshot = kept.snapshot(&vault, context).await?.id;
        K::restore(&Restoring {
            host: &self.0,
            context,
            kept: &kept,
            vault: &vault,
            parameters,
            marker: Marker::of(&self.0, context),
        })
        .await
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let warnings = K::keep_restore(&self.0, context).await?;
        Marker::of(&self.0, context).clear().await?;
        self.0.occupied.leave(context);
        let mut report = HookReport::new();
        if !warnings.is_empty() {
            report.insert("warnings".to_owned(), json!(warnings));
        }
        Ok(report)
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        let discarded = K::discard_restore(&self.0, context).await;
        self.0.occupied.leave(context);
        discarded?;
        Marker::of(&self.0, context).clear().await
    }
}

struct Verify;

#[async_trait]
impl Operation for Verify {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let parameters: VerifyParameters = parameters::read(&context.parameters)?;
        let kept = Metadata::get(context).await?;
        // Not the one in use, which would not notice that its config or key is gone.
        let vault = Vaults::afresh(&context.vault).await?;
        let vault = vault.ok_or_else(|| no_vault(context))?;
        let snapshot = kept.snapshot(&vault, context).await?;
        let done = vault
            .verify(
                &snapshot.id,
                parameters.level().of_vault(),
                control(context),
            )
            .await?;
        let mut report = HookReport::new();
        report.insert("snapshot".to_owned(), json!(snapshot.id));
        report.insert("files".to_owned(), json!(done.files));
        report.insert("bytes".to_owned(), json!(done.bytes_read));
        report.insert("blobs".to_owned(), json!(done.blobs));
        report.insert("blobs_read".to_owned(), json!(done.blobs_read));
        Ok(report)
    }
}

struct Delete(Arc<Host>);

#[async_trait]
impl Operation for Delete {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        // The metadata last: while it is there, the deletion is not done.
        if let Some(vault) = self.0.vaults.existing(&context.vault).await? {
            let ours = [checkpoint_tag(context.checkpoint_id), resource_tag(context)];
            forget(&vault, &ours).await?;
        }
        context.writable()?.delete(&metadata::key()?).await?;
        Ok(HookReport::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_that_vanished_are_warned_of() {
        let mut summary = SnapshotSummary {
            id: serde_json::from_value(json!("0".repeat(64))).unwrap(),
            files: 1,
            dirs: 1,
            bytes: 1,
            new_data: 1,
            new_bytes: 1,
            unmodified: 0,
            left_out: Mishaps::default(),
            changed: Mishaps::default(),
            unreadable: Mishaps::default(),
            warnings: Mishaps::default(),
        };
        for name in ["a", "b", "c"] {
            summary
                .left_out
                .note(name.to_owned(), "it vanished".to_owned());
        }
        let told = report(&summary, Vec::new());
        assert_eq!(told["left_out"], 3);
        let warning = told["warnings"][0].as_str().unwrap();
        assert!(
            warning.starts_with("3 files or directories vanished"),
            "{warning}"
        );
        assert!(warning.ends_with("'c' (it vanished)"), "{warning}");
        summary.left_out = Mishaps::default();
        assert!(!report(&summary, Vec::new()).contains_key("warnings"));
    }
}
