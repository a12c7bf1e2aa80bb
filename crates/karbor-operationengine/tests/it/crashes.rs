//! Engines that die at every step. An engine that is dropped stops where it stands, as after
//! `kill -9`: what it had not written is lost, and nobody else is told.

use std::time::Duration;

use karbor_interfaces::OperationEngineApi;
use karbor_model::{CheckpointStatus, OperationLogStatus, RequestContext, ScheduledOperationType};
use serde_json::json;

use crate::{
    fake::Hang,
    house::{Engine, House, until},
};

/// Before the checkpoint is asked for; after it was made, before the answer is heard; while it is
/// made; after the first of three is deleted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dies {
    Hung(Hang),
    Waiting,
}

const STEPS: [Dies; 4] = [
    Dies::Hung(Hang::BeforeProtect),
    Dies::Hung(Hang::AfterProtect),
    Dies::Waiting,
    Dies::Hung(Hang::AfterDelete),
];

/// An engine that has died at `step` of a run whose retention is to delete three checkpoints.
async fn died_at(house: &House, step: Dies) -> Engine {
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(
            &engine,
            ScheduledOperationType::RetentionProtect,
            &[("max_backups", "2")],
        )
        .await;
    for days in 1..=4 {
        let info =
            json!({"created_by": "operation-engine", "scheduled_operation_id": operation.id});
        house.fake.add(&house.plan, days, info);
    }
    match step {
        Dies::Waiting => house.fake.state().slow = true,
        Dies::Hung(hang) => house.fake.state().hang = Some(hang),
    }
    house.pass(3600).await;
    match step {
        Dies::Waiting => {
            until(async || (!house.fake.state().asked.is_empty()).then_some(())).await;
        }
        Dies::Hung(_) => {
            let hung = house.fake.hung.notified();
            tokio::time::timeout(Duration::from_secs(10), hung)
                .await
                .expect("it did not come to the step");
        }
    }
    engine
}

async fn ends_once(house: &House, step: Dies) {
    assert_eq!(house.ended(1).await, ["success"], "{step:?}");
    let state = house.fake.state();
    assert_eq!(state.asked.len(), 1, "{step:?}: one checkpoint was made");
    assert_eq!(state.deleted.len(), 3, "{step:?}");
    let left = state.checkpoints.values();
    let left = left.filter(|one| one.status == CheckpointStatus::Available);
    assert_eq!(left.count(), 2, "{step:?}");
}

#[tokio::test]
async fn a_dead_engines_run_is_adopted_when_its_lease_ends() {
    for step in STEPS {
        let house = House::new().await;
        drop(died_at(&house, step).await);
        house.fake.state().hang = None;
        let _other = house.engine("b").await;
        house.pass(30).await;
        assert!(
            house.fake.state().deleted.len() < 3,
            "{step:?}: the lease still holds"
        );
        house.fake.settle(CheckpointStatus::Available);
        house.pass(60).await;
        ends_once(&house, step).await;
    }
}

#[tokio::test]
async fn an_engine_that_starts_again_goes_on_at_once() {
    for step in STEPS {
        let house = House::new().await;
        drop(died_at(&house, step).await);
        house.fake.state().hang = None;
        house.fake.settle(CheckpointStatus::Available);
        let before = house.now();
        let _again = house.engine("a").await;
        ends_once(&house, step).await;
        let lease = chrono::TimeDelta::seconds(60);
        assert!(
            house.now() - before < lease,
            "{step:?}: no lease had to end"
        );
    }
}

/// One that only hangs wakes up after another has adopted its run: it changes nothing any more.
#[tokio::test]
async fn an_engine_that_was_slow_makes_no_second_checkpoint() {
    let house = House::new().await;
    let slow = died_at(&house, Dies::Hung(Hang::AfterProtect)).await;
    house.fake.state().hang = None;
    let _other = house.engine("b").await;
    // It renews as long as it can, and may be the first to take again what it lost: so take its run away as
    // if it could not have, until the other has it.
    let raw = house.raw();
    until(async || {
        house.db.schedules().runs_release("a/").await.unwrap();
        house.clock.turn(Duration::from_secs(1));
        let owner = raw.query_row("SELECT owner FROM scheduled_runs", [], |row| {
            row.get::<_, Option<String>>(0)
        });
        let owner = owner.ok().flatten().unwrap_or_default();
        let is_taken = owner.starts_with("b/") || !house.fake.state().deleted.is_empty();
        is_taken.then_some(())
    })
    .await;
    ends_once(&house, Dies::Hung(Hang::AfterProtect)).await;
    drop(slow);
}

/// It claims what it released, or what it could not renew in time, as anybody would.
#[tokio::test]
async fn an_engine_goes_on_with_a_run_that_it_has_and_does_not_begin_it_anew() {
    let house = House::new().await;
    let step = Dies::Hung(Hang::BeforeProtect);
    let engine = died_at(&house, step).await;
    assert_eq!(house.fake.state().calls, 1);
    house.db.schedules().runs_release("a/").await.unwrap();
    // Told of a change, it looks for what is due.
    let context = RequestContext::admin();
    let trigger = house.hourly().await;
    engine
        .manager()
        .create_trigger(&context, trigger)
        .await
        .unwrap();
    until(async || house.running().then_some(())).await;
    house.pass(100).await;
    assert_eq!(house.fake.state().calls, 1, "it was begun once");
    drop(engine);
    house.fake.state().hang = None;
    let _again = house.engine("a").await;
    ends_once(&house, step).await;
}

/// The answer that a checkpoint is made does not come before the window is over.
#[tokio::test]
async fn a_lost_answer_at_the_end_of_the_window_fails_nothing() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let protect = ScheduledOperationType::Protect;
    house.scheduled(&engine, protect, &[]).await;
    house.fake.state().lost_after = Some(Duration::from_secs(1000));
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    assert_eq!(house.fake.state().asked.len(), 1);
}

#[tokio::test]
async fn a_run_that_nobody_began_in_time_is_missed() {
    let house = House::new().await;
    drop(died_at(&house, Dies::Hung(Hang::BeforeProtect)).await);
    house.fake.state().hang = None;
    house.clock.turn(Duration::from_secs(1000));
    let _again = house.engine("a").await;
    let reason = house.reason(OperationLogStatus::Missed).await;
    assert!(
        reason.contains("no operation engine began it inside its window"),
        "{reason}"
    );
    assert_eq!(house.ended(1).await, ["dropped_out_of_window"]);
    let state = house.fake.state();
    assert!(state.asked.is_empty());
    assert!(state.deleted.is_empty());
}

/// A shutdown does not wait for checkpoints: the run is free for others at once.
#[tokio::test]
async fn a_shutdown_gives_up_what_only_waits() {
    let house = House::new().await;
    let engine = died_at(&house, Dies::Waiting).await;
    let report = engine.shutdown(Duration::from_secs(30)).await;
    assert!(report.is_graceful(), "{report:?}");
    house.fake.settle(CheckpointStatus::Available);
    let before = house.now();
    let _other = house.engine("b").await;
    ends_once(&house, Dies::Waiting).await;
    assert!(house.now() - before < chrono::TimeDelta::seconds(60));
}
