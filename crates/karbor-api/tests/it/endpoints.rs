//! Every endpoint, as the document names them: who gets in, and that each asks its policy. An endpoint
//! that is not in the table, or for which nothing is known to send, fails the test.

use std::{collections::BTreeMap, fs, time::Duration};

use karbor_model::{OperationLog, OperationLogId, OperationLogStatus, OperationType};
use serde_json::{Value, json};

use crate::app::{Answer, App, NOOP, OTHER, PROJECT, app, app_under, plan_body};

/// Method, path below the project, rule.
fn endpoints() -> Vec<(String, String, String)> {
    let document = karbor_api::openapi();
    let mut endpoints = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(path) = path.strip_prefix("/v1/{project_id}") else {
            continue;
        };
        for (method, operation) in methods.as_object().unwrap() {
            if let Some(rule) = operation["x-policy"].as_str() {
                endpoints.push((method.to_uppercase(), path.to_owned(), rule.to_owned()));
            }
        }
    }
    assert!(endpoints.len() > 30, "{endpoints:?}");
    endpoints
}

/// One of everything in the first project: ids by the path of the members.
async fn one_of_everything(app: &App) -> BTreeMap<&'static str, String> {
    let made = async |path: &str, body: Value, key: &str| {
        let answer = app.call("POST", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()[key]["id"].as_str().unwrap().to_owned()
    };
    let plan = app.plan(json!({})).await;
    let checkpoints = format!("/providers/{NOOP}/checkpoints");
    let body = json!({"checkpoint": {"plan_id": plan}});
    let checkpoint = made(&checkpoints, body, "checkpoint").await;
    let of_checkpoint = json!({"provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {}});
    let restore = json!({"restore": of_checkpoint});
    let verification = json!({"verification": of_checkpoint});
    let trigger = crate::triggers::trigger(app, "t").await;
    let operation = crate::scheduled_operations::body(&trigger, &plan, json!({}));
    let engine = app
        .db
        .services()
        .register("host", "karbor-operationengine", "nobody")
        .await
        .unwrap();
    let log = OperationLog {
        id: OperationLogId::new(),
        project_id: PROJECT.into(),
        operation_type: OperationType::Protect,
        checkpoint_id: None,
        plan_id: None,
        provider_id: None,
        readback_id: None,
        scheduled_operation_id: None,
        status: OperationLogStatus::InProgress,
        started_at: "2026-11-22T10:21:08.161356Z".parse().unwrap(),
        ended_at: None,
        error_info: None,
        extra_info: None,
    };
    app.db.runs().operation_log_create(&log).await.unwrap();
    BTreeMap::from([
        (
            "/restores/{id}",
            made("/restores", restore, "restore").await,
        ),
        (
            "/verifications/{id}",
            made("/verifications", verification, "verification").await,
        ),
        (
            "/scheduled_operations/{id}",
            made("/scheduled_operations", operation, "scheduled_operation").await,
        ),
        ("/plans/{id}", plan),
        ("/providers/{id}", NOOP.to_owned()),
        ("/providers/{id}/checkpoints/{checkpoint_id}", checkpoint),
        ("/protectables/{id}", "OS::Nova::Server".to_owned()),
        (
            "/protectables/{id}/instances/{instance_id}",
            "id-1".to_owned(),
        ),
        ("/operation_logs/{id}", log.id.to_string()),
        ("/triggers/{id}", trigger),
        ("/os-services/{id}", engine.id.to_string()),
        ("/quotas/{id}", PROJECT.to_owned()),
        ("/quota_classes/{id}", "default".to_owned()),
    ])
}

/// The path with the ids of what was made.
fn filled(path: &str, ids: &BTreeMap<&str, String>) -> String {
    let mut place = String::new();
    let mut out = String::new();
    for part in path.split('/').skip(1) {
        place = format!("{place}/{part}");
        let part = match part.starts_with('{') {
            true => ids
                .get(place.as_str())
                .unwrap_or_else(|| panic!("what is there at {place}? Make one of it")),
            false => part,
        };
        out = format!("{out}/{part}");
    }
    out
}

/// A good body for the endpoint.
fn body(method: &str, path: &str, ids: &BTreeMap<&str, String>) -> Value {
    let checkpoint = &ids["/providers/{id}/checkpoints/{checkpoint_id}"];
    let of_checkpoint = json!({
        "provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {},
    });
    let (plan, trigger) = (&ids["/plans/{id}"], &ids["/triggers/{id}"]);
    match (method, path) {
        ("GET" | "DELETE", _) => Value::Null,
        ("POST", "/plans") => plan_body(json!({})),
        ("PUT", "/plans/{id}") => json!({"plan": {"name": "x"}}),
        ("POST", "/providers/{id}/checkpoints") => json!({"checkpoint": {"plan_id": plan}}),
        ("PUT", "/providers/{id}/checkpoints/{checkpoint_id}") => {
            json!({"os-resetState": {"state": "error"}})
        }
        ("POST", "/providers/{id}/checkpoints/action") => json!({"copy": {"plan_id": plan}}),
        ("POST", "/restores") => json!({"restore": of_checkpoint}),
        ("POST", "/verifications") => json!({"verification": of_checkpoint}),
        ("POST", "/triggers") => crate::triggers::body(json!({})),
        ("PUT", "/triggers/{id}") => json!({"trigger_info": {"name": "x"}}),
        ("POST", "/scheduled_operations") => {
            crate::scheduled_operations::body(trigger, plan, json!({}))
        }
        ("PATCH", "/scheduled_operations/{id}") => {
            json!({"scheduled_operation": {"enabled": false}})
        }
        ("PUT", "/os-services/{id}") => json!({"status": "enabled"}),
        ("PUT", "/quotas/{id}") => json!({"quota": {"plans": 50}}),
        ("PUT", "/quota_classes/{id}") => json!({"quota_class": {"plans": 50}}),
        _ => panic!("what does {method} {path} take? Add a body"),
    }
}

/// Somebody asks for the endpoint, everything being new.
async fn ask(app: &App, who: Option<&str>, project: &str, method: &str, path: &str) -> Answer {
    let ids = one_of_everything(app).await;
    let bytes = match body(method, path, &ids) {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let uri = format!("/v1/{project}{}", filled(path, &ids));
    app.raw(method, &uri, who, bytes).await
}

#[tokio::test]
async fn who_gets_in_where() {
    let mut table = String::from(
        "no token | stranger, own project in the URL | stranger, this project in the URL | member \
         | administrator\n",
    );
    for (method, path, rule) in endpoints() {
        let mut row = String::new();
        for column in 0..5 {
            let app = app().await;
            let (who, project) = match column {
                0 => (None, PROJECT),
                1 => (Some(&app.other), OTHER),
                2 => (Some(&app.other), PROJECT),
                3 => (Some(&app.member), PROJECT),
                _ => (Some(&app.admin), PROJECT),
            };
            let who = who.map(String::as_str);
            let answer = ask(&app, who, project, &method, &path).await;
            row.push_str(&format!(" {}", answer.status));
        }
        table.push_str(&format!("{method:<6} {path:<50} {rule:<28}{row}\n"));
    }
    insta::assert_snapshot!(table);
}

/// Another project's record does not exist, whatever is asked of it, unless the original was recorded to
/// admit it: a checkpoint, a trigger. No policy opens what another project has.
#[tokio::test]
async fn another_projects_record_answers_by_one_rule() {
    let admitted = [
        "/providers/{id}/checkpoints/{checkpoint_id}",
        "/triggers/{id}",
    ];
    let hidden = [
        "/plans/{id}",
        "/restores/{id}",
        "/verifications/{id}",
        "/operation_logs/{id}",
        "/scheduled_operations/{id}",
    ];
    let folder = tempfile::tempdir().unwrap();
    for (method, path, rule) in endpoints() {
        let status = match path.as_str() {
            path if admitted.contains(&path) => 403,
            path if hidden.contains(&path) => 404,
            _ => continue,
        };
        for policy in ["", &format!("\"{rule}\": \"@\"")] {
            fs::write(folder.path().join("policy.yaml"), policy).unwrap();
            let app = app_under(&[], Some(folder.path())).await;
            let answer = ask(&app, Some(&app.other), OTHER, &method, &path).await;
            answer.fault(status);
        }
    }
}

/// Each rule, set to "nobody", closes its endpoints, even for an administrator. What is only looked
/// at does not exist then, as it was with plans, restores, verifications and the operation log.
#[tokio::test]
async fn every_endpoint_asks_its_policy() {
    let hidden = [
        "plan:get",
        "restore:get",
        "verification:get",
        "operation_log:get",
    ];
    for (method, path, rule) in endpoints() {
        let folder = tempfile::tempdir().unwrap();
        let app = app_under(&[], Some(folder.path())).await;
        let ids = one_of_everything(&app).await;
        fs::write(
            folder.path().join("policy.yaml"),
            format!("\"{rule}\": \"!\""),
        )
        .unwrap();
        app.clock.turn(Duration::from_secs(1));
        let (at, body) = (filled(&path, &ids), body(&method, &path, &ids));
        let answer = app.call(&method, &at, body).await;
        if hidden.contains(&rule.as_str()) {
            assert_eq!(answer.status, 404, "{method} {path}");
        } else {
            let message = answer.fault(403);
            assert_eq!(
                message,
                format!("Policy doesn't allow {rule} to be performed."),
                "{method} {path}"
            );
        }
    }
}

/// Roles make an administrator, not what is kept with the token.
#[tokio::test]
async fn a_changed_rule_makes_other_administrators() {
    let folder = tempfile::tempdir().unwrap();
    let app = app_under(&[], Some(folder.path())).await;
    let services = async |who: &str| {
        let answer = app.call_as(who, PROJECT, "GET", "/os-services", Value::Null);
        answer.await.status
    };
    assert_eq!(
        (services(&app.admin).await, services(&app.member).await),
        (200, 403)
    );
    let rule = "context_is_admin: 'role:member and user_id:demo'\nadmin_api: 'is_admin:True'";
    fs::write(folder.path().join("policy.yaml"), rule).unwrap();
    app.clock.turn(Duration::from_secs(1));
    assert_eq!(
        (services(&app.admin).await, services(&app.member).await),
        (403, 200)
    );
}

#[tokio::test]
async fn the_document_is_served_without_a_token_and_is_always_the_same() {
    let app = app().await;
    let answer = app.raw("GET", "/openapi.json", None, Vec::new()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), karbor_api::openapi());
    let again = app.raw("GET", "/openapi.json", None, Vec::new()).await;
    assert_eq!(answer.bytes, again.bytes);
    assert_eq!(answer.json()["openapi"], "3.1.0");
}

/// Every reference leads somewhere, and every component is used.
#[test]
fn references_of_the_document_lead_somewhere() {
    let document = karbor_api::openapi();
    let text = document.to_string();
    let mut used = std::collections::BTreeSet::new();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let reference = part.split('"').next().unwrap();
        assert!(document.pointer(reference).is_some(), "{reference}");
        used.insert(reference.to_owned());
    }
    for of in ["schemas", "responses"] {
        for name in document["components"][of].as_object().unwrap().keys() {
            let reference = format!("/components/{of}/{name}");
            assert!(used.contains(&reference), "nothing refers to {reference}");
        }
    }
}
