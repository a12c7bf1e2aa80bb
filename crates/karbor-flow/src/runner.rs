//! What the executor asks of its surroundings: hooks to run.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use karbor_plugin::{HookReport, PluginError, Progress};
use tokio_util::sync::CancellationToken;

use crate::planner::{FlowNode, Hook};

/// What a hook gets from the executor.
#[derive(Clone)]
pub struct HookContext {
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// The hook stops soon after this is cancelled; it then returns [`PluginError::cancelled`].
    pub cancel: CancellationToken,
    /// 1, or more if earlier attempts in this process failed with a retryable error.
    pub attempt: u32,
}

impl fmt::Debug for HookContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookContext")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Runs the hooks of a flow's resources.
#[async_trait]
pub trait HookRunner: Send + Sync {
    /// Runs one hook; never [`Hook::Undo`]. May be called again for the same hook, after a crash or
    /// a retryable error.
    ///
    /// # Errors
    /// Why the hook failed; the message reaches the user.
    async fn run(
        &self,
        node: &FlowNode,
        hook: Hook,
        context: HookContext,
    ) -> Result<HookReport, PluginError>;

    /// Undoes what the resource's hooks did. Dependents were undone before. `context.cancel` is
    /// not cancelled with the flow: only when the undo itself takes too long, or when the journal
    /// breaks and this undo will be run again.
    ///
    /// # Errors
    /// Why it could not be undone; the message reaches the user.
    async fn undo(&self, node: &FlowNode, context: HookContext) -> Result<(), PluginError>;
}
