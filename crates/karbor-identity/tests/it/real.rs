//! Against a real keystone.

use std::time::Duration;

use karbor_identity::{IdentityError, Interface, Keystone, Known, TrustError};
use karbor_model::{RequestContext, RequestId, Secret};
use karbor_testkit::{FakeClock, KeystoneServer};

use crate::keystone;

async fn bearer(keystone: &Keystone, token: &str) -> Option<RequestContext> {
    let secret = Secret::new(token.to_owned());
    match keystone.identify(&secret).await.unwrap() {
        Known::Bearer(token) => token.context(RequestId::new()),
        Known::Nobody => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_keystone() {
    let Some(server) = KeystoneServer::start() else {
        return;
    };
    let clock = FakeClock::new();
    let with = |options: &[(&str, &str, &str)]| keystone(&server.url, clock.shared(), options);
    let keystone = with(&[]);

    let admin = bearer(&keystone, &server.token("admin", "demo"))
        .await
        .unwrap();
    assert!(admin.is_admin);
    let token = server.token("demo", "demo");
    let demo = bearer(&keystone, &token).await.unwrap();
    assert_eq!(
        demo.user_id.as_deref(),
        Some(server.id("users", "demo").as_str())
    );
    assert_eq!(demo.project_id, server.id("projects", "demo"));
    assert!(
        demo.roles.contains(&"member".to_owned()),
        "{:?}",
        demo.roles
    );
    assert!(!demo.is_admin);
    assert!(bearer(&keystone, "bogus").await.is_none());
    let catalog = keystone.catalog().await.unwrap();
    let identity = catalog.endpoint(&["identity"], Interface::Internal, Some("RegionOne"));
    assert_eq!(identity.unwrap().url, format!("{}/v3", server.url));

    // A trust goes on when the token that made it does not.
    let trust = keystone
        .create_trust(&Secret::new(token.clone()), &demo)
        .await
        .unwrap();
    server.revoke(&token);
    assert!(
        bearer(&keystone, &token).await.is_some(),
        "remembered for a while"
    );
    clock.turn(Duration::from_secs(60));
    assert!(bearer(&keystone, &token).await.is_none(), "and no longer");
    let acting = keystone.by_trust(&trust, RequestId::new()).await.unwrap();
    assert_eq!(
        (&acting.user_id, &acting.project_id),
        (&demo.user_id, &demo.project_id)
    );
    keystone.delete_trust(&trust).await.unwrap();
    let gone = keystone.by_trust(&trust, RequestId::new()).await;
    assert!(matches!(gone, Err(TrustError::Gone { .. })), "{gone:?}");
    keystone.delete_trust(&trust).await.unwrap();

    // The owner loses the role that the trust gives: the trust gives nothing any more.
    let token = server.token("alt", "alt_demo");
    let alt = bearer(&keystone, &token).await.unwrap();
    let trust = keystone
        .create_trust(&Secret::new(token), &alt)
        .await
        .unwrap();
    assert!(keystone.by_trust(&trust, RequestId::new()).await.is_ok());
    let (project, user) = (server.id("projects", "alt_demo"), server.id("users", "alt"));
    let role = server.id("roles", "member");
    let path = format!("/projects/{project}/users/{user}/roles/{role}");
    let nothing = serde_json::Value::Null;
    let (status, ..) = server
        .ask("DELETE", &path, &server.token("admin", "demo"), &nothing)
        .unwrap();
    assert_eq!(status, 204);
    let gone = keystone.by_trust(&trust, RequestId::new()).await;
    assert!(matches!(gone, Err(TrustError::Gone { .. })), "{gone:?}");

    // Our own fault, told as such.
    let wrong = with(&[("keystone_authtoken", "password", "wrong")]);
    let error = wrong
        .identify(&Secret::new("x".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, IdentityError::Credentials(_)), "{error}");
    let member = with(&[
        ("keystone_authtoken", "username", "demo"),
        ("keystone_authtoken", "project_name", "demo"),
    ]);
    let error = member
        .identify(&Secret::new(server.token("admin", "demo")))
        .await;
    assert!(
        matches!(error, Err(IdentityError::NotAllowed { .. })),
        "{error:?}"
    );
}
