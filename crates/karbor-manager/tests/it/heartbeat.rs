use std::{sync::atomic::Ordering, time::Duration};

use karbor_manager::Clock;
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
    let service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
    harness.clock.advance(10 * SECOND).await;
    harness.store.remove(1);
    harness.clock.advance(10 * SECOND).await;
    let rows = harness.store.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].report_count), (2, 1));
    assert_eq!(service.record().id, 2);
}

#[tokio::test]
async fn an_interval_of_zero_sends_no_heartbeat() {
    let mut harness = ServiceHarness::new();
    harness.options.report_interval = Duration::ZERO;
    let _service = harness.start(&Probe::new(&harness, "a")).await.unwrap();
    harness.clock.advance(100 * SECOND).await;
    assert!(harness.store.heartbeats().is_empty());
}
