//! Failing receivers, old notifications, killed services.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_db::Db;
use karbor_manager::Config;
use karbor_notification::{
    Counts, Courier, Envelope, OPTIONS, SIGNATURE_HEADER, Sink, SinkError, TIMESTAMP_HEADER,
    signature, sinks,
};
use karbor_testkit::FakeClock;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{events::plan, server::Server};

const SECRET: &str = "correct horse";
const DAY: Duration = Duration::from_secs(86_400);

fn config(url: &str) -> Config {
    Config::builder()
        .options(OPTIONS)
        .set("notifications", "webhook_url", url)
        .set("notifications", "webhook_secret", SECRET)
        .build()
        .unwrap()
}

fn webhook(url: &str) -> Arc<dyn Sink> {
    let all = sinks(&config(url)).unwrap();
    let mut webhook = all.into_iter().filter(|sink| sink.name() == "webhook");
    webhook.next().unwrap()
}

/// Sinks that are configured no more leave nothing behind.
#[tokio::test]
async fn what_waits_for_a_sink_that_is_no_more_is_forgotten() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    db.plans().create(&plan("p")).await.unwrap();
    let gone = courier(&db, &clock, vec![webhook("http://127.0.0.1:1/hook")]);
    assert_eq!(gone.round().await.unwrap(), 0);
    db.plans().create(&plan("q")).await.unwrap();
    assert_eq!(courier(&db, &clock, Vec::new()).round().await.unwrap(), 0);
    let recorder = Arc::new(Recorder::default());
    let all: Vec<Arc<dyn Sink>> = vec![recorder.clone(), webhook("http://127.0.0.1:1/hook")];
    clock.turn(DAY);
    assert_eq!(courier(&db, &clock, all).round().await.unwrap(), 0);
    assert_eq!(recorder.took.lock().unwrap().len(), 0);
}

async fn database(clock: &FakeClock) -> Db {
    let db = Db::connect("sqlite::memory:").await.unwrap();
    db.migrate().await.unwrap();
    db.with_clock(clock.shared())
}

fn courier(db: &Db, clock: &FakeClock, sinks: Vec<Arc<dyn Sink>>) -> Courier {
    Courier::new(Arc::new(db.outbox()), sinks, clock.shared(), "h1", DAY)
}

/// Remembers what it took, and refuses as often as it is told.
#[derive(Default)]
struct Recorder {
    refusals: Mutex<u32>,
    took: Mutex<Vec<Envelope>>,
}

#[async_trait]
impl Sink for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    async fn take(&self, envelope: &Envelope, _: DateTime<Utc>) -> Result<(), SinkError> {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err(SinkError("not now".to_owned()));
        }
        self.took.lock().unwrap().push(envelope.clone());
        Ok(())
    }
}

#[tokio::test]
async fn a_webhook_that_fails_first_gets_everything_signed_and_in_order() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let answers = [
        "500 Internal Server Error\r\n",
        "302 Found\r\nlocation: http://127.0.0.1:1/elsewhere\r\n",
    ];
    let server = Server::answering(&answers).await;
    let courier = courier(&db, &clock, vec![webhook(&server.url)]);
    for name in ["first", "second"] {
        db.plans().create(&plan(name)).await.unwrap();
    }
    assert_eq!(courier.round().await.unwrap(), 0);
    // The second is not tried before its turn: it is due at once, the first only later.
    clock.turn(Duration::from_secs(5));
    assert_eq!(
        courier.round().await.unwrap(),
        0,
        "redirects are not followed"
    );
    clock.turn(Duration::from_secs(10));
    assert_eq!(courier.round().await.unwrap(), 2);
    assert_eq!(courier.round().await.unwrap(), 0);
    let expected = Counts {
        delivered: 2,
        failed: 2,
        given_up: 0,
    };
    assert_eq!(courier.counts(), expected);

    let received = server.received();
    assert_eq!(received.len(), 4);
    for request in &received {
        assert_eq!(request.headers["content-type"], "application/json");
        let timestamp: i64 = request.headers[TIMESTAMP_HEADER].parse().unwrap();
        assert_eq!(
            request.headers[SIGNATURE_HEADER],
            signature(SECRET, timestamp, &request.body)
        );
    }
    let bodies: Vec<Value> = received[2..]
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    for (body, name) in bodies.iter().zip(["first", "second"]) {
        assert_eq!(body["event_type"], "karbor.plan_create.end");
        assert_eq!(body["publisher_id"], "karbor.h1");
        assert_eq!(body["priority"], "INFO");
        assert_eq!(body["payload"]["name"], name);
        assert!(body["timestamp"].as_str().unwrap().len() == 26);
    }
    assert_ne!(bodies[0]["message_id"], bodies[1]["message_id"]);
    let first: Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!(
        first["message_id"], bodies[0]["message_id"],
        "tells repetitions"
    );
}

