//! Which change makes which notification.

use karbor_db::{Db, OperationLogUpdate};
use karbor_manager::NotificationOutbox;
use karbor_model::{
    CheckpointId, Notification, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    Parameters, Plan, PlanId, PlanStatus, Priority, ProviderId, RequestContext, Trigger, TriggerId,
};

const P: &str = "p1";

pub fn plan(name: &str) -> Plan {
    Plan {
        id: PlanId::new(),
        name: name.to_owned(),
        description: None,
        provider_id: ProviderId::new(),
        project_id: P.to_owned(),
        status: PlanStatus::Suspended,
        parameters: Parameters::new(),
        resources: Vec::new(),
        created_at: chrono::Utc::now(),
        updated_at: None,
    }
}

fn log(operation_type: OperationType, status: OperationLogStatus) -> OperationLog {
    OperationLog {
        id: OperationLogId::new(),
        project_id: P.to_owned(),
        operation_type,
        checkpoint_id: Some(CheckpointId::new()),
        plan_id: None,
        provider_id: None,
        readback_id: None,
        scheduled_operation_id: None,
        status,
        started_at: chrono::Utc::now(),
        ended_at: None,
        error_info: None,
        extra_info: None,
    }
}

async fn database() -> Db {
    let db = Db::connect("sqlite::memory:").await.unwrap();
    db.migrate().await.unwrap();
    db
}

/// Everything that was announced, in its order.
async fn told(db: &Db) -> Vec<Notification> {
    let later = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let until = later + chrono::TimeDelta::hours(1);
    db.outbox().deal_out(&["test"]).await.unwrap();
    let taken = db.outbox().take("test", later, until, 100).await.unwrap();
    taken.into_iter().map(|out| out.notification).collect()
}

async fn types(db: &Db) -> Vec<String> {
    let told = told(db).await.into_iter();
    told.map(|notification| notification.event_type).collect()
}

#[tokio::test]
async fn every_operation_tells_its_start_and_its_end() {
    for (operation, name) in [
        (OperationType::Protect, "checkpoint_create"),
        (OperationType::Restore, "restore_create"),
        (OperationType::Verify, "verification_create"),
        (OperationType::Delete, "checkpoint_delete"),
        (OperationType::Copy, "checkpoint_copy"),
    ] {
        for (end, what, priority) in [
            (OperationLogStatus::Success, "end", Priority::Info),
            (OperationLogStatus::Failed, "error", Priority::Error),
        ] {
            let db = database().await;
            let log = log(operation, OperationLogStatus::InProgress);
            db.runs().operation_log_create(&log).await.unwrap();
            let update = OperationLogUpdate {
                error_info: Some("the disk is full".to_owned()),
                ..OperationLogUpdate::default()
            };
            db.runs()
                .operation_log_update(log.id, &update)
                .await
                .unwrap();
            let from = OperationLogStatus::InProgress;
            for _ in 0..2 {
                // Told once, however often it is tried.
                let _ = db.runs().operation_log_set_status(log.id, from, end).await;
            }
            let told = told(&db).await;
            let expected = [
                format!("karbor.{name}.start"),
                format!("karbor.{name}.{what}"),
            ];
            let types: Vec<_> = told.iter().map(|n| n.event_type.clone()).collect();
            assert_eq!(types, expected);
            assert_eq!(told[1].priority, priority);
            let payload = &told[1].payload;
            assert_eq!(payload["tenant_id"], P);
            assert_eq!(payload["operation_log_id"], log.id.to_string());
            let message = payload.get("message").and_then(|m| m.as_str());
            let failed = end == OperationLogStatus::Failed;
            assert_eq!(message, failed.then_some("the disk is full"));
        }
    }
}

