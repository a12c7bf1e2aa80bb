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
//! interrupted by a cancel, only by their own timeout. They are run as they were declared when things
//! were stopped: that is noted, for the service's eyes only, before the first command runs. The application's own data are a description of its declaration.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_model::Resource;
use karbor_plugin::{
    BankError, HookReport, HookSet, Operation, OperationContext, PluginError, ProtectionPlugin,
    SchemaKind,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    applications::{APPLICATION, APPLICATION_PLUGIN, Application, HookCommand, Hooks},
    command::run_hook,
    metadata,
    notes::Note,
    parameters, schemas,
    shared::{Host, refuse_broken},
};
use crate::protections::refuse_type;

/// Parameters of a restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RestoreParameters {
    dry_run: bool,
}

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
        if resource_type != APPLICATION {
            return json!({});
        }
        let application = json!({"application": {
            "type": "object", "title": "Application",
            "description": "The application as it was declared when it was protected.",
        }});
        let restore = json!({"dry_run": schemas::dry_run()});
        schemas::schema("Host Application", kind, restore, application)
    }

    fn operation(
        &self,
        hooks: HookSet,
        resource: &Resource,
    ) -> Result<Box<dyn Operation>, PluginError> {
        refuse_type(self, resource)?;
        let host = self.host.clone();
        match hooks {
            HookSet::Protect => Ok(Box::new(Protect(host))),
            HookSet::Restore => Ok(Box::new(Restore(host))),
            HookSet::Verify => Ok(Box::new(Verify)),
            HookSet::Delete => Ok(Box::new(Delete)),
            HookSet::Copy => Ok(Box::new(Copy)),
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
        if found.is_none() {
            refuse_broken(&applications, context)?;
        }
        Ok(found.cloned())
    }
}

type Pick = fn(&Hooks) -> &Option<HookCommand>;

