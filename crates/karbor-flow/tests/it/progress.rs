use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_flow::{
    Executor, FlowNode, FlowStatus, Hook, HookContext, HookRunner, MemoryJournal, ProgressBoard,
    ProgressSink, TaskResult,
};
use karbor_manager::{Clock, SystemClock};
use karbor_model::RunProgress;
use karbor_plugin::{HookReport, PluginError};
use tokio_util::sync::CancellationToken;

use crate::support::{options, paused, plan_of};

#[derive(Default)]
struct HandTime(Mutex<Duration>);

impl HandTime {
    fn pass(&self, duration: Duration) {
        *self.0.lock().unwrap() += duration;
    }
}

#[async_trait]
impl Clock for HandTime {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    async fn sleep(&self, duration: Duration) {
        self.pass(duration);
    }
}

fn close(got: f64, expected: f64) -> bool {
    (got - expected).abs() < expected.max(1.0) * 0.001
}

#[test]
fn the_rate_is_smooth_and_right_for_uneven_looks() {
    let time = Arc::new(HandTime::default());
    let board = ProgressBoard::new(time.clone());
    let plan = plan_of(1, &[]);
    board.flow_started(&plan, 0);
    assert!(close(board.snapshot().bytes_per_second, 0.0));
    let meter = board.task_started(&plan.nodes()[0], Hook::Main);
    // A steady thousand a second is shown as such from the first look on, however often one looks.
    for millis in [1000, 100, 10, 3000, 250] {
        time.pass(Duration::from_millis(millis));
        meter.add_bytes(millis);
        if millis > 50 {
            let rate = board.snapshot().bytes_per_second;
            assert!(close(rate, 1000.0), "{rate}");
        }
    }
    // Then nothing: after the smoothing time a good third is left.
    time.pass(Duration::from_secs(5));
    let rate = board.snapshot().bytes_per_second;
    assert!(rate > 100.0 && rate < 400.0, "{rate}");
    time.pass(Duration::from_secs(60));
    assert!(board.snapshot().bytes_per_second < 1.0);
}

#[test]
fn an_attempt_that_starts_over_counts_from_zero() {
    let board = ProgressBoard::new(Arc::new(HandTime::default()));
    let plan = plan_of(2, &[]);
    board.flow_started(&plan, 3);
    let first = board.task_started(&plan.nodes()[1], Hook::Main);
    first.expect_bytes(100);
    first.add_bytes(60);
    let second = board.task_started(&plan.nodes()[1], Hook::Main);
    second.expect_bytes(100);
    second.add_bytes(30);
    let snapshot = board.snapshot();
    assert_eq!((snapshot.bytes_done, snapshot.bytes_expected), (30, 100));
    assert_eq!((snapshot.tasks_done, snapshot.tasks_total), (3, 8));
    assert_eq!(snapshot.resources.len(), 1);
    assert_eq!(snapshot.resources[0].key, "T#1");
    assert_eq!(snapshot.resources[0].hook.as_deref(), Some("main"));
    // A hook that ends has moved what there was to move.
    board.task_ended(&plan.nodes()[1], Hook::Main, TaskResult::Finished);
    let snapshot = board.snapshot();
    assert_eq!((snapshot.bytes_done, snapshot.bytes_expected), (30, 30));
    assert_eq!(snapshot.tasks_done, 4);
    assert_eq!(snapshot.resources[0].hook, None);
    let json = serde_json::to_value(&snapshot).unwrap();
    let back: RunProgress = serde_json::from_value(json).unwrap();
    assert_eq!(back, snapshot);
}

#[test]
fn a_snapshot_of_a_large_flow_stays_small() {
    let board = ProgressBoard::new(Arc::new(HandTime::default()));
    let plan = plan_of(1000, &[]);
    board.flow_started(&plan, 0);
    for node in plan.nodes() {
        board.task_started(node, Hook::Main).add_bytes(1);
    }
    for node in &plan.nodes()[..990] {
        board.task_ended(node, Hook::Main, TaskResult::Finished);
    }
    let snapshot = board.snapshot();
    assert_eq!(snapshot.bytes_done, 1000);
    assert_eq!(snapshot.resources.len(), ProgressBoard::LISTED);
    assert_eq!(snapshot.resources[0].key, "T#990");
}

struct Mover(Mutex<Vec<RunProgress>>, Arc<ProgressBoard>);

#[async_trait]
impl HookRunner for Mover {
    async fn run(
        &self,
        _: &FlowNode,
        hook: Hook,
        context: HookContext,
    ) -> Result<HookReport, PluginError> {
        if hook == Hook::Main {
            context.progress.expect_bytes(10);
            context.progress.add_bytes(10);
            self.0.lock().unwrap().push(self.1.snapshot());
        }
        if hook == Hook::Complete {
            return Err(PluginError::new("no"));
        }
        Ok(HookReport::new())
    }

    async fn undo(&self, _: &FlowNode, _: HookContext) -> Result<(), PluginError> {
        self.0.lock().unwrap().push(self.1.snapshot());
        Ok(())
    }
}

#[test]
fn a_flow_tells_its_board() {
    paused(async {
        let time = Arc::new(SystemClock::new());
        let board = Arc::new(ProgressBoard::new(time.clone()));
        let mover = Arc::new(Mover(Mutex::default(), board.clone()));
        let outcome = Executor::new(options(), time)
            .run(
                plan_of(1, &[]),
                mover.clone(),
                Arc::new(MemoryJournal::default()),
                board.clone(),
                CancellationToken::new(),
                Vec::new(),
            )
            .await;
        assert_eq!(outcome.status, FlowStatus::Failed);
        let seen = mover.0.lock().unwrap();
        assert_eq!((seen[0].tasks_done, seen[0].tasks_total), (2, 4));
        assert_eq!((seen[0].bytes_done, seen[0].bytes_expected), (10, 10));
        assert!(!seen[0].undoing);
        assert_eq!((seen[1].tasks_done, seen[1].tasks_total), (0, 1));
        assert!(seen[1].undoing);
        let end = board.snapshot();
        assert_eq!((end.tasks_done, end.tasks_total), (1, 1));
    });
}
