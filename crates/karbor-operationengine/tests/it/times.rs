//! When runs happen, and what becomes of those that do not.

use std::time::Duration;

use karbor_interfaces::OperationEngineApi;
use karbor_model::{
    CheckpointStatus, ErrorKind, OperationLogStatus, PlanStatus, RequestContext,
    ScheduledOperationType,
};

use crate::house::{House, PROJECT, USER, until};

const PROTECT: ScheduledOperationType = ScheduledOperationType::Protect;

#[tokio::test]
async fn an_operation_runs_on_time_as_its_owner() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(3590).await;
    assert!(house.fake.state().asked.is_empty());
    house.clock.turn(Duration::from_secs(10));
    assert_eq!(house.ended(1).await, ["success"]);
    let (context, properties) = house.fake.state().asked[0].clone();
    assert_eq!(context.user_id.as_deref(), Some(USER));
    assert_eq!(context.project_id, PROJECT);
    assert!(!context.is_admin);
    assert_eq!(context.scheduled_operation_id, Some(operation.id));
    assert_eq!(
        serde_json::json!(properties.begin_before),
        "2026-01-01T01:15:00Z",
        "its window"
    );
    let said = properties.extra_info.unwrap();
    let info: serde_json::Value = serde_json::from_str(said.as_str().unwrap()).unwrap();
    assert_eq!(info["created_by"], "operation-engine");
    assert_eq!(info["trigger_id"], operation.trigger_id.to_string());
    assert_eq!(info["scheduled_operation_id"], operation.id.to_string());
}

#[tokio::test]
async fn two_engines_share_the_work_and_do_nothing_twice() {
    let house = House::new().await;
    let engines = [house.engine("a").await, house.engine("b").await];
    for number in 0..20 {
        house.scheduled(&engines[number % 2], PROTECT, &[]).await;
    }
    for hour in 1..=3 {
        house.pass(3600).await;
        assert_eq!(house.ended(20 * hour).await.len(), 20 * hour);
    }
    assert_eq!(house.fake.state().asked.len(), 60);
    assert!(
        house
            .logs()
            .await
            .iter()
            .all(|log| log.status == OperationLogStatus::Success)
    );
}

#[tokio::test]
async fn one_engine_fires_what_another_was_told_of() {
    let house = House::new().await;
    let first = house.engine("a").await;
    house.scheduled(&first, PROTECT, &[]).await;
    drop(first);
    let _second = house.engine("b").await;
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
}

#[tokio::test]
async fn what_was_missed_while_nobody_was_there_is_recorded_or_made_up_for() {
    for (late, runs) in [(1000, 0), (600, 1)] {
        let house = House::new().await;
        let engine = house.engine("a").await;
        house.scheduled(&engine, PROTECT, &[]).await;
        drop(engine);
        house.clock.turn(Duration::from_secs(5 * 3600 + late));
        let _engine = house.engine("a").await;
        let reason = house.reason(OperationLogStatus::Missed).await;
        let missed = 5 - runs;
        assert!(
            reason.starts_with(&format!("{missed} runs, due from")),
            "{reason}"
        );
        if runs > 0 {
            assert_eq!(house.ended(1).await, ["success"]);
        }
        assert_eq!(house.fake.state().asked.len(), runs);
        let records = house.logs().await;
        assert_eq!(
            records.len(),
            1 + runs,
            "one record for all that was missed"
        );
    }
}

#[tokio::test]
async fn a_trigger_that_came_when_no_engine_was_there_is_followed_from_its_beginning() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let trigger = house.hourly().await;
    let operation = house.operation(&trigger, PROTECT, &[]);
    house.take_on(&engine, &operation).await;
    drop(engine);
    let changed = house.db.schedules().trigger_update(&trigger).await.unwrap();
    assert!(changed.updated_at.is_some());
    house.clock.turn(Duration::from_secs(2 * 3600 + 1000));
    let _engine = house.engine("a").await;
    let reason = house.reason(OperationLogStatus::Missed).await;
    assert!(reason.starts_with("2 runs"), "{reason}");
}

/// Its maker died before an engine heard of it.
#[tokio::test]
async fn an_operation_that_no_engine_was_told_of_is_taken_on() {
    let house = House::new().await;
    let trigger = house.hourly().await;
    let operation = house.operation(&trigger, PROTECT, &[]);
    house.recorded(&operation, Some("trust-7")).await;
    let wrong = house.operation(&trigger, PROTECT, &[("plan_id", "none")]);
    house.recorded(&wrong, None).await;
    let engine = house.engine("a").await;
    until(async || house.db.schedules().next_execution().await.unwrap()).await;
    let trust = house.db.schedules().operation_trust(operation.id).await;
    assert_eq!(trust.unwrap().as_deref(), Some("trust-7"));
    house
        .db
        .schedules()
        .operation_get(wrong.id)
        .await
        .unwrap_err();
    // Its maker was only slow.
    let context = RequestContext::admin();
    let told = engine
        .manager()
        .create_scheduled_operation(&context, operation, None);
    told.await.unwrap();
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    assert_eq!(house.logs().await.len(), 1, "nothing is missed");
}

