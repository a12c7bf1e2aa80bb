//! A small keystone whose clock and moods the test turns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use karbor_manager::Clock as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::FakeClock;

/// As much of keystone v3 as a service asks for: tokens and trusts. Application credentials have the id of
/// their user, and the password as their secret. Users are named like their ids, and
/// so are projects and roles; every password is [`PASSWORD`](Self::PASSWORD).
#[derive(Clone)]
pub struct FakeKeystone {
    /// Where it answers, without a version.
    pub url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    clock: FakeClock,
    life: Duration,
    next: u64,
    password: String,
    /// Answers everything with this status.
    trouble: Option<u16>,
    /// The project and roles that a user has.
    users: BTreeMap<String, (String, Vec<String>)>,
    tokens: BTreeMap<String, Value>,
    trusts: BTreeMap<String, Value>,
    asked: Vec<String>,
    karbor: String,
}

/// A status, the token that was given, a body.
type Answer = (u16, Option<String>, Value);

impl FakeKeystone {
    /// The password of every user, at first.
    pub const PASSWORD: &'static str = "secret";

    /// Starts one: `admin` and `demo` in project `p1`, `alt` in `p2`, the service user `karbor` in `service`.
    ///
    /// # Panics
    /// When no port can be had.
    #[allow(clippy::expect_used, reason = "for tests only")]
    pub async fn start(clock: FakeClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let user = |name: &str, project: &str, role: &str| {
            let held = (project.to_owned(), vec![role.to_owned()]);
            (name.to_owned(), held)
        };
        let state = State {
            clock,
            life: Duration::from_secs(3600),
            next: 0,
            password: Self::PASSWORD.to_owned(),
            trouble: None,
            users: BTreeMap::from([
                user("admin", "p1", "admin"),
                user("demo", "p1", "member"),
                user("alt", "p2", "member"),
                user("karbor", "service", "service"),
            ]),
            tokens: BTreeMap::new(),
            trusts: BTreeMap::new(),
            asked: Vec::new(),
            karbor: "http://127.0.0.1:1".to_owned(),
        };
        let fake = Self {
            url: format!("http://{address}"),
            state: Arc::new(Mutex::new(state)),
        };
        let served = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = served.clone();
                tokio::spawn(async move { fake.serve(stream).await });
            }
        });
        fake
    }

    /// A token of `user`, as if it had logged in.
    #[must_use]
    pub fn token(&self, user: &str) -> String {
        let mut state = self.state();
        let (project, roles) = state.users.get(user).cloned().unwrap_or_default();
        state.issue(user, Some(&project), &roles).0
    }

    /// A token of `user` for no project.
    #[must_use]
    pub fn unscoped_token(&self, user: &str) -> String {
        self.state().issue(user, None, &[]).0
    }

    /// The token is none any more.
    pub fn revoke(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// Every token is none any more.
    pub fn revoke_all(&self) {
        self.state().tokens.clear();
    }

    /// The trusts that there are.
    #[must_use]
    pub fn trusts(&self) -> Vec<Value> {
        self.state().trusts.values().cloned().collect()
    }

    /// Ends every trust.
    pub fn end_trusts(&self) {
        self.state().trusts.clear();
    }

    /// Every user has another password now.
    pub fn change_password(&self, password: &str) {
        self.state().password = password.to_owned();
    }

    /// Answers everything with this status from now on; `None`: as it should.
    pub fn trouble(&self, status: Option<u16>) {
        self.state().trouble = status;
    }

    /// How long tokens live from now on.
    pub fn set_life(&self, life: Duration) {
        self.state().life = life;
    }

    /// Where the catalog says that the service answers, without `/v1`.
    pub fn set_karbor(&self, url: &str) {
        self.state().karbor = url.to_owned();
    }

    /// What was asked since the last look, e.g. `POST /auth/tokens`.
    #[allow(clippy::must_use_candidate, reason = "a look also forgets")]
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state().asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some((head, body)) = read(&mut stream).await else {
            return;
        };
        let (status, token, body) = self.state().answer(&head, &body);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let token = token.map_or(String::new(), |token| {
            format!("x-subject-token: {token}\r\n")
        });
        let response = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{token}\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(response.as_bytes()).await;
    }
}

impl State {
    fn answer(&mut self, head: &str, body: &Value) -> Answer {
        let line = head.lines().next().unwrap_or_default();
        let mut words = line.split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let path = path.trim_start_matches("/v3");
        self.asked.push(format!("{method} {path}"));
        if let Some(status) = self.trouble {
            return error(status);
        }
        let own = header(head, "x-auth-token").and_then(|token| self.live(&token));
        let subject = header(head, "x-subject-token");
        match (method, path) {
            ("POST", "/auth/tokens") => self.authenticate(&body["auth"]),
            _ if own.is_none() => error(401),
            ("GET", "/auth/tokens") => match subject.and_then(|token| self.live(&token)) {
                Some(token) => (200, None, token),
                None => error(404),
            },
            ("POST", "/OS-TRUST/trusts") => self.trust(&own.unwrap_or_default(), &body["trust"]),
            ("DELETE", _) => {
                let id = path.rsplit('/').next().unwrap_or_default();
                match self.trusts.remove(id) {
                    Some(_) => (204, None, Value::Null),
                    None => error(404),
                }
            }
            _ => error(404),
        }
    }

