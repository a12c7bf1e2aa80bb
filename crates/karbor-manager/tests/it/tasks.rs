use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use karbor_manager::{Clock, SystemClock, TaskSet};
use karbor_testkit::FakeClock;

use crate::logs;

#[tokio::test]
async fn a_task_that_panics_is_logged_by_name_and_the_others_go_on() {
    logs::record();
    let (tasks, clock) = (TaskSet::new(), FakeClock::new());
    tasks.spawn("clumsy", async { panic!("dropped the tray") });
    let stop = tasks.cancelled().clone();
    tasks.spawn("steady", async move { stop.cancelled().await });
    clock.settle().await;
    let told = logs::with("dropped the tray");
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("clumsy"), "{told:?}");
    assert_eq!(tasks.running(), ["steady"]);
    tasks.cancel();
    assert!(tasks.join(&clock, Duration::from_secs(1)).await.is_empty());
}

#[tokio::test]
async fn join_waits_for_tasks_that_tasks_start() {
    let (tasks, clock) = (TaskSet::new(), FakeClock::new());
    let set = tasks.clone();
    tasks.spawn("parent", async move {
        tokio::task::yield_now().await;
        set.clone()
            .spawn("child", async move { set.cancelled().cancelled().await });
    });
    let set = tasks.clone();
    let joining = tokio::spawn({
        let clock = clock.clone();
        async move { set.join(&clock, Duration::from_secs(9)).await }
    });
    clock.settle().await;
    assert_eq!(tasks.running(), ["child"]);
    assert!(!joining.is_finished());
    tasks.cancel();
    assert!(joining.await.unwrap().is_empty());
}

#[tokio::test]
async fn join_drops_and_names_what_does_not_end() {
    let (tasks, clock) = (TaskSet::new(), FakeClock::new());
    tasks.spawn("stuck", pending());
    let joining = tokio::spawn({
        let (tasks, clock) = (tasks.clone(), clock.clone());
        async move { tasks.join(&clock, Duration::from_secs(9)).await }
    });
    clock.advance(Duration::from_secs(9)).await;
    assert_eq!(joining.await.unwrap(), ["stuck"]);
    assert!(tasks.running().is_empty());
}

/// A drain ends in time also when a task computes, or waits without yielding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_dropped_does_not_hold_up_the_end() {
    let tasks = TaskSet::new();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (entered, reached) = std::sync::mpsc::channel();
    tasks.spawn("stubborn", async move {
        entered.send(()).unwrap();
        let _ = held.recv();
    });
    reached.recv().unwrap();
    let clock = SystemClock::new();
    let left = tasks.join(&clock, Duration::from_millis(10)).await;
    assert_eq!(left, ["stubborn"]);
    drop(release);
}

#[tokio::test]
async fn a_supervised_loop_is_begun_again_after_longer_and_longer_pauses() {
    let clock = FakeClock::new();
    let (tasks, begun) = (TaskSet::new(), Arc::new(Mutex::new(Vec::new())));
    let (noted, hands) = (begun.clone(), clock.clone());
    tasks.supervise("loop", clock.shared(), move || {
        noted.lock().unwrap().push(hands.monotonic());
        // Not even a future comes of it.
        if true {
            panic!("again");
        }
        async {}
    });
    clock.advance(Duration::from_secs(250)).await;
    let at = begun.lock().unwrap().clone();
    let seconds: Vec<u64> = at.iter().map(|then| (*then - at[0]).as_secs()).collect();
    assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    assert_eq!(tasks.down(), ["loop"]);
    tasks.cancel();
    assert!(tasks.join(&clock, Duration::from_secs(1)).await.is_empty());
}
