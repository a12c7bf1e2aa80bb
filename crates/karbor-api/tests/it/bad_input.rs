//! Whatever a client sends: a 4xx that says what is wrong.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::{
    app::{App, NOBODY, NOOP, PROJECT, app, app_with, plan_body},
    auth::endpoints,
};

async fn post(app: &App, body: Vec<u8>, kind: Option<&str>) -> crate::app::Answer {
    let mut request =
        Request::post(format!("/v1/{PROJECT}/plans")).header("x-auth-token", &app.admin);
    if let Some(kind) = kind {
        request = request.header("content-type", kind);
    }
    app.send(request.body(Body::from(body)).unwrap()).await
}

/// Q02: no body at all was a 500.
#[tokio::test]
async fn q02_bodies_that_are_no_json() {
    let app = app().await;
    let deep = |n| format!("{}{}", "[".repeat(n), "]".repeat(n)).into_bytes();
    for body in [
        b"{bad".to_vec(),
        b"\xff\xfe".to_vec(),
        b"{\"plan\": 1e999}".to_vec(),
        b"{} {}".to_vec(),
        b"\"\\ud800\"".to_vec(),
        deep(100_000 / 2),
    ] {
        let answer = post(&app, body, Some("application/json")).await;
        assert_eq!(answer.fault(400), "Malformed request body");
    }
    assert!(
        post(&app, deep(100), Some("application/json"))
            .await
            .fault(400)
            .contains("is not of type 'object'")
    );
    assert!(
        post(&app, Vec::new(), None)
            .await
            .fault(400)
            .contains("Missing request body")
    );
    assert!(
        post(&app, b"a=b".to_vec(), Some("text/plain"))
            .await
            .fault(415)
            .contains("application/json")
    );
    let nul = plan_body(json!({"name": "a\u{0}b"}))
        .to_string()
        .into_bytes();
    assert!(
        post(&app, nul, Some("application/json"))
            .await
            .fault(400)
            .contains("U+0000")
    );
    let fine = plan_body(Value::Null).to_string().into_bytes();
    for kind in [
        None,
        Some("application/json; charset=utf-8"),
        Some("application/vnd.openstack.volume+json"),
    ] {
        assert_eq!(post(&app, fine.clone(), kind).await.status, 200, "{kind:?}");
    }
}

#[tokio::test]
async fn a_huge_body_is_cut_off() {
    let app = app_with(&[("oslo_middleware", "max_request_body_size", "2000")]).await;
    let huge = plan_body(json!({"description": "x".repeat(3000)}));
    for (method, path, _) in endpoints()
        .into_iter()
        .filter(|(_, _, body)| !body.is_null())
    {
        // Whether the body may be sent at all is decided first.
        if path.starts_with("/os-services") {
            continue;
        }
        let answer = app.call(method, &path, huge.clone()).await;
        assert_eq!(
            answer.fault(413),
            "The body of the request is larger than 2000 bytes.",
            "{method} {path}"
        );
    }
    let just = plan_body(json!({"description": "x".repeat(200)}));
    assert_eq!(app.call("POST", "/plans", just).await.status, 200);
}

#[tokio::test]
async fn q10_q11_wrong_types_name_their_field() {
    let app = app().await;
    for (changes, field) in [
        (json!({"name": 5}), "name"),
        (json!({"description": []}), "description"),
        (json!({"provider_id": 5}), "provider_id"),
        (json!({"parameters": null}), "parameters"),
        (json!({"resources": {}}), "resources"),
        (
            json!({"resources": [{"id": 5, "type": "t", "name": "n"}]}),
            "id",
        ),
        (
            json!({"resources": [{"id": "", "type": "t", "name": "n"}]}),
            "id",
        ),
        (
            json!({"resources": [{"id": "i", "type": "t", "name": "n".repeat(256)}]}),
            "name",
        ),
        (json!({"bogus": 1}), "bogus"),
    ] {
        let message = app
            .call("POST", "/plans", plan_body(changes.clone()))
            .await
            .fault(400);
        assert!(message.contains(field), "{changes}: {message}");
    }
    let plan = app.plan(Value::Null).await;
    let put = async |change: Value| {
        app.call("PUT", &format!("/plans/{plan}"), json!({"plan": change}))
            .await
            .fault(400)
    };
    assert_eq!(
        put(json!({})).await,
        "Missing updated parameters in request body."
    );
    // Q10, Q11: any status, and no resources at all, were taken.
    assert!(
        put(json!({"status": "bogus"}))
            .await
            .contains("'bogus' is not one of ['suspended', 'started']")
    );
    assert!(put(json!({"status": null})).await.contains("status"));
    assert!(
        put(json!({"resources": []}))
            .await
            .contains("list resources must be provided")
    );
    assert!(put(json!({"id": {}})).await.contains("'id' was unexpected"));
    assert!(put(json!({"name": ""})).await.contains("name"));
}

