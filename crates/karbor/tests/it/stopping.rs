//! Signals, and two services at once.

use crate::house::{House, until};

#[test]
fn sigterm_lets_what_runs_come_to_its_end() {
    let mut house = House::started();
    house.simulated_plan("slow", &["volume sleep=2 bytes=1000"]);
    let checkpoint = house.protect("slow");
    house.terminate();
    let status = house.ended();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert_eq!(house.index(&checkpoint)["status"], "available");
    assert!(
        !house.state().join("endpoint").exists(),
        "nobody answers there"
    );
    house.start();
    assert_eq!(
        house.operation_ended(&checkpoint, "protect")["status"],
        "available"
    );
}

#[test]
fn a_deadline_leaves_the_rest_to_the_next_start() {
    let mut house = House::new();
    house.set("OS_DEFAULT__GRACEFUL_SHUTDOWN_TIMEOUT", "1");
    house.start();
    house.simulated_plan("held", &["volume bytes=1000 hold_protect_main"]);
    let checkpoint = house.protect("held");
    until("the hook to be reached", || {
        (house.held() > 0).then_some(())
    });
    house.terminate();
    house.ended();
    assert_eq!(house.index(&checkpoint)["status"], "protecting");
    house.start();
    assert_eq!(
        house.operation_ended(&checkpoint, "protect")["status"],
        "available"
    );
    assert_eq!(house.checkpoint(&checkpoint)["status"], "available");
}

#[test]
fn a_second_sigterm_stops_at_once_and_the_run_goes_on_at_the_next_start() {
    let mut house = House::started();
    house.simulated_plan(
        "held",
        &["volume bytes=1000 hold_protect_main", "other bytes=1000"],
    );
    let checkpoint = house.protect("held");
    until("the hook to be reached", || {
        (house.held() > 0).then_some(())
    });
    house.terminate();
    until("the first signal to be taken", || {
        house
            .log()
            .contains("a second signal stops at once")
            .then_some(())
    });
    house.terminate();
    let status = house.ended();
    assert_eq!(status.code(), Some(1), "{}", house.log());
    assert!(
        house.log().contains("go on at the next start"),
        "{}",
        house.log()
    );
    assert_eq!(house.index(&checkpoint)["status"], "protecting");
    house.start();
    assert_eq!(
        house.operation_ended(&checkpoint, "protect")["status"],
        "available"
    );
    assert_eq!(house.checkpoint(&checkpoint)["status"], "available");
}

#[test]
fn a_second_service_on_one_state_directory_refuses() {
    let mut first = House::started();
    let said = first.refused();
    assert!(
        said.contains("another karbor service runs on the state directory"),
        "{said}"
    );
    first.text(&["provider", "list"]);
}
