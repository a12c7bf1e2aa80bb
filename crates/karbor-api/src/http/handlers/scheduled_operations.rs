//! `/scheduled_operations`.

use karbor_model::ApiError;

use crate::{
    compat::{
        bodies::{is_true, operation_definition, parsed, take, text},
        body_schemas::{SCHEDULED_OPERATION_CREATE, SCHEDULED_OPERATION_UPDATE},
        envelope::{Answer, many, ok, one},
        views::ScheduledOperationView,
    },
    http::call::{Call, Json},
    manager::{NewScheduledOperation, SCHEDULED_OPERATION_FILTERS},
    openapi::{Operation, delete_at, get, patch, post},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/scheduled_operations",
            list,
            "scheduled_operation:list",
            "List scheduled operations",
        )
        .lists::<ScheduledOperationView<'_>>("operations", &SCHEDULED_OPERATION_FILTERS),
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

pub(crate) async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    let operations = call
        .manager
        .scheduled_operation_list(call.permit()?, &query.page)
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

pub(crate) async fn create(call: Call, body: Json) -> Answer {
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
        operation_definition: operation_definition(given.remove("operation_definition"))?,
    };
    let operation = call
        .manager
        .scheduled_operation_create(call.permit()?, call.token.as_ref(), new)
        .await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

pub(crate) async fn show(call: Call) -> Answer {
    let id = call.member_id("operation")?;
    let operation = call
        .manager
        .scheduled_operation_get(call.caller(), id)
        .await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

/// Ours: the original could create and delete operations, not pause them. Its PUT answers as it did.
pub(crate) async fn update(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&SCHEDULED_OPERATION_UPDATE)?;
    let given = take(&mut body, "scheduled_operation");
    let enabled = is_true(&given, "enabled");
    let id = call.member_id("operation")?;
    let operation = call
        .manager
        .scheduled_operation_enable(call.caller(), id, enabled)
        .await?;
    one(
        "scheduled_operation",
        &ScheduledOperationView::from(&operation),
    )
}

pub(crate) async fn delete(call: Call) -> Answer {
    let id = call.member_id("operation")?;
    call.manager
        .scheduled_operation_delete(call.caller(), id)
        .await?;
    Ok(ok(Vec::new()))
}
