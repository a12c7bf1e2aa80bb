//! A real keystone of a test's own: temporary data, a private port of this machine. It goes with the
//! value.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A running keystone, made by `lab/keystone/start`: users `admin`, `demo`, `alt` and `karbor` (the
/// service's own), projects `demo`, `alt_demo` and `service`.
#[derive(Debug)]
pub struct KeystoneServer {
    server: Child,
    /// Removes the data.
    _root: TempDir,
    /// Where it answers, without a version.
    pub url: String,
    clouds: Value,
}

impl KeystoneServer {
    /// The password of every user.
    pub const PASSWORD: &'static str = "secret";

    /// Starts one if its programs are on this machine. When they are not: says so loudly and answers `None`, or panics when
    /// `KARBOR_REQUIRE_SERVERS=1`.
    ///
    /// # Panics
    /// When the programs are there and it does not start.
    #[must_use]
    #[allow(clippy::panic, clippy::print_stderr, reason = "for tests only")]
    pub fn start() -> Option<Self> {
        if !Path::new("/usr/bin/keystone-manage").is_file() {
            let message = "keystone is not on this machine; install it with `apt-get install python3-keystone`";
            if std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|v| v == "1") {
                panic!("{message}, and KARBOR_REQUIRE_SERVERS=1");
            }
            eprintln!("SKIPPED: {message}");
            return None;
        }
        match Self::run() {
            Ok(server) => Some(server),
            Err(error) => panic!("keystone did not start: {error}"),
        }
    }

    fn run() -> io::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("karbor-keystone-")
            .tempdir()?;
        let log = root.path().join("start.log");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../lab/keystone/start");
        let mut server = Command::new(script)
            .arg(root.path())
            .args(["--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = server.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Some(url) = line.trim().strip_prefix("ready ") else {
            let _ = server.kill();
            let _ = server.wait();
            return Err(io::Error::other(fs::read_to_string(&log)?));
        };
        let clouds = serde_json::from_slice(&fs::read(root.path().join("clouds.json"))?)?;
        Ok(Self {
            server,
            url: url.to_owned(),
            _root: root,
            clouds,
        })
    }

    /// The id of a user, project or role: `id("projects", "demo")`.
    #[must_use]
    pub fn id(&self, kind: &str, name: &str) -> String {
        self.clouds[kind][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A token of `user` for `project`.
    ///
    /// # Panics
    /// When keystone gives none.
    #[must_use]
    #[allow(clippy::panic, reason = "for tests only")]
    pub fn token(&self, user: &str, project: &str) -> String {
        let domain = json!({"id": "default"});
        let user = json!({"name": user, "domain": domain, "password": Self::PASSWORD});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        match self.ask("POST", "/auth/tokens", "", &body) {
            Ok((201, Some(token), _)) => token,
            other => panic!("no token: {other:?}"),
        }
    }

    /// Revokes a token.
    ///
    /// # Panics
    /// When keystone does not.
    #[allow(clippy::panic, reason = "for tests only")]
    pub fn revoke(&self, token: &str) {
        match self.ask("DELETE", "/auth/tokens", token, &Value::Null) {
            Ok((204, ..)) => {}
            other => panic!("not revoked: {other:?}"),
        }
    }

    /// The catalog says from now on that the service answers at `url`, which has no `/v1`.
    ///
    /// # Panics
    /// When keystone does not take it.
    #[allow(clippy::panic, reason = "for tests only")]
    pub fn set_karbor(&self, url: &str) {
        let admin = self.token("admin", "demo");
        let body = json!({"endpoint": {"url": format!("{url}/v1/$(project_id)s")}});
        let path = format!("/endpoints/{}", self.id("endpoints", "public"));
        match self.ask("PATCH", &path, &admin, &body) {
            Ok((200, ..)) => {}
            other => panic!("the endpoint stays: {other:?}"),
        }
    }

    /// Asks for `path` below `/v3` as the bearer of `token`, which is the subject as well; the status,
    /// the token that was given, the body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: &Value,
    ) -> io::Result<(u16, Option<String>, Value)> {
        let path = format!("/v3{path}");
        ask(&self.url, (method, &path), token, body)
    }

    /// Stops it: nobody answers there any more.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for KeystoneServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks the HTTP server at `url` once, as the bearer of `token`, which is the subject as well; the
/// status, the token that was given, the body.
///
/// # Errors
/// When nobody answers.
pub fn ask(
    url: &str,
    (method, path): (&str, &str),
    token: &str,
    body: &Value,
) -> io::Result<(u16, Option<String>, Value)> {
    let host = url.trim_start_matches("http://");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut stream = TcpStream::connect(host)?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nX-Auth-Token: {token}\r\nX-Subject-Token: {token}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    let given = answer
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("x-subject-token"))
        .map(|(_, token)| token.to_owned());
    let status = status.ok_or_else(|| io::Error::other(answer.clone().into_owned()))?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok((
        status,
        given,
        serde_json::from_str(body).unwrap_or_default(),
    ))
}
