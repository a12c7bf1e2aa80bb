//! One task: attempts, timeout, cancel, panics.

use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures::FutureExt;
use karbor_manager::Clock;
use karbor_plugin::{HookReport, PluginError};
use tokio_util::sync::CancellationToken;

use crate::{
    executor::ExecutorOptions,
    planner::{FlowNode, FlowPlan, Hook},
    progress::{ProgressSink, TaskResult},
    runner::{HookContext, HookRunner},
};

/// How a task ended.
#[derive(Debug)]
pub(crate) enum TaskEnd {
    Finished(HookReport),
    /// Why, for a person.
    Failed(String),
    /// It stopped because it was told to.
    Cancelled,
}

/// How one attempt ended.
enum AttemptEnd {
    Returned(Result<HookReport, PluginError>),
    Panicked,
    TimedOut,
    /// It was told to stop, did not in time, and was dropped.
    Dropped,
}

/// A task, with all that it needs to run beside others.
pub(crate) struct Attempts {
    pub(crate) plan: Arc<FlowPlan>,
    pub(crate) node: usize,
    pub(crate) hook: Hook,
    pub(crate) hooks: Arc<dyn HookRunner>,
    pub(crate) progress: Arc<dyn ProgressSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: ExecutorOptions,
    /// This task's own.
    pub(crate) cancel: CancellationToken,
}

impl Attempts {
    pub(crate) async fn run(self) -> TaskEnd {
        let end = self.attempts().await;
        let result = match end {
            TaskEnd::Finished(_) => TaskResult::Finished,
            TaskEnd::Failed(_) => TaskResult::Failed,
            TaskEnd::Cancelled => TaskResult::Cancelled,
        };
        self.progress.task_ended(self.node(), self.hook, result);
        end
    }

    fn node(&self) -> &FlowNode {
        &self.plan.nodes()[self.node]
    }

    async fn attempts(&self) -> TaskEnd {
        let mut deadline = self.clock.sleep(self.options.task_timeout);
        let mut delay = self.options.retry.first_delay;
        let mut attempt = 1;
        loop {
            if self.cancel.is_cancelled() {
                return TaskEnd::Cancelled;
            }
            let error = match self.attempt(attempt, &mut deadline).await {
                AttemptEnd::Returned(Ok(report)) => return TaskEnd::Finished(report),
                AttemptEnd::Returned(Err(error)) => error,
                AttemptEnd::Panicked => {
                    return TaskEnd::Failed(
                        "the plugin broke down, which is a fault in it; the service's log has more"
                            .to_owned(),
                    );
                }
                AttemptEnd::TimedOut => return TaskEnd::Failed(self.timed_out(None)),
                AttemptEnd::Dropped => return TaskEnd::Cancelled,
            };
            let cancelled = self.cancel.is_cancelled();
            if cancelled && error.is_cancelled() {
                return TaskEnd::Cancelled;
            }
            self.log(&error, attempt);
            if cancelled || !error.retryable || attempt >= self.options.retry.attempts {
                return TaskEnd::Failed(error.message);
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return TaskEnd::Cancelled,
                () = &mut deadline => return TaskEnd::Failed(self.timed_out(Some(&error))),
                () = self.clock.sleep(delay) => {}
            }
            delay = (delay * 2).min(self.options.retry.longest_delay);
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        attempt: u32,
        deadline: &mut (impl Future<Output = ()> + Unpin),
    ) -> AttemptEnd {
        let context = HookContext {
            progress: self.progress.task_started(self.node(), self.hook),
            // Its own: a hook that cancels its token must not look like one that was cancelled.
            cancel: self.cancel.child_token(),
            attempt,
        };
        let mut call = pin!(AssertUnwindSafe(self.call(context)).catch_unwind());
        let timed_out = tokio::select! {
            biased;
            end = &mut call => return self.returned(end),
            () = deadline => true,
            () = self.cancel.cancelled() => false,
        };
        self.cancel.cancel();
        let end = tokio::select! {
            biased;
            end = &mut call => Some(self.returned(end)),
            () = self.clock.sleep(self.options.cancel_grace) => None,
        };
        if end.is_none() {
            let (resource, hook) = (&self.node().key, self.hook);
            tracing::warn!(%resource, %hook, "did not stop when told to, and was dropped");
        }
        match end {
            _ if timed_out => AttemptEnd::TimedOut,
            Some(end) => end,
            None => AttemptEnd::Dropped,
        }
    }

    async fn call(&self, context: HookContext) -> Result<HookReport, PluginError> {
        match self.hook {
            Hook::Undo => {
                self.hooks.undo(self.node(), context).await?;
                Ok(HookReport::new())
            }
            hook => self.hooks.run(self.node(), hook, context).await,
        }
    }

    fn returned(&self, end: std::thread::Result<Result<HookReport, PluginError>>) -> AttemptEnd {
        match end {
            Ok(result) => AttemptEnd::Returned(result),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("(not a text)");
                let (resource, hook) = (&self.node().key, self.hook);
                tracing::error!(%resource, %hook, panic = message, "a hook panicked");
                AttemptEnd::Panicked
            }
        }
    }

    fn timed_out(&self, last: Option<&PluginError>) -> String {
        let after = readable(self.options.task_timeout);
        match last {
            Some(error) => format!("timed out after {after}; the last failure was: {error}"),
            None => format!("timed out after {after}"),
        }
    }

    fn log(&self, error: &PluginError, attempt: u32) {
        tracing::warn!(
            resource = %self.node().key,
            hook = %self.hook,
            attempt,
            retryable = error.retryable,
            cause = error.cause.as_deref().unwrap_or("none given"),
            "a hook failed: {error}"
        );
    }
}

fn readable(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        s if s >= 3600 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s >= 60 && s % 60 == 0 => format!("{} min", s / 60),
        _ => format!("{} s", duration.as_secs_f64()),
    }
}
