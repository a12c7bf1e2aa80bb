//! What every [`ProtectionPlugin`] must do.
//!
//! The hooks are run here in their order, as the flow executor would for one resource: there with
//! crashes in between, here by repeating and by leaving off.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::{
    CheckpointId, OperationId, OperationType, PlanId, ProviderId, RequestContext, Resource,
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    Bank, BankKey, BankSection, CopyTarget, DataSection, HookReport, HookSet, ListRequest,
    NoProgress, Operation, OperationContext, PluginError, ProtectionPlugin, SchemaKind, Secret,
    VaultAccess,
};

/// A plugin with one resource that it can protect, and a bank.
#[async_trait]
pub trait Setting: Send + Sync {
    /// The plugin.
    fn plugin(&self) -> Arc<dyn ProtectionPlugin>;

    /// A resource that is there.
    fn resource(&self) -> Resource;

    /// An empty bank.
    fn bank(&self) -> Arc<dyn Bank>;

    /// Who asks.
    fn request(&self) -> RequestContext {
        RequestContext::for_project("user", "project", false)
    }

    /// Parameters of an operation: for restore, those that bring everything back.
    fn parameters(&self, _operation: OperationType) -> Map<String, Value> {
        Map::new()
    }

    /// What the resource depends on.
    fn dependents(&self) -> Vec<Resource> {
        Vec::new()
    }

    /// Does a checkpoint hold data, so that restoring without them fails?
    fn keeps_data(&self) -> bool {
        true
    }

    /// Destroys what was protected.
    async fn wreck(&self) {}

    /// Panics unless what was protected is as it was at first.
    async fn assert_intact(&self) {}
}

/// Runs every clause, each on a setting that `fresh` makes.
pub async fn suite<S: Setting>(fresh: impl AsyncFn() -> S) {
    schemas_are_objects(&fresh().await);
    unknown_types_are_refused(&fresh().await);
    the_whole_way(&fresh().await).await;
    every_hook_may_be_repeated(&fresh().await).await;
    reading_never_writes(&fresh().await).await;
    reading_what_was_deleted_fails(&fresh().await).await;
    deletes_may_be_repeated(&fresh().await).await;
    for times in [1, 3] {
        a_copy_stands_alone(&fresh().await, times).await;
    }
    for hooks in 0..=HOOKS {
        an_undone_copy_leaves_nothing(&fresh().await, hooks).await;
    }
    a_copy_of_nothing_fails(&fresh().await).await;
    for hooks in 0..=HOOKS {
        undo_leaves_nothing(&fresh().await, hooks).await;
    }
    a_cancelled_hook_ends(&fresh().await).await;
}

const HOOKS: usize = 4;

async fn run_hook(
    operation: &dyn Operation,
    hook: usize,
    context: &OperationContext,
) -> Result<HookReport, PluginError> {
    match hook {
        0 => operation.prepare_begin(context).await,
        1 => operation.prepare_finish(context).await,
        2 => operation.main(context).await,
        _ => operation.complete(context).await,
    }
}

/// One checkpoint of the setting's resource.
struct Trial<'a, S> {
    setting: &'a S,
    bank: Arc<dyn Bank>,
    checkpoint: CheckpointId,
    plan: PlanId,
    provider: ProviderId,
    /// The copy, and its bank.
    copy: Option<(CheckpointId, Arc<dyn Bank>)>,
}

impl<'a, S: Setting> Trial<'a, S> {
    fn new(setting: &'a S) -> Self {
        Self {
            setting,
            copy: None,
            bank: setting.bank(),
            checkpoint: CheckpointId::new(),
            plan: PlanId::new(),
            provider: ProviderId::new(),
        }
    }

