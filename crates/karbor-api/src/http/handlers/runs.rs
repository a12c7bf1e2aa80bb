//! `/restores`, `/verifications` and `/operation_logs`.

use serde_json::Value;

use crate::{
    compat::{
        bodies::{is_true, parameters, parsed, take, text},
        body_schemas::{RESTORE_CREATE, VERIFICATION_CREATE},
        envelope::{Answer, many, one},
        views::{OperationLogView, RestoreView, VerificationView},
    },
    http::call::{Call, Json},
    manager::{
        NewRestore, NewVerification, OPERATION_LOG_FILTERS, RESTORE_FILTERS, VERIFICATION_FILTERS,
    },
    openapi::{Operation, get, post},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
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
        .lists::<OperationLogView<'_>>("operation_logs", &OPERATION_LOG_FILTERS),
        get(
            "/operation_logs/{id}",
            show_operation_log,
            "operation_log:get",
            "Show what was done",
        )
        .gives::<OperationLogView<'_>>("operation_log"),
    ]
}

pub(crate) async fn list_restores(call: Call) -> Answer {
    let query = call.list_query()?;
    let restores = call
        .manager
        .restore_list(call.permit()?, &query.page)
        .await?;
    let last = restores.last().map(|restore| restore.id);
    let next = call.next(&query, "restores", restores.len(), last);
    many("restores", restores.iter().map(RestoreView::from), next)
}

pub(crate) async fn create_restore(call: Call, body: Json) -> Answer {
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
        accept_unsealed: is_true(&restore, "accept_unsealed"),
        parameters: parameters(restore.remove("parameters")),
    };
    let restore = call.manager.restore(call.permit()?, new).await?;
    one("restore", &RestoreView::from(&restore))
}

pub(crate) async fn show_restore(call: Call) -> Answer {
    let id = call.member_id("restore")?;
    let restore = call.manager.restore_get(call.caller(), id).await?;
    one("restore", &RestoreView::from(&restore))
}

pub(crate) async fn list_verifications(call: Call) -> Answer {
    let query = call.list_query()?;
    let found = call
        .manager
        .verification_list(call.permit()?, &query.page)
        .await?;
    let last = found.last().map(|verification| verification.id);
    let next = call.next(&query, "verifications", found.len(), last);
    many(
        "verifications",
        found.iter().map(VerificationView::from),
        next,
    )
}

pub(crate) async fn create_verification(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&VERIFICATION_CREATE)?;
    let mut verification = take(&mut body, "verification");
    let new = NewVerification {
        provider_id: parsed(&verification, "provider_id")?,
        checkpoint_id: parsed(&verification, "checkpoint_id")?,
        accept_unsealed: is_true(&verification, "accept_unsealed"),
        parameters: parameters(verification.remove("parameters")),
    };
    let verification = call.manager.verification(call.permit()?, new).await?;
    one("verification", &VerificationView::from(&verification))
}

pub(crate) async fn show_verification(call: Call) -> Answer {
    let id = call.member_id("verification")?;
    let verification = call.manager.verification_get(call.caller(), id).await?;
    one("verification", &VerificationView::from(&verification))
}

pub(crate) async fn list_operation_logs(call: Call) -> Answer {
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

pub(crate) async fn show_operation_log(call: Call) -> Answer {
    let id = call.member_id("operation log")?;
    let log = call.manager.operation_log_get(call.caller(), id).await?;
    one("operation_log", &OperationLogView::from(&log))
}
