//! A clock that was wrong for a while: what it leaves behind stops nothing, deletes nothing, and is told.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use karbor_interfaces::OperationEngineApi;
use karbor_model::{
    CheckpointStatus, OperationLogStatus, OperationType, RequestContext, ScheduledOperationType,
};
use serde_json::json;

use crate::house::{Engine, House, until};

const PROTECT: ScheduledOperationType = ScheduledOperationType::Protect;
const MONTHS: TimeDelta = TimeDelta::days(183);

/// Lets the clock go on until it shows this minute again, and waits until there were so many runs, and no more.
async fn runs_at(house: &House, minute: i64, expected: usize) {
    let left = (minute * 60 - house.now().timestamp() - 1).rem_euclid(3600) + 1;
    house.pass(u64::try_from(left).unwrap()).await;
    runs(house, expected).await;
}

/// Waits until there were so many runs, and no more. The clock hardly goes on meanwhile.
async fn runs(house: &House, expected: usize) {
    let runs = || house.fake.state().asked.len();
    until(async || {
        house.clock.turn(Duration::from_millis(50));
        (runs() >= expected).then_some(())
    })
    .await;
    assert_eq!(runs(), expected);
}

/// What was announced of the clock.
fn announced(house: &House) -> Vec<String> {
    let raw = house.raw();
    let mut query = raw
        .prepare(
            "SELECT payload FROM notifications WHERE event_type = 'karbor.clock.warning' ORDER BY seq",
        )
        .unwrap();
    let payloads = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let message = |payload: String| {
        let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
        payload["message"].as_str().unwrap().to_owned()
    };
    payloads.map(|payload| message(payload.unwrap())).collect()
}

/// The clock is ahead until a run was made, then right again; the time that passed meanwhile passed.
async fn ahead_for_a_run(house: &House, by: TimeDelta) {
    let before = house.fake.state().asked.len();
    let states = house.ended(0).await.len();
    house.clock.set_time_of_day(house.now() + by);
    // What it jumped over is recorded, before the next due time comes.
    house.reason(OperationLogStatus::Missed).await;
    runs_at(house, 0, before + 1).await;
    house.ended(states + 1).await;
    house.clock.set_time_of_day(house.now() - by);
}

#[tokio::test]
async fn a_schedule_goes_on_when_a_clock_that_was_ahead_is_right_again() {
    for restarted in [false, true] {
        let house = House::new().await;
        let mut engine = house.engine("a").await;
        house.scheduled(&engine, PROTECT, &[]).await;
        house.pass(1200).await;
        ahead_for_a_run(&house, MONTHS).await;
        let runs = house.fake.state().asked.len();
        if restarted {
            drop(engine);
            engine = house.engine("a").await;
        }
        runs_at(&house, 0, runs + 1).await;
        house.pass(60).await;
        runs_at(&house, 0, runs + 2).await;
        drop(engine);
    }
}

#[tokio::test]
async fn a_due_time_just_before_the_clock_was_put_right_is_run() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(1200).await;
    ahead_for_a_run(&house, MONTHS).await;
    let before = house.fake.state().asked.len();
    let hour = (house.now() + TimeDelta::hours(1)).duration_trunc(TimeDelta::hours(1));
    house
        .clock
        .set_time_of_day(hour.unwrap() + TimeDelta::seconds(2));
    house.pass(20).await;
    runs(&house, before + 1).await;
}

#[tokio::test]
async fn a_trigger_that_is_changed_after_a_clock_was_ahead_is_not_taken_for_run() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(1200).await;
    ahead_for_a_run(&house, MONTHS).await;
    let false_time = house.now() + MONTHS;
    let before = house.fake.state().asked.len();
    let mut trigger = house
        .db
        .schedules()
        .trigger_get(operation.trigger_id)
        .await
        .unwrap();
    trigger.properties = crate::house::properties("0 * * * *", 901);
    let trigger = house.db.schedules().trigger_update(&trigger).await.unwrap();
    let context = RequestContext::admin();
    engine
        .manager()
        .update_trigger(&context, trigger)
        .await
        .unwrap();
    house.pass(60).await;
    runs_at(&house, 0, before + 1).await;
    // Nor is the run of the false time taken for that of the same time when it comes.
    house
        .clock
        .set_time_of_day(false_time - TimeDelta::minutes(40));
    house.pass(60).await;
    runs_at(&house, 0, before + 2).await;
}

#[tokio::test]
async fn an_operation_that_was_enabled_while_the_clock_was_ahead_runs() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let right = house.now();
    house.clock.set_time_of_day(right + MONTHS);
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    let (context, api) = (RequestContext::admin(), engine.manager());
    let (id, trigger) = (operation.id, operation.trigger_id);
    api.suspend_scheduled_operation(&context, id, trigger)
        .await
        .unwrap();
    api.resume_scheduled_operation(&context, id, trigger)
        .await
        .unwrap();
    house.clock.set_time_of_day(right + TimeDelta::seconds(30));
    house.pass(60).await;
    runs_at(&house, 0, 1).await;
}

