use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use karbor_manager::{
    Clock, PeriodicTask, Signal, Signals, Started, Stopped, run_until_signal, start_unless_signal,
};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use karbor_testkit::{ServiceHarness, StoreMode};

use crate::probe::{Probe, ProbeApi, client, echo};

const MINUTE: Duration = Duration::from_secs(60);

/// A call to `wait` that has reached the manager.
async fn call_in_flight(
    harness: &ServiceHarness,
    probe: &Probe,
) -> tokio::task::JoinHandle<Result<String, ApiError>> {
    let client = client(&harness.transport);
    let call = tokio::spawn(async move { client.wait(&RequestContext::admin()).await });
    probe.entered.notified().await;
    call
}

#[tokio::test]
async fn a_call_in_flight_is_finished_before_tasks_end_and_cleanup_begins() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let call = call_in_flight(&harness, &probe).await;

    let stopping = tokio::spawn(service.shutdown(MINUTE));
    harness.clock.settle().await;
    assert!(!stopping.is_finished(), "it did not wait for the call");
    let told = probe.base.closing().is_cancelled();
    assert!(told, "calls that only wait for news hold it up");
    let late = echo(&harness.transport).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Unavailable);
    let beats = harness.store.heartbeats().len();
    harness.clock.advance(Duration::from_secs(20)).await;
    assert_eq!(
        harness.store.heartbeats().len(),
        beats + 2,
        "it beats while it drains"
    );

    probe.gate.add_permits(1);
    assert!(stopping.await.unwrap().is_graceful());
    assert_eq!(call.await.unwrap().unwrap(), "done");
    let end = &probe.events()[2..];
    assert_eq!(end, ["call finished", "task ended", "cleanup_host"]);
    assert_eq!(harness.clock.sleepers(), 0, "something still sleeps");
}

#[tokio::test]
async fn what_has_not_ended_by_the_deadline_is_dropped_and_named() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let call = call_in_flight(&harness, &probe).await;
    let stubborn = std::future::pending();
    probe.base.tasks().spawn("stubborn", stubborn);

    let stopping = tokio::spawn(service.shutdown(MINUTE / 2));
    harness.clock.advance(MINUTE / 2).await;
    let report = stopping.await.unwrap();
    assert!(
        report.dropped.contains(&"rpc wait".to_owned()),
        "{report:?}"
    );
    assert!(
        report.dropped.contains(&"stubborn".to_owned()),
        "{report:?}"
    );
    assert!(!report.is_graceful());
    // It may have begun what it was asked for.
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert!(error.message.contains("stopped before"), "{error}");
    assert!(probe.events().contains(&"cleanup_host".to_owned()));
}

/// Neither a database that hangs nor a deadline used up by others keeps `cleanup_host` from its turn.
#[tokio::test]
async fn cleanup_has_time_of_its_own_and_a_hanging_database_does_not_block_it() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let quick = PeriodicTask::new("quick", |_: Arc<Probe>, _| async { Ok(()) });
    probe.tasks.add(quick.spacing(5));
    let service = harness.start(&probe).await.unwrap();
    let _call = call_in_flight(&harness, &probe).await;
    harness.store.set_mode(StoreMode::Hanging);
    harness.clock.advance(Duration::from_secs(12)).await;
    let clean_for = Duration::from_secs(5);
    *probe.cleanup_takes.lock().unwrap() = clean_for;

    let before = harness.clock.monotonic();
    let stopping = tokio::spawn(service.shutdown(MINUTE));
    harness.clock.advance(MINUTE * 9 / 10 + clean_for).await;
    let report = stopping.await.unwrap();
    assert!(report.cleaned_up, "{report:?}");
    assert_eq!(report.dropped, ["rpc wait"]);
    assert!(harness.clock.monotonic() - before <= MINUTE);
    assert!(probe.events().contains(&"cleanup_host".to_owned()));
}

#[tokio::test]
async fn a_periodic_task_that_runs_is_let_finish_and_its_report_is_kept() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    probe.tasks.add(
        PeriodicTask::new("slow", |probe: Arc<Probe>, _| async move {
            probe.wait(&RequestContext::admin()).await
        })
        .run_immediately(true),
    );
    let service = harness.start(&probe).await.unwrap();
    probe.entered.notified().await;
    let stopping = tokio::spawn(service.shutdown(MINUTE));
    harness.clock.settle().await;
    assert!(!stopping.is_finished());
    probe.gate.add_permits(1);
    assert!(stopping.await.unwrap().is_graceful());
    use karbor_manager::ServiceStore;
    let reports = harness.store.task_reports(1).await.unwrap();
    assert_eq!((reports[0].name.as_str(), reports[0].runs), ("slow", 1));
}

