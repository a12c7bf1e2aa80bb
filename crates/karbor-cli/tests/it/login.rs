//! Logging in at keystone, and finding the service in its catalog.

use karbor_testkit::{FakeClock, FakeKeystone};
use serde_json::json;

use crate::stub::{Run, Stub, run_in_cloud};

const NOWHERE: [&str; 2] = ["--state-dir", "/nonexistent"];

async fn house() -> (FakeKeystone, Stub) {
    let stub = Stub::start()
        .await
        .on("GET /v1/p1/plans", 200, json!({"plans": []}));
    let keystone = FakeKeystone::start(FakeClock::new()).await;
    keystone.set_karbor(&stub.url);
    (keystone, stub)
}

async fn list(keystone: &FakeKeystone, more: &[(&str, &str)]) -> Run {
    list_at(keystone, more, &NOWHERE, None).await
}

async fn list_at(
    keystone: &FakeKeystone,
    more: &[(&str, &str)],
    place: &[&str],
    token: Option<&str>,
) -> Run {
    let variables = [
        ("OS_AUTH_URL", keystone.url.as_str()),
        ("OS_USERNAME", "demo"),
        ("OS_PASSWORD", "secret"),
        ("OS_PROJECT_NAME", "p1"),
    ];
    let variables: Vec<_> = variables.iter().chain(more).copied().collect();
    run_in_cloud(&variables, place, &["plan", "list"], token).await
}

#[tokio::test]
async fn a_login_brings_token_and_endpoint() {
    let (keystone, stub) = house().await;
    let run = list(&keystone, &[]).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    assert_eq!(stub.lines(), ["GET /v1/p1/plans"]);
    let token = stub.asked()[0].token.clone().unwrap();
    assert!(token.starts_with("token-"), "{token}");
}

#[tokio::test]
async fn a_token_of_keystone_is_used_as_it_is() {
    let (keystone, stub) = house().await;
    let token = keystone.token("demo");
    let run = list(&keystone, &[("OS_TOKEN", &token), ("OS_PROJECT_NAME", "")]).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    assert_eq!(stub.asked()[0].token.as_deref(), Some(token.as_str()));
    assert_eq!(keystone.asked(), ["GET /auth/tokens"]);
    // For a project that is named, another one is got with it.
    let run = list(&keystone, &[("OS_TOKEN", &token)]).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    assert_eq!(keystone.asked(), ["POST /auth/tokens"]);
}

#[tokio::test]
async fn what_is_named_comes_before_the_catalog() {
    let (keystone, stub) = house().await;
    keystone.set_karbor("http://127.0.0.1:1");
    let place = ["--state-dir", "/nonexistent", "--endpoint", &stub.url];
    let run = list_at(&keystone, &[], &place, None).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    keystone.asked();
    let place = [&place[..], &["--project", "p1"]].concat();
    let run = list_at(&keystone, &[], &place, Some("own")).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    assert_eq!(stub.asked()[1].token.as_deref(), Some("own"));
    assert!(
        keystone.asked().is_empty(),
        "a token that is given needs no login"
    );
}

#[tokio::test]
async fn guidance_when_a_login_fails() {
    let (keystone, _stub) = house().await;
    let shown = |run: Run| {
        format!(
            "{}exit {}",
            run.err.replace(&keystone.url, "KEYSTONE"),
            run.exit.code()
        )
    };
    let wrong = list(&keystone, &[("OS_PASSWORD", "wrong")]).await;
    assert!(!wrong.err.contains("wrong"), "{}", wrong.err);
    insta::assert_snapshot!(shown(wrong), @r"
    error: keystone at KEYSTONE/v3/auth/tokens refused the login: The request you have made requires authentication.
      hint: check OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME and their domains (OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME)
    exit 4
    ");
    let missing = list(&keystone, &[("OS_PASSWORD", "")]).await;
    insta::assert_snapshot!(shown(missing), @r"
    error: OS_AUTH_URL is set, but not OS_PASSWORD
      hint: set OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME, or an application credential; or unset OS_AUTH_URL to do without keystone
    exit 2
    ");
    let elsewhere = list(&keystone, &[("OS_REGION_NAME", "nowhere")]).await;
    insta::assert_snapshot!(shown(elsewhere), @r"
    error: keystone's catalog has no service of type data-protect for this project
      hint: say where it is with --endpoint or KARBOR_ENDPOINT; OS_REGION_NAME and OS_INTERFACE choose among several
    exit 5
    ");
    keystone.trouble(Some(503));
    let away = list(&keystone, &[]).await;
    insta::assert_snapshot!(shown(away), @r"
    error: no token from keystone at KEYSTONE/v3/auth/tokens: it answered 503 Service Unavailable
      hint: OS_AUTH_URL says where keystone is, OS_CACERT which authority to trust
    exit 5
    ");
}
