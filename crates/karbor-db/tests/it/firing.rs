use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use karbor_db::{Db, DbError, Fired, Firing, ListQuery, Planned, RunOutcome, ScheduledRun};
use karbor_manager::Clock;
use karbor_manager::NotificationOutbox as _;
use karbor_model::{
    CheckpointId, OperationLogStatus, OperationType, PlanStatus, ScheduledOperation, Trigger,
};
use karbor_testkit::FakeClock;

use crate::{
    scheduling::{operation, trigger},
    support::{Fixture, fixture, plan},
};

pub struct Stage {
    pub fixture: Fixture,
    pub clock: FakeClock,
    pub db: Db,
}

pub async fn stage() -> Stage {
    let fixture = fixture().await;
    let clock = FakeClock::new();
    let db = fixture.db.clone().with_clock(Arc::new(clock.clone()));
    Stage { fixture, clock, db }
}

/// Ends a run; says whether it was the owner's.
async fn end(db: &Db, run: &ScheduledRun, owner: &str, outcome: RunOutcome, keep: u64) -> bool {
    let ends = [(run.clone(), outcome)];
    let ended = db.schedules().runs_end(&ends, owner, keep).await.unwrap();
    ended.contains(&run.id)
}

impl Stage {
    pub fn in_seconds(&self, seconds: i64) -> DateTime<Utc> {
        self.clock.now() + TimeDelta::seconds(seconds)
    }

    /// A trigger that is due now, with operations that engines have taken on.
    pub async fn due(&self, operations: usize) -> (Planned, Vec<ScheduledOperation>) {
        let trigger = trigger("p", "t");
        self.db.schedules().trigger_create(&trigger).await.unwrap();
        let service = self.db.services().register("host", "b", "t").await.unwrap();
        let mut made = Vec::new();
        for number in 0..operations {
            let operation = operation(&trigger, &format!("o-{number}"));
            self.db
                .schedules()
                .operation_create(&operation, None)
                .await
                .unwrap();
            self.db
                .schedules()
                .operation_register(operation.id, service.id, None)
                .await
                .unwrap();
            made.push(operation);
        }
        let due = self.planned(trigger, 0);
        self.db
            .schedules()
            .triggers_plan(std::slice::from_ref(&due))
            .await
            .unwrap();
        (due, made)
    }

    fn planned(&self, trigger: Trigger, seconds: i64) -> Planned {
        Planned {
            trigger,
            at: Some(self.in_seconds(seconds)),
        }
    }

    /// Fires `due` for its own time; the next is a minute later.
    pub fn firing(&self, due: &Planned) -> Firing {
        let at = due.at.unwrap();
        Firing {
            due: due.clone(),
            next: Some(at + TimeDelta::seconds(60)),
            run: Some((at, at + TimeDelta::seconds(30))),
            missed: None,
        }
    }

    pub async fn reasons(&self) -> Vec<String> {
        let logs = self
            .db
            .runs()
            .operation_log_list(&ListQuery::of_every_project())
            .await;
        let logs = logs.unwrap();
        logs.iter()
            .inspect(|log| assert_eq!(log.status, OperationLogStatus::Missed))
            .map(|log| log.error_info.clone().unwrap())
            .collect()
    }
}

/// The trigger with other times.
pub fn other(trigger: &Trigger) -> Trigger {
    let mut other = trigger.clone();
    other.properties.insert("window".to_owned(), "30".into());
    other
}