/// Q03, Q04, Q06, Q07, Q08: each was a 500.
#[tokio::test]
async fn q03_q04_q06_q07_q08_what_was_a_500() {
    let app = app().await;
    let without = |key: &str| {
        let mut body = plan_body(Value::Null);
        body["plan"].as_object_mut().unwrap().remove(key);
        body
    };
    assert!(
        app.call("POST", "/plans", without("name"))
            .await
            .fault(400)
            .contains("name")
    );
    assert!(
        app.call("POST", "/plans", without("resources"))
            .await
            .fault(400)
            .contains("resources")
    );
    for parameters in [
        json!({"OS::Cinder::Volume": {"a": "b"}}),
        json!({"a#b#c": {}}),
    ] {
        app.call(
            "POST",
            "/plans",
            plan_body(json!({"parameters": parameters})),
        )
        .await
        .fault(400);
    }
    let null = plan_body(json!({"parameters": {"OS::Cinder::Volume": null}}));
    assert_eq!(
        app.call("POST", "/plans", null).await.json()["plan"]["parameters"],
        json!({"OS::Cinder::Volume": {}})
    );
}

/// Q09: a started plan could never be suspended again.
#[tokio::test]
async fn q09_a_started_plan_can_be_suspended() {
    let app = app().await;
    let path = format!("/plans/{}", app.plan(Value::Null).await);
    app.call("PUT", &path, json!({"plan": {"status": "started"}}))
        .await;
    let answer = app
        .call(
            "PUT",
            &path,
            json!({"plan": {"status": "suspended", "name": "n2"}}),
        )
        .await
        .json();
    assert_eq!(
        (&answer["plan"]["status"], &answer["plan"]["name"]),
        (&json!("suspended"), &json!("n2"))
    );
    assert_eq!(app.get(&path).await.json(), answer);
}

#[tokio::test]
async fn path_tricks() {
    let app = app().await;
    let long = "x".repeat(20_000);
    for odd in [
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc",
        "%00",
        "%ff",
        "..",
        "a%2Fb",
        "%20",
        "*",
        "%",
        long.as_str(),
    ] {
        for path in [
            format!("/plans/{odd}"),
            format!("/providers/{odd}"),
            format!("/providers/{odd}/checkpoints"),
            format!("/providers/{NOOP}/checkpoints/{odd}"),
            format!("/protectables/{odd}"),
            format!("/protectables/{odd}/instances"),
            format!("/protectables/OS::Nova::Server/instances/{odd}"),
            format!("/restores/{odd}"),
            format!("/operation_logs/{odd}"),
            format!("/{odd}"),
        ] {
            let answer = app.get(&path).await;
            assert!(
                (400..500).contains(&answer.status),
                "{} {:.80}",
                answer.status,
                path
            );
            assert_eq!(answer.header("content-type"), "application/json");
            if path.starts_with("/os-services") {
                continue;
            }
        }
        let uri = format!("/v1/{odd}/plans");
        let answer = app.raw("GET", &uri, Some(&app.admin), Vec::new()).await;
        assert!(
            (400..500).contains(&answer.status),
            "{} {:.80}",
            answer.status,
            uri
        );
    }
    let answer = app
        .call("PUT", "/os-services/%2e%2e", json!({"status": "enabled"}))
        .await;
    assert_eq!(answer.fault(404), "Service .. could not be found.");
}

/// Ids in another notation name the same record.
#[tokio::test]
async fn ids_may_come_without_hyphens() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    assert_eq!(
        app.get(&format!("/plans/{}", plan.replace('-', "")))
            .await
            .status,
        200
    );
    assert_eq!(
        app.get(&format!("/plans/{}", plan.to_uppercase()))
            .await
            .status,
        200
    );
    assert_eq!(app.get(&format!("/plans/{NOBODY}")).await.status, 404);
}