/// The value was computed with Python's `hmac`.
#[test]
fn the_signature_is_what_others_compute() {
    assert_eq!(
        signature("key", 1_790_000_000, b"{}"),
        "sha256=099d33989336226b12c85da813adf6100e1bbab1e91bede9a41ddeb7882d66b8"
    );
}

#[tokio::test]
async fn who_has_it_is_not_told_again_while_another_fails() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let server = Server::answering(&["503 Service Unavailable\r\n"]).await;
    let recorder = Arc::new(Recorder::default());
    let all: Vec<Arc<dyn Sink>> = vec![recorder.clone(), webhook(&server.url)];
    db.plans().create(&plan("p")).await.unwrap();
    assert_eq!(courier(&db, &clock, all.clone()).round().await.unwrap(), 1);
    clock.turn(Duration::from_secs(5));
    // Another service goes on with it.
    assert_eq!(courier(&db, &clock, all).round().await.unwrap(), 1);
    assert_eq!(recorder.took.lock().unwrap().len(), 1);
    assert_eq!(server.received().len(), 2);
}

/// A webhook that nobody answers at is asked once a round; the log gets all there is meanwhile.
#[tokio::test]
async fn a_sink_in_trouble_holds_nobody_else_back() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let recorder = Arc::new(Recorder::default());
    let all: Vec<Arc<dyn Sink>> = vec![recorder.clone(), webhook("http://127.0.0.1:1/hook")];
    for at in 0..120 {
        db.plans().create(&plan(&at.to_string())).await.unwrap();
    }
    let courier = courier(&db, &clock, all);
    for _ in 0..3 {
        courier.round().await.unwrap();
    }
    assert_eq!(recorder.took.lock().unwrap().len(), 120);
    assert_eq!(courier.counts().failed, 3, "asked once a round");
}

/// Never answers.
struct Silent;

#[async_trait]
impl Sink for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    async fn take(&self, _: &Envelope, _: DateTime<Utc>) -> Result<(), SinkError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_slow_sink_delays_nobody_else() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let recorder = Arc::new(Recorder::default());
    let courier = courier(&db, &clock, vec![Arc::new(Silent), recorder.clone()]);
    let stop = CancellationToken::new();
    let told = async {
        for at in 1..=2 {
            db.plans().create(&plan("p")).await.unwrap();
            while recorder.took.lock().unwrap().len() < at {
                clock.turn(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        }
        stop.cancel();
    };
    let all = async { tokio::join!(courier.run(&stop), told) };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    assert!(ended.is_ok(), "the other sink waits for the silent one");
}

#[tokio::test]
async fn what_is_too_old_is_given_up_without_asking_a_sink_in_trouble() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let recorder = Arc::new(Recorder::default());
    *recorder.refusals.lock().unwrap() = 1;
    let courier = courier(&db, &clock, vec![recorder.clone()]);
    for name in ["a", "b", "c"] {
        db.plans().create(&plan(name)).await.unwrap();
    }
    clock.turn(DAY);
    assert_eq!(courier.round().await.unwrap(), 3);
    let counts = courier.counts();
    assert_eq!((counts.given_up, counts.failed), (3, 1));
}

#[tokio::test]
async fn what_is_too_old_is_given_up_and_counted_but_tried_once_more() {
    let clock = FakeClock::new();
    let db = database(&clock).await;
    let recorder = Arc::new(Recorder::default());
    *recorder.refusals.lock().unwrap() = 2;
    let courier = courier(&db, &clock, vec![recorder.clone()]);
    db.plans().create(&plan("old")).await.unwrap();
    assert_eq!(courier.round().await.unwrap(), 0);
    clock.turn(DAY);
    assert_eq!(courier.round().await.unwrap(), 1);
    let counts = courier.counts();
    assert_eq!((counts.given_up, counts.delivered), (1, 0));
    db.plans().create(&plan("new")).await.unwrap();
    assert_eq!(courier.round().await.unwrap(), 1);
    assert_eq!(recorder.took.lock().unwrap().len(), 1);
}

