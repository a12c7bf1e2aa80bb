use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use karbor_manager::{
    Clock, DEFAULT_INTERVAL, DEFAULT_LIMIT, PeriodicTask, PeriodicTasks, ServiceStore, TaskOutcome,
};
use karbor_model::{ApiError, RequestContext};
use karbor_testkit::{FakeClock, ServiceHarness, StoreMode};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::{logs, probe::Probe};

/// A manager as far as tasks need one: who ran when.
#[derive(Default)]
struct Diary(Mutex<Vec<(&'static str, Duration)>>);

impl Diary {
    fn names(&self) -> Vec<&'static str> {
        let entries = self.0.lock().unwrap();
        entries.iter().map(|(name, _)| *name).collect()
    }
}

struct Stage {
    clock: FakeClock,
    diary: Arc<Diary>,
    tasks: PeriodicTasks<Diary>,
}

impl Stage {
    fn new() -> Self {
        let clock = FakeClock::new();
        Self {
            tasks: PeriodicTasks::new(clock.shared()),
            diary: Arc::default(),
            clock,
        }
    }

    fn task(&self, name: &'static str) -> PeriodicTask<Diary> {
        let clock = self.clock.clone();
        PeriodicTask::new(name, move |diary: Arc<Diary>, _| {
            diary.0.lock().unwrap().push((name, clock.monotonic()));
            async { Ok(()) }
        })
    }

    async fn run(&self) -> Duration {
        let context = RequestContext::admin();
        let ran = self.tasks.periodic_tasks(&self.diary, &context, false);
        ran.await.unwrap()
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test]
async fn a_task_runs_first_after_its_spacing_or_at_once_if_it_says_so() {
    let stage = Stage::new();
    stage.tasks.add(stage.task("later").spacing(10));
    stage
        .tasks
        .add(stage.task("now").spacing(15).run_immediately(true));
    assert_eq!(stage.run().await, seconds(10));
    assert_eq!(stage.diary.names(), ["now"]);
    stage.clock.turn(seconds(9));
    assert_eq!(stage.run().await, seconds(1));
    stage.clock.turn(seconds(1));
    assert_eq!(stage.run().await, seconds(5));
    assert_eq!(stage.diary.names(), ["now", "later"]);
}

#[tokio::test]
async fn spacing_zero_is_the_default_interval_and_a_negative_one_disables() {
    let stage = Stage::new();
    assert!(stage.tasks.add(stage.task("zero").spacing(0)));
    assert!(
        !stage
            .tasks
            .add(stage.task("never").spacing(-1).run_immediately(true))
    );
    assert!(
        !stage
            .tasks
            .add(stage.task("off").enabled(false).run_immediately(true))
    );
    assert_eq!(stage.run().await, DEFAULT_INTERVAL);
    stage.clock.turn(DEFAULT_INTERVAL - seconds(1));
    assert_eq!(stage.run().await, seconds(1));
    assert!(stage.diary.names().is_empty());
    stage.clock.turn(seconds(1));
    stage.run().await;
    assert_eq!(stage.diary.names(), ["zero"]);
}

#[tokio::test]
async fn without_tasks_it_idles_for_the_default_interval() {
    assert_eq!(Stage::new().run().await, DEFAULT_INTERVAL);
}

#[tokio::test]
async fn a_task_that_another_process_may_run_is_left_to_it() {
    let stage = Stage::new();
    let task = stage.task("external").spacing(1).run_immediately(true);
    stage.tasks.add(task.external_process_ok(true));
    stage.tasks.set_run_external(false);
    assert_eq!(stage.run().await, DEFAULT_INTERVAL);
    assert!(stage.diary.names().is_empty());
    stage.tasks.set_run_external(true);
    stage.run().await;
    assert_eq!(stage.diary.names(), ["external"]);
}

#[tokio::test]
async fn an_error_or_a_panic_in_one_task_is_logged_and_the_others_run() {
    logs::record();
    let stage = Stage::new();
    let fails = PeriodicTask::new("fails", |_: Arc<Diary>, _| async {
        Err::<(), _>(ApiError::unavailable("The bank is away.", "disk on fire"))
    });
    let panics = PeriodicTask::new("panics", |_: Arc<Diary>, _| async {
        if true {
            panic!("off by one");
        }
        Ok(())
    });
    stage.tasks.add(fails.run_immediately(true));
    stage.tasks.add(panics.run_immediately(true));
    stage.tasks.add(stage.task("after").run_immediately(true));
    stage.run().await;
    assert_eq!(stage.diary.names(), ["after"]);
    assert_eq!(logs::with("disk on fire").len(), 1);
    assert_eq!(logs::with("off by one").len(), 1);

    let reports = stage.tasks.reports();
    let outcome = &reports[0].outcome;
    let message = "The bank is away.".to_owned();
    assert_eq!(outcome, &TaskOutcome::Error { message });
    assert_eq!((reports[1].runs, reports[1].failures), (1, 1));
    assert_eq!((reports[2].runs, reports[2].failures), (1, 0));
}

/// Not only in the future: a task's function may panic before it has made one.
#[tokio::test]
async fn a_panic_in_the_synchronous_part_of_a_task_does_not_end_the_others() {
    logs::record();
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let panics = |_: Arc<Probe>, _| {
        if true {
            panic!("no future for this");
        }
        async { Ok(()) }
    };
    probe
        .tasks
        .add(PeriodicTask::new("panics", panics).spacing(10));
    let counts = |probe: Arc<Probe>, _| async move {
        probe.event("counted");
        Ok(())
    };
    probe
        .tasks
        .add(PeriodicTask::new("counts", counts).spacing(10));
    let _service = harness.start(&probe).await.unwrap();
    harness.clock.advance(seconds(35)).await;
    let counted = probe.events().iter().filter(|e| *e == "counted").count();
    assert_eq!(counted, 3);
    assert_eq!(logs::with("no future for this").len(), 3);
    let kept = harness.store.task_reports(1).await.unwrap();
    let panicked = kept.iter().find(|report| report.name == "panics").unwrap();
    assert_eq!((panicked.runs, panicked.failures), (3, 3));
}

#[tokio::test]
async fn a_task_that_does_not_end_is_stopped_at_its_limit_and_the_others_run() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let hangs = |_: Arc<Probe>, _| async {
        std::future::pending::<()>().await;
        Ok(())
    };
    let hangs = PeriodicTask::new("hangs", hangs).spacing(3600);
    probe.tasks.add(hangs.run_immediately(true));
    let shorter = |_: Arc<Probe>, _| async {
        std::future::pending::<()>().await;
        Ok(())
    };
    let shorter = PeriodicTask::new("shorter", shorter).spacing(3600);
    probe
        .tasks
        .add(shorter.run_immediately(true).limit(seconds(7)));
    let counts = |probe: Arc<Probe>, _| async move {
        probe.event("counted");
        Ok(())
    };
    let counts = PeriodicTask::new("counts", counts).spacing(3600);
    probe.tasks.add(counts.run_immediately(true));
    let service = harness.start(&probe).await.unwrap();
    harness.clock.advance(DEFAULT_LIMIT + seconds(6)).await;
    assert!(!probe.events().contains(&"counted".to_owned()));
    harness.clock.advance(seconds(1)).await;
    assert!(probe.events().contains(&"counted".to_owned()));
    let reports = service.periodic_tasks().reports();
    for (report, limit) in reports.iter().zip(["600 s", "7 s"]) {
        let TaskOutcome::Error { message } = &report.outcome else {
            panic!("{report:?}");
        };
        assert!(message.contains(limit), "{message}");
        assert_eq!(report.failures, 1);
    }
}

/// As in oslo.service, whose loop goes over what is there.
#[tokio::test]
async fn a_task_that_is_added_while_others_run_has_its_turn_in_the_same_look() {
    let stage = Stage::new();
    let (tasks, next) = (stage.tasks.clone(), Mutex::new(Some(stage.task("next"))));
    let adds = PeriodicTask::new("adds", move |_: Arc<Diary>, _| {
        if let Some(next) = next.lock().unwrap().take() {
            tasks.add(next.run_immediately(true));
        }
        async { Ok(()) }
    });
    stage.tasks.add(adds.run_immediately(true));
    stage.run().await;
    assert_eq!(stage.diary.names(), ["next"]);
}

#[tokio::test]
async fn raise_on_error_raises_the_first_error_at_once() {
    let stage = Stage::new();
    let fails = PeriodicTask::new("fails", |_: Arc<Diary>, _| async {
        Err::<(), _>(ApiError::bad_request("no"))
    });
    stage.tasks.add(fails.run_immediately(true));
    stage.tasks.add(stage.task("after").run_immediately(true));
    let context = RequestContext::admin();
    let ran = stage.tasks.periodic_tasks(&stage.diary, &context, true);
    assert_eq!(ran.await.unwrap_err().message, "no");
    assert!(stage.diary.names().is_empty());
}

#[tokio::test]
async fn each_run_leaves_a_typed_report() {
    #[derive(Serialize)]
    struct Swept {
        removed: u32,
    }
    let stage = Stage::new();
    let clock = stage.clock.clone();
    let sweep = PeriodicTask::new("sweep", move |_: Arc<Diary>, _| {
        clock.turn(seconds(3));
        async { Ok(Swept { removed: 2 }) }
    });
    stage.tasks.add(sweep.run_immediately(true));
    assert!(stage.tasks.reports().is_empty());
    stage.run().await;
    let report = serde_json::to_value(&stage.tasks.reports()[0]).unwrap();
    let expected = json!({
        "name": "sweep",
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:03Z",
        "outcome": {"status": "ok", "details": {"removed": 2}},
        "runs": 1,
        "failures": 0
    });
    assert_eq!(report, expected);
}

#[tokio::test]
async fn a_running_service_runs_its_tasks_and_keeps_their_reports() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let task = |name: &'static str| {
        PeriodicTask::new(name, move |probe: Arc<Probe>, _| async move {
            probe.event(name);
            Ok(())
        })
    };
    probe.tasks.add(task("every ten").spacing(10));
    let service = harness.start(&probe).await.unwrap();
    harness.clock.advance(seconds(35)).await;
    let count = |name: &str| probe.events().iter().filter(|event| *event == name).count();
    assert_eq!(count("every ten"), 3);
    assert_eq!(harness.store.reports_saved(), 3, "each report is kept once");

    service.periodic_tasks().add(task("added").spacing(4));
    harness.clock.advance(seconds(4)).await;
    assert_eq!(
        count("added"),
        1,
        "a task added at run time waits for the next look"
    );

    // Reports that cannot be kept now are kept when the database is back.
    harness.store.set_mode(StoreMode::Down);
    harness.clock.advance(seconds(20)).await;
    harness.store.set_mode(StoreMode::Up);
    harness.clock.advance(seconds(10)).await;
    let kept = harness.store.task_reports(1).await.unwrap();
    assert_eq!(kept, service.periodic_tasks().reports_by_name());
    service.shutdown(seconds(1)).await;

    // The next run of the service goes on counting.
    let next = Probe::new(&harness, "a");
    next.tasks.add(task("every ten").spacing(10));
    let runs = kept.iter().find(|r| r.name == "every ten").unwrap().runs;
    let service = harness.start(&next).await.unwrap();
    harness.clock.advance(seconds(10)).await;
    assert_eq!(service.periodic_tasks().reports()[0].runs, runs + 1);
}

