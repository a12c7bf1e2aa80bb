//! Which checkpoints are copied, as the banks and the database tell.

use karbor_db::ListQuery;
use karbor_model::{
    ApiError, Checkpoint, CheckpointStatus, OperationId, OperationLog, OperationLogStatus,
    OperationType, Plan,
};
use karbor_plugin::BankError;

use super::Worker;
use crate::{
    checkpoints::CheckpointQuery,
    copies::{self, COPIED, Origin},
    error::bank_error,
    leases::{self, CheckpointLease, Purpose},
    providers::{Home, Place, Provider},
    run::Run,
};

impl Worker {
    /// The checkpoints of a plan that are not copied yet, oldest first.
    ///
    /// # Errors
    /// When either bank cannot be used.
    pub(crate) async fn not_copied(
        &self,
        provider: &Provider,
        plan: &Plan,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let query = CheckpointQuery {
            project_id: Some(plan.project_id.clone()),
            plan_id: Some(plan.id),
            ascending: true,
            ..CheckpointQuery::default()
        };
        let targets = self.targets(provider, &query).await?;
        let sources = provider.home(Place::Bank)?.checkpoints();
        let sources = sources.list(&query).await?;
        let second_bank = provider.place_of_copies() == Place::CopyBank;
        let is_there = |source: &Checkpoint| targets.iter().any(|target| target.id == source.id);
        if second_bank && sources.iter().any(is_there) {
            let name = &provider.record().name;
            return Err(ApiError::conflict(
                "CopyBankIsBank",
                format!(
                    "The copy bank of the provider '{name}' is its bank once more; the operator has to give it another place."
                ),
            ));
        }
        Ok(copies::pick(sources, &targets, second_bank))
    }

    /// Refuses to copy what is copied already.
    ///
    /// # Errors
    /// A 409 of the class [`COPIED`]; or when the bank cannot be used.
    pub(super) async fn refuse_second(
        &self,
        provider: &Provider,
        source: &Checkpoint,
    ) -> Result<(), ApiError> {
        let query = CheckpointQuery {
            project_id: Some(source.project_id.clone()),
            plan_id: Some(source.protection_plan.id),
            ..CheckpointQuery::default()
        };
        let targets = self.targets(provider, &query).await?;
        let second_bank = provider.place_of_copies() == Place::CopyBank;
        match copies::pick(vec![source.clone()], &targets, second_bank).is_empty() {
            false => Ok(()),
            true => {
                let message = format!("The checkpoint {} is copied already.", source.id);
                Err(ApiError::conflict(COPIED, message))
            }
        }
    }

    /// What is where copies go. A copy that nobody makes any more is in error.
    async fn targets(
        &self,
        provider: &Provider,
        query: &CheckpointQuery,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let home = provider.home(provider.place_of_copies())?;
        let mut targets = home.checkpoints().list(query).await?;
        for target in &mut targets {
            let is_unfinished = Origin::read(target).is_some() && copies::is_unfinished(target);
            if is_unfinished && !self.is_being_made(home, target).await? {
                *target = self.give_up(home, target).await?;
            }
        }
        Ok(targets)
    }

    /// Has somebody claimed it, or has our database a run that is to go on with it?
    async fn is_being_made(&self, home: &Home, copy: &Checkpoint) -> Result<bool, ApiError> {
        let holder = leases::holder(home.bank().as_ref(), copy.id).await;
        Ok(holder.map_err(|error| bank_error(&error))?.is_some() || self.has_run(copy).await?)
    }

    async fn has_run(&self, copy: &Checkpoint) -> Result<bool, ApiError> {
        let running = OperationType::ALL
            .iter()
            .map(|operation| OperationLogStatus::InProgress.after(*operation))
            .map(|status| ("status".to_owned(), status.to_owned()));
        let of_copy = ("checkpoint_id".to_owned(), copy.id.to_string());
        let query = ListQuery {
            filters: running.chain([of_copy]).collect(),
            limit: Some(1),
            ..ListQuery::default()
        };
        Ok(!self.db.operation_log_list(&query).await?.is_empty())
    }

    /// Calls a copy failed whose maker is gone: the database was lost, or the copy bank was not
    /// configured when its run was to go on. Answers with what it is then.
    async fn give_up(&self, home: &Home, copy: &Checkpoint) -> Result<Checkpoint, ApiError> {
        let (bank, clock, run) = (home.bank().clone(), self.clock.as_ref(), OperationId::new());
        let (purpose, owner) = (Purpose::Reset, &self.owner);
        let claim = CheckpointLease::acquire(bank, clock, copy.id, purpose, run, owner).await;
        let claim = match claim {
            // Somebody came meanwhile.
            Err(BankError::LeaseHeld { .. }) => return Ok(copy.clone()),
            other => other.map_err(|error| bank_error(&error))?,
        };
        let given_up = self.give_up_claimed(home, copy).await;
        claim.release().await;
        given_up
    }

    async fn give_up_claimed(
        &self,
        home: &Home,
        copy: &Checkpoint,
    ) -> Result<Checkpoint, ApiError> {
        let there = home.checkpoints().get(copy.id).await?;
        if !copies::is_unfinished(&there) || self.has_run(copy).await? {
            return Ok(there);
        }
        tracing::warn!(copy = %copy.id, "nobody makes this copy any more: it is called failed");
        let error = CheckpointStatus::Error;
        Ok(home.checkpoints().transition(copy.id, error).await?)
    }

    /// Enters a run in the operation log that failed before it got there, and whose error no answer
    /// tells.
    pub(crate) async fn tell_refused(&self, run: &Run, error: &ApiError) {
        let log = OperationLog {
            status: OperationLogStatus::Failed,
            ended_at: Some(self.clock.now()),
            error_info: Some(format!(
                "Checkpoint#{}: {}",
                run.checkpoint.id, error.message
            )),
            ..run.log_record()
        };
        match self
            .db
            .asked_by(&run.context)
            .operation_log_create(&log)
            .await
        {
            // It got there.
            Ok(()) | Err(karbor_db::DbError::Conflict { .. }) => {}
            Err(other) => {
                tracing::error!(run = %run.id, ?error, %other, "a refused run could not be recorded")
            }
        }
    }
}
