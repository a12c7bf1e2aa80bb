//! `kill -9` at every hook of every operation. One process dies in the middle of a hook of each kind
//! at once, each in a run of its own.

use std::path::Path;

use crate::house::{House, files, id, until, went_well};

const HOOKS: [&str; 5] = [
    "prepare_begin",
    "prepare_finish",
    "main",
    "complete",
    "undo",
];

const BYTES: &str = "plain bytes=2100000";

/// The plan of each hook: a resource that is held there, and one that is not.
fn plans(house: &House, operation: &str) {
    for hook in HOOKS {
        let held = match hook {
            "undo" => format!("held bytes=1000 fail_{operation} hold_{operation}_undo"),
            hook => format!("held bytes=1000 hold_{operation}_{hook}"),
        };
        house.simulated_plan(hook, &[&held, BYTES]);
    }
}

/// Dies when every run is in the middle of its hook.
fn die(house: &mut House) {
    until("every hook to be reached", || {
        (house.held() >= HOOKS.len()).then_some(())
    });
    house.kill();
}

fn nothing_in_progress(house: &House) {
    assert_eq!(house.unended(), [] as [serde_json::Value; 0]);
    assert_eq!(house.held(), HOOKS.len(), "each hook was held once");
}

/// The reason is for a reader: it names the resource and what happened.
fn told_to_fail(log: &serde_json::Value) {
    let failed = ["error", "error-deleting", "fail"];
    assert!(failed.contains(&log["status"].as_str().unwrap()), "{log}");
    let reason = log["error_info"].as_str().unwrap();
    assert!(
        reason.contains("held") && reason.contains("told to fail"),
        "{reason}"
    );
}

fn resource_data(house: &House, checkpoint: &str) -> Vec<std::path::PathBuf> {
    files(&house.bank().join("checkpoints").join(checkpoint))
}

#[test]
fn protect_survives_a_kill_at_every_hook() {
    let mut house = House::started_simulating();
    plans(&house, "protect");
    let checkpoints = HOOKS.map(|plan| (plan, house.protect(plan)));
    die(&mut house);
    for (_, checkpoint) in &checkpoints {
        assert_eq!(house.index(checkpoint)["status"], "protecting");
    }
    house.start();
    for (hook, checkpoint) in &checkpoints {
        let log = house.operation_ended(checkpoint, "protect");
        if *hook == "undo" {
            told_to_fail(&log);
            assert_eq!(house.checkpoint(checkpoint)["status"], "error");
            assert_eq!(resource_data(&house, checkpoint), [Path::new("index.json")]);
            let refused = house.client(&["restore", "create", checkpoint, "--wait"]);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            continue;
        }
        assert!(went_well(&log), "{hook}: {log}");
        assert_eq!(
            house.checkpoint(checkpoint)["status"],
            "available",
            "{hook}"
        );
        assert_eq!(house.index(checkpoint)["status"], "available", "{hook}");
        let restored = house.json(&["restore", "create", checkpoint, "--wait"]);
        assert_eq!(restored["status"], "success", "{hook}");
    }
    nothing_in_progress(&house);
}

/// Restore and verification read; they have the same hooks and the same kind of record.
fn reading_survives(operation: &str, command: &str) {
    let mut house = House::simulating();
    // Only half of the operations at once may be verifications: the others would not come to their hook.
    house.set("OS_DEFAULT__MAX_CONCURRENT_OPERATIONS", "10");
    house.start();
    plans(&house, operation);
    let runs = HOOKS.map(|plan| {
        let checkpoint = house.protected(plan);
        let run = id(&house.json(&[command, "create", &checkpoint]));
        (plan, checkpoint, run)
    });
    die(&mut house);
    for (_, checkpoint, _) in &runs {
        assert_eq!(house.index(checkpoint)["status"], "available");
    }
    house.start();
    for (hook, checkpoint, run) in &runs {
        let log = house.operation_ended(checkpoint, operation);
        let record = house.json(&[command, "show", run]);
        if *hook == "undo" {
            told_to_fail(&log);
            assert_eq!(record["status"], "fail", "{record}");
            assert!(
                record["resources_reason"]
                    .to_string()
                    .contains("told to fail"),
                "{record}"
            );
        } else {
            assert!(went_well(&log), "{hook}: {log}");
            assert_eq!(record["status"], "success", "{hook}: {record}");
        }
        assert_eq!(
            house.checkpoint(checkpoint)["status"],
            "available",
            "{hook}"
        );
    }
    nothing_in_progress(&house);
}

#[test]
fn restore_survives_a_kill_at_every_hook() {
    reading_survives("restore", "restore");
}

#[test]
fn verification_survives_a_kill_at_every_hook() {
    reading_survives("verify", "verification");
}

#[test]
fn copy_survives_a_kill_at_every_hook() {
    let mut house = House::new();
    crate::copies::two_banks(&house);
    // One copy at a time would hold up the others at the first hook.
    house.set("OS_PROTECTION__MAX_PARALLEL_COPIES", "5");
    house.start();
    plans(&house, "copy");
    let copies = HOOKS.map(|plan| {
        house.protected(plan);
        let copies = house.json(&["checkpoint", "copy", plan]);
        (plan, crate::copies::copy_of(&copies))
    });
    die(&mut house);
    house.start();
    for (hook, copy) in &copies {
        let log = house.operation_ended(copy, "copy");
        let status = house.checkpoint(copy)["status"].clone();
        if *hook == "undo" {
            told_to_fail(&log);
            assert_eq!(status, "error");
            continue;
        }
        assert!(went_well(&log), "{hook}: {log}");
        assert_eq!(status, "available", "{hook}");
        let restored = house.json(&["restore", "create", copy, "--wait"]);
        assert_eq!(restored["status"], "success", "{hook}");
    }
    nothing_in_progress(&house);
}

#[test]
fn delete_survives_a_kill_at_every_hook() {
    let mut house = House::started_simulating();
    plans(&house, "delete");
    let checkpoints = HOOKS.map(|plan| (plan, house.protected(plan)));
    for (_, checkpoint) in &checkpoints {
        house.text(&["checkpoint", "delete", checkpoint]);
    }
    die(&mut house);
    for (_, checkpoint) in &checkpoints {
        assert_eq!(house.index(checkpoint)["status"], "deleting");
    }
    house.start();
    for (hook, checkpoint) in &checkpoints {
        let log = house.operation_ended(checkpoint, "delete");
        let status = house.index(checkpoint)["status"].clone();
        if *hook == "undo" {
            told_to_fail(&log);
            assert_eq!(status, "error-deleting");
            assert_eq!(house.checkpoint(checkpoint)["status"], "error-deleting");
            continue;
        }
        assert!(went_well(&log), "{hook}: {log}");
        assert_eq!(status, "deleted", "{hook}");
        assert_eq!(
            resource_data(&house, checkpoint),
            [Path::new("index.json")],
            "{hook}"
        );
    }
    nothing_in_progress(&house);
}
