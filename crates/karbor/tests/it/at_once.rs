//! What a record says may be relied on at once.

use crate::house::{House, id, until, went_well};

#[test]
fn what_ended_is_in_nobodys_way() {
    let house = House::started_simulating();
    house.simulated_plan("simple", &["volume bytes=1000"]);
    for round in 0..8 {
        let checkpoint = house.protect("simple");
        until("the checkpoint to be available", || {
            (house.index(&checkpoint)["status"] == "available").then_some(())
        });
        let well = |what: &str, log: &serde_json::Value| {
            assert!(went_well(log), "{what} in round {round}: {log}");
        };
        let run = id(&house.json(&["restore", "create", &checkpoint]));
        until("the restore to end", || {
            let restore = house.json(&["restore", "show", &run]);
            (restore["status"] != "in_progress").then_some(())
        });
        well("restore", &house.operation_ended(&checkpoint, "restore"));
        house.text(&["checkpoint", "delete", &checkpoint]);
        well("delete", &house.operation_ended(&checkpoint, "delete"));
    }
}
