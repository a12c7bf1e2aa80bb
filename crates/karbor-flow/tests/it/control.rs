//! Cancel, time and retries.

use std::{sync::Arc, time::Duration};

use karbor_flow::{ExecutorOptions, FlowStatus, RetryPolicy};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Act, Entry, Paper, World, check_order, options, paused, plan_of, run, run_with, shared_child,
};

#[test]
fn a_cancel_at_any_hook_undoes_what_was_started() {
    let plan = shared_child();
    for task in plan.tasks() {
        for after in [false, true] {
            let cancel = CancellationToken::new();
            let world = Arc::new(World {
                trip: Some((task.name.clone(), after, cancel.clone())),
                ..World::default()
            });
            let paper = Paper::new(&world);
            let outcome = paused(run_with(options(), &plan, &world, &paper, cancel));
            check_order(&plan, &world.diary());
            if outcome.status == FlowStatus::Success {
                // Too late: that was the last, and it ended at once.
                assert_eq!(world.traces().values().map(|t| t.len()).sum::<usize>(), 20);
                continue;
            }
            assert_eq!(outcome.status, FlowStatus::Cancelled, "{}", task.name);
            assert!(outcome.failures.is_empty());
            assert_eq!(outcome.error_info().unwrap(), "cancelled");
            let mut undone = world.undone();
            undone.sort();
            assert_eq!(undone, world.started().into_iter().collect::<Vec<_>>());
            assert!(world.traces().is_empty());
        }
    }
}

#[test]
fn a_cancel_during_any_append_undoes_what_was_started() {
    let plan = shared_child();
    let world = Arc::new(World::default());
    let paper = Paper::new(&world);
    paused(run(&plan, &world, &paper));
    let all = paper.events();
    let last = all.last().unwrap();
    for event in &all {
        let cancel = CancellationToken::new();
        let world = Arc::new(World::default());
        let mut paper = Paper::blank(&world);
        paper.trip = Some((event.task.clone(), event.kind.name(), cancel.clone()));
        let paper = Arc::new(paper);
        let outcome = paused(run_with(options(), &plan, &world, &paper, cancel));
        check_order(&plan, &world.diary());
        if event.seq == last.seq {
            // Too late: everything was done.
            assert_eq!(outcome.status, FlowStatus::Success);
            assert_eq!(world.traces().len(), 5);
            continue;
        }
        assert_eq!(outcome.status, FlowStatus::Cancelled, "{event:?}");
        assert!(outcome.failures.is_empty());
        let mut undone = world.undone();
        undone.sort();
        assert_eq!(undone, world.started().into_iter().collect::<Vec<_>>());
        assert!(world.traces().is_empty());
    }
}

#[test]
fn a_hook_that_cancels_its_own_token_failed() {
    let plan = plan_of(2, &[(0, 1)]);
    let world = Arc::new(World::with(&[
        ("main:T#1", Act::CancelItself),
        ("undo:T#1", Act::CancelItself),
    ]));
    let paper = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &paper));
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert_eq!(outcome.failures.len(), 2);
    assert_eq!(world.undone(), ["T#1", "T#0"]);
}

#[test]
fn a_flow_that_is_cancelled_before_it_starts_runs_nothing() {
    let plan = shared_child();
    let world = Arc::new(World::default());
    let paper = Paper::new(&world);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcome = paused(run_with(options(), &plan, &world, &paper, cancel));
    assert_eq!(outcome.status, FlowStatus::Cancelled);
    assert_eq!(world.diary(), [Entry::Durable("flow".into(), "failed")]);
}

#[test]
fn a_hook_that_does_not_stop_is_dropped_after_the_grace() {
    let plan = plan_of(2, &[]);
    let world = Arc::new(World::with(&[("main:T#0", Act::Ignore)]));
    let paper = Paper::new(&world);
    paused(async {
        let cancel = CancellationToken::new();
        let started = Instant::now();
        let (outcome, ()) = tokio::join!(
            run_with(options(), &plan, &world, &paper, cancel.clone()),
            async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                cancel.cancel();
            }
        );
        assert_eq!(outcome.status, FlowStatus::Cancelled);
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(15) && took < Duration::from_secs(16));
    });
    check_order(&plan, &world.diary());
    assert!(world.traces().is_empty());
}