/// The two commands around an operation.
struct Around {
    before: (&'static str, Pick),
    after: (&'static str, Pick),
}

const PROTECT: Around = Around {
    before: ("quiesce", |hooks| &hooks.quiesce),
    after: ("resume", |hooks| &hooks.resume),
};

const RESTORE: Around = Around {
    before: ("before_restore", |hooks| &hooks.before_restore),
    after: ("after_restore", |hooks| &hooks.after_restore),
};

/// How to start again what is about to be stopped, as declared then.
#[derive(Debug, Serialize, Deserialize)]
struct Promise {
    application: String,
    /// Program, arguments and timeout.
    command: Option<(Vec<String>, Duration)>,
    /// It was run and failed, and its operation with it. The note stays for the operation's repeat, until the application
    /// was started again by another.
    #[serde(default)]
    failed: bool,
}

impl Promise {
    fn of(application: &Application, pick: Pick) -> Self {
        let hook = pick(&application.hooks).as_ref();
        Self {
            application: application.name.clone(),
            command: hook.map(|hook| (hook.argv.clone(), hook.timeout)),
            failed: false,
        }
    }
}

impl Around {
    fn note(&self, host: &Host, context: &OperationContext) -> Note<Promise> {
        Note::named(self.after.0, host, context)
    }

    /// Runs the first command, once it is noted how to make good for it.
    async fn before(
        &self,
        host: &Host,
        context: &OperationContext,
        application: &Application,
    ) -> Result<(), PluginError> {
        let (what, pick) = self.before;
        let promise = Promise::of(application, self.after.1);
        // Nothing is stopped that could not be started again.
        if let Some(after) = (self.after.1)(&application.hooks) {
            after.obeyed().map_err(|reason| {
                PluginError::new(format!("the {} command is not run: {reason}", self.after.0))
            })?;
        }
        let hook = pick(&application.hooks).as_ref();
        if hook.is_some() || promise.command.is_some() {
            self.note(host, context).set(&promise).await?;
        }
        match hook {
            Some(hook) => {
                run(
                    &application.name,
                    hook,
                    what,
                    context,
                    Some(&context.cancel),
                )
                .await
            }
            None => Ok(()),
        }
    }

    /// Runs the second command: the one that was noted; without a note (nothing was begun, or this
    /// is done already) the one that `declared` finds now.
    async fn after<F>(
        &self,
        host: &Host,
        context: &OperationContext,
        declared: impl FnOnce() -> F,
    ) -> Result<(), PluginError>
    where
        F: Future<Output = Result<Option<Application>, PluginError>>,
    {
        let (what, pick) = self.after;
        let note = self.note(host, context);
        let promise = match note.read().await? {
            Some(promise) => Some(promise),
            None => declared().await?.map(|found| Promise::of(&found, pick)),
        };
        if let Some(mut promise) = promise
            && let Some((argv, timeout)) = promise.command.clone()
        {
            let hook = HookCommand { argv, timeout };
            if let Err(error) = run(&promise.application, &hook, what, context, None).await {
                promise.failed = true;
                if let Err(unnoted) = note.set(&promise).await {
                    tracing::warn!(error = %unnoted, "that a command failed cannot be noted");
                }
                return Err(error);
            }
            // It was started again, whatever becomes of notes.
            if let Err(left) = note.clear_others(|other| other.failed).await {
                tracing::warn!(error = %left, "notes of commands that failed before stay");
            }
        }
        note.clear().await
    }
}

async fn run(
    application: &str,
    hook: &HookCommand,
    what: &str,
    context: &OperationContext,
    cancel: Option<&CancellationToken>,
) -> Result<(), PluginError> {
    let environment = [
        ("KARBOR_APPLICATION", application.to_owned()),
        ("KARBOR_OPERATION", context.operation.to_string()),
        ("KARBOR_CHECKPOINT", context.checkpoint_id.to_string()),
    ];
    run_hook(hook, what, &environment, cancel).await
}

struct Protect(Arc<Host>);

impl Protect {
    async fn declared(&self, context: &OperationContext) -> Result<Application, PluginError> {
        match self.0.application(context).await? {
            Some(application) => Ok(application),
            None => Err(self.0.undeclared(context).await),
        }
    }

    async fn resume(&self, context: &OperationContext) -> Result<(), PluginError> {
        let declared = || async { self.declared(context).await.map(Some) };
        PROTECT.after(&self.0, context, declared).await
    }
}

#[async_trait]
impl Operation for Protect {
    async fn prepare_begin(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let application = self.declared(context).await?;
        PROTECT.before(&self.0, context, &application).await?;
        Ok(HookReport::new())
    }

    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let application = self.declared(context).await?;
        let object = json!({"kind": APPLICATION, "application": application.describe()});
        let section = context.writable()?;
        section
            .put(&metadata::key()?, metadata::hashed(object))
            .await?;
        Ok(HookReport::new())
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        self.resume(context).await?;
        Ok(HookReport::new())
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        // Resuming comes first: a bank that fails must not keep the application stopped.
        self.resume(context).await?;
        Ok(context.writable()?.delete(&metadata::key()?).await?)
    }
}

struct Restore(Arc<Host>);

impl Restore {
    /// The application; none for a dry run, which stops nothing, and if it is no longer declared:
    /// it can still be restored to a restore root.
    async fn declared(
        &self,
        context: &OperationContext,
    ) -> Result<Option<Application>, PluginError> {
        let parameters: RestoreParameters = parameters::read(&context.parameters)?;
        match parameters.dry_run {
            true => Ok(None),
            false => self.0.application(context).await,
        }
    }

    async fn start_again(&self, context: &OperationContext) -> Result<(), PluginError> {
        RESTORE
            .after(&self.0, context, || self.declared(context))
            .await
    }
}

#[async_trait]
impl Operation for Restore {
    async fn prepare_begin(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        if let Some(application) = self.declared(context).await? {
            RESTORE.before(&self.0, context, &application).await?;
        }
        Ok(HookReport::new())
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        self.start_again(context).await?;
        Ok(HookReport::new())
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        self.start_again(context).await
    }
}

/// The description of the application, as it was when it was protected.
async fn description(context: &OperationContext) -> Result<Bytes, PluginError> {
    let key = metadata::key()?;
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
    let is_ours = |object: Value| match object["kind"] == APPLICATION {
        true => Ok(bytes.clone()),
        false => Err("it is not about an application".to_owned()),
    };
    let read = metadata::unhashed(&bytes).and_then(is_ours);
    read.map_err(|reason| {
        PluginError::new(format!("the object '{}' is corrupt: {reason}", place()))
    })
}

/// The description is all there is, so every level reads it.
struct Verify;

#[async_trait]
impl Operation for Verify {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        description(context).await?;
        Ok(HookReport::new())
    }
}

struct Copy;

#[async_trait]
impl Operation for Copy {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let bytes = description(context).await?;
        context.target()?.data.put(&metadata::key()?, bytes).await?;
        Ok(HookReport::new())
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        Ok(context.target()?.data.delete(&metadata::key()?).await?)
    }
}

struct Delete;

#[async_trait]
impl Operation for Delete {
    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        context.writable()?.delete(&metadata::key()?).await?;
        Ok(HookReport::new())
    }
}
