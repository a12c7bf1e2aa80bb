//! What operations do, and to what.

use std::sync::atomic::Ordering;

use karbor_model::{
    ApiError, CheckpointStatus, OperationLogStatus, OperationType, ScheduledOperationType,
};
use serde_json::json;

use crate::house::{House, plan};

const RETENTION: ScheduledOperationType = ScheduledOperationType::RetentionProtect;

fn made_by(operation: impl std::fmt::Display) -> serde_json::Value {
    json!({"created_by": "operation-engine", "scheduled_operation_id": operation.to_string()})
}

/// Q45: retention counted checkpoints of others, and deleted the newest.
#[tokio::test]
async fn q45_retention_deletes_the_oldest_of_its_own() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(&engine, RETENTION, &[("max_backups", "2")])
        .await;
    let own: Vec<_> = (1..=3)
        .map(|days| house.fake.add(&house.plan, days, made_by(operation.id)))
        .collect();
    let others = [
        house
            .fake
            .add(&house.plan, 9, json!({"created_by": "manual"})),
        house.fake.add(&house.plan, 9, made_by("another")),
        house
            .fake
            .add(&plan(crate::house::PROJECT), 9, made_by(operation.id)),
    ];
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    assert_eq!(house.fake.state().deleted, [own[2], own[1]]);
    for other in others {
        assert_eq!(house.fake.status(other), CheckpointStatus::Available);
    }
}

/// Q45: retention ran after a backup that had failed.
#[tokio::test]
async fn q45_nothing_is_deleted_when_the_protect_failed() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(&engine, RETENTION, &[("max_backups", "1")])
        .await;
    for days in 1..=3 {
        house.fake.add(&house.plan, days, made_by(operation.id));
    }
    house.fake.state().bad = true;
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    assert!(house.fake.state().deleted.is_empty());
    // And when it was refused.
    house.fake.state().refusals = vec![ApiError::bad_request("No plugin for it.")];
    house.pass(3600).await;
    assert_eq!(house.ended(2).await, ["failed", "failed"]);
    assert!(house.fake.state().deleted.is_empty());
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert_eq!(reason, "No plugin for it.");
}

#[tokio::test]
async fn a_protect_is_tried_again_inside_its_window() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house
        .scheduled(&engine, ScheduledOperationType::Protect, &[])
        .await;
    let away = || ApiError::unavailable("The protection service is away.", "test");
    house.fake.state().refusals = vec![away(), away(), away()];
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    house.fake.state().refusals = (0..1000).map(|_| away()).collect();
    house.pass(3600).await;
    house.pass(1000).await;
    assert_eq!(house.ended(2).await, ["success", "failed"]);
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert_eq!(reason, "The protection service is away.");
    let failed = house.logs().await;
    let failed = failed
        .iter()
        .find(|log| log.status == OperationLogStatus::Failed)
        .unwrap();
    assert_eq!(failed.plan_id, Some(house.plan.id));
    assert!(failed.scheduled_operation_id.is_some());
}

/// The protection manager gave it up when its window was over, and nobody can look into the bank.
#[tokio::test]
async fn a_bank_that_stays_away_fails_the_run_and_not_the_next() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let protect = ScheduledOperationType::Protect;
    house.scheduled(&engine, protect, &[]).await;
    {
        let mut state = house.fake.state();
        (state.away, state.bad) = (true, true);
    }
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    assert_eq!(house.logs().await.len(), 1, "one record of it");
    {
        let mut state = house.fake.state();
        (state.away, state.bad) = (false, false);
    }
    house.pass(3600).await;
    assert_eq!(house.ended(2).await, ["failed", "success"]);
}

/// The bank went away before it could be told that the run failed.
#[tokio::test]
async fn a_checkpoint_that_nobody_makes_any_more_holds_back_no_later_run() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let protect = ScheduledOperationType::Protect;
    house.scheduled(&engine, protect, &[]).await;
    {
        let mut state = house.fake.state();
        (state.slow, state.bad) = (true, true);
    }
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    {
        let mut state = house.fake.state();
        (state.slow, state.bad) = (false, false);
    }
    house.pass(3600).await;
    assert_eq!(house.ended(2).await, ["failed", "success"]);
}

