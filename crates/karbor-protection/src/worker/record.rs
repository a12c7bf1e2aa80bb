//! Writes down how a run ended.

use std::sync::Arc;

use karbor_db::{DbError, OperationLogUpdate};
use karbor_model::{ApiError, OperationLog, OperationLogStatus};

use super::{RETRY_DELAYS, Worker, begin::log_record, conclude::conclude_in_bank, release};
use crate::{
    begin_error::Why,
    conclusion::{Conclusion, unless_done_before},
    operations::rules,
    providers::Provider,
    run::Run,
};

impl Worker {
    /// Writes down how a run ended, first where the user looks, last in the flow record.
    pub(super) async fn conclude(&self, run: &Run, provider: &Provider, conclusion: &Conclusion) {
        let mut delay = RETRY_DELAYS.0;
        loop {
            let Err(error) = self.tell(run, provider, conclusion).await else {
                self.unstuck(run.log);
                return;
            };
            tracing::error!(run = %run.id, ?error, "the end of a run cannot be written down yet");
            self.stuck(run.log, error.message);
            if self.wait_or_stop(delay).await {
                return;
            }
            delay = (delay * 2).min(RETRY_DELAYS.1);
        }
    }

    async fn tell(
        &self,
        run: &Run,
        provider: &Provider,
        conclusion: &Conclusion,
    ) -> Result<(), ApiError> {
        let rules = rules(run.operation);
        if rules.settles_first() {
            let settlement = rules.settlement(run, conclusion);
            self.ground.runs.holding_settle(&settlement).await?;
        }
        let conclusion = conclude_in_bank(&self.ground, run, provider, conclusion).await?;
        self.record(run, &conclusion).await
    }

    /// Writes down in the database how a run ended. Safe to repeat.
    pub(super) async fn record(&self, run: &Run, conclusion: &Conclusion) -> Result<(), ApiError> {
        self.record_end(run, conclusion).await?;
        self.close(run, conclusion).await
    }

    /// Writes down how a run ended where the user looks.
    pub(super) async fn record_end(
        &self,
        run: &Run,
        conclusion: &Conclusion,
    ) -> Result<(), ApiError> {
        let runs = &self.ground.runs;
        rules(run.operation).settle(runs, run, conclusion).await?;
        // It may have come to its end before it could be entered in the log.
        match self.enter_log(run).await {
            Ok(()) => self.end_log(run, conclusion).await?,
            // What others noted under its id stays.
            Err(error) if error.why == Why::Ended => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Closes a run: a restart does not go on with it.
    pub(super) async fn close(&self, run: &Run, conclusion: &Conclusion) -> Result<(), ApiError> {
        unless_done_before(
            self.ground
                .runs
                .flow_end(
                    run.id,
                    conclusion.status,
                    &rules(run.operation).settlement(run, conclusion),
                )
                .await,
        )?;
        tracing::info!(
            run = %run.id, operation = %run.operation, checkpoint = %run.checkpoint.id,
            request = %run.context.request_id, status = %conclusion.status, error = conclusion.error_info,
            "a run ended"
        );
        Ok(())
    }

    async fn end_log(&self, run: &Run, conclusion: &Conclusion) -> Result<(), ApiError> {
        let update = OperationLogUpdate {
            report: Some(conclusion.report.clone()),
            error_info: conclusion.error_info.clone(),
            ended_at: Some(self.ground.clock.now()),
            ..OperationLogUpdate::default()
        };
        self.ground
            .runs
            .operation_log_update(run.log, &update)
            .await?;
        let end = if conclusion.is_success() {
            OperationLogStatus::Success
        } else {
            OperationLogStatus::Failed
        };
        unless_done_before(
            self.ground
                .runs
                .asked_by(&run.context)
                .operation_log_set_status(run.log, OperationLogStatus::InProgress, end)
                .await,
        )
    }

    /// Closes a run that did not begin, as soon as the bank and the database can be told. `recorded`: the user
    /// was told already.
    pub(super) fn close_later(self: &Arc<Self>, run: &Run, failed: Conclusion, recorded: bool) {
        let (worker, run) = (self.clone(), run.clone());
        self.tasks.spawn(format!("close {}", run.id), async move {
            let (mut delay, mut recorded) = (RETRY_DELAYS.0, recorded);
            while let Err(error) = worker.try_close(&run, &failed, &mut recorded).await {
                tracing::warn!(run = %run.id, ?error, "a run that could not begin is not closed yet");
                if worker.wait_or_stop(delay).await {
                    return;
                }
                delay = (delay * 2).min(RETRY_DELAYS.1);
            }
        });
    }

    async fn try_close(
        &self,
        run: &Run,
        failed: &Conclusion,
        recorded: &mut bool,
    ) -> Result<(), ApiError> {
        if !*recorded {
            self.record_end(run, failed).await?;
            *recorded = true;
        }
        // Nothing can be told to a bank that is not configured any more.
        let Ok(provider) = self.provider_of(run) else {
            return self.close(run, failed).await;
        };
        let claims = self.claim_all(run, &provider).await?;
        let told = conclude_in_bank(&self.ground, run, &provider, failed).await;
        release(claims).await;
        self.close(run, &told?).await
    }

    /// Enters a run in the operation log that failed before it got there, and whose error no answer
    /// tells.
    pub(crate) async fn record_refusal(&self, run: &Run, error: &ApiError) {
        let log = OperationLog {
            status: OperationLogStatus::Failed,
            ended_at: Some(self.ground.clock.now()),
            error_info: Some(format!(
                "Checkpoint#{}: {}",
                run.checkpoint.id, error.message
            )),
            ..log_record(run)
        };
        match self
            .ground
            .runs
            .asked_by(&run.context)
            .operation_log_create(&log)
            .await
        {
            // It got there.
            Ok(()) | Err(DbError::Conflict { .. }) => {}
            Err(other) => {
                tracing::error!(run = %run.id, ?error, %other, "a refused run could not be recorded")
            }
        }
    }
}
