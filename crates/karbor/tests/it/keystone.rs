//! The real service with a real keystone: users log in, are kept apart, and lose what they lose.

use std::process::{Command, Output};

use karbor_testkit::{KeystoneServer, ask};
use serde_json::{Value, json};

use crate::house::{House, LOCAL, until};

/// What the service must be told.
fn with_keystone(house: &mut House, keystone: &KeystoneServer) {
    for (name, value) in [
        ("OS_DEFAULT__AUTH_STRATEGY", "keystone"),
        ("OS_KEYSTONE_AUTHTOKEN__AUTH_URL", &keystone.url),
        ("OS_KEYSTONE_AUTHTOKEN__USERNAME", "karbor"),
        ("OS_KEYSTONE_AUTHTOKEN__PASSWORD", KeystoneServer::PASSWORD),
        ("OS_KEYSTONE_AUTHTOKEN__TOKEN_CACHE_TIME", "0"),
    ] {
        house.set(name, value);
    }
}

/// A client command of `user`, who logs in for `project`.
fn asked(
    keystone: &KeystoneServer,
    (user, project): (&str, &str),
    more: &[(&str, &str)],
    arguments: &[&str],
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_karbor"))
        .env_clear()
        .env("KARBOR_STATE_DIR", "/nonexistent")
        .env("OS_AUTH_URL", &keystone.url)
        .env("OS_USERNAME", user)
        .env("OS_PASSWORD", KeystoneServer::PASSWORD)
        .env("OS_PROJECT_NAME", project)
        .envs(more.iter().copied())
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> (i32, String) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), error)
}

fn names(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{:?}", said(output));
    let plans: Value = serde_json::from_slice(&output.stdout).unwrap();
    let plans = plans.as_array().unwrap().clone();
    let name = |plan: Value| plan["name"].as_str().unwrap().to_owned();
    plans.into_iter().map(name).collect()
}

#[test]
fn users_of_a_real_keystone() {
    let Some(mut keystone) = KeystoneServer::start() else {
        return;
    };
    let mut house = House::simulating();
    with_keystone(&mut house, &keystone);
    house.start();
    let endpoint = std::fs::read_to_string(house.state().join("endpoint")).unwrap();
    let (karbor, _) = endpoint.split_once("/v1/").unwrap();
    keystone.set_karbor(karbor);
    assert!(
        !house.state().join("token").exists(),
        "a token that opens nothing"
    );

    let demo = ("demo", "demo");
    let list = ["plan", "list", "-f", "json"];
    let resource = "{\"id\": \"1\", \"type\": \"Simulated::Resource\", \"name\": \"r\"}";
    let create = [
        "plan",
        "create",
        "mine",
        "--provider",
        "local",
        "--resource",
        resource,
    ];
    let made = asked(&keystone, demo, &[], &create);
    assert!(made.status.success(), "{:?}", said(&made));
    assert_eq!(names(&asked(&keystone, demo, &[], &list)), ["mine"]);
    // Another project sees nothing of it, and its user gets into no other.
    assert!(names(&asked(&keystone, ("alt", "alt_demo"), &[], &list)).is_empty());
    let foreign = keystone.id("projects", "demo");
    let other = asked(
        &keystone,
        ("alt", "alt_demo"),
        &[("KARBOR_PROJECT", &foreign)],
        &list,
    );
    let (code, error) = said(&other);
    assert!(
        code == 4 && error.contains("the token is not one of the project"),
        "{code}: {error}"
    );
    let (code, error) = said(&asked(&keystone, ("alt", "demo"), &[], &list));
    assert!(
        code == 4 && error.contains("refused the login"),
        "{code}: {error}"
    );
    // Administration is for administrators.
    let services = ["service", "list"];
    assert_eq!(said(&asked(&keystone, demo, &[], &services)).0, 4);
    assert_eq!(
        said(&asked(&keystone, ("admin", "demo"), &[], &services)).0,
        0
    );

    // A token that was revoked opens nothing.
    let token = keystone.token("demo", "demo");
    let place = format!("{karbor}/v1/{foreign}");
    let with_token = [
        ("KARBOR_TOKEN", token.as_str()),
        ("KARBOR_ENDPOINT", place.as_str()),
    ];
    assert_eq!(names(&asked(&keystone, demo, &with_token, &list)), ["mine"]);
    keystone.revoke(&token);
    assert_eq!(said(&asked(&keystone, demo, &with_token, &list)).0, 4);
    assert!(!house.log().contains(&token), "tokens are in no log");

    // Without keystone nobody is known, and nobody is called unknown for it.
    let token = keystone.token("demo", "demo");
    let with_token = [
        ("KARBOR_TOKEN", token.as_str()),
        ("KARBOR_ENDPOINT", place.as_str()),
    ];
    keystone.stop();
    let (code, error) = said(&asked(&keystone, demo, &with_token, &list));
    assert!(
        code == 5 && error.contains("identity service gives no answer"),
        "{code}: {error}"
    );
}

/// One user, asking keystone and the service.
struct User<'a> {
    keystone: &'a KeystoneServer,
    karbor: String,
    token: String,
}

