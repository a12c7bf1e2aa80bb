//! Delete: removes a checkpoint and what was stored for it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use karbor_db::QuotaSettlement;
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointStatus, OperationLog, OperationType, ProviderId,
    RequestContext, RunReport,
};
use karbor_plugin::HookSet;
use serde_json::{Value, json};

use super::rules::{Evidence, Line, Rules};
use crate::{
    begin_error::{BeginError, Why},
    checkpoints::{CheckpointCollection, is_unreadable, other_projects},
    conclusion::Conclusion,
    error::{CheckpointError, bank_error, not_deleted},
    ground::Ground,
    leases::{self, Purpose},
    providers::Provider,
    run::Run,
};

pub(crate) struct Delete;

impl Ground {
    /// The run of a deletion that a user asks for.
    ///
    /// # Errors
    /// A 409 that says why the checkpoint cannot be deleted now.
    pub(crate) async fn delete_run(
        &self,
        context: &RequestContext,
        provider_id: ProviderId,
        id: CheckpointId,
    ) -> Result<Run, ApiError> {
        use CheckpointStatus::{Available, Deleted, Deleting, Error, ErrorDeleting};
        let provider = self.providers.get(provider_id)?;
        let (place, checkpoint) = self.to_delete(context, provider, id).await?;
        let is_held = match checkpoint.status {
            Available | Error | ErrorDeleting => false,
            _ => leases::is_held(provider.home(place)?.bank().as_ref(), id)
                .await
                .map_err(|error| bank_error(&error))?,
        };
        match (checkpoint.status, is_held) {
            (Available | Error | ErrorDeleting, _) => {}
            // Left by a service that is gone for good: nobody is at work on it any more.
            (Deleting, false) => {}
            (Deleted, _) => return Err(not_deleted(id, "it is deleted.")),
            (status, true) => return Err(not_deleted(id, &at_work(id, status))),
            (status, false) => {
                let reason = format!(
                    "it is '{status}', and no operation works on it any more. Call it failed first: `karbor \
                     checkpoint reset-state {id} error`."
                );
                return Err(not_deleted(id, &reason));
            }
        }
        let (now, none) = (self.clock.now(), BTreeMap::new());
        let checkpoint = (place, checkpoint);
        Ok(Run::new(
            OperationType::Delete,
            context,
            checkpoint,
            none,
            now,
        ))
    }
}

/// What a deletion is refused with that meets another operation.
pub(crate) fn refused(id: CheckpointId, error: BeginError) -> ApiError {
    match error.why {
        Why::Held => not_deleted(id, &error.error.message).with_cause(error.error),
        _ => error.into(),
    }
}

/// Why a checkpoint that an operation works on is left alone, and what to do.
fn at_work(id: CheckpointId, status: CheckpointStatus) -> String {
    format!(
        "an operation works on it still (it is '{status}'). Wait until that has ended, then try again; `karbor \
         operation-log list --checkpoint {id}` shows how it is going."
    )
}

#[async_trait]
impl Rules for Delete {
    fn claim(&self) -> Purpose {
        Purpose::Delete
    }

    fn line(&self) -> Line {
        Line::Common
    }

    fn hooks(&self) -> HookSet {
        HookSet::Delete
    }

    async fn prepare(&self, _: &Ground, run: &Run, provider: &Provider) -> Result<(), BeginError> {
        use CheckpointStatus::{Deleted, Deleting, ErrorDeleting};
        let checkpoints = provider.home(run.place)?.checkpoints();
        let id = run.checkpoint.id;
        let there = match checkpoints.get(id).await {
            Err(error) if error.is_damage() && is_unreadable(&run.checkpoint) => {
                // An earlier try had another master key.
                if checkpoints.kept_is_good(id).await? {
                    checkpoints.put_back(id).await?;
                    return Err(BeginError::mended(id));
                }
                let deleting = Checkpoint {
                    status: Deleting,
                    ..run.checkpoint.clone()
                };
                return Ok(checkpoints.replace(&deleting).await?);
            }
            other => other?,
        };
        // What it is made of was to be guessed, and can be read now.
        if is_unreadable(&run.checkpoint) && !is_unreadable(&there) {
            return Err(BeginError::mended(id));
        }
        if there.status == Deleted {
            return Ok(());
        }
        let ended = there.status == ErrorDeleting && run.checkpoint.status != ErrorDeleting;
        if !ended {
            checkpoints.set_status(there, Deleting).await?;
        }
        Ok(())
    }

    /// Of what a checkpoint without a record that can be believed was made, only its folder could tell.
    fn warn(&self, run: &Run, report: &mut RunReport) {
        if !is_unreadable(&run.checkpoint) {
            return;
        }
        let id = run.checkpoint.id;
        let others = other_projects(&run.checkpoint);
        let not_in = match others.is_empty() {
            true => String::new(),
            false => format!(
                "; the index lists it for several projects: nothing was looked for in the repositories of {}",
                others.join(", ")
            ),
        };
        report.warnings.push(format!(
            "the index of the checkpoint could not be believed: what was stored for it was looked for by the names \
             in its folder; if snapshots of other resources are left, `restic snapshots --tag \
             karbor:checkpoint={id}` shows them{not_in}"
        ));
    }

    async fn conclude(
        &self,
        _: &Ground,
        run: &Run,
        checkpoints: &CheckpointCollection,
        conclusion: &mut Conclusion,
    ) -> Result<(), CheckpointError> {
        let id = run.checkpoint.id;
        match conclusion.is_success() {
            true => checkpoints.delete(id).await,
            false => undelete(run, checkpoints).await,
        }
    }

    fn settlement(&self, run: &Run, conclusion: &Conclusion) -> QuotaSettlement {
        match conclusion.is_success() {
            true => QuotaSettlement::Released(run.checkpoint.id),
            false => QuotaSettlement::Unchanged,
        }
    }

    /// A client that sees that a checkpoint is gone may count on its place.
    fn settles_first(&self) -> bool {
        true
    }

    /// One whose hooks began has removed data; one that never began tells nothing.
    fn evidence(&self, log: &OperationLog) -> Evidence {
        let tells_nothing = |info: &Value| info.is_null() || *info == json!({});
        match log.extra_info.as_ref().is_none_or(tells_nothing) {
            true => Evidence::Nothing,
            false => Evidence::Spoilt,
        }
    }
}

/// Leaves a checkpoint that could not be deleted so that it can be deleted again. What may be whole under another master
/// key becomes what it was, and what could be read again is left alone.
async fn undelete(run: &Run, checkpoints: &CheckpointCollection) -> Result<(), CheckpointError> {
    let id = run.checkpoint.id;
    if is_unreadable(&run.checkpoint) {
        match checkpoints.get(id).await {
            Ok(there) if !is_unreadable(&there) => return checkpoints.forget_kept(id).await,
            Err(error) if !error.is_damage() => return Err(error),
            _ if checkpoints.put_back(id).await? => return Ok(()),
            _ => {}
        }
    }
    let failed = CheckpointStatus::ErrorDeleting;
    checkpoints.transition(id, failed).await.map(|_| ())
}
