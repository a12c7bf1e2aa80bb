//! Signals, and two services at once.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    application::Application,
    house::{House, ended, signal, until},
};

#[test]
fn sigterm_lets_what_runs_come_to_its_end() {
    let mut house = House::started_simulating();
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

/// A service that nobody can ask is none: it ends with an error, so that it is started again.
#[test]
fn an_api_that_ends_by_itself_ends_the_service() {
    let mut house = House::new();
    house.set("OS_DEFAULT__AUTH_STRATEGY", "noauth");
    house.listen = "0.0.0.0:0";
    let said = house.refused();
    for words in [
        "a part of the service ended by itself",
        "role=\"API\"",
        "noauth",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!house.state().join("endpoint").exists());
}

#[test]
fn a_deadline_leaves_the_rest_to_the_next_start() {
    let mut house = House::simulating();
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
    let mut house = House::started_simulating();
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

/// Somebody holds the database: what waits for it could only be killed.
#[test]
fn sigterm_ends_a_start_that_waits_for_the_database() {
    let mut house = House::started();
    house.terminate();
    house.ended();
    let held = rusqlite::Connection::open(house.state().join("karbor.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = house.spawn();
    until("the start to wait", || {
        house
            .log()
            .contains("starting binary=\"karbor-protection\"")
            .then_some(())
    });
    signal(&child, Signal::HUP);
    signal(&child, Signal::TERM);
    let status = ended(&mut child);
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(
        house.log().contains("stopping before the start is done"),
        "{}",
        house.log()
    );
    drop(held);
    house.start();
}

/// A request that does not end, and an operation that needs its time: all have one deadline.
#[test]
fn a_request_that_hangs_leaves_the_managers_time_of_the_one_deadline() {
    let mut house = House::simulating();
    house.set("OS_DEFAULT__GRACEFUL_SHUTDOWN_TIMEOUT", "10");
    house.start();
    house.simulated_plan("slow", &["volume sleep=5 bytes=1000"]);
    let endpoint = fs::read_to_string(house.state().join("endpoint")).unwrap();
    let address = endpoint.trim().trim_start_matches("http://");
    let (address, path) = address.split_once('/').unwrap();
    let token = fs::read_to_string(house.state().join("token")).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    write!(
        client,
        "POST /{path}/plans HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {}\r\nContent-Type: \
         application/json\r\nContent-Length: 100\r\n\r\n{{",
        token.trim()
    )
    .unwrap();
    let checkpoint = house.protect("slow");
    let begun = Instant::now();
    house.terminate();
    house.ended();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}\n{}", house.log());
    assert_eq!(
        house.index(&checkpoint)["status"],
        "available",
        "{}",
        house.log()
    );
    drop(client);
}

/// With its threads in the middle of a file.
#[test]
fn two_sigterms_in_a_restore_end_it_without_a_panic() {
    let mut house = House::new();
    let application = Application::new(&house, 120);
    house.start();
    house.json(&["protect", "shop", "--wait"]);
    let to = application.restored.join("here");
    house.json(&[
        "restore",
        "shop",
        "--latest",
        "--restore-to",
        to.to_str().unwrap(),
    ]);
    until("the restore to write", || {
        (crate::house::files(&to).len() > 3).then_some(())
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
    assert!(!house.log().contains("panicked"), "{}", house.log());
    house.start();
    until("the restore to go on to its end", || {
        house.unended().is_empty().then_some(())
    });
}

#[test]
fn sighup_takes_up_log_level_and_policies_and_tells_what_needs_a_restart() {
    let mut house = House::new();
    house.set("KARBOR_LOG", "");
    house.start();
    let hang_up = |until_it_says: &str, times: usize| {
        house.hang_up();
        until(until_it_says, || {
            let told = house.log().matches(until_it_says).count();
            (told == times).then_some(())
        });
    };
    let (taken, refused) = ("are as configured", "stays as it was");
    let requests = || {
        house.text(&["plan", "list"]);
        house.log().matches("guard: request method").count()
    };
    assert_eq!((requests(), requests()), (1, 2), "{}", house.log());
    let (conf, policy) = (
        house.state().join("karbor.conf"),
        house.state().join("policy.yaml"),
    );
    let quiet = "[DEFAULT]\nlog_filter = info,karbor_api=error\nosapi_max_limit = 7\n";
    fs::write(&conf, quiet).unwrap();
    fs::write(&policy, "\"provider:get_all\": \"!\"\n").unwrap();
    hang_up(taken, 1);
    assert!(!house.client(&["provider", "list"]).status.success());
    assert_eq!(requests(), 2, "{}", house.log());
    let restart = "a restart is needed: [DEFAULT] osapi_max_limit";
    assert!(house.log().contains(restart), "{}", house.log());

    fs::write(&conf, "[DEFAULT]\ndebug = true\n").unwrap();
    hang_up(taken, 2);
    // A policy file that vanishes stays in force until somebody says that it shall not.
    fs::remove_file(&policy).unwrap();
    until("the missing file to be noticed", || {
        assert!(!house.client(&["provider", "list"]).status.success());
        house.log().contains("policy.yaml is gone").then_some(())
    });
    hang_up(taken, 3);
    house.text(&["provider", "list"]);

    // What cannot be used changes nothing and ends nothing.
    fs::write(&conf, "[DEFAULT]\ndebug = perhaps\n").unwrap();
    hang_up(refused, 1);
    fs::write(&conf, "[DEFAULT]\nlog_filter = karbor=loud\n").unwrap();
    hang_up(refused, 2);
    assert!(house.log().contains("log_filter"), "{}", house.log());
    house.text(&["provider", "list"]);
    house.terminate();
    assert_eq!(house.ended().code(), Some(0), "{}", house.log());
}