#[tokio::test]
async fn runs_of_one_operation_do_not_pile_up() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.fake.state().slow = true;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(3600).await;
    until(async || (house.fake.state().asked.len() == 1).then_some(())).await;
    house.pass(3600).await;
    let reason = house.reason(OperationLogStatus::Missed).await;
    assert!(
        reason.contains("the one due at 2026-01-01 01:00:00 UTC is still going"),
        "{reason}"
    );
    assert_eq!(house.fake.state().asked.len(), 1);
    house.fake.settle(CheckpointStatus::Available);
    assert_eq!(house.ended(1).await, ["success"]);
    house.fake.state().slow = false;
    house.pass(3600).await;
    assert_eq!(house.ended(2).await, ["success", "success"]);
}

#[tokio::test]
async fn a_suspended_operation_rests_until_it_is_resumed() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    let context = RequestContext::admin();
    let (id, trigger) = (operation.id, operation.trigger_id);
    let api = engine.manager();
    api.suspend_scheduled_operation(&context, id, trigger)
        .await
        .unwrap();
    house.pass(2 * 3600).await;
    assert!(house.logs().await.is_empty(), "it was asked to rest");
    api.resume_scheduled_operation(&context, id, trigger)
        .await
        .unwrap();
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    api.delete_scheduled_operation(&context, id, trigger)
        .await
        .unwrap();
    house.db.schedules().operation_delete(id).await.unwrap();
    house.pass(3600).await;
    assert_eq!(house.fake.state().asked.len(), 1);
}

#[tokio::test]
async fn a_new_plan_is_scheduled_and_a_suspended_one_is_not() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"], "as it was made");
    let (started, suspended) = (PlanStatus::Started, PlanStatus::Suspended);
    let plan = house.plan.id;
    house
        .db
        .plans()
        .set_status(plan, suspended, started)
        .await
        .unwrap();
    house
        .db
        .plans()
        .set_status(plan, started, suspended)
        .await
        .unwrap();
    house.pass(3600).await;
    let reason = house.reason(OperationLogStatus::Missed).await;
    assert!(reason.contains("is suspended. Start it"), "{reason}");
    assert_eq!(house.ended(2).await, ["success", "dropped_out_of_window"]);
    house
        .db
        .plans()
        .set_status(plan, suspended, started)
        .await
        .unwrap();
    house.pass(3600).await;
    assert_eq!(house.ended(3).await[2], "success");
}

#[tokio::test]
async fn an_engine_out_of_service_leaves_the_work_to_others() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    let id = engine.record().id;
    house
        .db
        .services()
        .set_disabled(id, true, Some("maintenance"))
        .await
        .unwrap();
    // It looks again at the next poll, before it fires.
    house.pass(3600).await;
    assert!(house.fake.state().asked.is_empty());
    let _other = house.engine("b").await;
    assert_eq!(house.ended(1).await, ["success"]);
}

/// Under another id: what is asked of the record before does not count any more.
#[tokio::test]
async fn a_record_that_was_removed_and_made_anew_is_the_engine_s() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let trigger = house.hourly().await;
    let before = engine.record().id;
    // Or SQLite would give the same id again.
    let services = house.db.services();
    let next = services.register("b", "karbor-other", "other");
    next.await.unwrap();
    let removed = house
        .raw()
        .execute("DELETE FROM services WHERE id = ?1", [before]);
    assert_eq!(removed.unwrap(), 1);

    let operation = house.operation(&trigger, PROTECT, &[]);
    house.recorded(&operation, None).await;
    let context = RequestContext::for_project(USER, PROJECT, false);
    let manager = engine.manager();
    let taken = manager.create_scheduled_operation(&context, operation.clone(), None);
    let error = taken.await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    assert!(error.message.contains("next heartbeat"), "{error}");

    let id = until(async || {
        house.clock.turn(Duration::from_secs(1));
        let id = engine.record().id;
        (id != before).then_some(id)
    });
    let id = id.await;
    let services = house.db.services();
    let disabled = services.set_disabled(id, true, Some("maintenance"));
    disabled.await.unwrap();
    let taken = manager.create_scheduled_operation(&context, operation, None);
    taken.await.unwrap();
    house.pass(7200).await;
    assert!(
        house.fake.state().asked.is_empty(),
        "a disabled engine fired"
    );
    let services = house.db.services();
    let enabled = services.set_disabled(id, false, None);
    enabled.await.unwrap();
    house.pass(3600).await;
    assert!(!house.ended(1).await.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_run_is_not_its_end_and_it_is_not_left_running_for_ever() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.fake.state().panics = 2;
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    assert_eq!(house.fake.state().calls, 3);
}

#[tokio::test]
async fn a_changed_trigger_fires_by_what_it_says_now() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    let mut trigger = house
        .db
        .schedules()
        .trigger_get(operation.trigger_id)
        .await
        .unwrap();
    trigger.properties = crate::house::properties("30 * * * *", 900);
    let trigger = house.db.schedules().trigger_update(&trigger).await.unwrap();
    let context = RequestContext::admin();
    engine
        .manager()
        .update_trigger(&context, trigger)
        .await
        .unwrap();
    house.pass(1800).await;
    assert_eq!(house.ended(1).await, ["success"]);
    house.pass(1800 + 60).await;
    assert_eq!(house.fake.state().asked.len(), 1);
}
