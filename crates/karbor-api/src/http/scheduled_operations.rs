//! `/scheduled_operations`.

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use karbor_model::ApiError;
use serde_json::Value;

use super::{
    envelope::{Answer, many, ok, one},
    extract::{Call, Json},
    openapi::{Operation, delete_at, get, patch, post},
    plans::{parsed, take, text},
    python,
    schema::{SCHEDULED_OPERATION_CREATE, SCHEDULED_OPERATION_UPDATE},
    views::ScheduledOperationView,
};
use crate::{ApiManager, manager::NewScheduledOperation};

const FILTERS: [&str; 6] = [
    "id",
    "name",
    "description",
    "operation_type",
    "trigger_id",
    "operation_definition",
];
/// The most bytes of a definition, keys and values: far below what the database's column takes.
const LARGEST_DEFINITION: usize = 16 * 1024;

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/scheduled_operations",
            list,
            "scheduled_operation:list",
            "List scheduled operations",
        )
        .lists::<ScheduledOperationView<'_>>("operations", &FILTERS),
        post(
            "/scheduled_operations",
            create,
            "scheduled_operation:create",
            "Schedule an operation",
        )
        .takes(&SCHEDULED_OPERATION_CREATE)
        .gives::<ScheduledOperationView<'_>>("scheduled_operation"),
        get(
            "/scheduled_operations/{id}",
            show,
            "scheduled_operation:get",
            "Show a scheduled operation",
        )
        .gives::<ScheduledOperationView<'_>>("scheduled_operation"),
        patch(
            "/scheduled_operations/{id}",
            update,
            "scheduled_operation:update",
            "Pause a scheduled operation, or let it run again",
        )
        .takes(&SCHEDULED_OPERATION_UPDATE)
        .gives::<ScheduledOperationView<'_>>("scheduled_operation"),
        delete_at(
            "/scheduled_operations/{id}",
            delete,
            "scheduled_operation:delete",
            "Delete a scheduled operation",
        ),
    ]
}

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &FILTERS, true);
    let operations = manager
        .scheduled_operation_list(&call.context, wanted.as_ref())
        .await?;
    let last = operations.last().map(|operation| operation.id);
    let next = call.next(&query, "scheduled_operations", operations.len(), last);
    // Not the name of the collection, but what clients read (Q44).
    many(
        "operations",
        operations.iter().map(ScheduledOperationView::from),
        next,
    )
}

pub(crate) async fn create(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&SCHEDULED_OPERATION_CREATE)?;
    let mut given = take(&mut body, "scheduled_operation");
    let (name, operation_type) = (
        text(&mut given, "name").unwrap_or_default(),
        text(&mut given, "operation_type").unwrap_or_default(),
    );
    if name.is_empty() || operation_type.is_empty() {
        return Err(
            ApiError::bad_request("Operation name or type or definition is not provided.").into(),
        );
    }
    let new = NewScheduledOperation {
        name,
        description: text(&mut given, "description"),
        operation_type,
        trigger_id: parsed(&given, "trigger_id")?,
        operation_definition: definition(given.remove("operation_definition"))?,
    };
    let operation = manager
        .scheduled_operation_create(&call.context, call.token.as_ref(), new)
        .await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("operation")?;
    let operation = manager.scheduled_operation_get(&call.context, id).await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

/// Ours: the original could create and delete operations, not pause them. Its PUT answers as it did.
pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&SCHEDULED_OPERATION_UPDATE)?;
    let given = take(&mut body, "scheduled_operation");
    let enabled = given.get("enabled") == Some(&Value::Bool(true));
    let id = call.member_id("operation")?;
    let operation = manager
        .scheduled_operation_enable(&call.context, id, enabled)
        .await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

pub(crate) async fn delete(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("operation")?;
    manager
        .scheduled_operation_delete(&call.context, id)
        .await?;
    Ok(ok(Vec::new()))
}

/// Every value as a text, as the original kept them (Q41).
fn definition(given: Option<Value>) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(Value::Object(given)) = given else {
        return Ok(BTreeMap::new());
    };
    let texts: BTreeMap<_, _> = given
        .into_iter()
        .map(|(key, value)| (key, python::text(&value)))
        .collect();
    let size: usize = texts.iter().map(|(key, text)| key.len() + text.len()).sum();
    if size > LARGEST_DEFINITION {
        return Err(ApiError::bad_request(format!(
            "The operation_definition has {size} bytes; it may have {LARGEST_DEFINITION}."
        )));
    }
    Ok(texts)
}
