//! Which checkpoint an id means, and what the one who asks may do with it.
//!
//! Checkpoints of which the bank has no record that can be believed (it is damaged, or its seal does not fit) are shown as
//! failed, and can be deleted. Whose one is, and with which provider it was made, is what
//! the operation log says; without a log, what the names in the index say, if they agree. A record that
//! cannot be believed decides nothing: what is deleted is what bears the checkpoint's id, in the bank and among
//! the tags of snapshots. And none is taken for damaged while a bank of the provider cannot be asked: the one there may
//! be the good one.

use chrono::TimeDelta;
use karbor_db::ListQuery;
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointStatus, OperationLog, OperationType, PlanId,
    RequestContext, Resource, ResourceGraph, Seal,
};

use crate::{
    checkpoints::{CheckpointCollection, CheckpointQuery, Damaged, Trace, note_listed_for},
    error::{CheckpointError, not_available, not_deleted, not_sealed},
    ground::Ground,
    providers::{BankRole, Provider},
};

/// How long a checkpoint that was deleted is still shown, as deleted.
const DELETED_IS_SHOWN: TimeDelta = TimeDelta::minutes(10);

/// A checkpoint whose record cannot be believed.
pub(crate) struct Found {
    place: BankRole,
    damaged: Damaged,
    /// Whose it is, if that can be told.
    project: Option<String>,
    /// Of which plan it is, if our own database knows.
    plan: Option<PlanId>,
    /// Why another bank of the provider could not be asked whether it has a good one.
    unasked: Option<ApiError>,
}

impl Found {
    /// As a listing shows it.
    fn checkpoint(&self, provider: &Provider, id: CheckpointId, project: &str) -> Checkpoint {
        let mut shown = self.damaged.shown(id, provider.record().id, project);
        if let Some(plan) = self.plan {
            shown.protection_plan.id = plan;
        }
        shown
    }

    /// Why nothing but its deletion can be asked for.
    pub(crate) fn refusal(self, id: CheckpointId) -> ApiError {
        if let Some(unasked) = self.unasked {
            return unasked;
        }
        match self.damaged.error {
            error @ CheckpointError::Tampered(_) => error.into(),
            error => {
                let reason = error.to_string();
                CheckpointError::Corrupt { id, reason }.into()
            }
        }
    }
}

