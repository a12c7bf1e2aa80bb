use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use karbor_manager::{Clock, Health, PeriodicTask, ServiceStore};
use karbor_model::RequestContext;
use karbor_testkit::{ServiceHarness, StoreMode};

use crate::{logs, probe::Probe};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_heart_beats_every_report_interval() {
    let harness = ServiceHarness::new();
    let _service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
    let start = harness.clock.now();
    harness.clock.advance(30 * SECOND).await;
    let seconds: Vec<i64> = harness
        .store
        .heartbeats()
        .iter()
        .map(|at| (*at - start).num_seconds())
        .collect();
    assert_eq!(seconds, [0, 10, 20, 30]);
    assert_eq!(harness.store.rows()[0].report_count, 4);
}

#[tokio::test]
async fn a_manager_that_does_not_work_sends_no_heartbeat() {
    logs::record();
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let _service = harness.start(&probe).await.unwrap();
    harness.clock.advance(10 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 2);

    probe.working.store(false, Ordering::Relaxed);
    harness.clock.advance(60 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 2);
    let told = logs::with("the bank is full");
    assert_eq!(told.len(), 1, "once, not at every beat: {told:?}");

    probe.working.store(true, Ordering::Relaxed);
    harness.clock.advance(10 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 3);
    assert_eq!(logs::with("works again").len(), 1);
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_is_survived_and_logged_once_each_way() {
    logs::record();
    for mode in [StoreMode::Down, StoreMode::Hanging] {
        let harness = ServiceHarness::new();
        let service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
        harness.clock.advance(5 * SECOND).await;
        let context = RequestContext::admin();
        let (lost, back) = ("the database went away", "the database is back");
        let before = (logs::with(lost).len(), logs::with(back).len());

        harness.store.set_mode(mode);
        harness.clock.advance(100 * SECOND).await;
        assert_eq!(harness.store.heartbeats().len(), 1);
        let health = service.api().health(&context).await.unwrap();
        assert!(!health.store_reachable);
        assert_eq!(logs::with(lost).len(), before.0 + 1, "{mode:?}");

        harness.store.set_mode(StoreMode::Up);
        harness.clock.advance(30 * SECOND).await;
        assert!(harness.store.heartbeats().len() >= 2, "{mode:?}");
        let health = service.api().health(&context).await.unwrap();
        assert!(health.store_reachable);
        assert_eq!(logs::with(lost).len(), before.0 + 1, "{mode:?}");
        assert_eq!(logs::with(back).len(), before.1 + 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_row_that_was_removed_is_made_again() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    probe
        .tasks
        .add(task("once").run_immediately(true).spacing(3600));
    let service = harness.start(&probe).await.unwrap();
    harness.clock.advance(10 * SECOND).await;
    assert_eq!(harness.store.task_reports(1).await.unwrap().len(), 1);
    harness.store.remove(1);
    harness.clock.advance(70 * SECOND).await;
    let rows = harness.store.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].report_count), (2, 7));
    assert_eq!(service.record().id, 2);
    let hears = "registered_again 2".to_owned();
    assert!(probe.events().contains(&hears), "{:?}", probe.events());
    // What was kept under the id before is kept under the new one, though nothing ran since.
    let kept = harness.store.task_reports(2).await.unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

#[tokio::test]
async fn the_heart_does_not_drift_by_the_time_that_the_database_takes() {
    let mut harness = ServiceHarness::new();
    harness.options.report_interval = SECOND;
    let _service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
    harness.store.set_latency(Duration::from_millis(800));
    let start = harness.clock.now();
    harness.clock.advance(10 * SECOND).await;
    let beats = harness.store.heartbeats();
    let at: Vec<i64> = beats
        .iter()
        .map(|at| (*at - start).num_milliseconds())
        .collect();
    assert_eq!(at, (0..10).map(|n| n * 1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_panic_in_is_working_is_a_problem_of_the_manager_and_not_the_end_of_the_heart() {
    logs::record();
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    harness.clock.advance(10 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 2);

    probe.panicking.store(true, Ordering::Relaxed);
    harness.clock.advance(30 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 2);
    let health = service
        .api()
        .health(&RequestContext::admin())
        .await
        .unwrap();
    assert!(!health.health.is_working());
    assert!(!logs::with("no such bank").is_empty());

    probe.panicking.store(false, Ordering::Relaxed);
    harness.clock.advance(10 * SECOND).await;
    assert_eq!(harness.store.heartbeats().len(), 3);
    let health = service
        .api()
        .health(&RequestContext::admin())
        .await
        .unwrap();
    assert!(health.health.is_working());
}

#[tokio::test]
async fn a_panic_in_the_database_s_driver_ends_neither_loop() {
    logs::record();
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    probe.tasks.add(task("every ten").spacing(10));
    let service = harness.start(&probe).await.unwrap();
    harness.store.set_mode(StoreMode::Panicking);
    harness.clock.advance(35 * SECOND).await;
    let health = service
        .api()
        .health(&RequestContext::admin())
        .await
        .unwrap();
    assert!(!health.store_reachable);
    harness.store.set_mode(StoreMode::Up);
    harness.clock.advance(20 * SECOND).await;
    assert!(harness.store.heartbeats().len() >= 2);
    let kept = harness.store.task_reports(1).await.unwrap();
    assert_eq!(kept[0].runs, 5, "{kept:?}");
}

/// A loop of the manager's own that dies makes the service show as down until it runs again.
#[tokio::test]
async fn a_loop_that_panicked_shows_in_the_health_until_it_runs_again() {
    logs::record();
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let tasks = probe.base.tasks();
    let (me, clock) = (probe.clone(), harness.clock.shared());
    tasks.supervise("scheduler", clock, move || {
        let me = me.clone();
        async move {
            me.event("begun");
            let begun = me.events().iter().filter(|event| *event == "begun").count();
            if begun < 3 {
                panic!("off by one");
            }
            me.base.tasks().cancelled().cancelled().await;
        }
    });
    harness.clock.settle().await;
    let health = || async {
        let context = RequestContext::admin();
        service.api().health(&context).await.unwrap().health
    };
    let Health::NotWorking { reason } = health().await else {
        panic!("it is said to work");
    };
    assert!(reason.contains("'scheduler' panicked"), "{reason}");
    // Begun again after a second, then after two more.
    harness.clock.advance(SECOND).await;
    assert!(!health().await.is_working());
    harness.clock.advance(2 * SECOND).await;
    assert!(health().await.is_working());
    assert_eq!(logs::with("off by one").len(), 2);
    assert!(service.shutdown(SECOND).await.is_graceful());
}

fn task(name: &'static str) -> PeriodicTask<Probe> {
    PeriodicTask::new(name, move |probe: Arc<Probe>, _| async move {
        probe.event(name);
        Ok(())
    })
}

#[tokio::test]
async fn an_interval_of_zero_sends_no_heartbeat() {
    let mut harness = ServiceHarness::new();
    harness.options.report_interval = Duration::ZERO;
    let _service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
    harness.clock.advance(100 * SECOND).await;
    assert!(harness.store.heartbeats().is_empty());
}
