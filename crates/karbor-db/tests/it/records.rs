use std::{collections::BTreeMap, sync::Arc, time::Duration};

use karbor_db::{DbError, ListQuery, OperationLogUpdate};
use karbor_manager::{Clock, ServiceStore, TaskOutcome, TaskReport};
use karbor_model::{
    ApiError, ErrorKind, OperationType, PlanId, ReadbackStatus, Resource, RunReport,
};
use karbor_testkit::FakeClock;
use serde_json::json;

use crate::support::{at, begin, fixture, operation_log, plan, restore, verification};

/// Equality of resources is by id; this compares all that is stored.
fn as_json(plan: &karbor_model::Plan) -> serde_json::Value {
    serde_json::to_value(plan).unwrap()
}

#[tokio::test]
async fn plans_come_back_as_they_went() {
    let fixture = fixture().await;
    let plan = plan("p", "nightly");
    fixture.db.plans().create(&plan).await.unwrap();
    let read = fixture.db.plans().get(plan.id).await.unwrap();
    assert_eq!(as_json(&read), as_json(&plan));
    let stored: (String, String, String) = fixture
        .raw()
        .query_row(
            "SELECT created_at, parameters, status FROM plans",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(stored.0, "2025-10-09 08:53:20.123456");
    assert_eq!(stored.1, r#"{"Host::Directory": {"mode": "full"}}"#);
    assert_eq!(stored.2, "suspended");
    let again = fixture.db.plans().create(&plan).await.unwrap_err();
    assert!(matches!(again, DbError::Conflict { .. }), "{again:?}");
}

#[tokio::test]
async fn a_plan_without_resources_and_one_with_thousands() {
    let fixture = fixture().await;
    let mut empty = plan("p", "empty");
    empty.resources.clear();
    fixture.db.plans().create(&empty).await.unwrap();
    let mut many = plan("p", "many");
    many.resources = (0..2500)
        .map(|number| Resource::new("T", number.to_string(), "n"))
        .collect();
    fixture.db.plans().create(&many).await.unwrap();
    let (empty, read) = (
        fixture.db.plans().get(empty.id).await.unwrap(),
        fixture.db.plans().get(many.id).await.unwrap(),
    );
    assert!(empty.resources.is_empty());
    assert_eq!(read.resources, many.resources);
}

#[tokio::test]
async fn an_update_needs_what_was_read() {
    let fixture = fixture().await;
    let clock = FakeClock::new();
    let db = fixture.db.clone().with_clock(Arc::new(clock.clone()));
    let first = plan("p", "one");
    db.plans().create(&first).await.unwrap();
    let mut change = first.clone();
    change.name = "two".to_owned();
    change.resources = vec![Resource::new("T", "x", "new")];
    let second = db.plans().update(&change).await.unwrap();
    let read = db.plans().get(first.id).await.unwrap();
    assert_eq!(as_json(&read), as_json(&second));

    let stale = db.plans().update(&change).await.unwrap_err();
    assert!(matches!(stale, DbError::Conflict { .. }), "{stale:?}");
    assert!(
        stale.to_string().contains("changed by somebody else"),
        "{stale}"
    );
    // The clock stood still, and yet the versions differ.
    let third = db.plans().update(&second).await.unwrap();
    assert!(third.updated_at > second.updated_at);

    let deleted: i64 = fixture
        .raw()
        .query_row(
            "SELECT count(*) FROM resources WHERE deleted = 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(deleted, 2, "the old resources, marked once");
}

#[tokio::test]
async fn a_deleted_plan_is_gone_but_kept() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let plan = plan("p", "one");
    db.plans().create(&plan).await.unwrap();
    db.plans().delete(plan.id).await.unwrap();
    let error = db.plans().get(plan.id).await.unwrap_err();
    let told = format!("Plan {} could not be found.", plan.id);
    assert_eq!(error.to_string(), told);
    for error in [
        db.plans().delete(plan.id).await.unwrap_err(),
        db.plans().update(&plan).await.unwrap_err(),
    ] {
        assert!(matches!(error, DbError::NotFound { .. }), "{error:?}");
    }
    let listed = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert!(listed.is_empty());
    let kept: (bool, Option<String>) = fixture
        .raw()
        .query_row("SELECT deleted, deleted_at FROM plans", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(kept.0 && kept.1.is_some());
}

#[tokio::test]
async fn restores_and_verifications_keep_their_outcome() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (mut restore, mut verification) = (restore("p"), verification("p"));
    restore.parameters = serde_json::from_value(json!({"T#1": {"where": "/x"}})).unwrap();
    begin(db, &restore).await;
    begin(db, &verification).await;
    let status: BTreeMap<_, _> = [("T#1".to_owned(), "error".to_owned())].into();
    let reason: BTreeMap<_, _> = [("T#1".to_owned(), "disk \"full\"".to_owned())].into();
    for readback in [&mut restore, &mut verification] {
        readback.status = ReadbackStatus::Fail;
        readback.resources_status.clone_from(&status);
        readback.resources_reason.clone_from(&reason);
        let (operation, end) = (readback.operation, readback.status);
        db.runs()
            .readback_end(operation, readback.id, end, &status, &reason)
            .await
            .unwrap();
    }
    let read = db
        .runs()
        .readback_get(OperationType::Restore, restore.id)
        .await
        .unwrap();
    assert_eq!(read, restore);
    let read = db
        .runs()
        .readback_get(OperationType::Verify, verification.id)
        .await
        .unwrap();
    assert_eq!(read, verification);
    let (id, end) = (karbor_model::ReadbackId::new(), ReadbackStatus::Fail);
    let runs = db.runs();
    let unknown = runs.readback_end(OperationType::Restore, id, end, &status, &reason);
    let unknown = unknown.await.unwrap_err();
    let unknown = ApiError::from(unknown);
    assert_eq!(unknown.class, "RestoreNotFound");
}

#[tokio::test]
async fn operation_logs_change_only_what_is_given() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let mut log = operation_log("p");
    db.runs().operation_log_create(&log).await.unwrap();
    assert_eq!(db.runs().operation_log_get(log.id).await.unwrap(), log);
    log.extra_info = Some(json!({"waiting": "for room"}));
    let progress = OperationLogUpdate {
        report: Some(RunReport::waits("for room")),
        ..OperationLogUpdate::default()
    };
    db.runs()
        .operation_log_update(log.id, &progress)
        .await
        .unwrap();
    log.error_info = Some("T#1: disk full".to_owned());
    log.ended_at = Some(at(9));
    let end = OperationLogUpdate {
        error_info: log.error_info.clone(),
        ended_at: log.ended_at,
        ..OperationLogUpdate::default()
    };
    db.runs().operation_log_update(log.id, &end).await.unwrap();
    assert_eq!(db.runs().operation_log_get(log.id).await.unwrap(), log);
}

#[tokio::test]
async fn a_service_registers_once_and_beats() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let first = db
        .services()
        .register("h", "karbor-protection", "t")
        .await
        .unwrap();
    let again = db
        .services()
        .register("h", "karbor-protection", "t2")
        .await
        .unwrap();
    assert_eq!((again.id, again.topic.as_str()), (first.id, "t2"));
    let other = db
        .services()
        .register("h2", "karbor-protection", "t")
        .await
        .unwrap();
    assert_ne!(other.id, first.id);

    db.services().report(first.id, at(7)).await.unwrap();
    db.services().report(first.id, at(8)).await.unwrap();
    let disabled = db
        .services()
        .set_disabled(first.id, true, Some("maintenance"))
        .await
        .unwrap();
    assert_eq!(disabled.report_count, 2);
    assert_eq!(
        disabled.updated_at,
        Some(at(8)),
        "an operator is not a heartbeat"
    );
    assert_eq!(disabled.disabled_reason.as_deref(), Some("maintenance"));
    let enabled = db
        .services()
        .set_disabled(first.id, false, None)
        .await
        .unwrap();
    assert_eq!((enabled.disabled, enabled.disabled_reason), (false, None));

    let gone = ServiceStore::report(&db.services(), 99, at(9))
        .await
        .unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    assert_eq!(gone.message, "Service 99 could not be found.");
}

