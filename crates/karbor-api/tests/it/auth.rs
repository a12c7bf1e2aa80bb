//! Nobody gets in without a token, into another project, or over what a member may do.

use serde_json::{Value, json};

use crate::app::{NOBODY, NOOP, OTHER, PROJECT, app, app_with};

/// Every endpoint, with a body that it would take.
pub fn endpoints() -> Vec<(&'static str, String, Value)> {
    let checkpoints = format!("/providers/{NOOP}/checkpoints");
    let checkpoint = format!("{checkpoints}/{NOBODY}");
    let plan = format!("/plans/{NOBODY}");
    let instances = "/protectables/OS::Nova::Server/instances";
    let trigger = format!("/triggers/{NOBODY}");
    let operation = format!("/scheduled_operations/{NOBODY}");
    vec![
        ("GET", "/plans".into(), Value::Null),
        ("GET", "/plans.json".into(), Value::Null),
        ("POST", "/plans".into(), crate::app::plan_body(Value::Null)),
        ("GET", plan.clone(), Value::Null),
        ("PUT", plan.clone(), json!({"plan": {"name": "x"}})),
        ("DELETE", plan, Value::Null),
        ("GET", "/providers".into(), Value::Null),
        ("GET", format!("/providers/{NOOP}"), Value::Null),
        ("GET", checkpoints.clone(), Value::Null),
        (
            "POST",
            format!("{checkpoints}/action"),
            json!({"copy": {"plan_id": NOBODY}}),
        ),
        (
            "POST",
            checkpoints,
            json!({"checkpoint": {"plan_id": NOBODY}}),
        ),
        ("GET", checkpoint.clone(), Value::Null),
        (
            "PUT",
            checkpoint.clone(),
            json!({"os-resetState": {"state": "error"}}),
        ),
        ("DELETE", checkpoint, Value::Null),
        ("GET", "/protectables".into(), Value::Null),
        ("GET", "/protectables/OS::Nova::Server".into(), Value::Null),
        ("GET", instances.into(), Value::Null),
        ("GET", format!("{instances}/id-1"), Value::Null),
        ("GET", format!("/quotas/{PROJECT}"), Value::Null),
        ("GET", format!("/quotas/{PROJECT}/detail"), Value::Null),
        ("GET", format!("/quotas/{PROJECT}/defaults"), Value::Null),
        (
            "PUT",
            format!("/quotas/{PROJECT}"),
            json!({"quota": {"plans": 50, "bytes": -1, "class": "c"}}),
        ),
        ("DELETE", format!("/quotas/{PROJECT}"), Value::Null),
        ("GET", "/quota_classes/default".into(), Value::Null),
        (
            "PUT",
            "/quota_classes/c".into(),
            json!({"quota_class": {"checkpoints": 5}}),
        ),
        ("GET", "/restores".into(), Value::Null),
        (
            "POST",
            "/restores".into(),
            json!({"restore": {"provider_id": NOOP, "checkpoint_id": NOBODY, "parameters": {}}}),
        ),
        ("GET", format!("/restores/{NOBODY}"), Value::Null),
        ("GET", "/verifications".into(), Value::Null),
        (
            "POST",
            "/verifications".into(),
            json!({"verification": {"provider_id": NOOP, "checkpoint_id": NOBODY}}),
        ),
        ("GET", format!("/verifications/{NOBODY}"), Value::Null),
        ("GET", "/operation_logs".into(), Value::Null),
        ("GET", format!("/operation_logs/{NOBODY}"), Value::Null),
        ("GET", "/triggers".into(), Value::Null),
        ("POST", "/triggers".into(), crate::triggers::body(json!({}))),
        ("GET", trigger.clone(), Value::Null),
        (
            "PUT",
            trigger.clone(),
            json!({"trigger_info": {"name": "x"}}),
        ),
        ("DELETE", trigger, Value::Null),
        ("GET", "/scheduled_operations".into(), Value::Null),
        (
            "POST",
            "/scheduled_operations".into(),
            crate::scheduled_operations::body(NOBODY, NOBODY, json!({})),
        ),
        ("GET", operation.clone(), Value::Null),
        (
            "PATCH",
            operation.clone(),
            json!({"scheduled_operation": {"enabled": false}}),
        ),
        ("DELETE", operation, Value::Null),
        ("GET", "/os-services".into(), Value::Null),
        ("GET", "/os-services/1/detail".into(), Value::Null),
        ("PUT", "/os-services/1".into(), json!({"status": "enabled"})),
        ("GET", "/nothing".into(), Value::Null),
    ]
}

