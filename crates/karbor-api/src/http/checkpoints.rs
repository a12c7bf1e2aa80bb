//! `/providers` and the checkpoints under them.

use std::sync::Arc;

use axum::extract::State;
use karbor_model::{ApiError, CheckpointId, CheckpointStatus, PlanId, ProviderId};
use serde_json::Value;

use super::{
    envelope::{Answer, many, ok, one},
    extract::{Call, Json},
    openapi::{Operation, delete_at, get, post, put},
    plans::{parameters, parsed, take, text},
    schema::{
        CHECKPOINT_ACCEPT, CHECKPOINT_ACTIONS, CHECKPOINT_CREATE, CHECKPOINT_UPDATE, COPY_CREATE,
    },
    views::{CheckpointView, CopyView, NO_GRAPH, ProviderView},
};
use crate::{
    ApiManager,
    manager::{CHECKPOINT_FILTERS, id},
};

const CHECKPOINTS: &str = "/providers/{id}/checkpoints";
const CHECKPOINT: &str = "/providers/{id}/checkpoints/{checkpoint_id}";

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/providers",
            list_providers,
            "provider:get_all",
            "List providers",
        )
        .lists::<ProviderView<'_>>("providers", &["id", "name", "description"]),
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

pub(crate) async fn list_providers(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let providers = manager.list_providers(&call.context, &query).await?;
    let last = providers.last().map(|provider| provider.id);
    let next = call.next(&query, "providers", providers.len(), last);
    many("providers", providers.iter().map(ProviderView::from), next)
}

pub(crate) async fn show_provider(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("provider")?;
    let provider = manager.show_provider(&call.context, id).await?;
    one("provider", &ProviderView::from(&provider))
}

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    // What cannot be an id is no provider either, said the original.
    let provider: ProviderId = call
        .part("id")
        .parse()
        .map_err(|_| ApiError::not_found("Provider", call.part("id")))?;
    let checkpoints = manager
        .list_checkpoints(&call.context, provider, &query)
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

pub(crate) async fn create(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&CHECKPOINT_CREATE)?;
    let mut checkpoint = take(&mut body, "checkpoint");
    let plan_id = parsed(&checkpoint, "plan_id")?;
    let extra_info =
        ["extra_info", "extra-info"]
            .into_iter()
            .find_map(|key| match checkpoint.remove(key) {
                Some(Value::Object(map)) => Some(map),
                _ => None,
            });
    let made = manager
        .protect(&call.context, call.part("id"), plan_id, extra_info)
        .await?;
    let view = CheckpointView {
        id: made.id,
        project_id: &call.context.project_id,
        status: CheckpointStatus::Protecting,
        protection_plan: (&made.plan).into(),
        resource_graph: made.resource_graph.as_deref().unwrap_or(NO_GRAPH),
        created_at: None,
        extra_info: Some(&made.extra_info),
        sealed: None,
    };
    one("checkpoint", &view)
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let (provider, checkpoint) = ids(&call)?;
    let checkpoint = manager
        .show_checkpoint(&call.context, provider, checkpoint)
        .await?;
    one("checkpoint", &CheckpointView::from(&checkpoint))
}

pub(crate) async fn delete(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let (provider, checkpoint) = ids(&call)?;
    manager.delete(&call.context, provider, checkpoint).await?;
    Ok(ok(b"{}".to_vec()))
}

/// `os-resetState` or `os-accept`.
pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    if body.has("os-accept") {
        body.checked(&CHECKPOINT_ACCEPT)?;
        let (provider, checkpoint) = ids(&call)?;
        manager
            .accept_checkpoint(&call.context, provider, checkpoint)
            .await?;
        return Ok(ok(b"{}".to_vec()));
    }
    let mut body = body.checked(&CHECKPOINT_UPDATE)?;
    let mut action = take(&mut body, "os-resetState");
    let state = text(&mut action, "state").unwrap_or_default();
    let (provider, checkpoint) = ids(&call)?;
    manager
        .reset_state(&call.context, provider, checkpoint, state)
        .await?;
    Ok(ok(b"{}".to_vec()))
}

/// `copy`, the one action there is on a provider's checkpoints.
pub(crate) async fn action(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&COPY_CREATE)?;
    let mut copy = take(&mut body, "copy");
    let plan_id: PlanId = parsed(&copy, "plan_id")?;
    let given = copy.remove("parameters");
    let wanted = parameters(given.clone());
    let (provider_id, copies) = manager
        .copy(&call.context, call.part("id"), plan_id, wanted)
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
    let provider = id(call.part("id"), "provider")?;
    let checkpoint = id(call.part("checkpoint_id"), "checkpoint")?;
    Ok((provider, checkpoint))
}
