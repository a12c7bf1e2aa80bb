//! `/operation_logs`.

use crate::{
    compat::{
        envelope::{Answer, many, one},
        views::OperationLogView,
    },
    http::call::Call,
    manager::OPERATION_LOG_FILTERS,
    openapi::{Operation, get},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/operation_logs",
            list,
            "operation_log:list",
            "List what was done",
        )
        .lists::<OperationLogView<'_>>("operation_logs", &OPERATION_LOG_FILTERS),
        get(
            "/operation_logs/{id}",
            show,
            "operation_log:get",
            "Show what was done",
        )
        .gives::<OperationLogView<'_>>("operation_log"),
    ]
}

async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    let logs = call
        .manager
        .operation_log_list(call.permit()?, &query.page)
        .await?;
    let last = logs.last().map(|log| log.id);
    let next = call.next(&query, "operation_logs", logs.len(), last);
    many(
        "operation_logs",
        logs.iter().map(OperationLogView::from),
        next,
    )
}

async fn show(call: Call) -> Answer {
    let id = call.member_id("operation log")?;
    let log = call.manager.operation_log_get(call.caller(), id).await?;
    one("operation_log", &OperationLogView::from(&log))
}