trait ByName {
    fn reports_by_name(&self) -> Vec<karbor_manager::TaskReport>;
}

impl ByName for PeriodicTasks<Probe> {
    fn reports_by_name(&self) -> Vec<karbor_manager::TaskReport> {
        let mut reports = self.reports();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }
}

/// Looks at the tasks after each of `steps`; when the one task of `spacing` ran.
fn runs(spacing: u64, immediately: bool, steps: &[u64]) -> (Duration, Vec<Duration>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stage = Stage::new();
        let start = stage.clock.monotonic();
        let task = stage.task("t").spacing(i64::try_from(spacing).unwrap());
        stage.tasks.add(task.run_immediately(immediately));
        for step in steps {
            stage.run().await;
            stage.clock.turn(Duration::from_millis(*step));
        }
        let ran = stage.diary.0.lock().unwrap();
        (start, ran.iter().map(|(_, at)| *at).collect())
    })
}

proptest! {
    /// However late the looks are.
    #[test]
    fn a_task_never_runs_more_often_than_its_spacing_less_5_percent(
        spacing in 1..200_u64,
        immediately: bool,
        steps in prop::collection::vec(1..300_000_u64, 1..60),
    ) {
        let (start, ran) = runs(spacing, immediately, &steps);
        let least = Duration::from_secs(spacing).mul_f64(0.95) - Duration::from_nanos(1);
        for pair in ran.windows(2) {
            prop_assert!(pair[1] - pair[0] >= least, "{:?}", pair[1] - pair[0]);
        }
        if let (false, Some(first)) = (immediately, ran.first()) {
            prop_assert!(*first - start >= Duration::from_secs(spacing));
        }
    }

    /// One that looks often sees a run every spacing, plus 5 % at most.
    #[test]
    fn a_task_that_is_looked_at_often_is_not_run_late(
        spacing in 1..200_u64,
        steps in prop::collection::vec(1..1000_u64, 500),
    ) {
        let (_, ran) = runs(spacing, true, &steps);
        let most = Duration::from_secs(spacing).mul_f64(1.05) + seconds(1);
        for pair in ran.windows(2) {
            prop_assert!(pair[1] - pair[0] <= most, "{:?}", pair[1] - pair[0]);
        }
    }
}