#[tokio::test]
async fn a_trigger_is_planned_once_and_anew_when_it_is_changed() {
    let stage = stage().await;
    let trigger = trigger("p", "t");
    stage.db.schedules().trigger_create(&trigger).await.unwrap();
    let unplanned = stage.db.schedules().triggers_unplanned(10).await.unwrap();
    assert_eq!(unplanned, std::slice::from_ref(&trigger));
    let (first, second) = (
        stage.planned(trigger.clone(), 60),
        stage.planned(trigger, 90),
    );
    stage
        .db
        .schedules()
        .triggers_plan(&[first.clone(), second])
        .await
        .unwrap();
    assert_eq!(
        stage.db.schedules().next_execution().await.unwrap(),
        first.at
    );
    assert!(
        stage
            .db
            .schedules()
            .triggers_unplanned(10)
            .await
            .unwrap()
            .is_empty()
    );

    let changed = stage
        .db
        .schedules()
        .trigger_update(&other(&first.trigger))
        .await;
    let changed = changed.unwrap();
    assert_eq!(stage.db.schedules().next_execution().await.unwrap(), None);
    // Somebody worked it out from what the trigger was before.
    stage.db.schedules().triggers_plan(&[first]).await.unwrap();
    assert_eq!(stage.db.schedules().next_execution().await.unwrap(), None);
    let never = Planned {
        trigger: changed.clone(),
        at: None,
    };
    stage.db.schedules().triggers_plan(&[never]).await.unwrap();
    assert!(
        stage
            .db
            .schedules()
            .triggers_unplanned(10)
            .await
            .unwrap()
            .is_empty()
    );
    stage.db.schedules().trigger_update(&changed).await.unwrap();
    assert_eq!(
        stage
            .db
            .schedules()
            .triggers_unplanned(10)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn of_many_engines_one_fires_a_due_time() {
    let stage = stage().await;
    let (due, operations) = stage.due(3).await;
    let found = stage
        .db
        .schedules()
        .executions_due(stage.clock.now(), 10)
        .await;
    assert_eq!(found.unwrap(), std::slice::from_ref(&due));
    let firing = stage.firing(&due);
    let mut engines = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let db = stage.fixture.other().await;
        let firing = firing.clone();
        engines.spawn(async move { db.schedules().triggers_fire(&[firing]).await.unwrap() });
    }
    let fired = engines.join_all().await;
    let all: u64 = fired.iter().map(|fired| fired.runs).sum();
    assert_eq!(all, 3);
    let once = fired.iter().filter(|fired| fired.triggers == 1).count();
    assert_eq!(once, 1);
    let lease = stage.in_seconds(60);
    let claimed = stage
        .db
        .schedules()
        .runs_claim("a", lease, 10)
        .await
        .unwrap();
    let mut names: Vec<_> = claimed.iter().map(|(_, of)| of.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["o-0", "o-1", "o-2"]);
    assert_eq!(claimed[0].0.due_at, due.at.unwrap());
    assert!(operations.iter().any(|one| *one == claimed[0].1));
    assert_eq!(
        stage.db.schedules().next_execution().await.unwrap(),
        firing.next
    );
}

#[tokio::test]
async fn a_trigger_that_was_changed_or_deleted_is_not_fired() {
    let stage = stage().await;
    let (due, operations) = stage.due(1).await;
    let firing = stage.firing(&due);
    let changed = stage
        .db
        .schedules()
        .trigger_update(&other(&due.trigger))
        .await;
    let changed = changed.unwrap();
    let again = Planned {
        trigger: changed,
        at: due.at,
    };
    stage
        .db
        .schedules()
        .triggers_plan(std::slice::from_ref(&again))
        .await
        .unwrap();
    let fired = stage
        .db
        .schedules()
        .triggers_fire(std::slice::from_ref(&firing))
        .await;
    assert_eq!(fired.unwrap(), Fired::default(), "the version is another");
    stage
        .db
        .schedules()
        .operation_delete(operations[0].id)
        .await
        .unwrap();
    stage
        .db
        .schedules()
        .trigger_delete(due.trigger.id)
        .await
        .unwrap();
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&again)])
        .await;
    assert_eq!(fired.unwrap(), Fired::default());
    assert_eq!(stage.db.schedules().next_execution().await.unwrap(), None);
}

