//! What `kill -9` and a broken disk do to a flow.

use karbor_manager::SystemClock;
use karbor_model::JournalEvent;
use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use karbor_flow::{Executor, FlowOutcome, FlowPlan, FlowStatus, Hook, MemoryJournal, Unwatched};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Act, Paper, World, bytes, check_order, options, paused, plan_of, run, run_with, shared_child,
};

type Traces = BTreeMap<String, BTreeSet<Hook>>;

/// How a flow ends: its outcome and what it leaves in the world.
#[derive(Debug, PartialEq)]
struct Ending {
    status: FlowStatus,
    failures: Vec<(String, Hook, String)>,
    traces: Traces,
}

fn ending(outcome: &FlowOutcome, world: &World) -> Ending {
    let failures = outcome.failures.iter();
    let mut failures: Vec<_> = failures
        .map(|f| (f.resource.clone(), f.hook, f.reason.clone()))
        .collect();
    failures.sort();
    let mut traces = world.traces();
    if outcome.status != FlowStatus::Success {
        // How far a resource came whose undo failed is a matter of time.
        traces.values_mut().for_each(BTreeSet::clear);
    }
    Ending {
        status: outcome.status,
        failures,
        traces,
    }
}

/// Flows that end in each of the ways there are.
fn cases() -> Vec<Vec<(&'static str, Act)>> {
    vec![
        vec![("main:T#0", Act::Report(bytes(7)))],
        vec![("main:T#2", Act::Fail("disk full"))],
        vec![
            ("complete:T#2", Act::Panic),
            ("undo:T#2", Act::Fail("stuck")),
        ],
        vec![
            ("prepare_finish:T#1", Act::Fail("no")),
            ("main:T#4", Act::Obey),
        ],
    ]
}

/// Breaks the journal of a flow at the given appends, one run after the other, and lets so many
/// events of the one that breaks get through; then runs it to its end.
async fn broken_at(
    plan: &Arc<FlowPlan>,
    acts: &[(&str, Act)],
    breaks: &[(usize, usize)],
) -> Option<(Ending, Arc<World>)> {
    let world = Arc::new(World::with(acts));
    let mut events: Vec<JournalEvent> = Vec::new();
    for &point in breaks {
        let mut paper = Paper::blank(&world);
        paper.events = std::sync::Mutex::new(events);
        paper.breaks = Some(point);
        let paper = Arc::new(paper);
        let outcome = run(plan, &world, &paper).await;
        if outcome.status != FlowStatus::Interrupted {
            return None;
        }
        assert!(outcome.error_info().unwrap().contains("no space left"));
        let running = world.running.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(running, 0, "hooks were told to stop and waited for");
        events = paper.events();
    }
    let paper = Paper::holding(&world, events);
    let outcome = run(plan, &world, &paper).await;
    let begun = world.diary().len();
    assert_eq!(run(plan, &world, &paper).await, outcome, "an end is an end");
    assert_eq!(world.diary().len(), begun);
    Some((ending(&outcome, &world), world))
}

#[test]
fn a_journal_that_breaks_at_any_append_costs_nothing_but_repeats() {
    let plan = shared_child();
    for acts in cases() {
        let (expected, _) = paused(broken_at(&plan, &acts, &[])).unwrap();
        let mut points = 0;
        for at in 0.. {
            let mut broke = false;
            for through in 0..8 {
                let Some((got, world)) = paused(broken_at(&plan, &acts, &[(at, through)])) else {
                    continue;
                };
                broke = true;
                points += 1;
                assert_eq!(got, expected, "append {at}, {through} events got through");
                check_order(&plan, &world.diary());
                for task in plan.tasks() {
                    assert!(world.begun(&task.name) <= 2);
                }
            }
            if !broke {
                break;
            }
        }
        assert!(points > 50, "{points} crashes tried");
    }
}

#[test]
fn a_journal_that_breaks_twice_costs_nothing_but_repeats() {
    let plan = plan_of(3, &[(0, 1), (0, 2)]);
    for acts in [
        vec![],
        vec![
            ("main:T#1", Act::Fail("no")),
            ("undo:T#2", Act::Fail("stuck")),
        ],
    ] {
        let (expected, _) = paused(broken_at(&plan, &acts, &[])).unwrap();
        for first in 0..20 {
            for second in 0..20 {
                for through in [0, 1, 9] {
                    let breaks = [(first, through), (second, through)];
                    if let Some((got, world)) = paused(broken_at(&plan, &acts, &breaks)) {
                        assert_eq!(got, expected, "{breaks:?}");
                        check_order(&plan, &world.diary());
                    }
                }
            }
        }
    }
}

#[test]
fn no_hook_runs_when_the_journal_cannot_be_written() {
    let plan = shared_child();
    let world = Arc::new(World::default());
    let mut paper = Paper::blank(&world);
    paper.breaks = Some((0, 0));
    let outcome = paused(run(&plan, &world, &Arc::new(paper)));
    assert_eq!(outcome.status, FlowStatus::Interrupted);
    assert!(world.diary().is_empty());
}

/// Kills a flow when the named hook begins, or has done its work; then runs it to its end.
async fn killed_at(
    plan: &Arc<FlowPlan>,
    acts: &[(&str, Act)],
    task: &str,
    after: bool,
) -> (Ending, Arc<World>) {
    let kill = CancellationToken::new();
    let mut world = World::with(acts);
    world.trip = Some((task.to_owned(), after, kill.clone()));
    let world = Arc::new(world);
    let paper = Paper::new(&world);
    tokio::select! {
        biased;
        () = kill.cancelled() => {}
        _ = run(plan, &world, &paper) => panic!("{task} was never run"),
    }
    // The hooks of the dead process are gone before the next one starts.
    while world.running.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let paper = Paper::holding(&world, paper.events());
    let outcome = run(plan, &world, &paper).await;
    (ending(&outcome, &world), world)
}