#[tokio::test]
async fn the_first_signal_drains() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let (sender, mut signals) = Signals::channel();
    let run = tokio::spawn(async move {
        run_until_signal(&mut signals, async || {}, || service.shutdown(MINUTE)).await
    });
    harness.clock.settle().await;
    assert!(!run.is_finished());
    sender.send(Signal::Terminate).await.unwrap();
    match run.await.unwrap() {
        Stopped::Drained(report) => assert!(report.is_graceful()),
        Stopped::AtOnce => panic!("it did not drain"),
    }
    assert!(probe.events().contains(&"cleanup_host".to_owned()));
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let call = call_in_flight(&harness, &probe).await;
    let (sender, mut signals) = Signals::channel();
    let draining = Arc::new(AtomicBool::new(false));
    let seen = draining.clone();
    let run = tokio::spawn(async move {
        run_until_signal(
            &mut signals,
            async || {},
            || {
                seen.store(true, Ordering::Relaxed);
                service.shutdown(MINUTE)
            },
        )
        .await
    });
    sender.send(Signal::Terminate).await.unwrap();
    harness.clock.settle().await;
    assert!(draining.load(Ordering::Relaxed));
    assert!(!run.is_finished());

    let before = harness.clock.monotonic();
    sender.send(Signal::Terminate).await.unwrap();
    assert_eq!(run.await.unwrap(), Stopped::AtOnce);
    assert_eq!(harness.clock.monotonic(), before, "it waited");
    assert_eq!(call.await.unwrap().unwrap_err().kind, ErrorKind::Timeout);
    harness.clock.settle().await;
    assert!(probe.base.tasks().running().is_empty(), "a task was left");
    assert!(!probe.events().contains(&"cleanup_host".to_owned()));
}

#[tokio::test]
async fn a_service_that_is_dropped_leaves_nothing_running() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    drop(harness.start(&probe).await.unwrap());
    harness.clock.settle().await;
    assert_eq!(harness.clock.sleepers(), 0);
    assert!(probe.base.tasks().running().is_empty());
    let call = echo(&harness.transport).await;
    assert_eq!(call.unwrap_err().kind, ErrorKind::Unavailable);
}

/// In a process of its own: the handlers stay, and this one shall still be ended by SIGTERM.
#[tokio::test]
async fn sigterm_of_the_process_is_heard() {
    use rustix::process::{Signal as Kind, getpid, kill_process};
    const CHILD: &str = "KARBOR_TEST_SIGNALS";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::sigterm_of_the_process_is_heard"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
        return;
    }
    let mut signals = Signals::of_process().unwrap();
    kill_process(getpid(), Kind::TERM).unwrap();
    assert_eq!(signals.next().await, Signal::Terminate);
    kill_process(getpid(), Kind::INT).unwrap();
    assert_eq!(signals.next().await, Signal::Interrupt);
    kill_process(getpid(), Kind::HUP).unwrap();
    assert_eq!(signals.next().await, Signal::Hangup);
}

#[tokio::test]
async fn a_hangup_reloads_and_a_drain_does_not_mind_it() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    let service = harness.start(&probe).await.unwrap();
    let call = call_in_flight(&harness, &probe).await;
    let (sender, mut signals) = Signals::channel();
    let reload = async || probe.event("reloaded");
    let run = run_until_signal(&mut signals, reload, || service.shutdown(MINUTE));
    let test = async {
        let finished = || probe.events().contains(&"cleanup_host".to_owned());
        for _ in 0..2 {
            sender.send(Signal::Hangup).await.unwrap();
        }
        harness.clock.settle().await;
        let events = probe.events();
        assert_eq!(events.iter().filter(|e| *e == "reloaded").count(), 2);
        assert!(!finished());
        sender.send(Signal::Terminate).await.unwrap();
        sender.send(Signal::Hangup).await.unwrap();
        harness.clock.settle().await;
        assert!(!finished(), "the hangup cut the drain short");
        probe.gate.add_permits(1);
    };
    let (stopped, ()) = tokio::join!(run, test);
    assert!(matches!(stopped, Stopped::Drained(_)));
    assert!(call.await.unwrap().is_ok());
}

/// A database that never answers: without this only SIGKILL ended the service.
#[tokio::test]
async fn a_signal_ends_a_start_that_hangs_and_nothing_is_left() {
    let harness = ServiceHarness::new();
    let probe = Probe::new(&harness, "a");
    *probe.init_takes.lock().unwrap() = MINUTE;
    let (sender, mut signals) = Signals::channel();
    sender.send(Signal::Hangup).await.unwrap();
    let mut start = std::pin::pin!(start_unless_signal(&mut signals, harness.start(&probe)));
    tokio::select! {
        biased;
        _ = start.as_mut() => panic!("it started, or a hangup stopped it"),
        () = harness.clock.settle() => {}
    }
    assert_eq!(probe.base.tasks().running(), ["resumed"]);
    sender.send(Signal::Terminate).await.unwrap();
    let Started::Stopped(Signal::Terminate) = start.await else {
        panic!("it was not stopped");
    };
    harness.clock.settle().await;
    assert!(probe.base.tasks().running().is_empty(), "a task was left");
}

#[tokio::test]
async fn a_start_that_hangs_gives_up_and_says_at_which_step() {
    for (hangs, step) in [
        (StoreMode::Hanging, "registering in the database"),
        (StoreMode::Up, "init_host"),
    ] {
        let harness = ServiceHarness::new();
        harness.store.set_mode(hangs);
        let probe = Probe::new(&harness, "a");
        *probe.init_takes.lock().unwrap() = 10 * MINUTE;
        let mut start = std::pin::pin!(harness.start(&probe));
        let begun = harness.clock.monotonic();
        let error = tokio::select! {
            started = start.as_mut() => started.err().unwrap(),
            () = async { harness.clock.advance(5 * MINUTE).await; std::future::pending().await } => panic!(),
        };
        assert_eq!(harness.clock.monotonic() - begun, 5 * MINUTE);
        assert!(error.kind.is_retryable());
        assert!(error.message.contains("within 300 s"), "{error}");
        assert!(error.message.contains(step), "{error}");
        harness.clock.settle().await;
        assert!(probe.base.tasks().running().is_empty(), "a task was left");
    }
}
