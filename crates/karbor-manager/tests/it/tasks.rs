use std::{future::pending, time::Duration};

use karbor_manager::TaskSet;
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
