//! A table of rules × credentials × targets, decided by the real oslo.policy and by us.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use karbor_api::policy::{DEFAULTS, Rules};
use serde_json::{Map, Value, json};

/// Asks oslo.policy the whole table; what it cannot decide without an exception is "no". It is told
/// not to take the rule `default` for one that is missing: we refuse such a file.
const SCRIPT: &str = r#"
import json, logging, sys
from oslo_config import cfg
from oslo_policy import policy
logging.disable(logging.CRITICAL)
asked = json.load(sys.stdin)
conf = cfg.ConfigOpts()
conf([], default_config_files=[], default_config_dirs=[])
answers = []
for rule in asked["rules"]:
    enforcer = policy.Enforcer(conf, use_conf=False)
    enforcer.default_rule = None
    texts = dict(asked["others"], rule=rule)
    enforcer.set_rules(policy.Rules.from_dict(texts))
    for credentials in asked["credentials"]:
        for target in asked["targets"]:
            try:
                answers.append(bool(enforcer.enforce("rule", dict(target), dict(credentials))))
            except Exception:
                answers.append(False)
print(json.dumps(answers))
"#;

fn rules() -> Vec<Value> {
    let texts = [
        "",
        "@",
        "!",
        " ",
        "role:admin",
        "role:ADMIN",
        "role:%(role)s",
        "role:admin or role:member and not role:reader",
        "role:admin and role:member or role:reader",
        "not role:admin and role:member",
        "not (role:admin or role:member)",
        "not role:admin or role:member",
        "not not role:admin",
        "NOT role:admin AND role:member",
        "(role:admin or role:member) and (project_id:%(project_id)s or is_admin:True)",
        "role:reader or (role:admin or role:member) and not is_admin:True or user_id:%(user_id)s",
        "((role:admin))",
        "( role:admin )",
        "is_admin:True",
        "is_admin:true",
        "is_admin:False",
        "is_admin:%(flag)s",
        "project_id:%(project_id)s",
        "project_id:%(missing)s",
        "project_id:p1",
        "project_id:x%(project_id)s",
        "missing:%(project_id)s",
        "nested.inner:%(project_id)s",
        "nested.list.name:%(project_id)s",
        "nested.list:%(project_id)s",
        "'p1':%(project_id)s",
        "\"p1\":%(project_id)s",
        "'x':x",
        "'member':%(target.role)s",
        "True:%(flag)s",
        "False:%(flag)s",
        "None:%(nothing)s",
        "5:%(number)s",
        "-5:%(number)s",
        "05:%(number)s",
        "number:5",
        "nothing:None",
        "list:a",
        "list:['a', 'b']",
        "project_id:100%%",
        "project_id:100%",
        "project_id:%(project_id)",
        "project_id:%s",
        "roles:member",
        "roles:Member",
        "rule:others",
        "rule:missing",
        "rule:chain",
        "rule:a:colon",
        "role:admin role:member",
        "(role:admin",
        "role:admin)",
        "and",
        "not",
        "role:admin or",
        "admin",
        "'quoted'",
        ":x",
        "()",
        "role:",
        "user-name:%(user_id)s",
        "a..b:x",
    ];
    let lists = [
        json!([]),
        json!([[]]),
        json!([["role:admin"]]),
        json!(["role:admin", "role:member"]),
        json!([
            ["role:admin", "is_admin:True"],
            ["project_id:%(project_id)s"]
        ]),
        json!([["role:admin"], []]),
        json!([["admin"]]),
        json!([["!"], ["@"]]),
    ];
    let defaults = DEFAULTS.iter().map(|default| json!(default.check));
    texts
        .into_iter()
        .map(Value::from)
        .chain(lists)
        .chain(defaults)
        .collect()
}

fn others() -> Value {
    let mut others = json!({
        "others": "role:member or is_admin:True",
        "chain": "not rule:others",
        "a:colon": "role:reader",
    });
    for default in DEFAULTS.iter() {
        others[&*default.name] = json!(default.check);
    }
    others
}

fn credentials() -> Vec<Value> {
    vec![
        json!({}),
        json!({"roles": [], "is_admin": false, "project_id": "p1", "user_id": "u1"}),
        json!({"roles": ["member"], "is_admin": false, "project_id": "p1", "user_id": "u1",
               "is_admin_project": true}),
        json!({"roles": ["Member", "reader"], "is_admin": false, "project_id": "p2",
               "user-name": "u1", "nothing": null, "number": 5, "list": ["a", "b"]}),
        json!({"roles": ["admin"], "is_admin": true, "project_id": "p2", "user_id": "u2",
               "is_admin_project": true, "nested": {"inner": "p1"}}),
        json!({"roles": ["admin", "member"], "is_admin": false, "project_id": "p3",
               "is_admin_project": true, "nested": {"list": [{"name": "p0"}, {"name": "p1"}]}}),
        json!({"roles": ["admin"], "is_admin": false, "project_id": "100%",
               "nested": {"list": ["p1", "p2"]}}),
    ]
}

fn targets() -> Vec<Value> {
    vec![
        json!({}),
        json!({"project_id": "p1", "user_id": "u1"}),
        json!({"project_id": "p2", "user_id": "u1", "role": "Admin", "flag": true, "number": 5}),
        json!({"project_id": "p1", "target.role": "member", "flag": false, "nothing": null,
               "number": -5, "role": "member"}),
        json!({"project_id": ["p1"], "user_id": {"a": 1}, "flag": "True", "number": "05"}),
    ]
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn decisions_are_those_of_oslo_policy() {
    let Some(python) = karbor_testkit::python("policy") else {
        return;
    };
    let asked = json!({
        "rules": rules(), "others": others(), "credentials": credentials(), "targets": targets(),
    });
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(asked.to_string().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<bool> = serde_json::from_slice(&output.stdout).unwrap();
    let mut answers = answers.into_iter();
    let (mut yes, mut no) = (0, 0);
    for rule in rules() {
        let mut file = others();
        file["rule"] = rule.clone();
        // A rule that we refuse stops the service; for oslo.policy it lets nobody through.
        let ours = Rules::default().overridden(&file.to_string());
        for credentials in credentials() {
            for target in targets() {
                let theirs = answers.next().unwrap();
                let decided = ours
                    .as_ref()
                    .is_ok_and(|ours| ours.allow("rule", &map(&credentials), &map(&target)));
                assert_eq!(
                    decided, theirs,
                    "{rule} with {credentials} on {target}: oslo.policy says {theirs} ({ours:?})"
                );
                if theirs { yes += 1 } else { no += 1 }
            }
        }
    }
    assert!(answers.next().is_none());
    assert!(
        yes > 500 && no > 500,
        "a table that tells nothing: {yes} yes, {no} no"
    );
}