#[test]
fn a_kill_at_any_hook_costs_nothing_but_a_repeat() {
    let plan = shared_child();
    let (expected, _) = paused(broken_at(&plan, &[], &[])).unwrap();
    assert_eq!(expected.status, FlowStatus::Success);
    for task in plan.tasks() {
        for after in [false, true] {
            let (got, world) = paused(killed_at(&plan, &[], &task.name, after));
            assert_eq!(got, expected, "{} {after}", task.name);
            assert_eq!(world.begun(&task.name), 2, "{}", task.name);
            check_order(&plan, &world.diary());
        }
    }
}

#[test]
fn a_kill_while_undoing_goes_on_undoing() {
    let plan = shared_child();
    let acts = [("complete:T#2", Act::Fail("disk full"))];
    let (expected, world) = paused(broken_at(&plan, &acts, &[])).unwrap();
    assert_eq!(expected.status, FlowStatus::Failed);
    for key in world.undone() {
        for after in [false, true] {
            let undo = format!("undo:{key}");
            let (got, world) = paused(killed_at(&plan, &acts, &undo, after));
            assert_eq!(got, expected, "{undo} {after}");
            assert_eq!(world.begun(&undo), 2);
            check_order(&plan, &world.diary());
        }
    }
}

#[test]
fn a_cancel_outlives_a_kill() {
    let plan = plan_of(2, &[]);
    let world = Arc::new(World::with(&[
        ("main:T#0", Act::Obey),
        ("undo:T#0", Act::Ignore),
    ]));
    let paper = Paper::new(&world);
    let cancel = CancellationToken::new();
    paused(async {
        let flow = run_with(options(), &plan, &world, &paper, cancel.clone());
        let script = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            cancel.cancel();
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        };
        tokio::select! {
            _ = flow => panic!("the undo ended"),
            () = script => {}
        }
    });
    let world = Arc::new(World::default());
    let paper = Paper::holding(&world, paper.events());
    let outcome = paused(run(&plan, &world, &paper));
    assert_eq!(outcome.status, FlowStatus::Cancelled);
    assert!(world.undone().contains(&"T#0".to_owned()));
    assert_eq!(world.begun("main:T#0"), 0);
}

#[test]
fn a_plan_from_the_stored_graph_resumes_although_its_places_differ() {
    let graph = crate::support::graph(4, &[(3, 0), (3, 1), (1, 2)]);
    let stored = karbor_model::ResourceGraph::unpack(&graph.pack().unwrap()).unwrap();
    let operation = karbor_model::OperationType::Restore;
    let first = Arc::new(karbor_flow::plan(&graph, operation).unwrap());
    let second = Arc::new(karbor_flow::plan(&stored, operation).unwrap());
    let keys = |plan: &FlowPlan| -> Vec<String> {
        plan.nodes().iter().map(|node| node.key.clone()).collect()
    };
    assert_ne!(keys(&first), keys(&second));
    let world = Arc::new(World::default());
    let paper = Paper::new(&world);
    paused(run(&first, &world, &paper));
    let half: Vec<JournalEvent> = paper.events().into_iter().take(13).collect();
    let world = Arc::new(World::default());
    let paper = Paper::holding(&world, half);
    let outcome = paused(run(&second, &world, &paper));
    assert_eq!(outcome.status, FlowStatus::Success);
}

#[test]
fn a_journal_of_another_flow_is_refused() {
    let world = Arc::new(World::default());
    let paper = Paper::new(&world);
    paused(run(&plan_of(3, &[]), &world, &paper));
    let other = Arc::new(World::default());
    let paper = Paper::holding(&other, paper.events());
    let outcome = paused(run(&plan_of(2, &[]), &other, &paper));
    assert_eq!(outcome.status, FlowStatus::Interrupted);
    let reason = outcome.interrupted.unwrap();
    assert!(reason.contains("not of this flow"), "{reason}");
    assert!(other.diary().is_empty());
}

#[test]
fn a_journal_with_a_hole_is_refused() {
    let plan = plan_of(2, &[]);
    let world = Arc::new(World::default());
    let paper = Paper::new(&world);
    paused(run(&plan, &world, &paper));
    let mut events = paper.events();
    events.remove(4);
    let outcome = paused(run(&plan, &world, &Paper::holding(&world, events)));
    assert_eq!(outcome.status, FlowStatus::Interrupted);
    let reason = outcome.interrupted.unwrap();
    assert!(reason.contains("event 6 follows event 4"), "{reason}");
}

#[test]
fn of_two_executors_on_one_flow_the_slower_is_stopped() {
    let plan = shared_child();
    let world = Arc::new(World::default());
    let journal = Arc::new(MemoryJournal::default());
    let flow = || {
        let executor = Executor::new(options(), Arc::new(SystemClock::new()));
        let (plan, world, journal) = (plan.clone(), world.clone(), journal.clone());
        async move {
            let cancel = CancellationToken::new();
            executor
                .run(
                    plan,
                    world,
                    journal,
                    Arc::new(Unwatched),
                    cancel,
                    Vec::new(),
                )
                .await
        }
    };
    let (first, second) = paused(async { tokio::join!(flow(), flow()) });
    let statuses = [first.status, second.status];
    assert!(statuses.contains(&FlowStatus::Success), "{statuses:?}");
    assert!(statuses.contains(&FlowStatus::Interrupted), "{statuses:?}");
}
