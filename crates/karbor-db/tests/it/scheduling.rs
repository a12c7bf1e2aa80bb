use std::{collections::BTreeMap, sync::Arc};

use karbor_db::{Db, DbError, Direction, ListQuery};
use karbor_model::{
    ScheduledOperation, ScheduledOperationId, ScheduledOperationType, Trigger, TriggerId,
};
use karbor_testkit::FakeClock;
use serde_json::json;

use crate::support::{at, fixture, plan};

pub fn trigger(project: &str, name: &str) -> Trigger {
    let properties = json!({
        "format": "calendar",
        "pattern": "BEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT",
        "window": "25",
    });
    Trigger {
        id: TriggerId::new(),
        name: name.to_owned(),
        project_id: project.to_owned(),
        trigger_type: "time".to_owned(),
        properties: serde_json::from_value(properties).unwrap(),
        created_at: Some(at(1)),
        updated_at: None,
    }
}

pub fn operation(trigger: &Trigger, name: &str) -> ScheduledOperation {
    let definition = [("plan_id", "p-1"), ("max_backups", "3")];
    ScheduledOperation {
        id: ScheduledOperationId::new(),
        name: name.to_owned(),
        description: Some("ünïcode".to_owned()),
        operation_type: ScheduledOperationType::RetentionProtect,
        user_id: "user".to_owned(),
        project_id: trigger.project_id.clone(),
        trigger_id: trigger.id,
        operation_definition: definition
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        enabled: true,
        created_at: at(2),
        updated_at: None,
    }
}

async fn stored(db: &Db, project: &str, name: &str) -> (Trigger, ScheduledOperation) {
    let trigger = trigger(project, name);
    db.schedules().trigger_create(&trigger).await.unwrap();
    let operation = operation(&trigger, name);
    db.schedules()
        .operation_create(&operation, None)
        .await
        .unwrap();
    (trigger, operation)
}

