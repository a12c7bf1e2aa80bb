//! Goes on with the runs that a stop or a crash interrupted, and with those that could not begin at once.

use std::{sync::Arc, time::Duration};

use karbor_db::{DbError, FlowRecord, OperationLogUpdate};
use karbor_model::{ApiError, FlowStatus, OperationLogStatus, RunReport};
use karbor_plugin::Bank;

use super::{RETRY_DELAYS, Worker, conclude::conclude_in_bank, release};
use crate::{
    begin_error::{BeginError, Why},
    conclusion::Conclusion,
    error::CheckpointError,
    leases::{self, CheckpointLease},
    providers::Provider,
    run::Run,
};

impl Worker {
    /// Goes on with every run of this host that has not ended.
    ///
    /// # Errors
    /// When the database cannot tell which.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<usize, ApiError> {
        self.release_leftovers();
        let flows = self.ground.runs.flows_unfinished(&self.host).await?;
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
    /// behind. What our own database knows as ended is nobody's any more. No start waits for that: a bank may hang.
    fn release_leftovers(self: &Arc<Self>) {
        for provider in self.ground.providers.all() {
            for home in provider.homes() {
                let (worker, bank) = (self.clone(), home.bank().clone());
                self.tasks
                    .spawn(format!("release left claims in {bank:?}"), async move {
                        let stopped = worker.tasks.cancelled();
                        tokio::select! {
                            () = worker.release_leftovers_in(&bank) => {}
                            () = stopped.cancelled() => {}
                        }
                    });
            }
        }
    }

