//! Exchanges as they were recorded from the original — request, status, body — that are about no
//! resource in particular. The others are with their resource.

use serde_json::{Value, json};

use crate::app::{Answer, NOBODY, NOOP, OTHER, PROJECT, app};

/// Ids differ from run to run: they are put in the recorded place.
pub fn same(answer: &Answer, expected: &Value) {
    assert_eq!(answer.json(), *expected);
    assert_eq!(answer.header("content-type"), "application/json");
}

/// Q01: without a patch it was a 500.
#[tokio::test]
async fn q01_versions() {
    let app = app().await;
    let answer = app.raw("GET", "/", None, Vec::new()).await;
    assert_eq!(answer.status, 300);
    same(
        &answer,
        &json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links": [
            {"rel": "self", "href": "http://127.0.0.1:18799/data-protect/v1/"}
        ]}]}),
    );
    // Its own link leads to it again, as in the original: whatever was not below /v1 did.
    let link = app.raw("GET", "/data-protect/v1/", None, Vec::new()).await;
    assert_eq!((link.status, link.json()), (300, answer.json()));
    // Below /v1 the original had projects only.
    for uri in ["/v1", "/v1/"] {
        let answer = app.raw("GET", uri, None, Vec::new()).await;
        assert_eq!(answer.status, 401, "{uri}");
        let answer = app.raw("GET", uri, Some(&app.admin), Vec::new()).await;
        assert_eq!(answer.status, 404, "{uri}");
        assert_eq!(answer.json()["title"], "Not Found");
    }
}

#[tokio::test]
async fn unauthorized() {
    let app = app().await;
    let uri = format!("/v1/{PROJECT}/plans");
    let answer = app.raw("GET", &uri, Some("bogus"), Vec::new()).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate"),
        "Keystone uri=\"http://127.0.0.1:18799\""
    );
    same(
        &answer,
        &json!({"error": {
            "code": 401, "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }}),
    );
}

#[tokio::test]
async fn project_mismatch_and_no_route() {
    let app = app().await;
    let uri = format!("/v1/{OTHER}/plans");
    let answer = app.raw("GET", &uri, Some(&app.admin), Vec::new()).await;
    assert_eq!(answer.fault(400), "Malformed request url");
    let nothing = json!({
        "message": "The resource could not be found.<br /><br />\n\n\n",
        "code": "404 Not Found", "title": "Not Found",
    });
    // Resources of the original's API that are not built yet.
    for path in ["/nothing", "/nothing/x", "/plans/"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        same(&answer, &nothing);
    }
    for (method, path) in [
        ("GET", "/plans/new".to_owned()),
        ("GET", format!("/plans/{NOBODY}/edit")),
        ("POST", format!("/plans/{NOBODY}/action")),
        ("PUT", "/plans".to_owned()),
        ("PATCH", "/plans".to_owned()),
        ("POST", "/providers".to_owned()),
        ("DELETE", format!("/providers/{NOOP}")),
        ("PUT", format!("/restores/{NOBODY}")),
        ("PUT", format!("/scheduled_operations/{NOBODY}")),
        ("GET", "/os-services/1".to_owned()),
    ] {
        let answer = app.call(method, &path, json!({})).await;
        assert_eq!(
            answer.fault(404),
            "The resource could not be found.",
            "{method} {path}"
        );
    }
    assert_eq!(app.call("HEAD", "/plans", Value::Null).await.status, 200);
    // What the original's API had no place for at all is not allowed, and what is allowed is named.
    for (method, path, allowed) in [
        ("BREW", "/plans".to_owned(), "GET,HEAD,POST"),
        ("OPTIONS", "/plans.json".to_owned(), "GET,HEAD,POST"),
        (
            "PROPFIND",
            format!("/plans/{NOBODY}"),
            "GET,HEAD,PUT,DELETE",
        ),
        ("TRACE", format!("/providers/{NOOP}"), "GET,HEAD"),
    ] {
        let answer = app.call(method, &path, Value::Null).await;
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        assert!(answer.fault(405).contains("Allow"), "{method} {path}");
    }
    assert_eq!(app.call("BREW", "/nothing", Value::Null).await.status, 404);
    assert!(app.get("/plans.json").await.json()["plans"].is_array());
}