    fn context(&self, operation: OperationType) -> OperationContext {
        let request = self.setting.request();
        let resource = self.setting.resource();
        let section =
            |path: String| BankSection::new(self.bank.clone(), BankKey::parse(&path).unwrap());
        let data = section(format!(
            "checkpoints/{}/resource-data/{}",
            self.checkpoint, resource.id
        ));
        let vault = format!("vaults/{}/{}", self.provider, request.project_id);
        let copy_target = self.copy.as_ref().map(|(copy, bank)| {
            let section =
                |path: String| BankSection::new(bank.clone(), BankKey::parse(&path).unwrap());
            CopyTarget {
                checkpoint_id: *copy,
                data: section(format!("checkpoints/{copy}/resource-data/{}", resource.id)),
                vault: VaultAccess {
                    section: section(vault.clone()),
                    password: Secret::new("the password of this vault".to_owned()),
                },
            }
        });
        OperationContext {
            copy_target,
            operation,
            operation_id: OperationId::new(),
            checkpoint_id: self.checkpoint,
            plan_id: self.plan,
            provider_id: self.provider,
            project_id: request.project_id.clone(),
            request,
            dependents: self.setting.dependents(),
            parameters: self.setting.parameters(operation),
            data: match operation {
                OperationType::Protect | OperationType::Delete => DataSection::Writable(data),
                _ => DataSection::ReadOnly(data.read_only()),
            },
            vault: VaultAccess {
                section: section(vault),
                password: Secret::new("the password of this vault".to_owned()),
            },
            resource,
            progress: Arc::new(NoProgress),
            cancel: CancellationToken::new(),
        }
    }

    fn operation(&self, operation: OperationType) -> Box<dyn Operation> {
        let plugin = self.setting.plugin();
        let hooks = HookSet::of(operation).unwrap();
        plugin.operation(hooks, &self.setting.resource()).unwrap()
    }

    /// Runs all hooks, each `times` times.
    async fn run(&self, kind: OperationType, times: usize) -> Result<(), PluginError> {
        let context = self.context(kind);
        for hook in 0..HOOKS {
            for _ in 0..times {
                // A repeat comes from another process: it remembers nothing.
                run_hook(&*self.operation(kind), hook, &context).await?;
            }
        }
        Ok(())
    }

    async fn data(&self) -> Vec<String> {
        let section = &self.context(OperationType::Verify).data;
        let objects = section.list(&ListRequest::default()).await.unwrap();
        objects
            .into_iter()
            .map(|info| info.key.to_string())
            .collect()
    }

    async fn everything(&self) -> BTreeMap<BankKey, Bytes> {
        let mut all = BTreeMap::new();
        for info in self.bank.list(&ListRequest::default()).await.unwrap() {
            let data = self.bank.get(&info.key).await.unwrap();
            all.insert(info.key, data);
        }
        all
    }
}

/// Every schema is a JSON object, also of types that the plugin does not know.
pub fn schemas_are_objects(setting: &impl Setting) {
    let plugin = setting.plugin();
    assert!(!plugin.name().is_empty());
    assert!(!plugin.resource_types().is_empty());
    for resource_type in plugin
        .resource_types()
        .iter()
        .copied()
        .chain(["No::Such::Type"])
    {
        for kind in SchemaKind::ALL {
            let schema = plugin.schema(resource_type, kind);
            let object = schema.as_object();
            let object =
                object.unwrap_or_else(|| panic!("{resource_type} {}: {schema}", kind.key()));
            if !object.is_empty() {
                assert_eq!(
                    object.get("type"),
                    Some(&Value::from("object")),
                    "{resource_type}"
                );
                assert!(
                    object.get("properties").is_none_or(Value::is_object),
                    "{resource_type}"
                );
            }
        }
    }
}

/// A type that the plugin does not name is refused, and the error names it.
pub fn unknown_types_are_refused(setting: &impl Setting) {
    let resource = Resource::new("No::Such::Type", PlanId::new().to_string(), "x");
    for hooks in HookSet::ALL {
        let Err(error) = setting.plugin().operation(hooks, &resource) else {
            panic!("{hooks:?} of an unknown type");
        };
        assert!(error.message.contains("No::Such::Type"), "{error}");
    }
    let own = setting.resource();
    let plugin = setting.plugin();
    assert!(
        plugin
            .resource_types()
            .contains(&own.resource_type.as_str())
    );
}