    async fn release_leftovers_in(&self, bank: &Arc<dyn Bank>) {
        let claims = match leases::claims_of(bank.as_ref(), &self.ground.owner).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(?bank, %error, "left claims cannot be looked for");
                return;
            }
        };
        for (run, lease) in claims {
            let flow = self.ground.runs.flow_get(run).await;
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
        self.try_on(&run, RETRY_DELAYS.0).await;
    }

    /// Tries to begin a run again, of which the first try came to `error`. All that it takes is in the
    /// flow record: a restart goes on with it.
    pub(super) fn begin_later(self: &Arc<Self>, run: Run, error: ApiError) {
        let worker = self.clone();
        self.tasks.spawn(format!("begin {}", run.id), async move {
            let mut delay = RETRY_DELAYS.0;
            if !worker.pause(&run, error, &mut delay).await {
                worker.try_on(&run, delay).await;
            }
        });
    }

    async fn try_on(self: &Arc<Self>, run: &Run, mut delay: Duration) {
        while let Err(error) = self.try_resume(run).await {
            if self.pause(run, error, &mut delay).await {
                return;
            }
        }
    }

    /// Says why a run does not go on yet, and waits, longer each time; says whether to stop instead.
    async fn pause(&self, run: &Run, error: ApiError, delay: &mut Duration) -> bool {
        tracing::error!(run = %run.id, ?error, "a run cannot go on yet");
        let update = OperationLogUpdate {
            report: Some(RunReport::waits(error.message.clone())),
            ..OperationLogUpdate::default()
        };
        if let Err(error) = self
            .ground
            .runs
            .operation_log_update(run.log, &update)
            .await
        {
            tracing::warn!(run = %run.id, %error, "why a run waits could not be recorded");
        }
        self.stuck(run.log, error.message);
        let stopped = self.wait_or_stop(*delay).await;
        *delay = (*delay * 2).min(RETRY_DELAYS.1);
        stopped
    }

    /// The provider, with the banks that the run needs.
    pub(super) fn provider_of(&self, run: &Run) -> Result<Arc<Provider>, ApiError> {
        let provider = self.ground.providers.get(run.checkpoint.provider_id)?;
        provider.home(run.place)?;
        provider.home(run.subject().0)?;
        Ok(provider.clone())
    }

    /// An `Err` is worth another try.
    async fn try_resume(self: &Arc<Self>, run: &Run) -> Result<(), ApiError> {
        if let Some(reason) = self.told_as_failed(run).await? {
            self.close_later(run, Conclusion::failed(reason), true);
            self.unstuck(run.log);
            return Ok(());
        }
        let provider = match self.provider_of(run) {
            Ok(provider) => provider,
            Err(error) => {
                // Nothing can be told to a bank that is not configured any more.
                let conclusion =
                    Conclusion::failed(format!("{error} It was removed while the operation ran."));
                return self.record(run, &conclusion).await;
            }
        };
        let mut lease = match self.claim(run, &provider).await {
            Ok(lease) => lease,
            Err(error) => return self.unless_over(run, &provider, Vec::new(), error).await,
        };
        let prepared = match self.refuse_late(run, &provider).await {
            Ok(()) => self.prepare(run, &provider, &mut lease).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok(()) => {}
            // The bank's last word: it holds nothing that the run could go on with, or what it was to make.
            Err(error) if error.is_last_word() => {
                let conclusion = Conclusion::failed(error.error.message);
                self.conclude(run, &provider, &conclusion).await;
                release(lease).await;
                self.unstuck(run.log);
                return Ok(());
            }
            Err(error) => return self.unless_over(run, &provider, lease, error).await,
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

    /// What was asked for in time is not begun after it, but what was begun is gone on with.
    async fn refuse_late(&self, run: &Run, provider: &Provider) -> Result<(), BeginError> {
        let Some(end) = run.late(self.ground.clock.now()) else {
            return Ok(());
        };
        let (place, subject) = run.subject();
        let there = provider.home(place)?.checkpoints().get(subject.id).await;
        let in_bank = !matches!(there, Err(CheckpointError::NotFound(_)));
        if in_bank || !self.ground.runs.flow_events(run.id).await?.is_empty() {
            return Ok(());
        }
        Err(BeginError::late(end))
    }

    /// An `error` at the begin of a run is worth another try, unless it is over.
    async fn unless_over(
        self: &Arc<Self>,
        run: &Run,
        provider: &Provider,
        claims: Vec<CheckpointLease>,
        error: BeginError,
    ) -> Result<(), ApiError> {
        let over = self.over(run, &error).await;
        let Ok(Some(reason)) = over else {
            release(claims).await;
            return Err(over.err().unwrap_or_else(|| error.into()));
        };
        let failed = Conclusion::failed(reason);
        let told = match claims.is_empty() {
            false => conclude_in_bank(&self.ground, run, provider, &failed)
                .await
                .ok(),
            // It never was this run's to begin. Another may have left something at an earlier try.
            true => (error.why == Why::Ended).then(|| failed.clone()),
        };
        release(claims).await;
        self.refuse(run, &failed, told.as_ref()).await;
        self.unstuck(run.log);
        Ok(())
    }

    /// The reason of a run that the user was told has failed: all that is left to do is to tell the bank,
    /// if it was not, and to close it.
    async fn told_as_failed(&self, run: &Run) -> Result<Option<String>, ApiError> {
        let log = match self.ground.runs.operation_log_get(run.log).await {
            Ok(log) => log,
            Err(DbError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_own = log.checkpoint_id == Some(run.subject().1.id);
        let failed = is_own && log.status == OperationLogStatus::Failed;
        Ok(failed.then(|| log.error_info.unwrap_or_default()))
    }

    /// Why a run that cannot begin never will: the caller gave it up, or its time is over. What
    /// has begun is seen to its end.
    async fn over(&self, run: &Run, error: &BeginError) -> Result<Option<String>, ApiError> {
        if error.why == Why::Ended {
            return Ok(Some(error.error.message.clone()));
        }
        let Some(end) = run.late(self.ground.clock.now()) else {
            return Ok(None);
        };
        let begun = !self.ground.runs.flow_events(run.id).await?.is_empty();
        let reason = format!(
            "{} It could not begin before {end}, the end of its window.",
            error.error.message
        );
        Ok((!begun).then_some(reason))
    }
}
