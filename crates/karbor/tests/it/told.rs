//! What happened is told to the webhook, and quotas hold, whatever kills the service.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;

use crate::house::{House, until, went_well};

/// A receiver that refuses until it is told to listen.
struct Receiver {
    url: String,
    listens: Arc<AtomicBool>,
    refused: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            listens: Arc::default(),
            refused: Arc::default(),
            told: Arc::default(),
        };
        let (listens, refused, told) = (
            receiver.listens.clone(),
            receiver.refused.clone(),
            receiver.told.clone(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut length = 0;
                let mut line = String::new();
                // A service that is killed hangs up in the middle.
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    let (name, value) = line.split_once(':').unwrap_or_default();
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if length == 0 || reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let answer = if listens.load(Ordering::SeqCst) {
                    told.lock()
                        .unwrap()
                        .push(serde_json::from_slice(&body).unwrap());
                    "204 No Content"
                } else {
                    refused.store(true, Ordering::SeqCst);
                    "503 Service Unavailable"
                };
                let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
                let _ = reader.get_mut().write_all(answer.as_bytes());
            }
        });
        receiver
    }

    fn all(&self, event_type: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter()
            .filter(|event| event["event_type"] == event_type)
            .cloned()
            .collect()
    }

    fn heard(&self, event_type: &str) -> Option<Value> {
        self.all(event_type).into_iter().next()
    }
}

#[test]
fn a_failure_is_told_after_the_service_was_killed() {
    let receiver = Receiver::new();
    let mut house = House::simulating();
    house.set("OS_NOTIFICATIONS__WEBHOOK_URL", &receiver.url);
    house.set("OS_NOTIFICATIONS__WEBHOOK_SECRET", "hunter2");
    house.start();
    house.simulated_plan("p", &["bad fail_protect"]);
    let checkpoint = house.protect("p");
    let log = house.operation_ended(&checkpoint, "protect");
    assert_eq!(log["status"], "error");
    until("the webhook to refuse", || {
        receiver.refused.load(Ordering::SeqCst).then_some(())
    });
    // What a courier has in its hands when it dies, it has for two minutes.
    let settled = house.json(&["operation-log", "list"]);
    assert_eq!(settled.as_array().unwrap().len(), 1);
    house.kill();
    receiver.listens.store(true, Ordering::SeqCst);
    house.start();
    let event = until("the failure to be told", || {
        receiver.heard("karbor.checkpoint_create.error")
    });
    assert_eq!(event["priority"], "ERROR");
    assert_eq!(event["payload"]["checkpoint_id"], checkpoint);
    assert_eq!(event["payload"]["message"], log["error_info"]);
    for told in ["karbor.plan_create.end", "karbor.checkpoint_create.start"] {
        until(told, || receiver.heard(told));
    }
    assert!(!house.log().contains("hunter2"));
}

/// By the operation log if it got there, else by the API.
#[test]
fn a_refusal_is_told_once() {
    let receiver = Receiver::new();
    receiver.listens.store(true, Ordering::SeqCst);
    let mut house = House::simulating();
    house.set("OS_NOTIFICATIONS__WEBHOOK_URL", &receiver.url);
    house.set("OS_NOTIFICATIONS__WEBHOOK_SECRET", "hunter2");
    house.set("OS_DEFAULT__QUOTA_CHECKPOINTS", "0");
    house.start();
    house.simulated_plan("p", &["plain"]);
    let refused = |house: &House| {
        let refused = house.client(&["checkpoint", "create", "p"]);
        assert!(!refused.status.success());
    };
    refused(&house);
    house.kill();
    house.set("OS_DEFAULT__QUOTA_CHECKPOINTS", "1");
    house.start();
    fs::rename(house.state().join("bank"), house.path("unmounted")).unwrap();
    refused(&house);
    assert_eq!(
        house
            .json(&["operation-log", "list"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // Told in their order.
    house.simulated_plan("last", &["plain"]);
    until("the last plan", || {
        (receiver.all("karbor.plan_create.end").len() == 2).then_some(())
    });
    let told = receiver.all("karbor.checkpoint_create.error");
    let logged: Vec<_> = told
        .iter()
        .map(|event| event["payload"].get("operation_log_id").is_some())
        .collect();
    assert_eq!(logged, [false, true], "{told:?}");
}

/// What is due goes to the receiver that the configuration names now, and no more to the one before.
#[test]
fn a_hangup_exchanges_the_receiver() {
    let (old, new) = (Receiver::new(), Receiver::new());
    let mut house = House::simulating();
    let conf = house.state().join("karbor.conf");
    let configure = |receiver: &Receiver| {
        let text = format!(
            "[notifications]\nwebhook_url = {}\nwebhook_secret = hunter2\n",
            receiver.url
        );
        fs::write(&conf, text).unwrap();
    };
    configure(&old);
    new.listens.store(true, Ordering::SeqCst);
    house.start();
    house.simulated_plan("p", &["plain"]);
    until("the first receiver to refuse", || {
        old.refused.load(Ordering::SeqCst).then_some(())
    });
    // What a courier has in its hands when it ends, it has for two minutes.
    house.json(&["plan", "list"]);
    configure(&new);
    house.hang_up();
    until("the second receiver to hear what the first refused", || {
        new.heard("karbor.plan_create.end")
    });
    old.listens.store(true, Ordering::SeqCst);
    house.simulated_plan("q", &["plain"]);
    until("the second receiver to hear more", || {
        (new.all("karbor.plan_create.end").len() == 2).then_some(())
    });
    assert!(old.all("karbor.plan_create.end").is_empty());
    assert!(!house.log().contains("hunter2"));
}

/// A checkpoint whose making was killed counts once, and its place is free when it is deleted.
#[test]
fn a_quota_holds_over_kills() {
    let mut house = House::simulating();
    house.set("OS_DEFAULT__QUOTA_CHECKPOINTS", "1");
    house.start();
    house.simulated_plan("p", &["held hold_protect_main"]);
    house.simulated_plan("q", &["plain"]);
    let checkpoint = house.protect("p");
    until("the hook to be reached", || {
        (house.held() > 0).then_some(())
    });
    house.kill();
    house.start();
    let log = house.operation_ended(&checkpoint, "protect");
    assert!(went_well(&log), "{log}");
    let refused = house.client(&["checkpoint", "create", "q"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    let words = "Maximum number of checkpoints allowed (1) exceeded";
    assert!(said.contains(words), "{said}");
    house.text(&["checkpoint", "delete", &checkpoint, "--wait"]);
    house.protected("q");
}
