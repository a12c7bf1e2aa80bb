//! Hooks that do not end, for tests that kill the service in the middle of one.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use karbor_plugin::{HookReport, Operation, OperationContext, PluginError};

use super::directives::holds;

/// Names the directory of the marker files. Not set: nothing is held.
const DIRECTORY: &str = "KARBOR_SIMULATED_HOLD_DIR";

/// An operation whose hooks do their work and then, if told so, do not end.
pub(super) struct Holding(pub(super) Box<dyn Operation>);

#[async_trait]
impl Operation for Holding {
    async fn prepare_begin(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let done = self.0.prepare_begin(context).await;
        hold(context, "prepare_begin").await?;
        done
    }

    async fn prepare_finish(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let done = self.0.prepare_finish(context).await;
        hold(context, "prepare_finish").await?;
        done
    }

    async fn main(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let done = self.0.main(context).await;
        hold(context, "main").await?;
        done
    }

    async fn complete(&self, context: &OperationContext) -> Result<HookReport, PluginError> {
        let done = self.0.complete(context).await;
        hold(context, "complete").await?;
        done
    }

    async fn undo(&self, context: &OperationContext) -> Result<(), PluginError> {
        let done = self.0.undo(context).await;
        hold(context, "undo").await?;
        done
    }
}

/// Waits until the process dies or the hook is cancelled, the first time a run comes here.
async fn hold(context: &OperationContext, hook: &str) -> Result<(), PluginError> {
    if !holds(&context.resource.name, context.operation, hook) {
        return Ok(());
    }
    let Some(directory) = env::var_os(DIRECTORY) else {
        return Ok(());
    };
    match mark(&PathBuf::from(directory), context, hook) {
        Ok(true) => {
            context.cancel.cancelled().await;
            Err(PluginError::cancelled())
        }
        Ok(false) => Ok(()),
        Err(error) => Err(PluginError::new(format!(
            "the {hook} of '{}' cannot be held: {DIRECTORY} must name a directory that can be \
             written to",
            context.resource.name
        ))
        .with_cause(error)),
    }
}

/// Leaves the marker; `false` when it is there already, so the run was held here before.
fn mark(directory: &Path, context: &OperationContext, hook: &str) -> io::Result<bool> {
    // An id may be any text, and must not lead out of the directory.
    let id = context.resource.id.replace('/', "_");
    let name = format!("{}-{id}-{hook}", context.operation_id);
    match std::fs::File::create_new(directory.join(name)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
