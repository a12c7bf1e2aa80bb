//! Copies of components: a snapshot is taken over by the target's vault, `metadata` follows. Nothing on
//! this host is asked or read.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{HookReport, Operation, OperationContext, PluginError};
use karbor_vault::{Snapshot, SnapshotMeta, Vault};

use super::{
    component::{control, forget, numbers, report, vault_of},
    metadata::{
        self, Metadata, checkpoint_tag, incomplete_tag, missing, operation_tag, resource_tag,
    },
    shared::Host,
};

/// Copies any kind of component.
pub(super) struct Copy(pub(super) Arc<Host>);

impl Copy {
    async fn make(
        &self,
        context: &OperationContext,
        source: &Vault,
        snapshot: &Snapshot,
        target: &Vault,
    ) -> Result<(Snapshot, HookReport), PluginError> {
        let meta = SnapshotMeta {
            hostname: snapshot.hostname.clone(),
            username: snapshot.username.clone(),
            time: snapshot.time,
            tags: vec![
                checkpoint_tag(context.target()?.checkpoint_id),
                resource_tag(context),
                operation_tag(context),
            ],
            parent: None,
        };
        let missing = missing(snapshot);
        let mut writer = target.writer(meta, control(context)).await?;
        if missing > 0 {
            writer.tag(incomplete_tag(missing));
        }
        writer.add_snapshot(source, &snapshot.id).await?;
        let summary = writer.commit().await?;
        let made = target.snapshot(&summary.id).await?;
        Ok((made, report(&summary, Vec::new())))
    }
}

#[async_trait]
impl Operation for Copy {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let to = context.target()?;
        let kept = Metadata::get(context).await?;
        let source = vault_of(&self.0, context).await?;
        let snapshot = kept.snapshot(&source, context).await?;
        let target = self.0.vaults.open_or_init_like(&to.vault, &source).await?;
        let ours = [operation_tag(context), resource_tag(context)];
        let (made, mut told) = match target.find(&ours).await?.into_iter().next() {
            Some(made_before) => {
                let told = numbers(&made_before);
                (made_before, told)
            }
            None => self.make(context, &source, &snapshot, &target).await?,
        };
        // What the source's checkpoint says of what is missing holds for the copy.
        if let Some(incomplete) = kept.summary.get("incomplete") {
            told.insert("incomplete".to_owned(), incomplete.clone());
        }
        let copy = Metadata {
            snapshot: made.id,
            summary: told.clone(),
            ..kept
        };
        copy.put(&to.data).await?;
        Ok(told)
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        let to = context.target()?;
        if let Some(vault) = self.0.vaults.existing(&to.vault).await? {
            forget(&vault, &[operation_tag(context), resource_tag(context)]).await?;
        }
        Ok(to.data.delete(&metadata::key()?).await?)
    }
}
