//! `/restores`, `/verifications` and `/operation_logs`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::Value;

use super::{
    envelope::{Answer, many, one},
    extract::{Call, Json},
    openapi::{Operation, get, post},
    plans::{parameters, parsed, take, text},
    schema::{RESTORE_CREATE, VERIFICATION_CREATE},
    views::{OperationLogView, RestoreView, VerificationView},
};
use crate::{
    ApiManager,
    manager::{NewRestore, NewVerification},
};

const RESTORE_FILTERS: [&str; 5] = [
    "id",
    "status",
    "provider_id",
    "checkpoint_id",
    "restore_target",
];
const VERIFICATION_FILTERS: [&str; 4] = ["id", "status", "provider_id", "checkpoint_id"];
const LOG_FILTERS: [&str; 8] = [
    "id",
    "status",
    "operation_type",
    "checkpoint_id",
    "plan_id",
    "provider_id",
    "restore_id",
    "scheduled_operation_id",
];

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/restores",
            list_restores,
            "restore:get_all",
            "List restores",
        )
        .lists::<RestoreView<'_>>("restores", &RESTORE_FILTERS),
        post(
            "/restores",
            create_restore,
            "restore:create",
            "Restore a checkpoint",
        )
        .takes(&RESTORE_CREATE)
        .gives::<RestoreView<'_>>("restore"),
        get(
            "/restores/{id}",
            show_restore,
            "restore:get",
            "Show a restore",
        )
        .gives::<RestoreView<'_>>("restore"),
        get(
            "/verifications",
            list_verifications,
            "verification:get_all",
            "List verifications",
        )
        .lists::<VerificationView<'_>>("verifications", &VERIFICATION_FILTERS),
        post(
            "/verifications",
            create_verification,
            "verification:create",
            "Verify a checkpoint",
        )
        .takes(&VERIFICATION_CREATE)
        .gives::<VerificationView<'_>>("verification"),
        get(
            "/verifications/{id}",
            show_verification,
            "verification:get",
            "Show a verification",
        )
        .gives::<VerificationView<'_>>("verification"),
        get(
            "/operation_logs",
            list_operation_logs,
            "operation_log:list",
            "List what was done",
        )
        .lists::<OperationLogView<'_>>("operation_logs", &LOG_FILTERS),
        get(
            "/operation_logs/{id}",
            show_operation_log,
            "operation_log:get",
            "Show what was done",
        )
        .gives::<OperationLogView<'_>>("operation_log"),
    ]
}

pub(crate) async fn list_restores(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &RESTORE_FILTERS, false);
    let restores = manager.restore_list(&call.context, wanted.as_ref()).await?;
    let last = restores.last().map(|restore| restore.id);
    let next = call.next(&query, "restores", restores.len(), last);
    many("restores", restores.iter().map(RestoreView::from), next)
}

pub(crate) async fn create_restore(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&RESTORE_CREATE)?;
    let mut restore = take(&mut body, "restore");
    let new = NewRestore {
        provider_id: parsed(&restore, "provider_id")?,
        checkpoint_id: parsed(&restore, "checkpoint_id")?,
        restore_target: text(&mut restore, "restore_target"),
        restore_auth: match restore.remove("restore_auth") {
            Some(Value::Object(auth)) => Some(auth),
            _ => None,
        },
        accept_unsealed: restore.get("accept_unsealed") == Some(&Value::Bool(true)),
        parameters: parameters(restore.remove("parameters")),
    };
    let restore = manager.restore(&call.context, new).await?;
    one("restore", &RestoreView::from(&restore))
}

pub(crate) async fn show_restore(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("restore")?;
    let restore = manager.restore_get(&call.context, id).await?;
    one("restore", &RestoreView::from(&restore))
}

pub(crate) async fn list_verifications(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &VERIFICATION_FILTERS, false);
    let found = manager
        .verification_list(&call.context, wanted.as_ref())
        .await?;
    let last = found.last().map(|verification| verification.id);
    let next = call.next(&query, "verifications", found.len(), last);
    many(
        "verifications",
        found.iter().map(VerificationView::from),
        next,
    )
}

pub(crate) async fn create_verification(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&VERIFICATION_CREATE)?;
    let mut verification = take(&mut body, "verification");
    let new = NewVerification {
        provider_id: parsed(&verification, "provider_id")?,
        checkpoint_id: parsed(&verification, "checkpoint_id")?,
        accept_unsealed: verification.get("accept_unsealed") == Some(&Value::Bool(true)),
        parameters: parameters(verification.remove("parameters")),
    };
    let verification = manager.verification(&call.context, new).await?;
    one("verification", &VerificationView::from(&verification))
}

pub(crate) async fn show_verification(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
) -> Answer {
    let id = call.member_id("verification")?;
    let verification = manager.verification_get(&call.context, id).await?;
    one("verification", &VerificationView::from(&verification))
}

pub(crate) async fn list_operation_logs(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &LOG_FILTERS, false);
    let logs = manager
        .operation_log_list(&call.context, wanted.as_ref())
        .await?;
    let last = logs.last().map(|log| log.id);
    let next = call.next(&query, "operation_logs", logs.len(), last);
    many(
        "operation_logs",
        logs.iter().map(OperationLogView::from),
        next,
    )
}

pub(crate) async fn show_operation_log(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
) -> Answer {
    let id = call.member_id("operation log")?;
    let log = manager.operation_log_get(&call.context, id).await?;
    one("operation_log", &OperationLogView::from(&log))
}