#[tokio::test]
async fn a_trigger_whose_end_only_a_clock_that_was_ahead_had_passed_goes_on() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house.scheduled(&engine, PROTECT, &[]).await;
    let mut trigger = house
        .db
        .schedules()
        .trigger_get(operation.trigger_id)
        .await
        .unwrap();
    trigger
        .properties
        .insert("end_time".to_owned(), "2026-02-01 00:00:00".into());
    house.db.schedules().trigger_update(&trigger).await.unwrap();
    house.pass(60).await;
    let right = house.now();
    house.clock.set_time_of_day(right + MONTHS);
    until(async || {
        house.clock.turn(Duration::from_secs(20));
        let next = house.db.schedules().next_execution().await.unwrap();
        next.is_none().then_some(())
    })
    .await;
    house.clock.set_time_of_day(right + TimeDelta::minutes(5));
    runs_at(&house, 0, 1).await;
}

#[tokio::test]
async fn a_small_step_back_runs_nothing_twice_and_is_no_jump() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(3600).await;
    house.ended(1).await;
    let now = house.now();
    house.clock.set_time_of_day(now - TimeDelta::seconds(60));
    house.pass(120).await;
    runs(&house, 1).await;
    let small = house.now() - TimeDelta::seconds(8);
    house.clock.set_time_of_day(small);
    house.pass(600).await;
    assert_eq!(announced(&house).len(), 1, "of the first only");
    drop(engine);
}

#[tokio::test]
async fn a_run_whose_engine_died_with_its_clock_ahead_is_adopted() {
    let house = House::new().await;
    let dead = house.engine("dead").await;
    house.fake.state().slow = true;
    house.scheduled(&dead, PROTECT, &[]).await;
    let right = house.now();
    house
        .clock
        .set_time_of_day(right + MONTHS + TimeDelta::minutes(20));
    house.reason(OperationLogStatus::Missed).await;
    runs_at(&house, 0, 1).await;
    until(async || house.running().then_some(())).await;
    drop(dead);
    house.clock.set_time_of_day(right + TimeDelta::minutes(5));
    let _other = house.engine("other").await;
    house.fake.settle(CheckpointStatus::Available);
    assert_eq!(house.ended(1).await, ["success"]);
}

/// Waits until the service shows this.
async fn is_shown(house: &House, engine: &Engine, notice: &str) {
    let context = RequestContext::admin();
    until(async || {
        house.clock.turn(Duration::from_secs(10));
        let reports = engine.api().task_reports(&context).await.unwrap();
        let reports = serde_json::to_value(&reports).unwrap();
        (reports[0]["outcome"]["details"]["notice"] == notice).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_jump_is_announced_and_shown_and_so_is_what_is_planned_anew() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(60).await;
    assert!(announced(&house).is_empty());
    house.pass(1200).await;
    ahead_for_a_run(&house, MONTHS).await;
    let told = until(async || {
        house.clock.turn(Duration::from_secs(1));
        let told = announced(&house);
        (told.len() >= 3).then_some(told)
    })
    .await;
    assert!(
        told[0].contains("clock of a was set forward by 183 days"),
        "{told:?}"
    );
    assert!(told[1].contains("was set back by 183 days"), "{told:?}");
    assert!(told[2].starts_with("1 triggers were to fire"), "{told:?}");
    assert_eq!(told.len(), 3, "{told:?}");
    is_shown(&house, &engine, &told[2]).await;
}

fn made_by(operation: impl std::fmt::Display) -> serde_json::Value {
    json!({"created_by": "operation-engine", "scheduled_operation_id": operation.to_string()})
}

#[tokio::test]
async fn checkpoints_from_the_future_push_out_no_real_one_and_are_announced_once() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(
            &engine,
            ScheduledOperationType::RetentionProtect,
            &[("max_backups", "2")],
        )
        .await;
    let add = |days| house.fake.add(&house.plan, days, made_by(operation.id));
    let (future, _, oldest) = (add(-100), add(1), add(2));
    runs_at(&house, 0, 1).await;
    house.ended(1).await;
    assert_eq!(house.fake.state().deleted, [oldest]);
    house.pass(60).await;
    runs_at(&house, 0, 2).await;
    house.ended(2).await;
    assert_eq!(house.fake.status(future), CheckpointStatus::Available);
    let told = announced(&house);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&future.to_string()), "{told:?}");
}

/// By a clock that is ahead every checkpoint but the newest is too old.
#[tokio::test]
async fn a_time_that_was_jumped_to_deletes_nothing() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let operation = house
        .scheduled(
            &engine,
            ScheduledOperationType::RetentionProtect,
            &[("retention_duration", "7")],
        )
        .await;
    for days in 1..=3 {
        house.fake.add(&house.plan, days, made_by(operation.id));
    }
    house.pass(1200).await;
    ahead_for_a_run(&house, MONTHS).await;
    assert!(house.fake.state().deleted.is_empty());
}

