//! `karbor-host-application-plugin`: the operator's programs around the components' hooks.
//!
//! | operation | `prepare_begin` | `complete` and `undo` |
//! |---|---|---|
//! | protect | `quiesce` | `resume` |
//! | restore | `before_restore` | `after_restore` |
//!
//! A failing command fails the operation, `resume` and `after_restore` too: an application that
//! stays stopped must not look like success. Hooks may be repeated after a crash, so commands must
//! bear being run twice; the ones that start things again are run on every path and are not
//! interrupted by a cancel. The application's own data are a description of its declaration.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::{OperationType, Resource};
use karbor_plugin::{
    BankError, HookReport, Operation, OperationContext, PluginError, ProtectionPlugin, SchemaKind,
};
use serde_json::{Value, json};

use super::{
    APPLICATION_PLUGIN, Host, command::run_hook, kept, parameters, parameters::RestoreParameters,
    schemas, undeclared,
};
use crate::{
    applications::{APPLICATION, Application, HookCommand, Hooks},
    protections::refuse_type,
};

/// The plugin.
pub(crate) struct ApplicationPlugin {
    host: Arc<Host>,
}

impl ApplicationPlugin {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

impl ProtectionPlugin for ApplicationPlugin {
    fn name(&self) -> &str {
        APPLICATION_PLUGIN
    }

    fn resource_types(&self) -> &[&str] {
        &[APPLICATION]
    }

    fn schema(&self, resource_type: &str, kind: SchemaKind) -> Value {
        match resource_type == APPLICATION {
            true => schemas::schema(resource_type, kind),
            false => json!({}),
        }
    }

    fn operation(
        &self,
        operation: OperationType,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        let host = self.host.clone();
        match operation {
            OperationType::Protect => Ok(Box::new(Protect(host))),
            OperationType::Restore => Ok(Box::new(Restore(host))),
            OperationType::Verify => Ok(Box::new(Verify)),
            OperationType::Delete => Ok(Box::new(Delete)),
            OperationType::Copy => Err(PluginError::new(format!(
                "{APPLICATION_PLUGIN} cannot copy"
            ))),
        }
    }
}

impl Host {
    async fn application(
        &self,
        context: &OperationContext,
    ) -> Result<Option<Application>, PluginError> {
        let applications = self.applications().await?;
        let found = applications.application(&context.project_id, &context.resource.id);
        Ok(found.cloned())
    }
}

async fn run(
    application: &Application,
    pick: fn(&Hooks) -> &Option<HookCommand>,
    what: &str,
    context: &OperationContext,
    interruptible: bool,
) -> Result<HookReport, PluginError> {
    if let Some(hook) = pick(&application.hooks) {
        let environment = [
            ("KARBOR_APPLICATION", application.name.clone()),
            ("KARBOR_OPERATION", context.operation.to_string()),
            ("KARBOR_CHECKPOINT", context.checkpoint_id.to_string()),
        ];
        let cancel = interruptible.then_some(&context.cancel);
        run_hook(hook, what, &environment, cancel).await?;
    }
    Ok(HookReport::new())
}

struct Protect(Arc<Host>);

impl Protect {
    async fn resume(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let application = self.0.application(context).await?;
        let application = application.ok_or_else(|| undeclared(context))?;
        run(
            &application,
            |hooks| &hooks.resume,
            "resume",
            context,
            false,
        )
        .await
    }
}

#[async_trait]
impl Operation for Protect {
    async fn prepare_begin(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let application = self.0.application(context).await?;
        let application = application.ok_or_else(|| undeclared(context))?;
        run(
            &application,
            |hooks| &hooks.quiesce,
            "quiesce",
            context,
            true,
        )
        .await
    }

    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let application = self.0.application(context).await?;
        let application = application.ok_or_else(|| undeclared(context))?;
        let object = json!({"kind": APPLICATION, "application": application.describe()});
        let section = context.writable()?;
        section
            .put(&kept::key()?, Bytes::from(object.to_string()))
            .await?;
        Ok(HookReport::new())
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        self.resume(context).await
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        // Resuming comes first: a bank that fails must not keep the application stopped.
        self.resume(context).await?;
        Ok(context.writable()?.delete(&kept::key()?).await?)
    }
}

struct Restore(Arc<Host>);

impl Restore {
    async fn run(
        &self,
        context: &OperationContext,
        pick: fn(&Hooks) -> &Option<HookCommand>,
        what: &str,
        interruptible: bool,
    ) -> Result<HookReport, PluginError> {
        let parameters: RestoreParameters = parameters::read(&context.parameters)?;
        // An application that is no longer declared can still be restored to a restore root.
        match self.0.application(context).await? {
            Some(application) if !parameters.dry_run => {
                run(&application, pick, what, context, interruptible).await
            }
            _ => Ok(HookReport::new()),
        }
    }
}

#[async_trait]
impl Operation for Restore {
    async fn prepare_begin(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        self.run(
            context,
            |hooks| &hooks.before_restore,
            "before_restore",
            true,
        )
        .await
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        self.run(
            context,
            |hooks| &hooks.after_restore,
            "after_restore",
            false,
        )
        .await
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        self.run(
            context,
            |hooks| &hooks.after_restore,
            "after_restore",
            false,
        )
        .await?;
        Ok(())
    }
}

struct Verify;

#[async_trait]
impl Operation for Verify {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let key = kept::key()?;
        let place = || format!("{}/{key}", context.data.prefix());
        let bytes = match context.data.get(&key).await {
            Ok(bytes) => bytes,
            Err(BankError::NotFound(_)) => {
                return Err(PluginError::new(format!(
                    "the object '{}' is not in the bank",
                    place()
                )));
            }
            Err(error) => return Err(error.into()),
        };
        let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if object.get("kind").and_then(Value::as_str) != Some(APPLICATION) {
            return Err(PluginError::new(format!(
                "the object '{}' is corrupt",
                place()
            )));
        }
        Ok(HookReport::new())
    }
}

struct Delete;

#[async_trait]
impl Operation for Delete {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        context.writable()?.delete(&kept::key()?).await?;
        Ok(HookReport::new())
    }
}
