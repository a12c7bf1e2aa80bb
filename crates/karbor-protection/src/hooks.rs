//! Runs the hooks of a run: gives each plugin its section, its parameters and nothing more.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_flow::{FlowNode, FlowPlan, Hook, HookContext, HookRunner};
use karbor_model::{ApiError, CheckpointId, Seal, parameters_for};
use karbor_plugin::{
    Bank, BankKey, BankSection, CopyTarget, DataSection, HookReport, Operation, OperationContext,
    PluginError, VaultAccess,
};

use crate::{
    checkpoints::CheckpointCollection,
    error::CheckpointError,
    keys::MasterKey,
    operations::rules,
    providers::{Home, Provider},
    run::Run,
    seal::Witness,
};

/// Data of a checkpoint.
struct Data {
    bank: Arc<dyn Bank>,
    root: BankKey,
    /// By node of the plan.
    places: Vec<BankKey>,
}

/// Where a copy goes.
struct Target {
    checkpoint: CheckpointId,
    data: Data,
    vault: VaultAccess,
}

/// The hooks of one run.
pub(crate) struct RunHooks {
    run: Run,
    plan: Arc<FlowPlan>,
    data: Data,
    vault: VaultAccess,
    target: Option<Target>,
    operations: Vec<Box<dyn Operation>>,
}

impl RunHooks {
    /// Asks the provider for the operation of every resource.
    ///
    /// # Errors
    /// Whatever the provider refuses with.
    pub(crate) fn new(
        run: Run,
        plan: Arc<FlowPlan>,
        provider: &Provider,
        key: &MasterKey,
    ) -> Result<Self, ApiError> {
        let (home, project) = (provider.home(run.place)?, &run.checkpoint.project_id);
        let vault = home.vault(project, key)?;
        let data = Data::of(&plan, home, run.checkpoint.id)?;
        let target = match &run.copy {
            None => None,
            Some(copy) => {
                let home = provider.home(copy.place)?;
                Some(Target {
                    checkpoint: copy.checkpoint.id,
                    data: Data::of(&plan, home, copy.checkpoint.id)?,
                    vault: home.vault(project, key)?,
                })
            }
        };
        let hooks = rules(run.operation).hooks();
        let operations = plan
            .nodes()
            .iter()
            .map(|node| provider.operation(hooks, &node.resource))
            .collect::<Result<_, ApiError>>()?;
        Ok(Self {
            run,
            plan,
            data,
            vault,
            target,
            operations,
        })
    }

    /// What the flow will do.
    pub(crate) fn plan(&self) -> &Arc<FlowPlan> {
        &self.plan
    }

    /// What a hook gets, and who sees what it writes.
    fn context(
        &self,
        node: &FlowNode,
        context: HookContext,
    ) -> (OperationContext, Option<Arc<Witness>>) {
        let (data, writing) = match rules(self.run.operation).claim().is_exclusive() {
            true => {
                let witness = self.data.to_write();
                let section = self.data.section(node, &witness);
                (DataSection::Writable(section), Some(witness))
            }
            false => {
                let witness = self.data.to_read(self.run.checkpoint.seal.as_ref());
                let section = self.data.section(node, &witness);
                (DataSection::ReadOnly(section.read_only()), None)
            }
        };
        let copied = self.target.as_ref().map(|target| {
            let witness = target.data.to_write();
            let target = CopyTarget {
                checkpoint_id: target.checkpoint,
                data: target.data.section(node, &witness),
                vault: target.vault.clone(),
            };
            (target, witness)
        });
        let (copy_target, copying) = copied.unzip();
        let nodes = self.plan.nodes();
        let context = OperationContext {
            request: self.run.context.clone(),
            operation: self.run.operation,
            operation_id: self.run.id,
            checkpoint_id: self.run.checkpoint.id,
            plan_id: self.run.checkpoint.protection_plan.id,
            provider_id: self.run.checkpoint.provider_id,
            project_id: self.run.checkpoint.project_id.clone(),
            resource: node.resource.clone(),
            dependents: node
                .children
                .iter()
                .map(|&child| nodes[child].resource.clone())
                .collect(),
            parameters: parameters_for(&self.run.parameters, &node.resource),
            data,
            vault: self.vault.clone(),
            copy_target,
            progress: context.progress,
            cancel: context.cancel,
        };
        (context, copying.or(writing))
    }

    /// The cause goes to the log with the request it belongs to; the message goes to the user.
    fn log(&self, node: &FlowNode, hook: Hook, error: &PluginError) {
        tracing::warn!(
            request = %self.run.context.request_id, operation = %self.run.operation, run = %self.run.id,
            resource = node.key, %hook, error = error.message, cause = error.cause, "a hook failed"
        );
    }
}

impl Data {
    fn of(plan: &FlowPlan, home: &Home, checkpoint: CheckpointId) -> Result<Self, CheckpointError> {
        let nodes = plan.nodes().iter();
        let places = nodes
            .map(|node| CheckpointCollection::resource_data(checkpoint, &node.resource.id))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            bank: home.bank().clone(),
            root: CheckpointCollection::data(checkpoint)?,
            places,
        })
    }

    fn to_write(&self) -> Arc<Witness> {
        Witness::of_writing(self.bank.clone(), self.root.clone())
    }

    fn to_read(&self, seal: Option<&Seal>) -> Arc<Witness> {
        Witness::of_reading(self.bank.clone(), self.root.clone(), seal)
    }

    fn section(&self, node: &FlowNode, witness: &Arc<Witness>) -> BankSection {
        BankSection::new(witness.clone(), self.places[node.at].clone())
    }
}

#[async_trait]
impl HookRunner for RunHooks {
    async fn run(
        &self,
        node: &FlowNode,
        hook: Hook,
        context: HookContext,
    ) -> Result<HookReport, PluginError> {
        let (context, witness) = self.context(node, context);
        let operation = &self.operations[node.at];
        let done = match hook {
            Hook::PrepareBegin => operation.prepare_begin(&context).await,
            Hook::PrepareFinish => operation.prepare_finish(&context).await,
            Hook::Main => operation.main(&context).await,
            Hook::Complete => operation.complete(&context).await,
            Hook::Undo => operation.undo(&context).await.map(|()| HookReport::new()),
        };
        let mut report = done.inspect_err(|error| self.log(node, hook, error))?;
        if let Some(witness) = witness {
            witness.tell(&mut report);
        }
        Ok(report)
    }

    async fn undo(&self, node: &FlowNode, context: HookContext) -> Result<(), PluginError> {
        self.run(node, Hook::Undo, context).await.map(|_| ())
    }
}
