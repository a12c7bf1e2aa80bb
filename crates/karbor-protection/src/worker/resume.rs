//! Goes on with the runs that a stop or a crash interrupted.

use std::sync::Arc;

use karbor_db::FlowRecord;
use karbor_model::{ApiError, FlowStatus};
use karbor_plugin::Bank;

use super::{RETRY_DELAYS, Worker, release};
use crate::{conclude::Conclusion, error::NOT_AVAILABLE, leases, providers::Provider, run::Run};

/// The class of the error that a bank without the checkpoint answers with.
const NOT_FOUND: &str = "CheckpointNotFound";

impl Worker {
    /// Goes on with every run of this host that has not ended.
    ///
    /// # Errors
    /// When the database cannot tell which.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<usize, ApiError> {
        self.release_leftovers().await;
        let flows = self.db.flows_unfinished(&self.host).await?;
        let count = flows.len();
        for flow in flows {
            let worker = self.clone();
            self.tasks
                .spawn(format!("resume {}", flow.operation_id), async move {
                    worker.resume_one(flow).await;
                });
        }
        Ok(count)
    }

    /// A service that died between the end of a run and the release of its claim left the claim
    /// behind. What our own database knows as ended is nobody's any more.
    async fn release_leftovers(&self) {
        for provider in self.providers.all() {
            for home in provider.homes() {
                self.release_leftovers_in(home.bank()).await;
            }
        }
    }

    async fn release_leftovers_in(&self, bank: &Arc<dyn Bank>) {
        let claims = match leases::claims_of(bank.as_ref(), &self.owner).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(?bank, %error, "left claims cannot be looked for");
                return;
            }
        };
        for (run, lease) in claims {
            let flow = self.db.flow_get(run).await;
            if flow.is_ok_and(|flow| flow.status != FlowStatus::Running)
                && let Err(error) = bank.release_lease(&lease).await
            {
                tracing::warn!(lease = lease.name, %error, "a left claim ends by itself");
            }
        }
    }

    async fn resume_one(self: Arc<Self>, flow: FlowRecord) {
        let id = flow.operation_id;
        let run: Run = match serde_json::from_value(flow.payload) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(run = %id, %error, "a run cannot be resumed: its record cannot be read");
                return;
            }
        };
        tracing::info!(run = %id, operation = %run.operation, checkpoint = %run.checkpoint.id, "resuming a run");
        let mut delay = RETRY_DELAYS.0;
        loop {
            match self.try_resume(&run).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(run = %id, ?error, "a run cannot be resumed yet");
                    self.stuck(run.log, error.message);
                }
            }
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    /// The provider, with the banks that the run needs.
    fn provider_of(&self, run: &Run) -> Result<Arc<Provider>, ApiError> {
        let provider = self.providers.get(run.checkpoint.provider_id)?;
        provider.home(run.place)?;
        provider.home(run.subject().0)?;
        Ok(provider.clone())
    }

    /// An `Err` is worth another try.
    async fn try_resume(self: &Arc<Self>, run: &Run) -> Result<(), ApiError> {
        let provider = match self.provider_of(run) {
            Ok(provider) => provider,
            Err(error) => {
                // Nothing can be told to a bank that is not configured any more.
                let conclusion =
                    Conclusion::failed(format!("{error} It was removed while the operation ran."));
                return self.record(run, &conclusion).await;
            }
        };
        let lease = self.claim(run, &provider).await?;
        match self.prepare(run, &provider).await {
            Ok(()) => {}
            // The bank's last word: it holds nothing that the run could go on with.
            Err(error) if [NOT_AVAILABLE, NOT_FOUND].contains(&error.class.as_str()) => {
                let conclusion = Conclusion::failed(error.message);
                self.conclude(run, &provider, &conclusion).await;
                release(lease).await;
                self.unstuck(run.log);
                return Ok(());
            }
            Err(error) => {
                release(lease).await;
                return Err(error);
            }
        }
        match self.hooks(run, &provider) {
            Ok(hooks) => self.spawn(run.clone(), provider, hooks, lease),
            Err(error) => {
                self.conclude(run, &provider, &Conclusion::failed(error.message))
                    .await;
                release(lease).await;
            }
        }
        self.unstuck(run.log);
        Ok(())
    }
}
