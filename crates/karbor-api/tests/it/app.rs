use std::{path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request},
};
use http_body_util::BodyExt as _;
use karbor_api::{
    ApiManager, ApiStores, create_token,
    policy::{Policy, PolicyFiles},
    router,
};
use karbor_db::Db;
use karbor_manager::{Config, ManagerBase};
use karbor_testkit::FakeClock;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{fake::Fake, fake_engine::FakeEngine};

pub const PROJECT: &str = "a0000000000000000000000000000001";
pub const OTHER: &str = "b0000000000000000000000000000002";
pub const NOOP: &str = "b766f37c-d011-4026-8228-28730d734a3f";
pub const HOST: &str = "e4008868-be97-492c-be41-44e50ef2e16f";
pub const VOLUME: &str = "aaaaaaaa-0000-4000-8000-0000000000e2";
pub const NOBODY: &str = "00000000-0000-4000-8000-00000000dead";

/// The API with a fake protection manager: `admin`, `member` in one project, `other` (a member) in
/// a second.
pub struct App {
    pub router: Router,
    pub protection: Arc<Fake>,
    pub engine: Arc<FakeEngine>,
    pub db: Db,
    pub clock: FakeClock,
    pub admin: String,
    pub member: String,
    pub other: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The message of an error, after a look at its envelope.
    pub fn fault(&self, status: u16) -> String {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        assert_eq!(self.header("content-type"), "application/json");
        assert!(self.header("x-compute-request-id").starts_with("req-"));
        // Q67.
        assert_eq!(
            self.header("x-compute-request-id"),
            self.header("x-openstack-request-id")
        );
        let name = match status {
            400 => "badRequest",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            413 => "overLimit",
            415 => "badMediaType",
            503 => "serviceUnavailable",
            _ => "computeFault",
        };
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        assert_eq!(body[name]["code"], status, "{body}");
        body[name]["message"].as_str().unwrap().to_owned()
    }
}

/// Asks services over a transport that nobody serves on.
pub fn services() -> karbor_manager::ServiceClient {
    let transport = Arc::new(karbor_manager::InProcess::new());
    karbor_manager::ServiceClient::new(transport, std::time::Duration::from_secs(5))
}

/// What the manager is given of a database.
pub fn stores(db: &Db) -> ApiStores {
    ApiStores {
        plans: db.plans(),
        schedules: db.schedule_definitions(),
        quotas: db.quotas(),
        tokens: db.tokens(),
        services: db.service_admin(),
        runs: db.run_views(),
        announcements: db.announcements(),
    }
}

pub async fn app() -> App {
    app_with(&[]).await
}

pub async fn app_with(options: &[(&str, &str, &str)]) -> App {
    app_under(options, None).await
}

/// With the policy files of a folder.
pub async fn app_under(options: &[(&str, &str, &str)], policies: Option<&Path>) -> App {
    let clock = FakeClock::new();
    let db = Db::connect("sqlite::memory:").await.unwrap();
    db.migrate().await.unwrap();
    let mut config = Config::builder()
        .options(karbor_manager::OPTIONS)
        .options(karbor_api::OPTIONS)
        .options(karbor_identity::OPTIONS);
    for (group, name, value) in options {
        config = config.set(group, name, *value);
    }
    let config = config.build().unwrap();
    let policy = match policies {
        None => Policy::defaults(clock.shared()),
        Some(folder) => {
            let files = PolicyFiles::from_config(&config, folder).unwrap();
            Policy::open(files, clock.shared()).unwrap()
        }
    };
    let base = ManagerBase::new(Some("host".into()), stores(&db), config, clock.shared());
    let protection = Arc::new(Fake::default());
    protection.db.set(db.clone()).ok();
    let engine = Arc::new(FakeEngine::default());
    let manager = ApiManager::new(base, protection.clone(), engine.clone(), services()).unwrap();
    let manager = Arc::new(manager.with_policy(policy));
    let token = async |user, project, is_admin| {
        let made = create_token(&db.tokens(), user, project, is_admin).await;
        made.unwrap().secret
    };
    App {
        router: router(manager),
        admin: token("admin", PROJECT, true).await,
        member: token("demo", PROJECT, false).await,
        other: token("alt", OTHER, false).await,
        protection,
        engine,
        db,
        clock,
    }
}

impl App {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            bytes: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub async fn raw(&self, method: &str, uri: &str, token: Option<&str>, body: Vec<u8>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "127.0.0.1:18799");
        if let Some(token) = token {
            request = request.header("x-auth-token", token);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// As the administrator, in the first project.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_as(&self.admin, PROJECT, method, path, body).await
    }

    pub async fn call_as(
        &self,
        token: &str,
        project: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let uri = format!("/v1/{project}{path}");
        self.raw(method, &uri, Some(token), body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    /// A plan of one volume; its id.
    pub async fn plan(&self, changes: Value) -> String {
        let answer = self.call("POST", "/plans", plan_body(changes)).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()["plan"]["id"].as_str().unwrap().to_owned()
    }
}

pub fn plan_body(changes: Value) -> Value {
    let mut plan = json!({
        "name": "corpus-plan",
        "description": "made by the suite",
        "provider_id": NOOP,
        "parameters": {},
        "resources": [{"id": VOLUME, "type": "OS::Cinder::Volume", "name": "volume-2"}],
    });
    if let Value::Object(changes) = changes {
        for (key, value) in changes {
            plan[key] = value;
        }
    }
    json!({"plan": plan})
}