#[tokio::test]
async fn both_come_back_as_they_went_in_the_originals_form() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (trigger, operation) = stored(db, "p", "n").await;
    assert_eq!(
        db.schedules().trigger_get(trigger.id).await.unwrap(),
        trigger
    );
    let read = db.schedules().operation_get(operation.id).await.unwrap();
    assert_eq!(read, operation);
    let stored: (String, String, bool) = fixture
        .raw()
        .query_row(
            "SELECT operation_definition, created_at, enabled FROM scheduled_operations",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(stored.0, r#"{"max_backups": "3", "plan_id": "p-1"}"#);
    assert_eq!(stored.1, "2025-10-09 08:53:20.000002");
    assert!(stored.2);
    let again = db.schedules().trigger_create(&trigger).await.unwrap_err();
    assert!(matches!(again, DbError::Conflict { .. }), "{again:?}");
}

#[tokio::test]
async fn a_trigger_is_updated_by_who_read_it_last() {
    let fixture = fixture().await;
    let clock = FakeClock::new();
    let db = fixture.db.clone().with_clock(Arc::new(clock));
    let (first, _) = stored(&db, "p", "one").await;
    let mut change = first.clone();
    change.name = "two".to_owned();
    change.properties.remove("window");
    let second = db.schedules().trigger_update(&change).await.unwrap();
    assert_eq!(db.schedules().trigger_get(first.id).await.unwrap(), second);
    assert_eq!(second.name, "two");
    assert!(!second.properties.contains_key("window"));
    let stale = db.schedules().trigger_update(&change).await.unwrap_err();
    assert!(
        stale.to_string().contains("changed by somebody else"),
        "{stale}"
    );
    // The clock stood still, and yet the versions differ.
    let third = db.schedules().trigger_update(&second).await.unwrap();
    assert!(third.updated_at > second.updated_at);
}

#[tokio::test]
async fn a_trigger_in_use_stays() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (trigger, operation) = stored(db, "p", "n").await;
    assert!(db.schedules().trigger_in_use(trigger.id).await.unwrap());
    let refused = db.schedules().trigger_delete(trigger.id).await.unwrap_err();
    assert!(refused.to_string().contains("being used"), "{refused}");
    db.schedules().operation_delete(operation.id).await.unwrap();
    assert!(!db.schedules().trigger_in_use(trigger.id).await.unwrap());
    db.schedules().trigger_delete(trigger.id).await.unwrap();
    for error in [
        db.schedules().trigger_get(trigger.id).await.unwrap_err(),
        db.schedules().trigger_delete(trigger.id).await.unwrap_err(),
        db.schedules().trigger_update(&trigger).await.unwrap_err(),
        db.schedules()
            .operation_create(&operation, None)
            .await
            .unwrap_err(),
    ] {
        let expected = format!("Trigger {} could not be found.", trigger.id);
        assert_eq!(error.to_string(), expected);
    }
    assert!(
        db.schedules()
            .trigger_list(&ListQuery::of_every_project())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_operation_goes_with_what_an_engine_noted_of_it() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (_, operation) = stored(db, "p", "n").await;
    let id = operation.id;
    let nobody = db.schedules().operation_trust(id).await.unwrap_err();
    assert!(matches!(nobody, DbError::NotFound { .. }), "{nobody:?}");
    let service = db.services().register("host", "b", "t").await.unwrap();
    db.schedules()
        .operation_register(id, service.id, Some("trust"))
        .await
        .unwrap();
    let trust = db.schedules().operation_trust(id).await.unwrap();
    assert_eq!(trust.as_deref(), Some("trust"));
    let twice = db
        .schedules()
        .operation_register(id, service.id, None)
        .await;
    assert!(matches!(twice, Err(DbError::Conflict { .. })), "{twice:?}");
    db.schedules().operation_delete(id).await.unwrap();
    let left: i64 = fixture
        .raw()
        .query_row(
            "SELECT count(*) FROM scheduled_operation_states",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
    let gone = db.schedules().operation_delete(id).await.unwrap_err();
    assert!(matches!(gone, DbError::NotFound { .. }), "{gone:?}");
}

#[tokio::test]
async fn what_no_engine_took_on_is_found_with_its_trust() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let trigger = trigger("p", "n");
    db.schedules().trigger_create(&trigger).await.unwrap();
    let (with, without) = (operation(&trigger, "a"), operation(&trigger, "b"));
    let trust = Some("trust".to_owned());
    db.schedules()
        .operation_create(&with, trust.as_deref())
        .await
        .unwrap();
    db.schedules()
        .operation_create(&without, None)
        .await
        .unwrap();
    let mut found = db.schedules().operations_unregistered(9).await.unwrap();
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    assert_eq!(found, [(with.clone(), trust), (without.clone(), None)]);
    let service = db.services().register("host", "b", "t").await.unwrap();
    db.schedules()
        .operation_register(with.id, service.id, None)
        .await
        .unwrap();
    let found = db.schedules().operations_unregistered(9).await.unwrap();
    assert_eq!(found, [(without, None)]);
}

#[tokio::test]
async fn an_operation_is_left_out_and_taken_in_again() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (_, operation) = stored(db, "p", "n").await;
    for enabled in [false, true] {
        db.schedules()
            .operation_set_enabled(operation.id, enabled)
            .await
            .unwrap();
        let read = db.schedules().operation_get(operation.id).await.unwrap();
        assert_eq!(read.enabled, enabled);
    }
    let unknown = ScheduledOperationId::new();
    let gone = db.schedules().operation_set_enabled(unknown, true).await;
    assert!(matches!(gone, Err(DbError::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn both_are_listed_by_project_filter_and_page() {
    let fixture = fixture().await;
    let db = &fixture.db;
    for name in ["a", "b", "ab"] {
        stored(db, "p", name).await;
    }
    let (foreign, _) = stored(db, "q", "a").await;
    let query = |filter: &str, value: &str| ListQuery {
        filters: vec![(filter.to_owned(), value.to_owned())],
        sort: vec![("name".to_owned(), Direction::Ascending)],
        ..ListQuery::project("p")
    };
    for (filter, value, expected) in [
        ("name", "a", vec!["a", "ab"]),
        ("name", "5", vec![]),
        ("properties", "FREQ=DAILY", vec!["a", "ab", "b"]),
        ("properties", "FREQ=WEEKLY", vec![]),
        ("type", "time", vec!["a", "ab", "b"]),
        ("unknown", "x", vec!["a", "ab", "b"]),
    ] {
        let found = db
            .schedules()
            .trigger_list(&query(filter, value))
            .await
            .unwrap();
        let names: Vec<_> = found.iter().map(|trigger| trigger.name.as_str()).collect();
        assert_eq!(names, expected, "{filter}={value}");
    }
    let foreign = foreign.id.to_string();
    for (filter, value, expected) in [
        ("name", "b", vec!["ab", "b"]),
        ("operation_type", "protect", vec![]),
        ("operation_type", "retention_protect", vec!["a", "ab", "b"]),
        ("operation_definition", "max_backups", vec!["a", "ab", "b"]),
        ("trigger_id", foreign.as_str(), vec![]),
    ] {
        let found = db.schedules().operation_list(&query(filter, value)).await;
        let found = found.unwrap();
        let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, expected, "{filter}={value}");
    }
    let mut page = query("type", "time");
    page.limit = Some(2);
    let first = db.schedules().trigger_list(&page).await.unwrap();
    page.marker = Some(first[1].id.to_string());
    let second = db.schedules().trigger_list(&page).await.unwrap();
    assert_eq!(second.len(), 1);
    page.marker = Some(TriggerId::new().to_string());
    let unknown = db.schedules().trigger_list(&page).await.unwrap_err();
    assert!(matches!(unknown, DbError::NotFound { .. }), "{unknown:?}");
    let definition: BTreeMap<_, _> = db
        .schedules()
        .operation_list(&ListQuery::project("q"))
        .await
        .unwrap()[0]
        .operation_definition
        .clone();
    assert_eq!(definition["plan_id"], "p-1");
}

#[tokio::test]
async fn a_deleted_plans_operations_are_disabled() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (trigger, unrelated) = stored(db, "p", "unrelated").await;
    let plans = ["kept", "gone"].map(|name| plan("p", name));
    let mut ids = Vec::new();
    for plan in &plans {
        db.plans().create(plan).await.unwrap();
        let mut operation = operation(&trigger, &plan.name);
        let id = plan.id.to_string();
        operation.operation_definition.insert("plan_id".into(), id);
        db.schedules()
            .operation_create(&operation, None)
            .await
            .unwrap();
        ids.push(operation.id);
    }
    db.plans().delete(plans[1].id).await.unwrap();
    let mut enabled = Vec::new();
    for id in [unrelated.id, ids[0], ids[1]] {
        enabled.push(db.schedules().operation_get(id).await.unwrap().enabled);
    }
    assert_eq!(enabled, [true, true, false]);
}
