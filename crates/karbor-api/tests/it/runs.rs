//! Restores, verifications, the operation log.

use std::sync::atomic::Ordering;

use karbor_db::ListQuery;
use karbor_model::{
    ApiError, ErrorKind, OperationLog, OperationLogId, OperationLogStatus, OperationType,
};
use serde_json::{Value, json};

use crate::app::{App, NOBODY, NOOP, OTHER, PROJECT, app};

async fn checkpoint(app: &App) -> String {
    let plan = app.plan(Value::Null).await;
    let body = json!({"checkpoint": {"plan_id": plan}});
    let answer = app
        .call("POST", &format!("/providers/{NOOP}/checkpoints"), body)
        .await;
    answer.json()["checkpoint"]["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn restore(checkpoint: &str) -> Value {
    json!({"restore": {"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {}}})
}

fn verification(checkpoint: &str) -> Value {
    json!({"verification": {"provider_id": NOOP, "checkpoint_id": checkpoint}})
}

#[tokio::test]
async fn a_restore_as_recorded() {
    let app = app().await;
    let checkpoint = checkpoint(&app).await;
    let body = json!({"restore": {
        "provider_id": NOOP, "checkpoint_id": checkpoint,
        "parameters": {"OS::Cinder::Volume": {"restore_name": "r"}},
        "restore_target": "http://127.0.0.1:5000/v3",
        "restore_auth": {"type": "password", "username": "u", "password": "hunter2"},
    }});
    let answer = app.call("POST", "/restores", body).await.json();
    let id = answer["restore"]["id"].as_str().unwrap().to_owned();
    let expected = json!({"restore": {
        "id": id, "project_id": PROJECT, "provider_id": NOOP, "checkpoint_id": checkpoint,
        "restore_target": "http://127.0.0.1:5000/v3",
        "parameters": {"OS::Cinder::Volume": {"restore_name": "r"}},
        "status": "in_progress", "resources_status": {}, "resources_reason": {},
    }});
    assert_eq!(answer, expected);
    assert_eq!(app.get(&format!("/restores/{id}")).await.json(), expected);
    assert_eq!(
        app.get("/restores").await.json(),
        json!({"restores": [expected["restore"]]})
    );
    assert_eq!(
        app.get(&format!("/restores?checkpoint_id={NOBODY}"))
            .await
            .json(),
        json!({"restores": []})
    );
    let asked = app.protection.calls.lock().unwrap().pop().unwrap();
    assert_eq!(asked["auth"]["password"], "hunter2");
    // What the database keeps has no password in it.
    assert!(
        !format!(
            "{:?}",
            app.db
                .runs()
                .readback_list(OperationType::Restore, &ListQuery::of_every_project())
                .await
                .unwrap()
        )
        .contains("hunter2")
    );
}

/// Q28: the original answered 200 with status "fail" and lost the reason.
#[tokio::test]
async fn q28_a_refused_run_fails_with_its_reason() {
    let app = app().await;
    for (path, key, body) in [
        ("/restores", "restore", restore(NOBODY)),
        ("/verifications", "verification", verification(NOBODY)),
    ] {
        let answer = app.call("POST", path, body).await;
        assert_eq!(answer.status, 200);
        let run = &answer.json()[key];
        assert_eq!(run["status"], "fail");
        let reason = json!({format!("Checkpoint#{NOBODY}"): format!("Checkpoint {NOBODY} could not be found.")});
        assert_eq!(run["resources_reason"], reason);
        let id = run["id"].as_str().unwrap();
        assert_eq!(app.get(&format!("{path}/{id}")).await.json()[key], *run);
    }
}

/// Q63: the original left the refused restore "in_progress" for ever. Q64: it let anybody verify.
#[tokio::test]
async fn q63_q64_a_foreign_checkpoint_is_refused_and_nothing_stays_in_progress() {
    let app = app().await;
    let checkpoint = checkpoint(&app).await;
    for (path, key, body) in [
        ("/restores", "restores", restore(&checkpoint)),
        ("/verifications", "verifications", verification(&checkpoint)),
    ] {
        let answer = app.call_as(&app.other, OTHER, "POST", path, body).await;
        assert_eq!(
            answer.fault(403),
            format!("Access checkpoint {checkpoint} is not allowed")
        );
        let listed = app
            .call_as(&app.other, OTHER, "GET", path, Value::Null)
            .await
            .json();
        assert_eq!(listed[key][0]["status"], "fail");
        assert_eq!(listed[key].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn q72_a_service_that_is_away_is_told_as_such() {
    let app = app().await;
    let checkpoint = checkpoint(&app).await;
    let away = ApiError::unavailable("The protection service is away. Try again.", "secret cause");
    *app.protection.refusal.lock().unwrap() = Some(away);
    let answer = app.call("POST", "/restores", restore(&checkpoint)).await;
    assert_eq!(
        answer.fault(503),
        "The protection service is away. Try again."
    );
    assert_eq!(
        app.get("/restores").await.json()["restores"][0]["status"],
        "fail"
    );
    // Q72: not "The provider could not be found."
    let answer = app
        .call("POST", "/plans", crate::app::plan_body(Value::Null))
        .await;
    assert_eq!(
        answer.fault(503),
        "The protection service is away. Try again."
    );

    // After a timeout nobody knows whether it runs: the record must not say that it does not.
    let late = ApiError::new(ErrorKind::Timeout, "MessagingTimeout", "No answer in time.");
    *app.protection.refusal.lock().unwrap() = Some(late);
    let answer = app
        .call("POST", "/verifications", verification(&checkpoint))
        .await;
    assert!(answer.fault(504).contains("may have begun"), "{answer:?}");
    assert_eq!(
        app.get("/verifications").await.json()["verifications"][0]["status"],
        "in_progress"
    );
}

/// The operator has to mend the declaration: a person who waits for the answer need not ask again.
#[tokio::test]
async fn what_is_declared_wrongly_is_a_bad_request() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let mut broken = ApiError::new(
        ErrorKind::Unavailable,
        "ProtectableResourceBroken",
        "'documents': no such folder.",
    );
    broken.needs_mending = true;
    *app.protection.refusal.lock().unwrap() = Some(broken);
    let path = format!("/providers/{NOOP}/checkpoints");
    let body = json!({"checkpoint": {"plan_id": plan}});
    let answer = app.call("POST", &path, body).await;
    assert_eq!(
        answer.fault(400),
        "Create checkpoint failed: 'documents': no such folder."
    );
}

#[tokio::test]
async fn a_fault_of_ours_tells_nothing_of_itself() {
    let app = app().await;
    let error = ApiError::internal("password=hunter2 at /srv/secret");
    *app.protection.refusal.lock().unwrap() = Some(error);
    for path in ["/protectables".to_owned(), format!("/providers/{NOOP}")] {
        let answer = app.get(&path).await;
        let message = answer.fault(500);
        assert!(!message.contains("hunter2"), "{message}");
    }
    *app.protection.refusal.lock().unwrap() = None;
    app.protection.panics.store(true, Ordering::Relaxed);
    for (method, path, body) in [
        ("GET", "/protectables", Value::Null),
        ("POST", "/restores", restore(NOBODY)),
    ] {
        let answer = app.call(method, path, body).await;
        let message = answer.fault(500);
        assert!(
            message.contains(answer.header("x-compute-request-id")),
            "{message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
    app.protection.panics.store(false, Ordering::Relaxed);
    assert_eq!(app.get("/protectables").await.status, 200);
}

#[tokio::test]
async fn q54_operation_logs_as_recorded() {
    let app = app().await;
    let log = OperationLog {
        id: OperationLogId::new(),
        project_id: PROJECT.into(),
        operation_type: OperationType::Protect,
        checkpoint_id: Some(NOBODY.parse().unwrap()),
        plan_id: None,
        provider_id: Some(NOOP.parse().unwrap()),
        readback_id: None,
        scheduled_operation_id: None,
        status: OperationLogStatus::InProgress,
        started_at: "2026-11-22T10:21:08.161356Z".parse().unwrap(),
        ended_at: None,
        error_info: Some("a reason".into()),
        extra_info: Some(json!({"bytes": 5})),
    };
    app.db.runs().operation_log_create(&log).await.unwrap();
    let expected = json!({
        "id": log.id, "operation_type": "protect", "checkpoint_id": NOBODY, "plan_id": null,
        "provider_id": NOOP, "restore_id": null, "scheduled_operation_id": null,
        "status": "protecting", "started_at": "2026-11-22T10:21:08.161356", "ended_at": null,
        "error_info": "a reason", "extra_info": "{\"bytes\": 5}",
    });
    let path = format!("/operation_logs/{}", log.id);
    assert_eq!(
        app.get(&path).await.json(),
        json!({"operation_log": expected})
    );
    assert_eq!(
        app.get("/operation_logs?status=protecting").await.json(),
        json!({"operation_logs": [expected]})
    );
    for other in ["available", "in_progress", "copying", "error", "failed"] {
        let path = format!("/operation_logs?status={other}");
        assert_eq!(app.get(&path).await.json(), json!({"operation_logs": []}));
    }
    let quiet = OperationLog {
        id: OperationLogId::new(),
        status: OperationLogStatus::Success,
        extra_info: Some(json!({"resources": {}})),
        ..log.clone()
    };
    app.db.runs().operation_log_create(&quiet).await.unwrap();
    let found = app.get("/operation_logs?status=available").await.json();
    assert_eq!(found["operation_logs"][0]["id"], json!(quiet.id));
    assert_eq!(found["operation_logs"][0]["extra_info"], Value::Null);
    // Q54: the text names the log, not a placeholder; another project's log does not exist.
    let foreign = app
        .call_as(&app.other, OTHER, "GET", &path, Value::Null)
        .await;
    assert_eq!(
        foreign.fault(404),
        format!("OperationLog {} could not be found.", log.id)
    );
}