#[tokio::test]
async fn a_due_time_that_comes_again_is_not_run_again() {
    let stage = stage().await;
    let (due, _) = stage.due(1).await;
    stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let lease = stage.in_seconds(60);
    let (run, _) = stage
        .db
        .schedules()
        .runs_claim("a", lease, 1)
        .await
        .unwrap()
        .remove(0);
    assert!(end(&stage.db, &run, "a", RunOutcome::Success, 5).await);
    // Changed, and planned by an engine whose clock is behind.
    let changed = stage
        .db
        .schedules()
        .trigger_update(&other(&due.trigger))
        .await;
    let changed = changed.unwrap();
    let again = Planned {
        trigger: changed,
        at: due.at,
    };
    stage
        .db
        .schedules()
        .triggers_plan(std::slice::from_ref(&again))
        .await
        .unwrap();
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&again)])
        .await;
    let moved_on = Fired {
        triggers: 1,
        ..Fired::default()
    };
    assert_eq!(fired.unwrap(), moved_on);
}

#[tokio::test]
async fn due_times_from_before_an_operation_was_enabled_are_not_its_own() {
    let stage = stage().await;
    let (due, operations) = stage.due(2).await;
    let enable = async |id, enabled| {
        let done = stage
            .db
            .schedules()
            .operation_set_enabled(id, enabled)
            .await;
        done.unwrap();
    };
    let mut late = operation(&due.trigger, "late");
    stage.clock.advance(Duration::from_secs(1)).await;
    late.created_at = stage.clock.now();
    let created = stage.db.schedules().operation_create(&late, None).await;
    created.unwrap();
    // Enabled all the time, however often it is said.
    enable(operations[0].id, true).await;
    enable(operations[1].id, false).await;
    enable(operations[1].id, true).await;
    let mut firing = stage.firing(&due);
    firing.missed = Some((due.at.unwrap(), "missed".to_owned()));
    let fired = stage
        .db
        .schedules()
        .triggers_fire(std::slice::from_ref(&firing))
        .await;
    let fired = fired.unwrap();
    assert_eq!((fired.runs, fired.missed), (1, 1));

    let due = stage.planned(due.trigger, 59);
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    // The first is still going, the late one was never taken on.
    assert_eq!((fired.runs, fired.missed), (1, 2));
}

#[tokio::test]
async fn what_cannot_run_is_recorded_as_missed() {
    let stage = stage().await;
    let (due, operations) = stage.due(2).await;
    stage
        .db
        .schedules()
        .operation_set_enabled(operations[1].id, false)
        .await
        .unwrap();
    let half_made = operation(&due.trigger, "half made");
    stage
        .db
        .schedules()
        .operation_create(&half_made, None)
        .await
        .unwrap();
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    assert_eq!((fired.runs, fired.missed), (1, 1));
    let reasons = stage.reasons().await;
    assert!(
        reasons[0].contains("creation was never finished"),
        "{reasons:?}"
    );

    stage
        .db
        .schedules()
        .operation_delete(half_made.id)
        .await
        .unwrap();
    let due = stage.planned(due.trigger, 60);
    let mut firing = stage.firing(&due);
    firing.missed = Some((due.at.unwrap(), "3 runs were missed".to_owned()));
    firing.next = None;
    let fired = stage.db.schedules().triggers_fire(&[firing]).await.unwrap();
    assert_eq!((fired.runs, fired.missed), (0, 2));
    let reasons = stage.reasons().await;
    assert!(
        reasons.iter().any(|one| one == "3 runs were missed"),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|one| one.contains("is still going")),
        "{reasons:?}"
    );
    assert_eq!(
        stage.db.schedules().next_execution().await.unwrap(),
        None,
        "it fires no more"
    );
    let logs = stage
        .db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await;
    let logs = logs.unwrap();
    let log = logs
        .iter()
        .find(|log| log.error_info.as_deref() == Some("3 runs were missed"))
        .unwrap();
    assert_eq!(log.operation_type, OperationType::Protect);
    assert_eq!(log.project_id, "p");
    assert_eq!(
        log.scheduled_operation_id,
        Some(operations[0].id.to_string())
    );
}

