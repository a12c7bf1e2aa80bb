//! Runs the hooks of a run: gives each plugin its section, its parameters and nothing more.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_flow::{FlowNode, FlowPlan, Hook, HookContext, HookRunner};
use karbor_model::{ApiError, CheckpointId, OperationType, parameters_for};
use karbor_plugin::{
    BankSection, CopyTarget, DataSection, HookReport, Operation, OperationContext, PluginError,
    VaultAccess,
};

use crate::{
    error::CheckpointError,
    keys::MasterKey,
    providers::{Home, Provider},
    run::Run,
};

/// Where a copy goes.
struct Target {
    checkpoint: CheckpointId,
    sections: Vec<BankSection>,
    vault: VaultAccess,
}

/// The hooks of one run.
pub(crate) struct RunHooks {
    run: Run,
    plan: Arc<FlowPlan>,
    sections: Vec<BankSection>,
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
        let sections = data_sections(&plan, home, run.checkpoint.id)?;
        let target = match &run.copy {
            None => None,
            Some(copy) => {
                let home = provider.home(copy.place)?;
                Some(Target {
                    checkpoint: copy.checkpoint.id,
                    sections: data_sections(&plan, home, copy.checkpoint.id)?,
                    vault: home.vault(project, key)?,
                })
            }
        };
        let operations = plan
            .nodes()
            .iter()
            .map(|node| provider.operation(run.operation, &node.resource))
            .collect::<Result<_, ApiError>>()?;
        Ok(Self {
            run,
            plan,
            sections,
            vault,
            target,
            operations,
        })
    }

    /// What the flow will do.
    pub(crate) fn plan(&self) -> &Arc<FlowPlan> {
        &self.plan
    }

    fn context(&self, node: &FlowNode, context: HookContext) -> OperationContext {
        let section = self.sections[node.at].clone();
        let data = match self.run.operation {
            OperationType::Protect | OperationType::Delete => DataSection::Writable(section),
            OperationType::Restore | OperationType::Verify | OperationType::Copy => {
                DataSection::ReadOnly(section.read_only())
            }
        };
        let copy_target = self.target.as_ref().map(|target| CopyTarget {
            checkpoint_id: target.checkpoint,
            data: target.sections[node.at].clone(),
            vault: target.vault.clone(),
        });
        let nodes = self.plan.nodes();
        OperationContext {
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
        }
    }

    /// The cause goes to the log with the request it belongs to; the message goes to the user.
    fn log(&self, node: &FlowNode, hook: Hook, error: &PluginError) {
        tracing::warn!(
            request = %self.run.context.request_id, operation = %self.run.operation, run = %self.run.id,
            resource = node.key, %hook, error = error.message, cause = error.cause, "a hook failed"
        );
    }
}

/// The section of every resource's data in a checkpoint.
fn data_sections(
    plan: &FlowPlan,
    home: &Home,
    checkpoint: CheckpointId,
) -> Result<Vec<BankSection>, CheckpointError> {
    let nodes = plan.nodes().iter();
    nodes
        .map(|node| {
            home.checkpoints()
                .resource_data(checkpoint, &node.resource.id)
        })
        .collect()
}

#[async_trait]
impl HookRunner for RunHooks {
    async fn run(
        &self,
        node: &FlowNode,
        hook: Hook,
        context: HookContext,
    ) -> Result<HookReport, PluginError> {
        let context = self.context(node, context);
        let operation = &self.operations[node.at];
        let done = match hook {
            Hook::PrepareBegin => operation.prepare_begin(&context).await,
            Hook::PrepareFinish => operation.prepare_finish(&context).await,
            Hook::Main => operation.main(&context).await,
            Hook::Complete => operation.complete(&context).await,
            Hook::Undo => operation.undo(&context).await.map(|()| HookReport::new()),
        };
        done.inspect_err(|error| self.log(node, hook, error))
    }

    async fn undo(&self, node: &FlowNode, context: HookContext) -> Result<(), PluginError> {
        self.run(node, Hook::Undo, context).await.map(|_| ())
    }
}
