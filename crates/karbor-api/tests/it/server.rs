//! The server over real sockets: limits on slow clients, shutdown with work in flight.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use karbor_api::{ServeError, serve};
use karbor_db::Db;
use karbor_manager::{Config, ManagerBase, SystemClock};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{NOOP, PROJECT, plan_body},
    fake::Fake,
};

struct Served {
    address: std::net::SocketAddr,
    protection: Arc<Fake>,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), ServeError>>,
}

async fn served(options: &[(&str, &str)], listen: &str) -> Served {
    let db = Db::connect("sqlite::memory:").await.unwrap();
    db.migrate().await.unwrap();
    let mut config = Config::builder()
        .options(karbor_manager::OPTIONS)
        .options(karbor_api::OPTIONS);
    config = config.set("DEFAULT", "auth_strategy", "noauth");
    for (name, value) in options {
        config = config.set("DEFAULT", name, *value);
    }
    let base = ManagerBase::new(
        Some("host".into()),
        crate::app::stores(&db),
        config.build().unwrap(),
        Arc::new(SystemClock::new()),
    );
    let protection = Arc::new(Fake::default());
    protection.db.set(db).ok();
    let engine = Arc::new(crate::fake_engine::FakeEngine::default());
    let services = crate::app::services();
    let manager = karbor_api::ApiManager::new(base, protection.clone(), engine, services);
    let manager = Arc::new(manager.unwrap());
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let ended = tokio::spawn(serve(
        listener,
        manager,
        shutdown.clone(),
        Duration::from_secs(20),
    ));
    Served {
        address,
        protection,
        shutdown,
        ended,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> String {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        format!(
            "{method} /v1/{PROJECT}{path} HTTP/1.1\r\nHost: {}\r\nX-Auth-Token: u:{PROJECT}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> String {
        let mut stream = self.connect().await;
        stream
            .write_all(self.request(method, path, &body).as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[tokio::test]
async fn noauth_is_not_served_to_the_world() {
    let served = served(&[], "0.0.0.0:0").await;
    let error = served.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, ServeError::Exposed(_)));
    assert!(error.to_string().contains("Listen on 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn noauth_is_served_to_the_world_when_it_must() {
    let served = served(&[("noauth_on_any_address", "true")], "0.0.0.0:0").await;
    let port = served.address.port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET /v1/p/plans HTTP/1.1\r\nHost: karbor.example\r\nX-Auth-Token: u:p\r\n\
                   Connection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let served = served(&[("client_socket_timeout", "0.2")], "127.0.0.1:0").await;
    // Nothing at all, half a head: the connection is closed.
    for sent in ["", "GET / HTTP/1.1\r\nHos"] {
        let mut stream = served.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    // A head, and half a body: 408.
    let whole = served.request("POST", "/plans", &plan_body(Value::Null));
    let mut stream = served.connect().await;
    stream
        .write_all(&whole.as_bytes()[..whole.len() - 10])
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(body(&answer)["computeFault"]["code"], 408);
    assert!(
        served
            .send("GET", "/plans", Value::Null)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

/// A client that asks and never reads must not hold its connection for ever.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let served = served(
        &[
            ("client_socket_timeout", "0.2"),
            ("osapi_max_connections", "1"),
        ],
        "127.0.0.1:0",
    )
    .await;
    let long = json!({"description": "x".repeat(250), "resources": (0..800).map(|n| json!({
        "id": format!("{n}"), "type": "OS::Cinder::Volume", "name": "n".repeat(60),
    })).collect::<Vec<_>>()});
    for _ in 0..40 {
        let answer = served.send("POST", "/plans", plan_body(long.clone())).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.200}");
    }
    // Pipelined, so that the answers overfill every buffer on the way.
    let mut deaf = served.connect().await;
    let again = served
        .request("GET", "/plans", &Value::Null)
        .replace("Connection: close\r\n", "");
    for _ in 0..8 {
        deaf.write_all(again.as_bytes()).await.unwrap();
    }
    // There is one place for a connection: this is answered only once the deaf one is gone.
    assert!(
        served
            .send("GET", "/restores", Value::Null)
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop(deaf);
}

/// Silent connections, as many as there are places, do not make others wait until they time out.
#[tokio::test]
async fn silent_connections_make_room_for_who_asks() {
    let served = served(
        &[
            ("osapi_max_connections", "8"),
            ("osapi_max_connections_per_peer", "8"),
        ],
        "127.0.0.1:0",
    )
    .await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(served.connect().await);
    }
    let asked = Instant::now();
    let answer = served.send("GET", "/plans", Value::Null).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    // The oldest went; the youngest can still be asked over.
    let mut rest = Vec::new();
    assert_eq!(silent[0].read_to_end(&mut rest).await.unwrap_or(0), 0);
    let mut youngest = silent.pop().unwrap();
    let request = served.request("GET", "/plans", &Value::Null);
    youngest.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    youngest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// One that was answered is idle again; one with a request stays, and its peer is told that it has enough.
#[tokio::test]
async fn connections_with_a_request_stay() {
    let served = served(&[("osapi_max_connections_per_peer", "1")], "127.0.0.1:0").await;
    let plan = body(&served.send("POST", "/plans", plan_body(Value::Null)).await);
    served.protection.waits.store(true, Ordering::Relaxed);
    let create = json!({"checkpoint": {"plan_id": plan["plan"]["id"]}});
    let path = format!("/providers/{NOOP}/checkpoints");
    let mut working = served.connect().await;
    let request = served.request("POST", &path, &create);
    let request = request.replace("Connection: close\r\n", "");
    working.write_all(request.as_bytes()).await.unwrap();
    served.protection.reached.notified().await;
    let mut refused = String::new();
    let _ = served.connect().await.read_to_string(&mut refused).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(body(&refused)["serviceUnavailable"]["code"], 503);
    served.protection.waits.store(false, Ordering::Relaxed);
    served.protection.go_on.notify_one();
    let mut head = [0; 12];
    working.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let answer = served.send("GET", "/plans", Value::Null).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // It was kept alive, and made room.
    let mut rest = Vec::new();
    working.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let served = served(&[("osapi_request_timeout", "0.2")], "127.0.0.1:0").await;
    let plan = body(&served.send("POST", "/plans", plan_body(Value::Null)).await);
    served.protection.waits.store(true, Ordering::Relaxed);
    let create = json!({"checkpoint": {"plan_id": plan["plan"]["id"]}});
    let answer = served
        .send("POST", &format!("/providers/{NOOP}/checkpoints"), create)
        .await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    served.protection.go_on.notify_one();
}

/// At shutdown nothing new is taken, what runs is finished and answered.
#[tokio::test]
async fn shutdown_waits_for_work_in_flight() {
    let served = served(&[], "127.0.0.1:0").await;
    let plan = body(&served.send("POST", "/plans", plan_body(Value::Null)).await);
    served.protection.waits.store(true, Ordering::Relaxed);
    let path = format!("/providers/{NOOP}/checkpoints");
    let create = json!({"checkpoint": {"plan_id": plan["plan"]["id"]}});
    let mut idle = served.connect().await;
    let mut stream = served.connect().await;
    stream
        .write_all(served.request("POST", &path, &create).as_bytes())
        .await
        .unwrap();
    served.protection.reached.notified().await;
    served.shutdown.cancel();
    // The idle connection is closed, and with it the listener.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert!(!served.ended.is_finished());
    served.protection.go_on.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    served.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

/// A client that hangs up does not stop what it asked for half-way.
#[tokio::test]
async fn a_client_that_hangs_up_changes_nothing() {
    let served = served(&[], "127.0.0.1:0").await;
    let plan = body(&served.send("POST", "/plans", plan_body(Value::Null)).await);
    served.protection.waits.store(true, Ordering::Relaxed);
    let path = format!("/providers/{NOOP}/checkpoints");
    let create = json!({"checkpoint": {"plan_id": plan["plan"]["id"]}});
    let mut stream = served.connect().await;
    stream
        .write_all(served.request("POST", &path, &create).as_bytes())
        .await
        .unwrap();
    served.protection.reached.notified().await;
    drop(stream);
    served.shutdown.cancel();
    served.protection.go_on.notify_one();
    served.ended.await.unwrap().unwrap();
    assert_eq!(served.protection.checkpoints.lock().unwrap().len(), 1);
}
