//! Copy: makes copies of a plan's checkpoints where the provider keeps them.
//!
//! Which checkpoints are copies, and of what, is in [`copies`](crate::copies).

use std::collections::HashSet;

use async_trait::async_trait;
use karbor_db::{ListQuery, QuotaSettlement};
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointInfo, CheckpointStatus, OperationId,
    OperationLog, OperationLogStatus, OperationType, Parameters, Plan, QuotaHolding,
    RequestContext, RunReport, Seal,
};
use karbor_plugin::{BankError, HookSet};

use super::rules::{Evidence, Line, Rules, enter_in_bank, refuse_unreadable};
use crate::{
    begin_error::BeginError,
    checkpoints::{CheckpointCollection, CheckpointQuery},
    conclusion::Conclusion,
    copies,
    error::{CheckpointError, bank_error},
    ground::Ground,
    leases::{self, CheckpointLease, Purpose},
    providers::{BankRole, Home, Provider},
    quota,
    run::{CopyOf, Run},
};

pub(crate) struct Copy;

impl Ground {
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
        let sources = provider.home(BankRole::Bank)?.checkpoints();
        let sources = sources.list(&query).await?;
        let second_bank = provider.bank_of_copies() == BankRole::CopyBank;
        let there: HashSet<_> = targets.iter().map(|target| target.id).collect();
        if second_bank && sources.iter().any(|source| there.contains(&source.id)) {
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

    /// Refuses to copy what is copied already. What was planned with one listing of all is looked at once more under the
    /// source's claim, by the names alone that a copy of it can have.
    ///
    /// # Errors
    /// [`BeginError::copied`]; or when the bank cannot be used.
    async fn refuse_second(
        &self,
        provider: &Provider,
        source: &Checkpoint,
    ) -> Result<(), BeginError> {
        let home = provider.home(provider.bank_of_copies())?;
        let there = home.checkpoints().of_same_time(source).await?;
        let targets = self.settled(home, there).await?;
        let second_bank = provider.bank_of_copies() == BankRole::CopyBank;
        match copies::pick(vec![source.clone()], &targets, second_bank).is_empty() {
            false => Ok(()),
            true => Err(BeginError::copied(source.id)),
        }
    }

    /// What is where copies go.
    async fn targets(
        &self,
        provider: &Provider,
        query: &CheckpointQuery,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        let home = provider.home(provider.bank_of_copies())?;
        let there = home.checkpoints().list(query).await?;
        self.settled(home, there).await
    }

    /// Checkpoints where copies go, as they are. A copy that nobody makes any more is in error.
    async fn settled(
        &self,
        home: &Home,
        mut there: Vec<Checkpoint>,
    ) -> Result<Vec<Checkpoint>, ApiError> {
        for copy in &mut there {
            let is_unfinished = copy.info().origin().is_some() && copies::is_unfinished(copy);
            if is_unfinished && !self.is_being_made(home, copy).await? {
                *copy = self.give_up(home, copy).await?;
            }
        }
        Ok(there)
    }

    /// Has somebody claimed it, or has our database a run that is to go on with it?
    async fn is_being_made(&self, home: &Home, copy: &Checkpoint) -> Result<bool, ApiError> {
        let is_held = leases::is_held(home.bank().as_ref(), copy.id).await;
        let is_held = is_held.map_err(|error| bank_error(&error))?;
        Ok(is_held || self.has_run(copy).await?)
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
            ..ListQuery::of_every_project()
        };
        Ok(!self.runs.operation_log_list(&query).await?.is_empty())
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
        Ok(home.checkpoints().set_status(there, error).await?)
    }

    /// The run that copies a checkpoint.
    pub(crate) fn copy_run(
        &self,
        context: &RequestContext,
        provider: &Provider,
        source: Checkpoint,
        parameters: &Parameters,
    ) -> Run {
        let now = self.clock.now();
        let origin = copies::origin(&source);
        let place = provider.bank_of_copies();
        // As old as its data: the newest is not what was copied last.
        let protected_at = origin.protected_at;
        let info = CheckpointInfo::of_copy(&origin, &source.info(), now, place == BankRole::Bank);
        let checkpoint = Checkpoint {
            id: CheckpointId::next(),
            status: CheckpointStatus::WaitCopying,
            owner_id: self.owner.clone(),
            extra_info: info.to_extra_info(),
            created_at: Some(protected_at.date_naive()),
            timestamp: protected_at.timestamp(),
            // A copy of what nothing vouches for is no better than that.
            seal: source.seal.as_ref().map(|_| Seal::default()),
            ..source.clone()
        };
        let source = (BankRole::Bank, source);
        let mut run = Run::new(
            OperationType::Copy,
            context,
            source,
            parameters.clone(),
            now,
        );
        run.copy = Some(CopyOf { place, checkpoint });
        run
    }
}

#[async_trait]
impl Rules for Copy {
    fn claim(&self) -> Purpose {
        Purpose::Copy
    }

    fn line(&self) -> Line {
        Line::Copies
    }

    fn hooks(&self) -> HookSet {
        HookSet::Copy
    }

    /// While this run holds the source's claim nobody else copies it: what is not copied now is copied once.
    async fn prepare(
        &self,
        ground: &Ground,
        run: &Run,
        provider: &Provider,
    ) -> Result<(), BeginError> {
        let may_be_made = async {
            refuse_unreadable(run, provider).await?;
            ground.refuse_second(provider, &run.checkpoint).await
        };
        enter_in_bank(ground, run, provider, may_be_made).await
    }

    async fn take_turn(&self, run: &Run, provider: &Provider) -> Result<(), ApiError> {
        let (place, copy) = run.subject();
        let checkpoints = provider.home(place)?.checkpoints();
        let there = checkpoints.get(copy.id).await?;
        if there.status == CheckpointStatus::WaitCopying {
            let copying = CheckpointStatus::Copying;
            checkpoints.set_status(there, copying).await?;
        }
        Ok(())
    }

    fn warn(&self, run: &Run, report: &mut RunReport) {
        if run.subject().0 == run.place {
            report.warnings.push(copies::IN_SAME_BANK.to_owned());
        }
    }

    async fn conclude(
        &self,
        _: &Ground,
        run: &Run,
        checkpoints: &CheckpointCollection,
        conclusion: &mut Conclusion,
    ) -> Result<(), CheckpointError> {
        let id = run.subject().1.id;
        match conclusion.is_success() {
            true => checkpoints.finish(id, &conclusion.objects, None).await,
            false => checkpoints.fail(id).await,
        }
    }

    fn reserved(&self, run: &Run) -> Option<QuotaHolding> {
        Some(quota::reserved(run))
    }

    fn settlement(&self, run: &Run, conclusion: &Conclusion) -> QuotaSettlement {
        quota::made(run, conclusion)
    }

    fn names_plan(&self) -> bool {
        true
    }

    /// One that failed was undone.
    fn evidence(&self, log: &OperationLog) -> Evidence {
        match log.status {
            OperationLogStatus::Success => Evidence::Whole,
            _ => Evidence::Spoilt,
        }
    }
}