#[tokio::test]
async fn every_endpoint_wants_a_token() {
    let app = app().await;
    let long = "x".repeat(10_000);
    for (method, path, body) in endpoints() {
        let uri = format!("/v1/{PROJECT}{path}");
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        for token in [
            None,
            Some(""),
            Some("bogus"),
            Some("admin:demo"),
            Some(long.as_str()),
        ] {
            let answer = app.raw(method, &uri, token, bytes.clone()).await;
            assert_eq!(answer.status, 401, "{method} {path} {token:?}");
            assert!(
                answer
                    .header("www-authenticate")
                    .starts_with("Keystone uri=")
            );
            assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        }
    }
    assert!(app.protection.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_endpoint_looks_at_the_project() {
    let app = app().await;
    for (method, path, body) in endpoints() {
        let answer = app.call_as(&app.admin, OTHER, method, &path, body).await;
        if path == "/nothing" {
            assert_eq!(answer.status, 404);
        } else {
            assert_eq!(
                answer.fault(400),
                "Malformed request url",
                "{method} {path}"
            );
        }
    }
    assert!(app.protection.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_member_may_do_all_but_administer_services() {
    let app = app().await;
    for (method, path, body) in endpoints() {
        let answer = app.call_as(&app.member, PROJECT, method, &path, body).await;
        assert_eq!(
            answer.status == 403,
            path.starts_with("/os-services") || path.starts_with("/quota") && method != "GET",
            "{method} {path}"
        );
        assert!(
            answer.status < 500 && answer.status != 401,
            "{method} {path}"
        );
    }
}

/// The loopback mode for development: any `user:project` will do.
#[tokio::test]
async fn noauth_takes_user_and_project_as_said() {
    let app = app_with(&[("DEFAULT", "auth_strategy", "noauth")]).await;
    let uri = format!("/v1/{PROJECT}/plans");
    let token = format!("demo:{PROJECT}");
    assert_eq!(
        app.raw("GET", &uri, Some(&token), Vec::new()).await.status,
        200
    );
    assert_eq!(
        app.raw("GET", &uri, Some(PROJECT), Vec::new()).await.status,
        200
    );
    assert_eq!(
        app.raw("GET", &uri, Some("demo:other"), Vec::new())
            .await
            .fault(400),
        "Malformed request url"
    );
    // No token: the original told which one to use.
    let answer = app.raw("GET", "/v1/", None, Vec::new()).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("x-auth-token"), "admin:admin");
}

/// A web page cannot reach it through a name of its own for this machine (DNS rebinding).
#[tokio::test]
async fn noauth_answers_only_to_names_of_this_machine() {
    let app = app_with(&[("DEFAULT", "auth_strategy", "noauth")]).await;
    for (host, status) in [
        ("127.0.0.1:8799", 200),
        ("localhost", 200),
        ("[::1]:8799", 200),
        ("evil.example:8799", 403),
        ("127.0.0.1.evil.example", 403),
    ] {
        let request = axum::http::Request::get(format!("/v1/{PROJECT}/plans"))
            .header("host", host)
            .header("x-auth-token", format!("demo:{PROJECT}"))
            .body(axum::body::Body::empty())
            .unwrap();
        assert_eq!(app.send(request).await.status, status, "{host}");
    }
}