/// Protect, verify, wreck, restore, delete.
pub async fn the_whole_way(setting: &impl Setting) {
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    setting.assert_intact().await;
    run.run(OperationType::Verify, 1).await.unwrap();
    setting.wreck().await;
    run.run(OperationType::Restore, 1).await.unwrap();
    setting.assert_intact().await;
    run.run(OperationType::Verify, 1).await.unwrap();
    run.run(OperationType::Delete, 1).await.unwrap();
    assert_eq!(
        run.data().await,
        Vec::<String>::new(),
        "delete leaves data behind"
    );
    setting.assert_intact().await;
}

/// The same with every hook run three times.
pub async fn every_hook_may_be_repeated(setting: &impl Setting) {
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 3).await.unwrap();
    run.run(OperationType::Verify, 3).await.unwrap();
    setting.wreck().await;
    run.run(OperationType::Restore, 3).await.unwrap();
    setting.assert_intact().await;
    run.run(OperationType::Delete, 3).await.unwrap();
    assert_eq!(
        run.data().await,
        Vec::<String>::new(),
        "delete leaves data behind"
    );
}

/// Restore and verify change nothing in the bank, even if they are undone.
pub async fn reading_never_writes(setting: &impl Setting) {
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    let before = run.everything().await;
    for kind in [OperationType::Verify, OperationType::Restore] {
        run.run(kind, 1).await.unwrap();
        run.operation(kind).undo(&run.context(kind)).await.unwrap();
        let after = run.everything().await;
        let names = |all: &BTreeMap<BankKey, Bytes>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after), "{kind} wrote");
        assert!(before == after, "{kind} changed an object");
    }
    run.run(OperationType::Restore, 1).await.unwrap();
    setting.assert_intact().await;
}

/// What is not there cannot be restored, nor said to be sound.
pub async fn reading_what_was_deleted_fails(setting: &impl Setting) {
    if !setting.keeps_data() {
        return;
    }
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    run.run(OperationType::Delete, 1).await.unwrap();
    for kind in [OperationType::Verify, OperationType::Restore] {
        let error = run.run(kind, 1).await.unwrap_err();
        assert!(!error.message.trim().is_empty(), "{kind}");
        run.operation(kind).undo(&run.context(kind)).await.unwrap();
    }
    setting.assert_intact().await;
}

/// Also of a checkpoint that was never finished, or never begun.
pub async fn deletes_may_be_repeated(setting: &impl Setting) {
    let run = Trial::new(setting);
    run.run(OperationType::Delete, 2).await.unwrap();
    let context = run.context(OperationType::Protect);
    for hook in 0..HOOKS - 1 {
        run_hook(&*run.operation(OperationType::Protect), hook, &context)
            .await
            .unwrap();
    }
    // Whatever was quiesced is the undo's to resume.
    run.operation(OperationType::Protect)
        .undo(&context)
        .await
        .unwrap();
    run.run(OperationType::Delete, 2).await.unwrap();
    assert_eq!(run.data().await, Vec::<String>::new());
    setting.assert_intact().await;
}

/// After the first `hooks` hooks of protect an undo, run twice, leaves nothing; then a new
/// checkpoint can be made.
pub async fn undo_leaves_nothing(setting: &impl Setting, hooks: usize) {
    let run = Trial::new(setting);
    let context = run.context(OperationType::Protect);
    for hook in 0..hooks {
        run_hook(&*run.operation(OperationType::Protect), hook, &context)
            .await
            .unwrap();
    }
    // An operation that was cancelled is undone all the same.
    context.cancel.cancel();
    for _ in 0..2 {
        run.operation(OperationType::Protect)
            .undo(&context)
            .await
            .unwrap();
    }
    assert_eq!(
        run.data().await,
        Vec::<String>::new(),
        "undo after {hooks} hooks"
    );
    setting.assert_intact().await;
    let next = Trial {
        checkpoint: CheckpointId::new(),
        ..run
    };
    next.run(OperationType::Protect, 1).await.unwrap();
    next.run(OperationType::Verify, 1).await.unwrap();
}