/// A run that never began, such as one that was refused or missed, has one record: its end.
#[tokio::test]
async fn what_fails_at_once_is_told() {
    let db = database().await;
    let log = log(OperationType::Protect, OperationLogStatus::Failed);
    db.runs().operation_log_create(&log).await.unwrap();
    assert_eq!(types(&db).await, ["karbor.checkpoint_create.error"]);
    // The same again is the same record, and nothing new.
    db.runs().operation_log_create(&log).await.unwrap_err();
    assert_eq!(types(&db).await.len(), 0, "taken out, and none more");
}

#[tokio::test]
async fn records_tell_what_became_of_them() {
    let db = database().await;
    let plan = plan("nightly");
    db.plans().create(&plan).await.unwrap();
    let changed = Plan {
        name: "daily".to_owned(),
        ..plan.clone()
    };
    db.plans().update(&changed).await.unwrap();
    db.plans().delete(plan.id).await.unwrap();
    db.plans().delete(plan.id).await.unwrap_err();
    let trigger = Trigger {
        id: TriggerId::new(),
        name: "t".to_owned(),
        project_id: P.to_owned(),
        trigger_type: "time".to_owned(),
        properties: serde_json::Map::new(),
        created_at: None,
        updated_at: None,
    };
    db.schedules().trigger_create(&trigger).await.unwrap();
    db.schedules().trigger_delete(trigger.id).await.unwrap();
    let told = told(&db).await;
    let types: Vec<_> = told.iter().map(|n| n.event_type.as_str()).collect();
    assert_eq!(
        types,
        [
            "karbor.plan_create.end",
            "karbor.plan_update.end",
            "karbor.plan_delete.end",
            "karbor.trigger_create.end",
            "karbor.trigger_delete.end",
        ]
    );
    let payload = serde_json::json!({"tenant_id": P, "id": plan.id, "name": "daily"});
    assert_eq!(told[1].payload, payload);
}

/// Starting and suspending a plan is an update of it, as it was in the original.
#[tokio::test]
async fn a_plan_that_is_started_or_suspended_is_told() {
    let db = database().await;
    let plan = plan("nightly");
    db.plans().create(&plan).await.unwrap();
    let (suspended, started) = (PlanStatus::Suspended, PlanStatus::Started);
    for (from, to) in [(suspended, started), (started, suspended)] {
        db.plans().set_status(plan.id, from, to).await.unwrap();
    }
    let told = told(&db).await;
    for (at, status) in [(1, "started"), (2, "suspended")] {
        assert_eq!(told[at].event_type, "karbor.plan_update.end");
        let payload = serde_json::json!({
            "tenant_id": P, "id": plan.id, "name": "nightly", "status": status
        });
        assert_eq!(told[at].payload, payload);
    }
}

/// What was asked for by a request names it.
#[tokio::test]
async fn the_request_is_told() {
    let db = database().await;
    let context = RequestContext::for_project("u", P, false);
    let asked = db.asked_by(&context);
    let log = log(OperationType::Protect, OperationLogStatus::InProgress);
    asked.runs().operation_log_create(&log).await.unwrap();
    asked.plans().create(&plan("p")).await.unwrap();
    db.plans().create(&plan("nobody's")).await.unwrap();
    let told = told(&db).await;
    let id = serde_json::json!(context.request_id);
    assert_eq!(told[0].payload["request_id"], id);
    assert_eq!(told[1].payload["request_id"], id);
    assert_eq!(told[2].payload.get("request_id"), None);
}

/// It has no record, so it names none.
#[tokio::test]
async fn what_is_refused_before_it_has_a_record_is_told() {
    let db = database().await;
    let mut log = log(OperationType::Copy, OperationLogStatus::Failed);
    log.error_info = Some("no such bank".to_owned());
    db.announcements().refused_operation(&log).await.unwrap();
    let told = told(&db).await;
    assert_eq!(told[0].event_type, "karbor.checkpoint_copy.error");
    assert_eq!(told[0].payload["message"], "no such bank");
    assert_eq!(told[0].payload.get("operation_log_id"), None);
    db.runs().operation_log_get(log.id).await.unwrap_err();
}
