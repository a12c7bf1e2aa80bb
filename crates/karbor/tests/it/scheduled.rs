//! Scheduled operations of a service that is killed while triggers fire.

use std::{collections::BTreeSet, fs, time::Duration};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::house::{House, LOCAL, id, until};

/// A house whose triggers may fire every two seconds.
pub fn quick() -> House {
    let mut house = House::simulating();
    for (name, value) in [
        ("MIN_INTERVAL", "2"),
        ("MIN_WINDOW_TIME", "0"),
        ("MAX_WINDOW_TIME", "1"),
        ("TRIGGER_POLL_INTERVAL", "1"),
        ("RETAINED_OPERATION_LOG_NUMBER", "1000"),
    ] {
        house.set(&format!("OS_DEFAULT__{name}"), value);
    }
    house.start();
    house
}

/// Protects a plan every two seconds, and keeps the last two.
fn schedule(house: &House) {
    house.simulated_plan("simple", &["volume sleep=1"]);
    let plan = id(&house.json(&["plan", "show", "simple"]));
    let trigger = json!({"trigger_info": {"name": "often", "type": "time", "properties": {
        "format": "crontab", "pattern": "* * * * * */2", "window": 1,
    }}});
    let trigger = id(&house.post("triggers", &trigger)["trigger_info"]);
    let operation = json!({"scheduled_operation": {
        "name": "keep two", "operation_type": "retention_protect", "trigger_id": trigger,
        "operation_definition": {"plan_id": plan, "provider_id": LOCAL, "max_backups": "2"},
    }});
    house.post("scheduled_operations", &operation);
}

fn database(house: &House) -> Connection {
    let path = house.state().join("karbor.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

fn texts(house: &House, query: &str) -> Vec<String> {
    let database = database(house);
    let mut query = database.prepare(query).unwrap();
    query
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// Due times whose runs have ended well.
fn done(house: &House) -> Vec<String> {
    texts(
        house,
        "SELECT expect_start_time FROM scheduled_operation_logs WHERE state = 'success'",
    )
}

#[test]
fn killed_at_any_time_each_due_time_makes_one_checkpoint() {
    let mut house = quick();
    schedule(&house);
    // At another place of the run each time: after so many entries of its journal.
    for journalled in [0, 1, 2, 4, 5] {
        let before = done(&house).len();
        until("a run to end", || {
            (done(&house).len() > before).then_some(())
        });
        until("a run to come there", || {
            let unended = texts(
                &house,
                "SELECT task FROM flow_events JOIN flows USING (operation_id) WHERE status = 'running'",
            );
            (unended.len() >= journalled).then_some(())
        });
        house.kill();
        house.start();
    }
    let before = done(&house).len();
    until("runs to go on", || {
        (done(&house).len() >= before + 2).then_some(())
    });
    house.terminate();
    assert!(house.ended().success());

    let due = done(&house);
    let distinct: BTreeSet<_> = due.iter().collect();
    assert_eq!(distinct.len(), due.len(), "a due time was run twice");
    let asked = texts(
        &house,
        "SELECT checkpoint_id FROM operation_logs WHERE operation_type = 'protect' \
         AND checkpoint_id IS NOT NULL AND scheduled_operation_id IS NOT NULL",
    );
    let made = fs::read_dir(house.bank().join("checkpoints")).unwrap();
    let made: BTreeSet<_> = made
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let asked: BTreeSet<_> = asked.into_iter().collect();
    assert_eq!(made, asked, "every checkpoint is one of a run");
    // Each run has one record, and its id is the run's: at most one more than has ended.
    let left = asked.len() - due.len();
    assert!(
        left <= 1,
        "{} checkpoints of {} runs",
        asked.len(),
        due.len()
    );
    let kept = made
        .iter()
        .filter(|checkpoint| house.index(checkpoint)["status"] == "available")
        .count();
    assert!((2..=3).contains(&kept), "{kept} are kept");
}

#[test]
fn what_was_due_while_the_service_was_down_is_told() {
    let mut house = quick();
    schedule(&house);
    until("a run to end", || (!done(&house).is_empty()).then_some(()));
    house.kill();
    // As if it had been down for a minute.
    let database = Connection::open(house.state().join("karbor.db")).unwrap();
    let earlier = "UPDATE trigger_executions SET execution_time = \
                   strftime('%Y-%m-%d %H:%M:%S.000000', execution_time, '-60 seconds')";
    assert_eq!(database.execute(earlier, []).unwrap(), 1);
    drop(database);
    house.start();
    let missed = until("the record of what was missed", || {
        let listed = house.json(&["operation-log", "list"]);
        let logs = listed.as_array().unwrap().clone();
        logs.into_iter().find(|log| log["status"] == "missed")
    });
    let reason = missed["error_info"].as_str().unwrap();
    assert!(reason.contains("no operation engine"), "{reason}");
    let ended = done(&house).len();
    until("runs to go on", || {
        (done(&house).len() > ended).then_some(())
    });
}

/// The same command again changes the schedule that it made.
#[test]
fn the_same_schedule_twice_is_one() {
    let house = House::started_simulating();
    house.simulated_plan("shop", &["a"]);
    let scheduled = |at: &str| {
        house.json(&[
            "schedule",
            "shop",
            "--daily",
            "--at",
            at,
            "--keep-last",
            "7",
            "--window",
            "900",
        ])
    };
    let first = scheduled("02:30");
    let second = scheduled("04:15");
    assert_eq!(id(&first), id(&second));
    let listed = |what: &str| house.json(&[what, "list"]).as_array().unwrap().clone();
    assert_eq!(listed("scheduled-operation").len(), 1);
    let [ref trigger] = listed("trigger")[..] else {
        panic!("one trigger")
    };
    assert_eq!(trigger["properties"]["pattern"], "15 4 * * *");
    assert_eq!(
        trigger["properties"]["window"]
            .to_string()
            .trim_matches('"'),
        "900"
    );
    // Its name means one thing, and what was deleted can be made again.
    house.text(&["scheduled-operation", "pause", "shop-daily"]);
    house.text(&["scheduled-operation", "delete", "shop-daily"]);
    scheduled("05:00");
    assert_eq!(listed("trigger").len(), 1);
}