/// Waits until what an engine has seen of the clock is in the database.
async fn is_kept(house: &House) {
    let seen = house.now();
    let raw = house.raw();
    until(async || {
        house.clock.turn(Duration::from_secs(1));
        let report = raw.query_row("SELECT report FROM task_reports", [], |row| {
            row.get::<_, String>(0)
        });
        let report: serde_json::Value = serde_json::from_str(&report.ok()?).unwrap();
        let kept = report["outcome"]["details"]["clock"]["seen_at"].as_str()?;
        (kept.parse::<DateTime<Utc>>().unwrap() >= seen).then_some(())
    })
    .await;
}

/// The clock is wrong after the machine was off; or after the service was there for a moment only; or it jumped,
/// and somebody starts the service anew.
#[tokio::test]
async fn a_restart_does_not_make_a_clock_trusted() {
    for (reported, jumps_while_it_runs) in [(true, false), (false, false), (true, true)] {
        let house = House::new().await;
        let mut engine = house.engine("a").await;
        let operation = house
            .scheduled(
                &engine,
                ScheduledOperationType::RetentionProtect,
                &[("retention_duration", "7")],
            )
            .await;
        for days in 1..=3 {
            house.fake.add(&house.plan, days, made_by(operation.id));
        }
        is_kept(&house).await;
        if jumps_while_it_runs {
            house.clock.set_time_of_day(house.now() + MONTHS);
            is_kept(&house).await;
        }
        drop(engine);
        if !reported {
            let raw = house.raw();
            // What was dropped may hold the database until others have had their turn.
            let forget = async || raw.execute("DELETE FROM task_reports", []).ok();
            raw.busy_timeout(Duration::ZERO).unwrap();
            assert_eq!(until(forget).await, 1);
        }
        if !jumps_while_it_runs {
            house.clock.set_time_of_day(house.now() + MONTHS);
        }
        engine = house.engine("a").await;
        house.reason(OperationLogStatus::Missed).await;
        runs_at(&house, 0, 1).await;
        house.ended(1).await;
        assert!(house.fake.state().deleted.is_empty());
        let told = announced(&house);
        let jumps = told.iter().filter(|told| told.contains("was set forward"));
        assert_eq!(jumps.count(), 1, "{told:?}");
        drop(engine);
    }
}

/// A machine that slept has a clock that is right: what it makes then is the newest, and no mistake.
#[tokio::test]
async fn what_is_made_after_a_sleep_is_not_from_the_future() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    let retained = [("max_backups", "2")];
    let protect = house
        .scheduled(&engine, ScheduledOperationType::RetentionProtect, &retained)
        .await;
    let old = house.fake.add(&house.plan, 1, made_by(protect.id));
    house.pass(1200).await;
    house
        .clock
        .set_time_of_day(house.now() + TimeDelta::hours(8));
    house.reason(OperationLogStatus::Missed).await;
    runs_at(&house, 0, 1).await;
    house.ended(1).await;
    house
        .scheduled(
            &engine,
            ScheduledOperationType::Readback(OperationType::Verify),
            &[],
        )
        .await;
    house.pass(3600).await;
    until(async || {
        house.clock.turn(Duration::from_secs(1));
        (!house.fake.state().verified.is_empty()).then_some(())
    })
    .await;
    assert_ne!(house.fake.state().verified[0].checkpoint_id, old);
    let told = announced(&house);
    assert!(told.iter().all(|told| !told.contains("future")), "{told:?}");
}

#[tokio::test]
async fn the_latest_that_is_verified_is_not_one_from_the_future() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house
        .scheduled(
            &engine,
            ScheduledOperationType::Readback(OperationType::Verify),
            &[],
        )
        .await;
    house.fake.add(&house.plan, -100, json!({}));
    let latest = house.fake.add(&house.plan, 1, json!({}));
    house.pass(3600).await;
    assert_eq!(house.ended(1).await, ["success"]);
    assert_eq!(house.fake.state().verified[0].checkpoint_id, latest);
}

/// What nobody ran while the clock was ahead is recorded when it jumps.
#[tokio::test]
async fn due_times_that_a_clock_jumped_over_are_recorded() {
    let house = House::new().await;
    let engine = house.engine("a").await;
    house.scheduled(&engine, PROTECT, &[]).await;
    house.pass(60).await;
    let to: DateTime<Utc> = house.now() + TimeDelta::hours(5) + TimeDelta::minutes(30);
    house.clock.set_time_of_day(to);
    let reason = house.reason(OperationLogStatus::Missed).await;
    assert!(reason.starts_with("5 runs, due from"), "{reason}");
}