impl Ground {
    /// A checkpoint that `context` may see.
    pub(crate) async fn checkpoint(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<(BankRole, Checkpoint), ApiError> {
        match provider.find(id).await {
            Err(error) if error.is_damage() => match self.damaged(context, provider, id).await? {
                Some(found) => Err(found.refusal(id)),
                None => Err(error.into()),
            },
            found => allowed(context, found?),
        }
    }

    /// Was it deleted so long ago that it is not shown any more? A client that waits for the end of a deletion
    /// sees it end (Q26). A deletion that our database does not know of is long ago.
    pub(crate) async fn is_gone(&self, checkpoint: &Checkpoint) -> Result<bool, ApiError> {
        if checkpoint.status != CheckpointStatus::Deleted {
            return Ok(false);
        }
        let filter = |name: &str, value: String| (name.to_owned(), value);
        let query = ListQuery {
            filters: vec![
                filter("checkpoint_id", checkpoint.id.to_string()),
                filter("operation_type", OperationType::Delete.to_string()),
            ],
            ..ListQuery::of_every_project()
        };
        let logs = self.runs.operation_log_list(&query).await?;
        let since = self.clock.now() - DELETED_IS_SHOWN;
        let is_fresh = |log: &OperationLog| log.ended_at.is_none_or(|ended_at| ended_at > since);
        Ok(!logs.iter().any(is_fresh))
    }

    /// A checkpoint that may be read from: one that is vouched for, unless `accept_unsealed`.
    pub(crate) async fn available(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
        accept_unsealed: bool,
    ) -> Result<(BankRole, Checkpoint), ApiError> {
        let (place, checkpoint) = self.checkpoint(context, provider, id).await?;
        if checkpoint.status != CheckpointStatus::Available {
            return Err(not_available(&checkpoint));
        }
        match checkpoint.seal.is_some() || accept_unsealed {
            true => Ok((place, checkpoint)),
            false => Err(not_sealed(&checkpoint)),
        }
    }

    /// A checkpoint whose record cannot be believed, if `context` may know of it; `None` if there is none.
    ///
    /// # Errors
    /// A 403 when it is another project's, and whatever bank and database fail with.
    pub(crate) async fn damaged(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<Option<Found>, ApiError> {
        let (mut broken, mut unasked) = (Vec::new(), None);
        let places = [BankRole::Bank, BankRole::CopyBank];
        for (place, home) in places.into_iter().zip(provider.homes()) {
            match home.checkpoints().get(id).await {
                Ok(_) => return Ok(None),
                Err(error) if error.is_damage() => broken.push((place, error)),
                Err(error) => unasked = Some(cannot_be_asked(provider, place, id, error)),
            }
        }
        let made = self.made_by(id).await?;
        let of_provider = made.as_ref().map(|made| made.provider_id);
        if of_provider.is_some_and(|of| of != Some(provider.record().id)) {
            return Ok(None);
        }
        let is_copy = made
            .as_ref()
            .is_some_and(|made| made.operation_type == OperationType::Copy);
        let home = match is_copy {
            true => provider.bank_of_copies(),
            false => BankRole::Bank,
        };
        broken.sort_by_key(|(place, _)| *place != home);
        let trace = Trace {
            is_known: made.is_some(),
            project: made.as_ref().map_or_else(
                || context.project_id.clone(),
                |made| made.project_id.clone(),
            ),
            plan: made.as_ref().and_then(|made| made.plan_id),
            made_at: made.as_ref().map(|made| made.started_at),
            is_copy,
        };
        for (place, error) in broken {
            let checkpoints = provider.home(place)?.checkpoints();
            let Some(damaged) = checkpoints.damaged(id, error, &trace).await? else {
                continue;
            };
            let listed = damaged.projects();
            let only = listed.first().filter(|_| listed.len() == 1);
            let project = match &made {
                Some(made) => Some(made.project_id.clone()),
                None => only.map(|&project| project.to_owned()),
            };
            let may_know = match &project {
                Some(project) => context.may_access(project),
                None => context.is_admin || listed.contains(context.project_id.as_str()),
            };
            return match may_know {
                true => Ok(Some(Found {
                    place,
                    damaged,
                    project,
                    plan: trace.plan,
                    unasked,
                })),
                false => Err(not_allowed(id)),
            };
        }
        Ok(None)
    }

    /// The operation that made a checkpoint, as our own database has it.
    async fn made_by(&self, id: CheckpointId) -> Result<Option<OperationLog>, ApiError> {
        let query = ListQuery {
            filters: vec![("checkpoint_id".to_owned(), id.to_string())],
            ..ListQuery::of_every_project()
        };
        let logs = self.runs.operation_log_list(&query).await?;
        let makes = |log: &OperationLog| {
            matches!(
                log.operation_type,
                OperationType::Protect | OperationType::Copy
            )
        };
        Ok(logs.into_iter().find(makes))
    }

    /// A checkpoint to show, as a listing shows it.
    pub(crate) async fn shown(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<Checkpoint, ApiError> {
        let error = match provider.find(id).await {
            Err(error) if error.is_damage() => error,
            found => return Ok(allowed(context, found?)?.1),
        };
        let Some(found) = self.damaged(context, provider, id).await? else {
            return Err(error.into());
        };
        if let Some(unasked) = found.unasked {
            return Err(unasked);
        }
        let project = found.project.as_deref().unwrap_or_default();
        Ok(found.checkpoint(provider, id, project))
    }

    /// A checkpoint to delete. One whose record cannot be believed is made of what bears its id: every resource
    /// that has a folder in it, of every type that the provider protects.
    ///
    /// # Errors
    /// A 403 when it cannot be told whose it is, unless an administrator asks.
    pub(crate) async fn to_delete(
        &self,
        context: &RequestContext,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<(BankRole, Checkpoint), ApiError> {
        let unreadable = match provider.find(id).await {
            Err(error) if error.is_damage() => error,
            found => return allowed(context, found?),
        };
        let Some(found) = self.damaged(context, provider, id).await? else {
            return Err(unreadable.into());
        };
        if let Some(unasked) = found.unasked {
            return Err(unasked);
        }
        let project = match &found.project {
            Some(project) => project,
            // Of several that are named, one has to do: nothing but the checkpoint's own is looked for in its vault. The
            // deletion says so.
            None if context.is_admin => {
                let listed = found.damaged.projects();
                &listed
                    .first()
                    .map_or_else(|| context.project_id.clone(), |&one| one.to_owned())
            }
            None => {
                let message = format!(
                    "Whose checkpoint {id} is cannot be told: its index is damaged, and it is listed for several \
                     projects. Only an administrator may delete it."
                );
                return Err(ApiError::forbidden("AccessCheckpointNotAllowed", message));
            }
        };
        let checkpoints = provider.home(found.place)?.checkpoints();
        if matches!(found.damaged.error, CheckpointError::Tampered(_)) {
            refuse_unproven_key(checkpoints, id, project).await?;
        }
        let mut graph = ResourceGraph::new();
        let resources = checkpoints.resources(id).await?;
        let of_every_type = resources.iter().flat_map(|id| {
            let types = provider.types().into_iter();
            types.map(move |of| Resource::new(of, id, ""))
        });
        for resource in of_every_type.take(ResourceGraph::MAX_RESOURCES) {
            graph.add(resource);
        }
        let graph = graph.pack().map_err(ApiError::invalid_input)?;
        let mut checkpoint = Checkpoint {
            resource_graph: Some(graph),
            seal: Some(Seal::default()),
            ..found.checkpoint(provider, id, project)
        };
        if found.project.is_none() {
            note_listed_for(&mut checkpoint, &found.damaged.projects());
        }
        Ok((found.place, checkpoint))
    }
}

/// A bank that cannot say now whether it has a good record of a checkpoint.
fn cannot_be_asked(
    provider: &Provider,
    place: BankRole,
    id: CheckpointId,
    error: CheckpointError,
) -> ApiError {
    let bank = match place {
        BankRole::Bank => "bank",
        BankRole::CopyBank => "copy bank",
    };
    let name = &provider.record().name;
    let mut told = ApiError::from(error);
    told.message = format!(
        "Checkpoint {id} cannot be read in one bank of the provider '{name}', and its {bank} cannot be asked \
         whether it has a good one: bring that back first. {}",
        told.message
    );
    told
}

/// A checkpoint that was found, if `context` may see it.
fn allowed(
    context: &RequestContext,
    (place, checkpoint): (BankRole, Checkpoint),
) -> Result<(BankRole, Checkpoint), ApiError> {
    match context.may_access(&checkpoint.project_id) {
        true => Ok((place, checkpoint)),
        false => Err(not_allowed(checkpoint.id)),
    }
}

fn not_allowed(id: CheckpointId) -> ApiError {
    let message = format!("Access checkpoint {id} is not allowed");
    ApiError::forbidden("AccessCheckpointNotAllowed", message)
}

/// Refuses to delete a checkpoint whose seal does not fit while nothing shows that the master key is the one it was made
/// with: with the right one it may be whole. An available checkpoint of the same project and bank shows it, for none
/// can be made with a key that does not open the project's repository.
///
/// # Errors
/// A 409 that says what to do, and the bank's.
async fn refuse_unproven_key(
    checkpoints: &CheckpointCollection,
    id: CheckpointId,
    project: &str,
) -> Result<(), ApiError> {
    let proof = CheckpointQuery {
        project_id: Some(project.to_owned()),
        status: Some(CheckpointStatus::Available),
        limit: Some(1),
        ..CheckpointQuery::default()
    };
    let proven = checkpoints.list(&proof).await?;
    match proven.iter().any(|checkpoint| checkpoint.seal.is_some()) {
        true => Ok(()),
        false => Err(not_deleted(
            id,
            "its seal does not fit, and no other checkpoint of the project shows that the service has the right master \
             key: with that, it may be whole. Put the right key back; or, if it is the right one, protect something of \
             the project first.",
        )),
    }
}