#[test]
fn a_task_that_takes_too_long_fails() {
    for act in [Act::Obey, Act::Ignore] {
        let plan = plan_of(2, &[(0, 1)]);
        let world = Arc::new(World::with(&[("main:T#1", act)]));
        let paper = Paper::new(&world);
        let outcome = paused(run(&plan, &world, &paper));
        assert_eq!(outcome.status, FlowStatus::Failed);
        assert_eq!(
            outcome.error_info().unwrap(),
            "name 1 (t): timed out after 1 min"
        );
        assert_eq!(world.undone(), ["T#1", "T#0"]);
    }
}

#[test]
fn an_undo_that_takes_too_long_fails_and_the_next_goes_on() {
    let plan = plan_of(2, &[(0, 1)]);
    let world = Arc::new(World::with(&[
        ("main:T#1", Act::Fail("no")),
        ("undo:T#1", Act::Ignore),
    ]));
    let paper = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &paper));
    assert_eq!(
        outcome.error_info().unwrap(),
        "name 1 (t): no\nname 1 (t): what was begun could not be undone: timed out after 1 min"
    );
    assert_eq!(world.undone(), ["T#1", "T#0"]);
}

#[test]
fn a_cancel_during_the_undo_does_not_stop_it() {
    let plan = plan_of(3, &[(0, 1), (1, 2)]);
    let cancel = CancellationToken::new();
    let mut world = World::with(&[("main:T#2", Act::Fail("no"))]);
    world.trip = Some(("undo:T#2".into(), false, cancel.clone()));
    let world = Arc::new(world);
    let paper = Paper::new(&world);
    let outcome = paused(run_with(options(), &plan, &world, &paper, cancel));
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert_eq!(outcome.failures.len(), 1);
    assert!(world.traces().is_empty());
}

#[test]
fn a_retryable_error_is_tried_again_as_the_same_task() {
    let plan = plan_of(2, &[(0, 1)]);
    let world = Arc::new(World::with(&[("main:T#1", Act::FailTimes(2))]));
    let paper = Paper::new(&world);
    paused(async {
        let started = Instant::now();
        let outcome = run(&plan, &world, &paper).await;
        assert_eq!(outcome.status, FlowStatus::Success);
        assert!(started.elapsed() >= Duration::from_millis(1500));
    });
    assert_eq!(world.begun("main:T#1"), 3);
    let events = paper.events();
    assert_eq!(events.iter().filter(|e| e.task == "main:T#1").count(), 2);
}

#[test]
fn a_retryable_error_that_stays_is_a_failure() {
    let plan = plan_of(1, &[]);
    let world = Arc::new(World::with(&[("main:T#0", Act::FailTimes(9))]));
    let paper = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &paper));
    assert_eq!(outcome.failures[0].reason, "attempt 3");
    assert_eq!(world.begun("main:T#0"), 3);
}

#[test]
fn a_cancel_does_not_wait_for_the_next_attempt() {
    let plan = plan_of(1, &[]);
    let world = Arc::new(World::with(&[("main:T#0", Act::FailTimes(9))]));
    let paper = Paper::new(&world);
    let retry = RetryPolicy {
        attempts: 5,
        first_delay: Duration::from_secs(50),
        longest_delay: Duration::from_secs(50),
    };
    let options = ExecutorOptions { retry, ..options() };
    paused(async {
        let cancel = CancellationToken::new();
        let started = Instant::now();
        let (outcome, ()) = tokio::join!(
            run_with(options, &plan, &world, &paper, cancel.clone()),
            async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                cancel.cancel();
            }
        );
        assert_eq!(outcome.status, FlowStatus::Cancelled);
        assert!(outcome.failures.is_empty());
        assert!(started.elapsed() < Duration::from_secs(11));
    });
}

#[test]
fn all_attempts_share_the_time_of_the_task() {
    let plan = plan_of(1, &[]);
    let world = Arc::new(World::with(&[("main:T#0", Act::FailTimes(9))]));
    let paper = Paper::new(&world);
    let retry = RetryPolicy {
        attempts: 9,
        first_delay: Duration::from_secs(25),
        longest_delay: Duration::from_secs(25),
    };
    let options = ExecutorOptions { retry, ..options() };
    let cancel = CancellationToken::new();
    let outcome = paused(run_with(options, &plan, &world, &paper, cancel));
    assert_eq!(
        outcome.failures[0].reason,
        "timed out after 1 min; the last failure was: attempt 3"
    );
}