    fn live(&self, token: &str) -> Option<Value> {
        let token = self.tokens.get(token)?;
        let expires = token["token"]["expires_at"].as_str()?;
        let expires = chrono::DateTime::parse_from_rfc3339(expires).ok()?;
        (expires > self.clock.now()).then(|| token.clone())
    }

    fn authenticate(&mut self, auth: &Value) -> Answer {
        let identity = &auth["identity"];
        let name = if identity["methods"][0] == "token" {
            let token = identity["token"]["id"].as_str().unwrap_or_default();
            let token = self.live(token);
            token.and_then(|token| Some(token["token"]["user"]["id"].as_str()?.to_owned()))
        } else if identity["methods"][0] == "application_credential" {
            let credential = &identity["application_credential"];
            let name = credential["id"].as_str();
            name.filter(|_| credential["secret"] == self.password)
                .map(str::to_owned)
        } else {
            let user = &identity["password"]["user"];
            let name = user["name"].as_str().or_else(|| user["id"].as_str());
            name.filter(|_| user["password"] == self.password)
                .map(str::to_owned)
        };
        let known = name.and_then(|name| Some((self.users.get(&name)?.clone(), name)));
        let Some(((project, roles), name)) = known else {
            return error(401);
        };
        let scope = &auth["scope"];
        let (token, body) = if let Some(id) = scope["OS-TRUST:trust"]["id"].as_str() {
            let Some(trust) = self.trusts.get(id).cloned() else {
                return error(401);
            };
            if trust["trustee_user_id"] != name {
                return error(403);
            }
            let text = |name: &str| trust[name].as_str().unwrap_or_default().to_owned();
            let named = trust["roles"].as_array().into_iter().flatten();
            let roles = named.filter_map(|role| Some(role["name"].as_str()?.to_owned()));
            let roles: Vec<_> = roles.collect();
            self.issue(&text("trustor_user_id"), Some(&text("project_id")), &roles)
        } else if scope.is_null() && identity["application_credential"].is_object() {
            self.issue(&name, Some(&project), &roles)
        } else if scope.is_null() {
            self.issue(&name, None, &[])
        } else {
            let wanted = &scope["project"];
            if wanted["name"] != project && wanted["id"] != project {
                return error(401);
            }
            self.issue(&name, Some(&project), &roles)
        };
        (201, Some(token), body)
    }

    fn trust(&mut self, own: &Value, trust: &Value) -> Answer {
        if own["token"]["user"]["id"] != trust["trustor_user_id"] {
            return error(403);
        }
        self.next += 1;
        let mut trust = trust.clone();
        let id = format!("trust-{}", self.next);
        trust["id"] = json!(id);
        self.trusts.insert(id, trust.clone());
        (201, None, json!({ "trust": trust }))
    }

    fn issue(&mut self, user: &str, project: Option<&str>, roles: &[String]) -> (String, Value) {
        self.next += 1;
        let token = format!("token-{}", self.next);
        let expires = (self.clock.now() + self.life).format("%Y-%m-%dT%H:%M:%S%.6fZ");
        let domain = json!({"id": "default", "name": "Default"});
        let roles = roles.iter().map(|role| json!({"id": role, "name": role}));
        let mut body = json!({
            "methods": ["password"],
            "user": {"id": user, "name": user, "domain": domain},
            "expires_at": expires.to_string(),
        });
        if let Some(project) = project {
            let url = format!("{}/v1/{project}", self.karbor);
            body["project"] = json!({"id": project, "name": project, "domain": domain});
            body["roles"] = roles.collect();
            body["catalog"] = json!([{"type": "data-protect", "name": "karbor", "id": "s", "endpoints": [
                {"interface": "public", "region": "one", "region_id": "one", "id": "e", "url": url},
            ]}]);
        }
        let body = json!({ "token": body });
        self.tokens.insert(token.clone(), body.clone());
        (token, body)
    }
}

fn error(status: u16) -> Answer {
    let message = "The request you have made requires authentication.";
    let error = json!({"code": status, "message": message, "title": "Error"});
    (status, None, json!({ "error": error }))
}

async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut read = Vec::new();
    let (head, length) = loop {
        let mut block = [0; 4096];
        let count = stream.read(&mut block).await.ok()?;
        read.extend_from_slice(&block[..count]);
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..at]).into_owned();
            read.drain(..at + 4);
            let length = header(&head, "content-length");
            break (head, length.map_or(Ok(0), |text| text.parse()).ok()?);
        }
        if count == 0 {
            return None;
        }
    };
    while read.len() < length {
        let mut block = [0; 4096];
        let count = stream.read(&mut block).await.ok()?;
        if count == 0 {
            return None;
        }
        read.extend_from_slice(&block[..count]);
    }
    Some((head, serde_json::from_slice(&read).unwrap_or_default()))
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let found = key.eq_ignore_ascii_case(name);
        found.then(|| value.trim().to_owned())
    })
}