impl User<'_> {
    /// The service answers with something under `key`.
    fn asks(&self, method: &str, path: &str, body: &Value, key: &str) -> Value {
        let path = format!("/v1/{}{path}", self.keystone.id("projects", "demo"));
        let answer = ask(&self.karbor, (method, &path), &self.token, body);
        let (status, _, body) = answer.unwrap();
        assert_eq!(status, 200, "{method} {path}: {body}");
        body[key].clone()
    }

    fn trusts(&self) -> Vec<String> {
        let user = self.keystone.id("users", "demo");
        let path = format!("/OS-TRUST/trusts?trustor_user_id={user}");
        let (status, _, body) = self
            .keystone
            .ask("GET", &path, &self.token, &Value::Null)
            .unwrap();
        assert_eq!(status, 200, "{body}");
        let trusts = body["trusts"].as_array().unwrap().iter();
        trusts
            .map(|trust| trust["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A plan that is protected every minute; the operation's path.
    fn schedules(&self) -> String {
        let resource = json!({"id": "1", "type": "Simulated::Resource", "name": "r"});
        let plan = json!({"plan": {
            "name": "mine", "provider_id": LOCAL, "resources": [resource], "parameters": {},
        }});
        let plan = self.asks("POST", "/plans", &plan, "plan")["id"].clone();
        let properties = json!({"format": "crontab", "pattern": "* * * * *", "window": 30});
        let trigger =
            json!({"trigger_info": {"name": "t", "type": "time", "properties": properties}});
        let trigger = self.asks("POST", "/triggers", &trigger, "trigger_info")["id"].clone();
        let definition = json!({"provider_id": LOCAL, "plan_id": plan});
        let operation = json!({"scheduled_operation": {
            "name": "o", "operation_type": "protect", "trigger_id": trigger,
            "operation_definition": definition,
        }});
        let path = "/scheduled_operations";
        let operation = self.asks("POST", path, &operation, "scheduled_operation");
        format!("{path}/{}", operation["id"].as_str().unwrap())
    }
}

#[test]
fn a_scheduled_operation_runs_by_its_owners_trust_and_stops_with_it() {
    let Some(keystone) = KeystoneServer::start() else {
        return;
    };
    let mut house = House::simulating();
    with_keystone(&mut house, &keystone);
    house.set("OS_DEFAULT__MIN_INTERVAL", "60");
    house.set("OS_DEFAULT__MIN_WINDOW_TIME", "20");
    house.set("OS_DEFAULT__MAX_WINDOW_TIME", "30");
    house.start();
    let endpoint = std::fs::read_to_string(house.state().join("endpoint")).unwrap();
    let mut demo = User {
        karbor: endpoint.split_once("/v1/").unwrap().0.to_owned(),
        token: keystone.token("demo", "demo"),
        keystone: &keystone,
    };
    let operation = demo.schedules();
    let trusts = demo.trusts();
    assert_eq!(trusts.len(), 1);
    // The token that made it is not what it runs by.
    keystone.revoke(&demo.token);
    demo.token = keystone.token("demo", "demo");
    let checkpoints = format!("/providers/{LOCAL}/checkpoints");
    until("a checkpoint of the owner's", || {
        let checkpoints = demo.asks("GET", &checkpoints, &Value::Null, "checkpoints");
        let checkpoints = checkpoints.as_array().unwrap();
        let mut available = checkpoints.iter().filter(|c| c["status"] == "available");
        available.next().cloned()
    });

    let path = format!("/OS-TRUST/trusts/{}", trusts[0]);
    let ended = keystone.ask("DELETE", &path, &demo.token, &Value::Null);
    assert_eq!(ended.unwrap().0, 204);
    until("the operation to be disabled", || {
        let shown = demo.asks("GET", &operation, &Value::Null, "scheduled_operation");
        (shown["enabled"] == false).then_some(())
    });
    let logs = demo.asks("GET", "/operation_logs", &Value::Null, "operation_logs");
    assert!(
        logs.to_string().contains("does not let it run any more"),
        "{logs}"
    );

    // The trust goes with its operation, also when the user is another one.
    demo.asks("DELETE", &operation, &Value::Null, "");
    let operation = demo.schedules();
    assert_eq!(demo.trusts().len(), 1);
    let owner = std::mem::replace(&mut demo.token, keystone.token("admin", "demo"));
    demo.asks("DELETE", &operation, &Value::Null, "");
    demo.token = owner;
    assert!(demo.trusts().is_empty());
    assert!(!house.log().contains(&demo.token), "tokens are in no log");
}

#[test]
fn what_keystone_needs_is_asked_for_at_the_start() {
    let mut house = House::simulating();
    house.set("OS_DEFAULT__AUTH_STRATEGY", "keystone");
    house.set("OS_KEYSTONE_AUTHTOKEN__AUTH_URL", "http://127.0.0.1:1");
    let said = house.refused();
    assert!(
        said.contains("'username' in group [keystone_authtoken]"),
        "{said}"
    );
}
