use karbor_flow::{Hook, plan};
use karbor_model::{GraphError, OperationType};
use proptest::prelude::*;

use crate::support::{graph, plan_of};

fn after(plan: &karbor_flow::FlowPlan, name: &str) -> Vec<String> {
    let task = plan.tasks().iter().find(|task| task.name == name).unwrap();
    let mut names: Vec<String> = task
        .after
        .iter()
        .map(|&at| plan.tasks()[at].name.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn edges_are_karbors() {
    let plan = plan_of(3, &[(0, 2), (1, 2)]);
    assert_eq!(plan.tasks().len(), 12);
    assert!(after(&plan, "prepare_begin:T#0").is_empty());
    assert_eq!(
        after(&plan, "prepare_begin:T#2"),
        ["prepare_begin:T#0", "prepare_begin:T#1"]
    );
    assert_eq!(
        after(&plan, "prepare_finish:T#0"),
        ["prepare_begin:T#0", "prepare_finish:T#2"]
    );
    assert_eq!(after(&plan, "prepare_finish:T#2"), ["prepare_begin:T#2"]);
    assert_eq!(after(&plan, "main:T#0"), ["prepare_finish:T#0"]);
    assert_eq!(after(&plan, "complete:T#1"), ["complete:T#2", "main:T#1"]);
    assert_eq!(after(&plan, "complete:T#2"), ["main:T#2"]);
}

#[test]
fn every_operation_has_the_same_tasks() {
    let graph = graph(2, &[(0, 1)]);
    let names = |operation| -> Vec<String> {
        let plan = plan(&graph, operation).unwrap();
        plan.tasks().iter().map(|task| task.name.clone()).collect()
    };
    let protect = names(OperationType::Protect);
    for operation in [
        OperationType::Restore,
        OperationType::Delete,
        OperationType::Verify,
        OperationType::Copy,
    ] {
        assert_eq!(names(operation), protect);
    }
}

#[test]
fn a_loop_is_refused_with_its_path() {
    let error = plan(&graph(3, &[(0, 1), (1, 2), (2, 1)]), OperationType::Protect).unwrap_err();
    assert_eq!(
        error,
        GraphError::Loop {
            path: vec!["T#1".into(), "T#2".into(), "T#1".into()]
        }
    );
}

#[test]
fn a_plan_prints_and_serialises() {
    let plan = plan_of(2, &[(0, 1)]);
    assert_eq!(
        plan.to_string(),
        "protect: 2 resources, 8 tasks
  prepare_begin:T#0
  prepare_begin:T#1 after prepare_begin:T#0
  prepare_finish:T#1 after prepare_begin:T#1
  prepare_finish:T#0 after prepare_begin:T#0, prepare_finish:T#1
  main:T#1 after prepare_finish:T#1
  main:T#0 after prepare_finish:T#0
  complete:T#1 after main:T#1
  complete:T#0 after main:T#0, complete:T#1"
    );
    let json = serde_json::to_value(&*plan).unwrap();
    assert_eq!(json["operation"], "protect");
    assert_eq!(json["tasks"][1]["name"], "prepare_begin:T#1");
    assert_eq!(json["tasks"][1]["hook"], "prepare_begin");
    assert_eq!(json["nodes"][0]["children"][0], 1);
}

#[test]
fn an_empty_graph_is_an_empty_plan() {
    assert!(plan_of(0, &[]).tasks().is_empty());
}

proptest! {
    #[test]
    fn the_tasks_stand_in_an_order_that_works(
        edges in proptest::collection::vec((0usize..15, 0usize..15), 0..60)
    ) {
        let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a < b).collect();
        let plan = plan_of(15, &edges);
        prop_assert_eq!(plan.tasks().len(), 60);
        let mut names = std::collections::BTreeSet::new();
        for (at, task) in plan.tasks().iter().enumerate() {
            prop_assert!(task.after.iter().all(|&before| before < at));
            prop_assert!(names.insert(task.name.clone()));
        }
        for node in plan.nodes() {
            for hook in Hook::FORWARD {
                prop_assert!(names.contains(&format!("{hook}:{}", node.key)), "{}", node.key);
            }
            for &child in &node.children {
                prop_assert!(plan.nodes()[child].parents.contains(&node.at));
            }
        }
    }
}
