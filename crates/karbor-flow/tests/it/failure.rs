use std::sync::Arc;

use karbor_flow::{FlowStatus, Hook};
use serde_json::json;

use crate::support::{
    Act, Paper, World, bytes, check_order, paused, plan_of, report, run, shared_child,
};

#[test]
fn a_failure_at_every_hook_undoes_what_was_started_and_only_that() {
    let plan = shared_child();
    for task in plan.tasks() {
        let world = Arc::new(World::with(&[(&task.name, Act::Fail("disk full"))]));
        let journal = Paper::new(&world);
        let outcome = paused(run(&plan, &world, &journal));
        assert_eq!(outcome.status, FlowStatus::Failed);
        let [failure] = outcome.failures.as_slice() else {
            panic!("{}: {:?}", task.name, outcome.failures);
        };
        assert_eq!(
            (failure.node, failure.hook, failure.reason.as_str()),
            (task.node, task.hook, "disk full")
        );
        check_order(&plan, &world.diary());
        let mut undone = world.undone();
        undone.sort();
        assert_eq!(
            undone,
            world.started().into_iter().collect::<Vec<_>>(),
            "{}",
            task.name
        );
        assert!(world.traces().is_empty(), "{}", task.name);
    }
}

#[test]
fn a_verification_goes_on_and_tells_every_failure() {
    let edges = [(0, 1), (0, 2)];
    let graph = crate::support::graph(3, &edges);
    let plan = Arc::new(
        karbor_flow::plan(&graph, karbor_model::OperationType::Verify)
            .unwrap()
            .going_on(),
    );
    let world = Arc::new(World::with(&[
        ("main:T#1", Act::Fail("a bit was flipped")),
        ("main:T#0", Act::Fail("gone")),
    ]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.status, FlowStatus::Failed);
    let failed: Vec<_> = outcome
        .failures
        .iter()
        .map(|f| f.resource.as_str())
        .collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.contains(&"T#0") && failed.contains(&"T#1"));
    assert_eq!(world.begun("main:T#2"), 1);
    // And again from any point of its journal.
    let events = journal.events();
    for known in 0..=events.len() {
        let world = Arc::new(World::with(&[
            ("main:T#1", Act::Fail("a bit was flipped")),
            ("main:T#0", Act::Fail("gone")),
        ]));
        let journal = Paper::holding(&world, events[..known].to_vec());
        let again = paused(run(&plan, &world, &journal));
        assert_eq!(again.status, FlowStatus::Failed, "{known} events");
        let named = |resource: &str| again.failures.iter().any(|f| f.resource == resource);
        assert!(named("T#0") && named("T#1"), "{known} events");
    }
}

#[test]
fn every_failure_is_told_and_victims_are_not() {
    let plan = plan_of(3, &[]);
    let world = Arc::new(World::with(&[
        ("main:T#0", Act::Fail("disk full")),
        ("main:T#1", Act::FailWhenCancelled("could not stop pg_dump")),
        ("main:T#2", Act::Obey),
    ]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert_eq!(
        outcome.error_info().unwrap(),
        "name 0 (t): disk full\nname 1 (t): could not stop pg_dump"
    );
}

#[test]
fn an_undo_that_fails_is_a_failure_and_stops_no_other() {
    let plan = plan_of(3, &[(0, 1), (1, 2)]);
    let world = Arc::new(World::with(&[
        ("main:T#2", Act::Fail("disk full")),
        ("undo:T#2", Act::Panic),
        ("undo:T#1", Act::Fail("bank is away")),
    ]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(world.undone(), ["T#2", "T#1", "T#0"]);
    let failures: Vec<_> = outcome
        .failures
        .iter()
        .map(|failure| (failure.resource.as_str(), failure.hook))
        .collect();
    assert_eq!(
        failures,
        [
            ("T#2", Hook::Main),
            ("T#2", Hook::Undo),
            ("T#1", Hook::Undo)
        ]
    );
}

#[test]
fn a_panic_is_a_failure_of_its_resource() {
    let plan = shared_child();
    let world = Arc::new(World::with(&[("main:T#3", Act::Panic)]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert_eq!(outcome.failures.len(), 1);
    assert_eq!(outcome.failures[0].resource, "T#3");
    assert!(outcome.failures[0].reason.contains("the plugin broke down"));
    assert!(!outcome.failures[0].reason.contains("on command"));
    assert!(world.traces().is_empty());
}

#[test]
fn a_hook_that_says_cancelled_when_nobody_cancelled_failed() {
    let plan = plan_of(1, &[]);
    let world = Arc::new(World::with(&[("main:T#0", Act::Fail("cancelled"))]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.status, FlowStatus::Failed);
    assert_eq!(outcome.failures[0].reason, "cancelled");
}

#[test]
fn reports_of_one_resource_are_merged() {
    let plan = plan_of(2, &[]);
    let world = Arc::new(World::with(&[
        (
            "prepare_begin:T#0",
            Act::Report(report(json!({"warnings": ["slow"], "phase": "a"}))),
        ),
        ("main:T#0", Act::Report(bytes(40))),
        (
            "complete:T#0",
            Act::Report(report(
                json!({"warnings": ["odd"], "bytes": 2, "phase": "b"}),
            )),
        ),
    ]));
    let journal = Paper::new(&world);
    let outcome = paused(run(&plan, &world, &journal));
    assert_eq!(outcome.reports.len(), 1);
    assert_eq!(
        serde_json::Value::Object(outcome.reports["T#0"].clone()),
        json!({"warnings": ["slow", "odd"], "phase": "b", "bytes": 42})
    );
    // Nothing is left to run, and the reports come from the journal.
    let begun = world.diary().len();
    let again = paused(run(&plan, &world, &journal));
    assert_eq!(again, outcome);
    assert_eq!(world.diary().len(), begun);
}
