use chrono::TimeDelta;
use karbor_manager::Clock;

use crate::firing::{other, stage};

#[tokio::test]
async fn a_trigger_that_is_only_renamed_fires_as_before() {
    let stage = stage().await;
    let (mut due, _) = stage.due(1).await;
    due.trigger.name = "renamed".to_owned();
    due.trigger = stage
        .db
        .schedules()
        .trigger_update(&due.trigger)
        .await
        .unwrap();
    let found = stage
        .db
        .schedules()
        .executions_due(stage.clock.now(), 10)
        .await;
    assert_eq!(found.unwrap(), std::slice::from_ref(&due));
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    assert_eq!((fired.triggers, fired.runs), (1, 1));
    assert!(stage.reasons().await.is_empty());
}

#[tokio::test]
async fn a_due_time_that_a_change_overtakes_is_recorded_as_missed() {
    let stage = stage().await;
    let (due, _) = stage.due(2).await;
    stage
        .db
        .schedules()
        .trigger_update(&other(&due.trigger))
        .await
        .unwrap();
    let reasons = stage.reasons().await;
    assert_eq!(reasons.len(), 2);
    let expected = format!("due at {}", due.at.unwrap());
    for reason in reasons {
        assert!(reason.contains(&expected), "{reason}");
        assert!(reason.contains("trigger was changed"), "{reason}");
    }
    assert_eq!(stage.db.schedules().next_execution().await.unwrap(), None);
}

#[tokio::test]
async fn a_change_records_nothing_of_what_was_run_or_is_to_come() {
    let stage = stage().await;
    let (due, _) = stage.due(1).await;
    stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let next = stage
        .db
        .schedules()
        .next_execution()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next, due.at.unwrap() + TimeDelta::seconds(60));
    stage
        .db
        .schedules()
        .trigger_update(&other(&due.trigger))
        .await
        .unwrap();
    assert!(stage.reasons().await.is_empty());
}
