//! Runs the hooks of a run: gives each plugin its section, its parameters and nothing more.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_flow::{FlowNode, FlowPlan, Hook, HookContext, HookRunner};
use karbor_model::{ApiError, OperationType, parameters_for};
use karbor_plugin::{
    DataSection, HookReport, Operation, OperationContext, PluginError, VaultAccess,
};

use crate::{keys::MasterKey, providers::Provider, run::Run};

/// The hooks of one run.
pub(crate) struct RunHooks {
    run: Run,
    plan: Arc<FlowPlan>,
    provider: Arc<Provider>,
    vault: VaultAccess,
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
        provider: Arc<Provider>,
        key: &MasterKey,
    ) -> Result<Self, ApiError> {
        let project = &run.checkpoint.project_id;
        let vault = VaultAccess {
            section: provider.vault_section(project)?,
            password: key.vault_password(run.checkpoint.provider_id, project),
        };
        let operations = plan
            .nodes()
            .iter()
            .map(|node| {
                provider
                    .checkpoints()
                    .resource_data(run.checkpoint.id, &node.resource.id)?;
                provider.operation(run.operation, &node.resource)
            })
            .collect::<Result<_, ApiError>>()?;
        Ok(Self {
            run,
            plan,
            provider,
            vault,
            operations,
        })
    }

    /// What the flow will do.
    pub(crate) fn plan(&self) -> &Arc<FlowPlan> {
        &self.plan
    }

    fn context(
        &self,
        node: &FlowNode,
        context: HookContext,
    ) -> Result<OperationContext, PluginError> {
        let section = self
            .provider
            .checkpoints()
            .resource_data(self.run.checkpoint.id, &node.resource.id)
            .map_err(|error| PluginError::new(error.to_string()))?;
        let data = match self.run.operation {
            OperationType::Protect | OperationType::Delete | OperationType::Copy => {
                DataSection::Writable(section)
            }
            OperationType::Restore | OperationType::Verify => {
                DataSection::ReadOnly(section.read_only())
            }
        };
        let nodes = self.plan.nodes();
        Ok(OperationContext {
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
            progress: context.progress,
            cancel: context.cancel,
        })
    }

    /// The cause goes to the log with the request it belongs to; the message goes to the user.
    fn log(&self, node: &FlowNode, hook: Hook, error: &PluginError) {
        tracing::warn!(
            request = %self.run.context.request_id, operation = %self.run.operation, run = %self.run.id,
            resource = node.key, %hook, error = error.message, cause = error.cause, "a hook failed"
        );
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
        let context = self.context(node, context)?;
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