/// A hook that is cancelled before it starts ends by itself, and can be undone.
pub async fn a_cancelled_hook_ends(setting: &impl Setting) {
    let run = Trial::new(setting);
    let context = run.context(OperationType::Protect);
    context.cancel.cancel();
    for hook in 0..HOOKS {
        // Done in time or given up: both are fine.
        let _ = run_hook(&*run.operation(OperationType::Protect), hook, &context).await;
    }
    run.operation(OperationType::Protect)
        .undo(&context)
        .await
        .unwrap();
    assert_eq!(run.data().await, Vec::<String>::new());
    setting.assert_intact().await;
}

impl<'a, S: Setting> Trial<'a, S> {
    /// A run that copies this one's checkpoint into another bank.
    fn to_copy(&self) -> Self {
        Self {
            bank: self.bank.clone(),
            copy: Some((CheckpointId::new(), self.setting.bank())),
            ..*self
        }
    }

    /// The copy as a checkpoint.
    fn copied(&self) -> Self {
        let (checkpoint, bank) = self.copy.clone().unwrap();
        Self {
            bank,
            checkpoint,
            copy: None,
            ..*self
        }
    }
}

/// With the source's bank gone a copy is verified, restored and deleted as any checkpoint; making
/// it changed nothing of the source.
pub async fn a_copy_stands_alone(setting: &impl Setting, times: usize) {
    if !setting.keeps_data() {
        return;
    }
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    let before = run.everything().await;
    let copying = run.to_copy();
    // What runs on this host has no part in it.
    setting.wreck().await;
    copying.run(OperationType::Copy, times).await.unwrap();
    assert!(
        before == run.everything().await,
        "the copy changed its source"
    );
    for info in run.bank.list(&ListRequest::default()).await.unwrap() {
        run.bank.delete(&info.key).await.unwrap();
    }
    let copy = copying.copied();
    copy.run(OperationType::Verify, 1).await.unwrap();
    copy.run(OperationType::Restore, 1).await.unwrap();
    setting.assert_intact().await;
    copy.run(OperationType::Delete, 1).await.unwrap();
    assert_eq!(copy.data().await, Vec::<String>::new());
}

/// After the first `hooks` hooks of a copy an undo, run twice, leaves nothing of it and all of its
/// source; then it can be copied again.
pub async fn an_undone_copy_leaves_nothing(setting: &impl Setting, hooks: usize) {
    if !setting.keeps_data() {
        return;
    }
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    let before = run.everything().await;
    let copying = run.to_copy();
    let context = copying.context(OperationType::Copy);
    for hook in 0..hooks {
        run_hook(&*run.operation(OperationType::Copy), hook, &context)
            .await
            .unwrap();
    }
    context.cancel.cancel();
    for _ in 0..2 {
        let operation = run.operation(OperationType::Copy);
        operation.undo(&context).await.unwrap();
    }
    let left = copying.copied().data().await;
    assert_eq!(left, Vec::<String>::new(), "undo after {hooks} hooks");
    assert!(
        before == run.everything().await,
        "the undo changed the source"
    );
    run.run(OperationType::Verify, 1).await.unwrap();
    copying.run(OperationType::Copy, 1).await.unwrap();
    copying
        .copied()
        .run(OperationType::Verify, 1)
        .await
        .unwrap();
}

/// What is not there is not copied, and the target says so by holding nothing.
pub async fn a_copy_of_nothing_fails(setting: &impl Setting) {
    if !setting.keeps_data() {
        return;
    }
    let run = Trial::new(setting);
    run.run(OperationType::Protect, 1).await.unwrap();
    run.run(OperationType::Delete, 1).await.unwrap();
    let copying = run.to_copy();
    let error = copying.run(OperationType::Copy, 1).await.unwrap_err();
    assert!(!error.message.trim().is_empty());
    let operation = run.operation(OperationType::Copy);
    operation
        .undo(&copying.context(OperationType::Copy))
        .await
        .unwrap();
    assert_eq!(copying.copied().data().await, Vec::<String>::new());
}
