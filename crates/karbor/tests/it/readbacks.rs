//! Every operation that reads a checkpoint back, by every way that it can be asked for: over REST, by the client, by a
//! schedule; killed in the middle, gone on with, and settled. The list of operations says which there are.

use karbor_model::{OperationType, ReadbackNames};
use serde_json::{Value, json};

use crate::{
    house::{House, LOCAL, id, until, went_well},
    scheduled::quick,
};

/// A plan with a resource at which the operation is held the first time, protected.
fn protected(house: &House, operation: OperationType) -> String {
    let held = format!("one bytes=1000 hold_{operation}_main");
    house.simulated_plan("held", &[&held, "two bytes=1000"]);
    house.protected("held")
}

/// Dies when the operation is held so often.
fn die(house: &mut House, holds: usize) {
    until("the hook to be reached", || {
        (house.held() >= holds).then_some(())
    });
    house.kill();
    house.start();
}

/// The record and its entry in the log, when it has ended well.
fn settled(house: &House, operation: OperationType, names: ReadbackNames, readback: &str) {
    let record = until("the record to be settled", || {
        let record = house.json(&[names.one, "show", readback]);
        (record["status"] != "in_progress").then_some(record)
    });
    assert_eq!(record["status"], "success", "{record}");
    let log = house.json(&["operation-log", "show", readback]);
    assert!(went_well(&log), "{log}");
    assert_eq!(log["operation_type"], operation.as_str());
}

fn listed(house: &House, names: ReadbackNames) -> Vec<Value> {
    house.json(&[names.one, "list"]).as_array().unwrap().clone()
}

#[test]
fn each_is_asked_for_over_rest_and_goes_on_after_a_kill() {
    for (operation, names) in OperationType::readbacks() {
        let mut house = House::started_simulating();
        let checkpoint = protected(&house, operation);
        let body = json!({ names.one: {
            "provider_id": LOCAL, "checkpoint_id": checkpoint, "parameters": {},
        }});
        let asked = id(&house.post(names.many, &body)[names.one]);
        die(&mut house, 1);
        settled(&house, operation, names, &asked);
        assert_eq!(house.unended(), [] as [Value; 0]);
        assert_eq!(house.held(), 1, "it went on, and was not begun anew");
    }
}

#[test]
fn each_is_asked_for_by_the_client() {
    for (operation, names) in OperationType::readbacks() {
        let house = House::started_simulating();
        house.simulated_plan("shop", &["one bytes=1000"]);
        let checkpoint = house.protected("shop");
        let asked = house.json(&[names.one, "create", &checkpoint, "--wait"]);
        assert_eq!(asked["status"], "success", "{operation}: {asked}");
        settled(&house, operation, names, &id(&asked));
        let listed = listed(&house, names);
        assert_eq!(listed.iter().map(id).collect::<Vec<_>>(), [id(&asked)]);
        let refused = house.client(&[names.one, "create", &checkpoint, "--parameters", "[]"]);
        assert!(!refused.status.success());
    }
}

#[test]
fn each_that_may_be_is_asked_for_by_a_schedule_and_goes_on_after_a_kill() {
    for (operation, names) in OperationType::readbacks() {
        if !names.is_scheduled {
            continue;
        }
        let mut house = quick();
        protected(&house, operation);
        let plan = id(&house.json(&["plan", "show", "held"]));
        let trigger = json!({"trigger_info": {"name": "often", "type": "time", "properties": {
            "format": "crontab", "pattern": "* * * * * */2", "window": 1,
        }}});
        let trigger = id(&house.post("triggers", &trigger)["trigger_info"]);
        let scheduled = json!({"scheduled_operation": {
            "name": "often", "operation_type": operation.as_str(), "trigger_id": trigger,
            "operation_definition": {"plan_id": plan, "provider_id": LOCAL},
        }});
        house.post("scheduled_operations", &scheduled);
        // One run is at work, and held there, so that no second begins.
        until("the hook to be reached", || {
            (house.held() >= 1).then_some(())
        });
        house.text(&["scheduled-operation", "pause", "often"]);
        die(&mut house, 1);
        let [ref asked] = listed(&house, names)[..] else {
            panic!("one {}", names.one);
        };
        settled(&house, operation, names, &id(asked));
        assert_eq!(house.held(), 1, "it went on, and was not begun anew");
    }
}
