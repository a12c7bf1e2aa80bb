use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use karbor_flow::{ExecutorOptions, FlowStatus, Hook};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Act, Entry, Paper, World, check_order, options, paused, plan_of, run, run_with, shared_child,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_hook_runs_once_and_every_order_holds(
        count in 1usize..14,
        edges in proptest::collection::vec((0usize..14, 0usize..14), 0..50),
        limit in 1usize..9,
        ahead in 0usize..9,
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|&(a, b)| a < b && b < count).collect();
        let plan = plan_of(count, &edges);
        let world = Arc::new(World::default());
        let journal = Paper::new(&world);
        let options = ExecutorOptions { limit, ahead, ..options() };
        let outcome =
            paused(run_with(options, &plan, &world, &journal, CancellationToken::new()));
        prop_assert_eq!(outcome.status, FlowStatus::Success);
        check_order(&plan, &world.diary());
        for task in plan.tasks() {
            prop_assert_eq!(world.begun(&task.name), 1, "{}", &task.name);
        }
        prop_assert!(world.undone().is_empty());
        prop_assert!(world.most_running.load(Ordering::SeqCst) <= limit);
    }

    #[test]
    fn with_failures_every_order_holds_and_what_was_started_is_undone(
        count in 1usize..14,
        edges in proptest::collection::vec((0usize..14, 0usize..14), 0..50),
        limit in 1usize..9,
        ahead in 0usize..9,
        failing in proptest::collection::vec((0usize..14, 0usize..4), 1..4),
        stubborn in 0usize..14,
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|&(a, b)| a < b && b < count).collect();
        let plan = plan_of(count, &edges);
        let names: Vec<String> = failing
            .iter()
            .map(|&(node, hook)| format!("{}:T#{}", Hook::FORWARD[hook], node % count))
            .collect();
        let undo = format!("undo:T#{}", stubborn % count);
        let mut acts: Vec<(&str, Act)> =
            names.iter().map(|name| (name.as_str(), Act::Fail("disk full"))).collect();
        acts.push((&undo, Act::Fail("stuck")));
        let world = Arc::new(World::with(&acts));
        let journal = Paper::new(&world);
        let options = ExecutorOptions { limit, ahead, ..options() };
        let outcome =
            paused(run_with(options, &plan, &world, &journal, CancellationToken::new()));
        prop_assert_eq!(outcome.status, FlowStatus::Failed);
        check_order(&plan, &world.diary());
        let mut undone = world.undone();
        undone.sort();
        prop_assert_eq!(&undone, &world.started().into_iter().collect::<Vec<_>>());
        prop_assert!(outcome.failures.iter().any(|failure| failure.hook != Hook::Undo));
        let stuck = format!("T#{}", stubborn % count);
        prop_assert_eq!(
            outcome.failures.iter().any(|failure| failure.hook == Hook::Undo),
            undone.contains(&stuck)
        );
        prop_assert!(world.traces().keys().all(|key| *key == stuck));
    }
}

#[test]
fn main_hooks_run_in_parallel_up_to_the_limit() {
    for limit in [1, 4, 7] {
        let plan = plan_of(40, &[]);
        let world = Arc::new(World::default());
        let journal = Paper::new(&world);
        let options = ExecutorOptions { limit, ..options() };
        paused(run_with(
            options,
            &plan,
            &world,
            &journal,
            CancellationToken::new(),
        ));
        assert_eq!(world.most_running.load(Ordering::SeqCst), limit);
    }
}

#[test]
fn a_limit_of_none_still_goes_on() {
    let plan = shared_child();
    let world = Arc::new(World::default());
    let journal = Paper::new(&world);
    let options = ExecutorOptions {
        limit: 0,
        ..options()
    };
    let cancel = CancellationToken::new();
    let outcome = paused(run_with(options, &plan, &world, &journal, cancel));
    assert_eq!(outcome.status, FlowStatus::Success);
}

#[test]
fn ends_and_starts_that_come_together_share_an_append() {
    let plan = plan_of(50, &[]);
    let world = Arc::new(World::default());
    let mut journal = Paper::blank(&world);
    journal.slow = Duration::from_millis(20);
    let journal = Arc::new(journal);
    let options = ExecutorOptions {
        limit: 50,
        ..options()
    };
    let cancel = CancellationToken::new();
    paused(run_with(options, &plan, &world, &journal, cancel));
    check_order(&plan, &world.diary());
    assert_eq!(journal.events().len(), 400);
    let appends = journal.appends.load(Ordering::SeqCst);
    assert!(appends <= 20, "{appends} appends");
}

#[test]
fn what_was_begun_is_brought_to_its_end_before_more_is_begun() {
    let plan = plan_of(6, &[(0, 1), (2, 3), (4, 5)]);
    let world = Arc::new(World::default());
    let journal = Paper::new(&world);
    let options = ExecutorOptions {
        limit: 1,
        ..options()
    };
    let cancel = CancellationToken::new();
    paused(run_with(options, &plan, &world, &journal, cancel));
    // One parent at a time: between its begin and its complete no other begins.
    let mut quiesced = 0;
    for entry in world.diary() {
        let Entry::Begin(task) = entry else { continue };
        let is_parent = ["T#0", "T#2", "T#4"].iter().any(|key| task.ends_with(key));
        match task.split_once(':').unwrap().0 {
            "prepare_begin" if is_parent => quiesced += 1,
            "complete" if is_parent => quiesced -= 1,
            _ => {}
        }
        assert!(quiesced <= 1, "{task}");
    }
}

#[test]
fn an_empty_flow_succeeds_and_writes_nothing() {
    let plan = plan_of(0, &[]);
    let world = Arc::new(World::default());
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.status, FlowStatus::Success);
    assert!(journal.events().is_empty());
}