#[tokio::test]
async fn the_latest_report_of_each_task_is_kept() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let service = db.services().register("h", "b", "t").await.unwrap();
    let mut report = TaskReport {
        name: "prune".to_owned(),
        started_at: at(1),
        ended_at: at(2),
        outcome: TaskOutcome::Ok {
            details: json!({"gone": 3}),
        },
        runs: 1,
        failures: 0,
    };
    db.services()
        .save_task_report(service.id, &report)
        .await
        .unwrap();
    report.runs = 2;
    db.services()
        .save_task_report(service.id, &report)
        .await
        .unwrap();
    report.name = "adopt".to_owned();
    db.services()
        .save_task_report(service.id, &report)
        .await
        .unwrap();
    let reports = db.services().task_reports(service.id).await.unwrap();
    let runs: Vec<_> = reports.iter().map(|r| (r.name.as_str(), r.runs)).collect();
    assert_eq!(runs, [("adopt", 2), ("prune", 2)]);
}

#[tokio::test]
async fn tokens_are_found_by_their_hash() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let roles = ["admin".to_owned(), "member".to_owned()];
    let token = db.tokens().create("abc", "u", "p", &roles, true).await;
    let token = token.unwrap();
    assert_eq!(db.tokens().find("abc").await.unwrap(), Some(token.clone()));
    assert_eq!(db.tokens().find("ABC").await.unwrap(), None);
    assert_eq!(db.tokens().list().await.unwrap(), [token]);
    let again = db.tokens().create("abc", "u", "p", &roles, true).await;
    assert!(matches!(again, Err(DbError::Conflict { .. })), "{again:?}");
    db.tokens().delete("abc").await.unwrap();
    assert_eq!(db.tokens().find("abc").await.unwrap(), None);
    let gone = db.tokens().delete("abc").await;
    assert!(matches!(gone, Err(DbError::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn the_time_of_records_is_the_clocks() {
    let fixture = fixture().await;
    let clock = FakeClock::new();
    clock.turn(Duration::from_secs(5));
    let db = fixture.db.clone().with_clock(Arc::new(clock.clone()));
    let service = db.services().register("h", "b", "t").await.unwrap();
    assert_eq!(
        service.created_at.timestamp_micros(),
        clock.now().timestamp_micros()
    );
}

#[test]
fn what_a_person_reads_names_no_cause() {
    let message = "The disk of the database is full. Make room on it.";
    let error = ApiError::from(DbError::Unavailable {
        message: message.to_owned(),
        cause: "code 13".to_owned(),
    });
    assert!(error.kind.is_retryable());
    assert_eq!(error.to_string(), message);
    assert_eq!(error.cause.as_deref(), Some("code 13"));
    let id = PlanId::new();
    let missing = ApiError::from(DbError::NotFound {
        what: "Plan",
        id: id.to_string(),
    });
    assert_eq!(missing.class, "PlanNotFound");
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(missing.message, format!("Plan {id} could not be found."));
}
