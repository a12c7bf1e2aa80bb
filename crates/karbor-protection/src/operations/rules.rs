//! What every operation has: what is particular to one is an implementation of [`Rules`], in its room. And what several
//! rooms share.

use async_trait::async_trait;
use karbor_db::{QuotaSettlement, RunStore};
use karbor_flow::FlowOutcome;
use karbor_model::{ApiError, CheckpointStatus, OperationLog, QuotaHolding, RunReport};
use karbor_plugin::{HookSet, SchemaKind};

use crate::{
    begin_error::BeginError, checkpoints::CheckpointCollection, conclusion::Conclusion,
    error::CheckpointError, ground::Ground, leases::Purpose, providers::Provider, run::Run,
};

/// In which line an operation waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// That of most.
    Common,
    /// The common one, behind other copies.
    Copies,
    /// The common one, behind other verifications.
    Verifications,
    /// Their own: nobody waits for the night's backups to get something back.
    Restores,
}

/// What is particular to an operation.
#[async_trait]
pub(crate) trait Rules: Send + Sync {
    /// What it claims its checkpoint for. One that does not have it alone only reads it: its hooks get no place to
    /// write to, and it goes on where a claim cannot be written.
    fn claim(&self) -> Purpose;

    fn line(&self) -> Line;

    /// Whose hooks of a plugin it runs.
    fn hooks(&self) -> HookSet;

    /// Does a failure of one resource leave the others their turn?
    fn goes_on(&self) -> bool {
        false
    }

    /// The schema of its parameters, if it reads a checkpoint back.
    fn readback_schema(&self) -> Option<SchemaKind> {
        None
    }

    /// Tells the bank, before the first hook. Safe to repeat.
    ///
    /// # Errors
    /// Why the run cannot begin.
    async fn prepare(
        &self,
        ground: &Ground,
        run: &Run,
        provider: &Provider,
    ) -> Result<(), BeginError>;

    /// Tells the bank that the run's turn has come. Safe to repeat.
    ///
    /// # Errors
    /// The bank's.
    async fn take_turn(&self, _: &Run, _: &Provider) -> Result<(), ApiError> {
        Ok(())
    }

    /// Adds to what a run tells what the hooks do not know.
    fn warn(&self, _: &Run, _: &mut RunReport) {}

    /// The resources whose turn came, by `type#id`, with those that failed; of an operation whose record keeps them.
    fn reached(&self, _: &Run, _: &FlowOutcome) -> Vec<String> {
        Vec::new()
    }

    /// Tells the bank how the run ended. Safe to repeat.
    ///
    /// # Errors
    /// The bank's; what the bank has of the checkpoint.
    async fn conclude(
        &self,
        ground: &Ground,
        run: &Run,
        checkpoints: &CheckpointCollection,
        conclusion: &mut Conclusion,
    ) -> Result<(), CheckpointError>;

    /// Writes the end into the record that the user asked for. Safe to repeat.
    ///
    /// # Errors
    /// The database's.
    async fn settle(&self, _: &RunStore, _: &Run, _: &Conclusion) -> Result<(), ApiError> {
        Ok(())
    }

    /// The checkpoint that counts against the quota of the run's project from its begin on.
    fn reserved(&self, _: &Run) -> Option<QuotaHolding> {
        None
    }

    /// What the end means for the quota.
    fn settlement(&self, _: &Run, _: &Conclusion) -> QuotaSettlement {
        QuotaSettlement::Unchanged
    }

    /// Does a client that sees the bank's end count on what the end means for the quota?
    fn settles_first(&self) -> bool {
        false
    }

    /// Is the plan named in the operation log?
    fn names_plan(&self) -> bool {
        false
    }

    /// What an ended one says of its checkpoint.
    fn evidence(&self, log: &OperationLog) -> Evidence;
}

/// What the operation log says of a checkpoint that is in error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It was whole.
    Whole,
    /// It lost data, or never had them all.
    Spoilt,
    Nothing,
}

/// Refuses to read from what the run that had the checkpoint before has removed, or what lost the seal that it had when
/// this run was asked for.
///
/// # Errors
/// [`BeginError::not_available`], [`BeginError::not_sealed`], the bank's.
pub(super) async fn refuse_unreadable(run: &Run, provider: &Provider) -> Result<(), BeginError> {
    let checkpoints = provider.home(run.place)?.checkpoints();
    let there = checkpoints.get(run.checkpoint.id).await?;
    if there.status != CheckpointStatus::Available {
        return Err(BeginError::not_available(&there));
    }
    match there.seal.is_none() && run.checkpoint.seal.is_some() {
        true => Err(BeginError::not_sealed(&there)),
        false => Ok(()),
    }
}

/// Enters the checkpoint that a run makes in its bank. On a resume it may be there already, perhaps ended: it is not set
/// back. `may_be_made` is asked before it is entered for the first time.
///
/// # Errors
/// What `may_be_made` refuses with; the bank's, the database's.
pub(super) async fn enter_in_bank(
    ground: &Ground,
    run: &Run,
    provider: &Provider,
    may_be_made: impl Future<Output = Result<(), BeginError>>,
) -> Result<(), BeginError> {
    let (place, made) = run.subject();
    let checkpoints = provider.home(place)?.checkpoints();
    let written = match checkpoints.get(made.id).await {
        Ok(there) => there,
        Err(CheckpointError::NotFound(_)) => {
            refuse_hollow(ground, run).await?;
            may_be_made.await?;
            made.clone()
        }
        Err(error) => return Err(error.into()),
    };
    Ok(checkpoints.create(&written).await?)
}

/// Refuses a run whose hooks have begun, in a bank that does not know its checkpoint: the bank was lost or is another.
/// What those hooks wrote is not in it, and they would not run again.
///
/// # Errors
/// [`CheckpointError::NotFound`], the database's.
async fn refuse_hollow(ground: &Ground, run: &Run) -> Result<(), BeginError> {
    match ground.runs.flow_events(run.id).await?.is_empty() {
        true => Ok(()),
        false => Err(CheckpointError::NotFound(run.subject().1.id).into()),
    }
}
