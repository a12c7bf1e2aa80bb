//! `/providers` and the checkpoints under them.

use karbor_model::{ApiError, CheckpointId, CheckpointStatus, PlanId, ProviderId};
use serde_json::Value;

use crate::{
    compat::{
        bodies::{extra_info, parameters, parsed, take, text},
        body_schemas::{
            CHECKPOINT_ACCEPT, CHECKPOINT_ACTIONS, CHECKPOINT_CREATE, CHECKPOINT_UPDATE,
            COPY_CREATE,
        },
        envelope::{Answer, many, ok, one},
        views::{CheckpointView, CopyView, NO_GRAPH, ProviderView},
    },
    http::call::{Call, Json},
    manager::{CHECKPOINT_FILTERS, PROVIDER_FILTERS},
    openapi::{Operation, delete_at, get, post, put},
};

const CHECKPOINTS: &str = "/providers/{id}/checkpoints";
const CHECKPOINT: &str = "/providers/{id}/checkpoints/{checkpoint_id}";

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/providers",
            list_providers,
            "provider:get_all",
            "List providers",
        )
        .lists::<ProviderView<'_>>("providers", &PROVIDER_FILTERS),
        get(
            "/providers/{id}",
            show_provider,
            "provider:get",
            "Show a provider",
        )
        .gives::<ProviderView<'_>>("provider"),
        get(
            CHECKPOINTS,
            list,
            "provider:checkpoint_get_all",
            "List checkpoints",
        )
        .lists::<CheckpointView<'_>>("checkpoints", &CHECKPOINT_FILTERS),
        post(
            CHECKPOINTS,
            create,
            "provider:checkpoint_create",
            "Protect a plan: make a checkpoint of it",
        )
        .takes(&CHECKPOINT_CREATE)
        .gives::<CheckpointView<'_>>("checkpoint"),
        get(
            CHECKPOINT,
            show,
            "provider:checkpoint_get",
            "Show a checkpoint",
        )
        .gives::<CheckpointView<'_>>("checkpoint"),
        put(
            CHECKPOINT,
            update,
            "provider:checkpoint_update",
            "Set the state of a checkpoint (os-resetState), or accept one that is suspicious (os-accept)",
        )
        .takes(&CHECKPOINT_ACTIONS)
        .gives_empty(),
        delete_at(
            CHECKPOINT,
            delete,
            "provider:checkpoint_delete",
            "Delete a checkpoint",
        )
        .gives_empty(),
        post(
            "/providers/{id}/checkpoints/action",
            action,
            "copy:create",
            "Copy the checkpoints of a plan that are not copied yet",
        )
        .takes(&COPY_CREATE)
        .gives::<CopyView<'_>>("copy"),
    ]
}

pub(crate) async fn list_providers(call: Call) -> Answer {
    let query = call.list_query()?;
    let providers = call
        .manager
        .list_providers(call.permit()?, &query.page)
        .await?;
    let last = providers.last().map(|provider| provider.id);
    let next = call.next(&query, "providers", providers.len(), last);
    many("providers", providers.iter().map(ProviderView::from), next)
}

pub(crate) async fn show_provider(call: Call) -> Answer {
    let id = call.member_id("provider")?;
    let provider = call.manager.show_provider(call.permit()?, id).await?;
    one("provider", &ProviderView::from(&provider))
}

pub(crate) async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    // What cannot be an id is no provider either, said the original.
    let provider: ProviderId = call
        .part("id")
        .parse()
        .map_err(|_| ApiError::not_found("Provider", call.part("id")))?;
    let checkpoints = call
        .manager
        .list_checkpoints(call.permit()?, provider, &query.page)
        .await?;
    // The original's link lacked the provider and led nowhere (Q23).
    let collection = format!("providers/{provider}/checkpoints");
    let last = checkpoints.last().map(|checkpoint| checkpoint.id);
    let next = call.next(&query, &collection, checkpoints.len(), last);
    many(
        "checkpoints",
        checkpoints.iter().map(CheckpointView::from),
        next,
    )
}

pub(crate) async fn create(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&CHECKPOINT_CREATE)?;
    let mut checkpoint = take(&mut body, "checkpoint");
    let plan_id = parsed(&checkpoint, "plan_id")?;
    let extra_info = Value::String(extra_info(&mut checkpoint));
    let made = call
        .manager
        .protect(call.permit()?, call.part("id"), plan_id, extra_info.clone())
        .await?;
    let view = CheckpointView {
        id: made.id,
        project_id: &call.context.project_id,
        status: CheckpointStatus::Protecting,
        protection_plan: (&made.plan).into(),
        resource_graph: made.resource_graph.as_deref().unwrap_or(NO_GRAPH),
        created_at: None,
        extra_info: Some(&extra_info),
        sealed: None,
    };
    one("checkpoint", &view)
}

pub(crate) async fn show(call: Call) -> Answer {
    let (provider, checkpoint) = ids(&call)?;
    let checkpoint = call
        .manager
        .show_checkpoint(call.permit()?, provider, checkpoint)
        .await?;
    one("checkpoint", &CheckpointView::from(&checkpoint))
}

pub(crate) async fn delete(call: Call) -> Answer {
    let (provider, checkpoint) = ids(&call)?;
    call.manager
        .delete(call.permit()?, provider, checkpoint)
        .await?;
    Ok(ok(b"{}".to_vec()))
}

/// `os-resetState` or `os-accept`.
pub(crate) async fn update(call: Call, body: Json) -> Answer {
    if body.has("os-accept") {
        body.checked(&CHECKPOINT_ACCEPT)?;
        let (provider, checkpoint) = ids(&call)?;
        call.manager
            .accept_checkpoint(call.permit()?, provider, checkpoint)
            .await?;
        return Ok(ok(b"{}".to_vec()));
    }
    let mut body = body.checked(&CHECKPOINT_UPDATE)?;
    let mut action = take(&mut body, "os-resetState");
    let state = text(&mut action, "state").unwrap_or_default();
    let (provider, checkpoint) = ids(&call)?;
    call.manager
        .reset_state(call.permit()?, provider, checkpoint, state)
        .await?;
    Ok(ok(b"{}".to_vec()))
}

/// `copy`, the one action there is on a provider's checkpoints.
pub(crate) async fn action(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&COPY_CREATE)?;
    let mut copy = take(&mut body, "copy");
    let plan_id: PlanId = parsed(&copy, "plan_id")?;
    let given = copy.remove("parameters");
    let wanted = parameters(given.clone());
    let (provider_id, copies) = call
        .manager
        .copy(call.permit()?, call.part("id"), plan_id, wanted)
        .await?;
    one(
        "copy",
        &CopyView {
            project_id: &call.context.project_id,
            provider_id,
            plan_id,
            checkpoint_id: &copies,
            parameters: given.as_ref().and_then(Value::as_object),
        },
    )
}

fn ids(call: &Call) -> Result<(ProviderId, CheckpointId), ApiError> {
    Ok((
        call.id("id", "provider")?,
        call.id("checkpoint_id", "checkpoint")?,
    ))
}