#[tokio::test]
async fn a_run_is_one_engines_until_its_lease_runs_out() {
    let stage = stage().await;
    let (due, _) = stage.due(1).await;
    stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let db = &stage.db;
    let (run, _) = db
        .schedules()
        .runs_claim("a", stage.in_seconds(60), 9)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(run.started_at, None);
    let lease = stage.in_seconds(90);
    assert!(
        db.schedules()
            .runs_claim("b", lease, 9)
            .await
            .unwrap()
            .is_empty()
    );
    stage.clock.advance(Duration::from_secs(50)).await;
    let renewed = db
        .schedules()
        .runs_renew("a", stage.in_seconds(60))
        .await
        .unwrap();
    assert_eq!(renewed.into_iter().collect::<Vec<_>>(), [run.id]);
    stage.clock.advance(Duration::from_secs(50)).await;
    let checkpoint = CheckpointId::new();
    db.schedules()
        .run_set_checkpoint(run.id, "a", checkpoint)
        .await
        .unwrap();
    let lease = stage.in_seconds(90);
    assert!(
        db.schedules()
            .runs_claim("b", lease, 9)
            .await
            .unwrap()
            .is_empty()
    );

    stage.clock.advance(Duration::from_secs(11)).await;
    let (adopted, _) = db
        .schedules()
        .runs_claim("b", stage.in_seconds(60), 9)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((adopted.id, adopted.due_at), (run.id, run.due_at));
    assert_eq!(adopted.checkpoint_id, Some(checkpoint));
    assert!(adopted.started_at.is_some());
    // Who was slow hears of it, and changes nothing.
    let renewed = db
        .schedules()
        .runs_renew("a", stage.in_seconds(60))
        .await
        .unwrap();
    assert!(renewed.is_empty());
    let refused = db
        .schedules()
        .run_set_checkpoint(run.id, "a", CheckpointId::new())
        .await;
    assert!(
        matches!(refused, Err(DbError::Conflict { .. })),
        "{refused:?}"
    );
    assert!(!end(db, &run, "a", RunOutcome::Failed, 5).await);
    assert!(end(db, &adopted, "b", RunOutcome::Success, 5).await);
    stage.clock.advance(Duration::from_secs(500)).await;
    let nothing = db
        .schedules()
        .runs_claim("c", stage.in_seconds(60), 9)
        .await
        .unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_run_that_is_given_up_can_be_claimed_at_once() {
    let stage = stage().await;
    let (due, _) = stage.due(2).await;
    let db = &stage.db;
    db.schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let lease = stage.in_seconds(60);
    let claimed = db.schedules().runs_claim("host/1", lease, 9).await.unwrap();
    assert_eq!(claimed.len(), 2);
    db.schedules()
        .run_release(claimed[0].0.id, "host/2")
        .await
        .unwrap();
    assert!(
        db.schedules()
            .runs_claim("b", lease, 9)
            .await
            .unwrap()
            .is_empty()
    );
    db.schedules()
        .run_release(claimed[0].0.id, "host/1")
        .await
        .unwrap();
    assert_eq!(
        db.schedules()
            .runs_claim("hos/b", lease, 9)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(db.schedules().runs_release("host/").await.unwrap(), 1);
    assert_eq!(
        db.schedules()
            .runs_claim("c", lease, 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_run_goes_with_its_operation() {
    let stage = stage().await;
    let (due, operations) = stage.due(1).await;
    let db = &stage.db;
    db.schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let lease = stage.in_seconds(60);
    let (run, _) = db
        .schedules()
        .runs_claim("a", lease, 9)
        .await
        .unwrap()
        .remove(0);
    db.schedules()
        .operation_delete(operations[0].id)
        .await
        .unwrap();
    assert!(
        db.schedules()
            .runs_renew("a", lease)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(!end(db, &run, "a", RunOutcome::Success, 5).await);
}

#[tokio::test]
async fn ended_runs_are_logged_as_the_original_does_and_the_old_forgotten() {
    let stage = stage().await;
    let (mut due, _) = stage.due(1).await;
    let db = &stage.db;
    for minute in 1..=4 {
        db.schedules()
            .triggers_fire(&[stage.firing(&due)])
            .await
            .unwrap();
        let lease = stage.in_seconds(60);
        let (run, _) = db
            .schedules()
            .runs_claim("a", lease, 1)
            .await
            .unwrap()
            .remove(0);
        let outcome = match minute {
            4 => RunOutcome::Missed,
            3 => RunOutcome::Failed,
            _ => RunOutcome::Success,
        };
        assert!(end(db, &run, "a", outcome, 3).await);
        due = stage.planned(due.trigger, 60 * minute);
    }
    let raw = stage.fixture.raw();
    let mut logs = raw
        .prepare("SELECT state, expect_start_time FROM scheduled_operation_logs ORDER BY id")
        .unwrap();
    let logs: Vec<(String, String)> = logs
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let states: Vec<_> = logs.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(states, ["success", "failed", "dropped_out_of_window"]);
    assert_eq!(logs[0].1, "2026-01-01 00:01:00.000000");
    let runs: i64 = raw
        .query_row("SELECT count(*) FROM scheduled_runs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(runs, 1, "the last, so that no due time is run twice");
}

#[tokio::test]
async fn of_runs_that_end_together_each_is_its_own() {
    let stage = stage().await;
    let (mut due, operations) = stage.due(3).await;
    let db = &stage.db;
    let schedules = db.schedules();
    for minute in 1..=3 {
        schedules
            .triggers_fire(&[stage.firing(&due)])
            .await
            .unwrap();
        let claimed = schedules.runs_claim("a", stage.in_seconds(60), 9).await;
        let runs: Vec<_> = claimed.unwrap().into_iter().map(|(run, _)| run).collect();
        assert_eq!(runs.len(), 3);
        let (mut lost, mut ends) = (None, Vec::new());
        for run in runs {
            if minute == 3 && run.operation_id == operations[1].id {
                schedules.run_release(run.id, "a").await.unwrap();
                lost = Some(run.id);
            }
            let outcome = match run.operation_id == operations[0].id {
                true => RunOutcome::Failed,
                false => RunOutcome::Success,
            };
            ends.push((run, outcome));
        }
        let ended = schedules.runs_end(&ends, "a", 2).await.unwrap();
        for (run, _) in &ends {
            assert_eq!(ended.contains(&run.id), lost != Some(run.id));
        }
        due = stage.planned(due.trigger, 60 * minute);
    }
    let of = |operation: &ScheduledOperation| {
        let raw = stage.fixture.raw();
        let count = |query: &str| -> i64 {
            let id = operation.id.to_string();
            raw.query_row(query, [id], |row| row.get(0)).unwrap()
        };
        let logs = "SELECT count(*) FROM scheduled_operation_logs WHERE operation_id = ?";
        let failed = format!("{logs} AND state = 'failed'");
        let ended =
            "SELECT count(*) FROM scheduled_runs WHERE status = 'ended' AND operation_id = ?";
        (count(logs), count(&failed), count(ended))
    };
    assert_eq!(of(&operations[0]), (2, 2, 1), "the oldest is forgotten");
    assert_eq!(of(&operations[1]), (2, 0, 1), "the last was not ended");
    assert_eq!(of(&operations[2]), (2, 0, 1));
}

#[tokio::test]
async fn the_log_of_a_run_says_when_it_was_first_begun() {
    let stage = stage().await;
    let (due, _) = stage.due(1).await;
    let db = &stage.db;
    db.schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    let began = stage.in_seconds(0);
    let claim = async |owner| {
        let claimed = db
            .schedules()
            .runs_claim(owner, stage.in_seconds(60), 1)
            .await;
        claimed.unwrap().remove(0).0
    };
    let first = claim("a").await;
    stage.clock.advance(Duration::from_secs(100)).await;
    let adopted = claim("b").await;
    assert_eq!((first.started_at, adopted.started_at), (None, Some(began)));
    stage.clock.advance(Duration::from_secs(7)).await;
    // As it was before it was claimed: it does not say yet when it was.
    assert!(end(db, &first, "b", RunOutcome::Success, 3).await);
    let query = "SELECT actual_start_time, end_time FROM scheduled_operation_logs";
    let times: (String, String) = stage
        .fixture
        .raw()
        .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let text = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    assert_eq!(times, (text(began), text(stage.in_seconds(0))));
}

#[tokio::test]
async fn a_plan_that_was_started_and_suspended_is_held() {
    let Fixture {
        db,
        folder: _folder,
    } = fixture().await;
    let plan = plan("p", "n");
    db.plans().create(&plan).await.unwrap();
    let mut held = Vec::new();
    held.push(db.plans().is_held(plan.id).await.unwrap());
    for (from, to) in [
        (PlanStatus::Suspended, PlanStatus::Started),
        (PlanStatus::Started, PlanStatus::Suspended),
        (PlanStatus::Suspended, PlanStatus::Started),
    ] {
        db.plans().set_status(plan.id, from, to).await.unwrap();
        held.push(db.plans().is_held(plan.id).await.unwrap());
    }
    assert_eq!(held, [false, false, true, false]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_back_no_other() {
    let stage = stage().await;
    let (due, operations) = stage.due(2).await;
    let (bad, _) = stage.due(0).await;
    let unplanned = [trigger("p", "bad"), trigger("p", "good")];
    for trigger in &unplanned {
        stage.db.schedules().trigger_create(trigger).await.unwrap();
    }
    let spoil = |table: &str, column: &str, id: String| {
        let sql = format!("UPDATE {table} SET {column} = '{{' WHERE id = '{id}'");
        assert_eq!(stage.fixture.raw().execute(&sql, []).unwrap(), 1);
    };
    spoil("triggers", "properties", bad.trigger.id.to_string());
    spoil("triggers", "properties", unplanned[0].id.to_string());
    spoil(
        "scheduled_operations",
        "operation_type",
        operations[0].id.to_string(),
    );

    let found = stage.db.schedules().triggers_unplanned(10).await.unwrap();
    assert_eq!(found, [unplanned[1].clone()]);
    let found = stage
        .db
        .schedules()
        .executions_due(stage.clock.now(), 10)
        .await
        .unwrap();
    assert_eq!(found, std::slice::from_ref(&due));
    let fired = stage
        .db
        .schedules()
        .triggers_fire(&[stage.firing(&due)])
        .await
        .unwrap();
    assert_eq!((fired.triggers, fired.runs), (1, 1));
    spoil(
        "scheduled_operations",
        "operation_type",
        operations[1].id.to_string(),
    );
    let lease = stage.in_seconds(60);
    assert!(
        stage
            .db
            .schedules()
            .runs_claim("a", lease, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let forget = "DELETE FROM scheduled_operation_states";
    stage.fixture.raw().execute(forget, []).unwrap();
    let found = stage.db.schedules().operations_unregistered(10).await;
    assert_eq!(found.unwrap(), []);
}

/// As an upgrade leaves what was on its way when the service stopped.
#[tokio::test]
async fn a_notification_that_was_claimed_before_sinks_had_their_own_is_dealt_out() {
    let stage = stage().await;
    stage
        .db
        .schedules()
        .trigger_create(&trigger("p", "t"))
        .await
        .unwrap();
    let claimed = "UPDATE notifications SET claim = 'somebody', sink = ''";
    assert!(stage.fixture.raw().execute(claimed, []).unwrap() > 0);
    stage.db.outbox().deal_out(&["log"]).await.unwrap();
    let later = stage.in_seconds(3600);
    let taken = stage
        .db
        .outbox()
        .take("log", later, later, 10)
        .await
        .unwrap();
    assert!(!taken.is_empty());
}