/// Two couriers at once: each notification goes out once.
#[tokio::test(flavor = "multi_thread")]
async fn couriers_do_not_take_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let db = Db::open(&path).await.unwrap();
    db.migrate().await.unwrap();
    for at in 0..120 {
        db.plans().create(&plan(&at.to_string())).await.unwrap();
    }
    let clock = FakeClock::new();
    clock.turn(Duration::from_secs(10 * 365 * 86_400));
    let recorder = Arc::new(Recorder::default());
    let mut couriers = Vec::new();
    for _ in 0..4 {
        let db = Db::open(&path).await.unwrap();
        let (clock, recorder) = (clock.clone(), recorder.clone());
        couriers.push(tokio::spawn(async move {
            let courier = courier(&db, &clock, vec![recorder]);
            for _ in 0..6 {
                courier.round().await.unwrap();
            }
        }));
    }
    for courier in couriers {
        courier.await.unwrap();
    }
    let took = recorder.took.lock().unwrap();
    let ids: std::collections::BTreeSet<_> = took.iter().map(|e| &e.message_id).collect();
    assert_eq!((took.len(), ids.len()), (120, 120));
}

#[test]
fn secrets_are_not_shown_and_bad_options_are_named() {
    let config = config("https://example.org/hook?key=hunter2");
    let shown = config.effective().to_string();
    assert!(
        !shown.contains("hunter2") && !shown.contains(SECRET),
        "{shown}"
    );
    for (url, secret, word) in [
        ("ftp://example.org", SECRET, "http or https"),
        ("nowhere", SECRET, "not a URL"),
        ("http://example.org", "", "webhook_secret"),
    ] {
        let config = Config::builder()
            .options(OPTIONS)
            .set("notifications", "webhook_url", url)
            .set("notifications", "webhook_secret", secret)
            .build()
            .unwrap();
        let error = sinks(&config).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn an_error_of_the_webhook_does_not_tell_the_url() {
    let clock = FakeClock::new();
    let webhook = webhook("http://127.0.0.1:1/hook?key=hunter2");
    let envelope = Envelope {
        message_id: "1".to_owned(),
        publisher_id: "p".to_owned(),
        event_type: "e".to_owned(),
        priority: karbor_model::Priority::Info,
        payload: Value::Null,
        timestamp: String::new(),
    };
    use karbor_manager::Clock as _;
    let error = webhook.take(&envelope, clock.now()).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// A process is killed after it has committed, before anything was delivered.
#[tokio::test]
async fn kill_9_between_commit_and_delivery_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let db = Db::open(&path).await.unwrap();
    db.migrate().await.unwrap();
    let mut child = child("delivery::child_makes_plans_until_killed", &path);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let made = lines
        .map_while(Result::ok)
        .filter(|line| line.contains("made"));
    assert_eq!(made.take(5).count(), 5);
    child.kill().unwrap();
    child.wait().unwrap();

    let clock = FakeClock::new();
    clock.turn(Duration::from_secs(10 * 365 * 86_400));
    let recorder = Arc::new(Recorder::default());
    let courier = courier(&db, &clock, vec![recorder.clone()]);
    while courier.round().await.unwrap() > 0 {}
    let plans = db
        .plans()
        .list(&karbor_db::ListQuery::of_every_project())
        .await
        .unwrap();
    let took = recorder.took.lock().unwrap();
    let told: std::collections::BTreeSet<_> = took
        .iter()
        .map(|envelope| envelope.payload["id"].as_str().unwrap().to_owned())
        .collect();
    let made: std::collections::BTreeSet<_> = plans.iter().map(|p| p.id.to_string()).collect();
    assert!(made.len() >= 5);
    assert_eq!(told, made, "what is there was told, and nothing else");
}

fn child(test: &str, path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("KARBOR_TEST_DB", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "runs as a child process"]
async fn child_makes_plans_until_killed() {
    let path = std::env::var_os("KARBOR_TEST_DB").expect("run by another test only");
    let db = Db::open(path.as_ref()).await.unwrap();
    loop {
        let plan = plan("p");
        db.plans().create(&plan).await.unwrap();
        println!("made {}", plan.id);
    }
}