/// Q65: operations could be scheduled on the plans of others.
#[tokio::test]
async fn q65_a_plan_that_became_foreign_is_not_protected() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house
        .scheduled(&engine, ScheduledOperationType::Protect, &[])
        .await;
    let moved = "UPDATE plans SET project_id = 'p2'";
    // It waits for the writer, who waits for this thread.
    let raw = house.raw();
    let done = tokio::task::spawn_blocking(move || raw.execute(moved, []));
    done.await.unwrap().unwrap();
    house.pass(3700).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    assert!(house.fake.state().asked.is_empty());
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert!(reason.contains("could not be found"), "{reason}");
}

#[tokio::test]
async fn an_owner_who_is_gone_ends_the_operation() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(&engine, ScheduledOperationType::Protect, &[])
        .await;
    house.owners.gone.store(true, Ordering::Relaxed);
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert_eq!(
        reason,
        "The trust trust-1 is gone. The operation was disabled."
    );
    let stored = house.db.schedules().operation_get(operation.id).await;
    assert!(!stored.unwrap().enabled);
}

/// That is not the owner's doing: the operation runs again once the service is mended.
#[tokio::test]
async fn a_service_that_can_act_for_nobody_fails_runs_and_disables_nothing() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(&engine, ScheduledOperationType::Protect, &[])
        .await;
    house.owners.misconfigured.store(true, Ordering::Relaxed);
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert_eq!(reason, "The service has no user to take trusts.");
    let stored = house.db.schedules().operation_get(operation.id).await;
    assert!(stored.unwrap().enabled);
}

#[tokio::test]
async fn the_newest_checkpoint_is_verified_or_all_are() {
    for (which, accepts, count) in [(None, false, 1), (Some("all"), true, 3)] {
        let house = House::new().await;
        let engine = house.engine("a").await;
        let mut definition = vec![
            ("level", "data"),
            ("parameters", r#"{"Host::Directory": {"sample": "5%"}}"#),
        ];
        definition.extend(which.map(|which| ("checkpoints", which)));
        definition.extend(accepts.then_some(("accept_unsealed", "true")));
        house
            .scheduled(
                &engine,
                ScheduledOperationType::Readback(OperationType::Verify),
                &definition,
            )
            .await;
        let made: Vec<_> = (0..3)
            .map(|days| house.fake.add(&house.plan, days, json!({})))
            .collect();
        house.pass(3600).await;
        assert_eq!(house.ended(1).await, ["success"]);
        let verified = std::mem::take(&mut house.fake.state().verified);
        assert_eq!(verified.len(), count);
        assert_eq!(verified[0].checkpoint_id, made[0]);
        assert!(verified.iter().all(|one| one.accept_unsealed == accepts));
        assert_eq!(
            json!(verified[0].parameters),
            json!({"Host::Directory": {"sample": "5%", "level": "data"}})
        );
        house.fake.state().bad = true;
        house.pass(3600).await;
        assert_eq!(house.ended(2).await, ["success", "failed"]);
    }
}

#[tokio::test]
async fn a_verification_of_nothing_is_a_failure() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house
        .scheduled(
            &engine,
            ScheduledOperationType::Readback(OperationType::Verify),
            &[],
        )
        .await;
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["failed"]);
    let reason = house.reason(OperationLogStatus::Failed).await;
    assert!(reason.contains("no available checkpoint"), "{reason}");
    assert_eq!(house.logs().await[0].operation_type, OperationType::Verify);
}

#[tokio::test]
async fn expired_checkpoints_of_scheduled_operations_are_deleted() {
    for only_one in [false, true] {
        let house = House::new().await;
        let engine = house.engine("a").await;
        let (one, other) = (uuid(1), uuid(2));
        let mut definition = vec![("retention_duration", "7")];
        if only_one {
            definition.push(("scheduled_operation_id", one.as_str()));
        }
        house
            .scheduled(&engine, ScheduledOperationType::Delete, &definition)
            .await;
        let old = house.fake.add(&house.plan, 10, made_by(&one));
        let young = house.fake.add(&house.plan, 1, made_by(&one));
        let others = house.fake.add(&house.plan, 20, made_by(&other));
        let manual = house
            .fake
            .add(&house.plan, 30, json!({"created_by": "manual"}));
        house.pass(3600).await;
        assert_eq!(house.ended(1).await, ["success"]);
        let expected = match only_one {
            true => vec![old],
            false => vec![others, old],
        };
        assert_eq!(house.fake.state().deleted, expected);
        for kept in [young, manual] {
            assert_eq!(house.fake.status(kept), CheckpointStatus::Available);
        }
    }
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{number:02}")
}
