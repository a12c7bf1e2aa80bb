//! Where the service and the token are found.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::stub::{Stub, run_at};

fn state(stub: &Stub) -> TempDir {
    let state = TempDir::new().unwrap();
    fs::write(
        state.path().join("endpoint"),
        format!("{}/v1/default\n", stub.url),
    )
    .unwrap();
    fs::write(state.path().join("token"), "of-the-state\n").unwrap();
    state
}

async fn stub() -> Stub {
    Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}))
}

async fn token_sent(place: &[&str], token: Option<&str>, stub: &Stub) -> Option<String> {
    let run = run_at(place, &["plan", "list"], token).await;
    assert_eq!(run.exit.code(), 0, "{}", run.err);
    stub.asked().pop().unwrap().token
}

#[tokio::test]
async fn the_state_directory_knows_both() {
    let stub = stub().await;
    let state = state(&stub);
    let place = ["--state-dir", state.path().to_str().unwrap()];
    assert_eq!(
        token_sent(&place, None, &stub).await.as_deref(),
        Some("of-the-state")
    );
    // The environment's token comes first.
    assert_eq!(
        token_sent(&place, Some("own"), &stub).await.as_deref(),
        Some("own")
    );
}

#[tokio::test]
async fn the_states_token_goes_to_the_states_service_only() {
    let (own, other) = (stub().await, stub().await);
    let state = state(&own);
    let dir = state.path().to_str().unwrap();
    let place = ["--state-dir", dir, "--endpoint", &other.url];
    assert_eq!(token_sent(&place, None, &other).await, None);
    let place = ["--state-dir", dir, "--endpoint", &own.url];
    assert_eq!(
        token_sent(&place, None, &own).await.as_deref(),
        Some("of-the-state")
    );
}

#[tokio::test]
async fn a_token_file_is_named() {
    let stub = stub().await;
    let state = state(&stub);
    let file = state.path().join("mine");
    fs::write(&file, "mine").unwrap();
    let place = [
        "--endpoint",
        &stub.url,
        "--token-file",
        file.to_str().unwrap(),
    ];
    assert_eq!(
        token_sent(&place, None, &stub).await.as_deref(),
        Some("mine")
    );
}

#[tokio::test]
async fn the_project_can_be_named() {
    let stub = Stub::start()
        .await
        .on("GET /v1/other/plans", 200, json!({"plans": []}));
    let place = ["--endpoint", &stub.url, "--project", "other"];
    assert_eq!(run_at(&place, &["plan", "list"], None).await.exit.code(), 0);
}

#[tokio::test]
async fn guidance_when_something_is_missing() {
    let state = TempDir::new().unwrap();
    let dir = state.path().to_str().unwrap();
    let shown = |err: &str| err.replace(dir, "STATE");
    let place = ["--state-dir", dir];

    let nothing = run_at(&place, &["plan", "list"], None).await;
    assert_eq!(nothing.exit.code(), 5);
    insta::assert_snapshot!(shown(&nothing.err));

    fs::write(state.path().join("endpoint"), "nonsense").unwrap();
    let nonsense = run_at(&place, &["plan", "list"], None).await;
    assert_eq!(nonsense.exit.code(), 2);
    insta::assert_snapshot!(shown(&nonsense.err));

    let stub = Stub::start()
        .await
        .on("GET /plans", 401, json!({"message": "no token"}));
    fs::write(
        state.path().join("endpoint"),
        format!("{}/v1/default", stub.url),
    )
    .unwrap();
    let refused = run_at(&place, &["plan", "list"], None).await;
    assert_eq!(refused.exit.code(), 4);
    insta::assert_snapshot!(shown(&refused.err));

    // A directory in its place: exists, and no account can read it.
    fs::create_dir(state.path().join("token")).unwrap();
    let unreadable = run_at(&place, &["plan", "list"], None).await;
    assert_eq!(unreadable.exit.code(), 4);
    insta::assert_snapshot!(shown(&unreadable.err));

    let wrong = run_at(&["--endpoint", "ftp://x"], &["plan", "list"], None).await;
    assert_eq!(wrong.exit.code(), 2);
    insta::assert_snapshot!(wrong.err);

    let missing = run_at(
        &["--endpoint", &stub.url, "--token-file", "/nonexistent"],
        &["plan", "list"],
        None,
    )
    .await;
    assert_eq!(missing.exit.code(), 2);
    insta::assert_snapshot!(missing.err);
}
