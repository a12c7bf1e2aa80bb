//! Expiry, revocation, renewal and trouble, with a clock that the test turns.

use std::{sync::Arc, time::Duration};

use karbor_identity::{IdentityError, Interface, Keystone, Known, TrustError};
use karbor_model::{ApiError, ErrorKind, RequestContext, RequestId, Secret};
use karbor_testkit::{FakeClock, FakeKeystone};

use crate::keystone;

const WINDOW: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

async fn house() -> (FakeClock, FakeKeystone, Keystone) {
    let clock = FakeClock::new();
    let fake = FakeKeystone::start(clock.clone()).await;
    let keystone = keystone(&fake.url, clock.shared(), &[]);
    (clock, fake, keystone)
}

fn secret(token: &str) -> Secret {
    Secret::new(token.to_owned())
}

async fn context(keystone: &Keystone, token: &str) -> Option<RequestContext> {
    match keystone.identify(&secret(token)).await.unwrap() {
        Known::Bearer(token) => token.context(RequestId::new()),
        Known::Nobody => None,
    }
}

#[tokio::test]
async fn a_token_tells_who_where_and_with_which_roles() {
    let (_, fake, keystone) = house().await;
    let member = context(&keystone, &fake.token("demo")).await.unwrap();
    assert_eq!(member.user_id.as_deref(), Some("demo"));
    assert_eq!(member.project_id, "p1");
    assert_eq!(member.roles, ["member"]);
    assert!(!member.is_admin);
    let admin = context(&keystone, &fake.token("admin")).await.unwrap();
    assert!(admin.is_admin);
    let unscoped = fake.unscoped_token("demo");
    assert_eq!(context(&keystone, &unscoped).await, None);
}

#[tokio::test]
async fn what_is_no_token_is_nobody() {
    let (_, fake, keystone) = house().await;
    assert_eq!(context(&keystone, "bogus").await, None);
    fake.asked();
    let long = "x".repeat(10_000);
    for text in ["", "with space", "line\r\nfeed", "ünicode", long.as_str()] {
        assert_eq!(context(&keystone, text).await, None, "{text}");
    }
    assert!(fake.asked().is_empty(), "keystone need not be asked");
}

#[tokio::test]
async fn a_good_token_is_remembered_and_a_revoked_one_passes_no_longer_than_the_window() {
    let (clock, fake, keystone) = house().await;
    let token = fake.token("demo");
    assert!(context(&keystone, &token).await.is_some());
    fake.asked();
    fake.revoke(&token);
    clock.turn(WINDOW - MOMENT);
    assert!(context(&keystone, &token).await.is_some());
    assert!(fake.asked().is_empty());
    clock.turn(MOMENT);
    assert!(context(&keystone, &token).await.is_none());
}

fn looks(fake: &FakeKeystone) -> usize {
    let asked = fake.asked();
    let looks = asked.iter().filter(|line| *line == "GET /auth/tokens");
    looks.count()
}

/// A client that repeats a bad token does not make keystone work; what becomes a token passes soon after.
#[tokio::test]
async fn a_bad_token_is_remembered_for_a_moment_only() {
    let (clock, fake, keystone) = house().await;
    for _ in 0..3 {
        assert!(context(&keystone, "token-2").await.is_none());
    }
    assert_eq!(looks(&fake), 1);
    // The service's own token was the first.
    assert_eq!(fake.token("demo"), "token-2");
    clock.turn(Duration::from_secs(5) - MOMENT);
    assert!(context(&keystone, "token-2").await.is_none());
    clock.turn(MOMENT);
    assert!(context(&keystone, "token-2").await.is_some());
    assert_eq!(looks(&fake), 1);
}

/// Inventing tokens fills nothing: the good ones stay, and memory has an end.
#[tokio::test]
async fn bad_tokens_drive_no_good_one_out() {
    let (_, fake, keystone) = house().await;
    let token = fake.token("demo");
    assert!(context(&keystone, &token).await.is_some());
    for at in 0..1_010 {
        assert!(context(&keystone, &format!("bogus-{at}")).await.is_none());
    }
    fake.asked();
    assert!(context(&keystone, &token).await.is_some());
    assert!(context(&keystone, "bogus-1").await.is_none());
    assert_eq!(looks(&fake), 0);
    assert!(context(&keystone, "bogus-1009").await.is_none());
    assert_eq!(looks(&fake), 1, "the place for bad ones is full");
}

#[tokio::test]
async fn trouble_is_not_remembered_of_a_token() {
    let (_, fake, keystone) = house().await;
    let token = fake.token("demo");
    assert!(context(&keystone, "bogus").await.is_none());
    fake.trouble(Some(503));
    keystone.identify(&secret(&token)).await.unwrap_err();
    fake.trouble(None);
    assert!(context(&keystone, &token).await.is_some());
}

#[tokio::test]
async fn nothing_is_remembered_beyond_the_tokens_own_expiry() {
    let (clock, fake, keystone) = house().await;
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    fake.set_life(Duration::from_secs(30));
    let short = fake.token("demo");
    assert!(context(&keystone, &short).await.is_some());
    clock.turn(Duration::from_secs(29));
    assert!(context(&keystone, &short).await.is_some());
    clock.turn(Duration::from_secs(1));
    assert!(context(&keystone, &short).await.is_none());
}

#[tokio::test]
async fn without_a_window_keystone_is_asked_every_time() {
    let clock = FakeClock::new();
    let fake = FakeKeystone::start(clock.clone()).await;
    let options = [("keystone_authtoken", "token_cache_time", "-1")];
    let keystone = keystone(&fake.url, clock.shared(), &options);
    let token = fake.token("demo");
    assert!(context(&keystone, &token).await.is_some());
    fake.revoke(&token);
    assert!(context(&keystone, &token).await.is_none());
}

#[tokio::test]
async fn the_services_own_token_is_made_anew_from_credentials_before_it_expires() {
    let (clock, fake, keystone) = house().await;
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    assert_eq!(fake.asked(), ["POST /auth/tokens", "GET /auth/tokens"]);
    clock.turn(Duration::from_secs(3600 - 121));
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    assert_eq!(fake.asked(), ["GET /auth/tokens"]);
    clock.turn(Duration::from_secs(1));
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    assert_eq!(fake.asked(), ["POST /auth/tokens", "GET /auth/tokens"]);
}

#[tokio::test]
async fn the_services_own_token_is_made_anew_when_keystone_refuses_it() {
    let (_, fake, keystone) = house().await;
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    fake.revoke_all();
    fake.asked();
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
    let looks = ["GET /auth/tokens", "POST /auth/tokens", "GET /auth/tokens"];
    assert_eq!(fake.asked(), looks);
}

/// Not knowing is not the same as not trusting: 503, never 401.
#[tokio::test]
async fn trouble_with_keystone_is_not_the_clients_fault() {
    let (clock, fake, keystone) = house().await;
    let token = fake.token("demo");
    for status in [429, 500, 503] {
        fake.trouble(Some(status));
        let error = keystone.identify(&secret(&token)).await.unwrap_err();
        assert!(matches!(error, IdentityError::Away(_)), "{error}");
        let error = ApiError::from(error);
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
    fake.trouble(None);
    fake.change_password("another");
    clock.turn(Duration::from_secs(1));
    let error = keystone.identify(&secret(&token)).await.unwrap_err();
    assert!(matches!(error, IdentityError::Credentials(_)), "{error}");
    assert_eq!(ApiError::from(error).kind, ErrorKind::Unavailable);
    // Refused credentials are left alone for a moment, then tried again.
    fake.asked();
    fake.change_password(FakeKeystone::PASSWORD);
    assert!(keystone.identify(&secret(&token)).await.is_err());
    assert!(fake.asked().is_empty());
    clock.turn(Duration::from_secs(5));
    assert!(context(&keystone, &token).await.is_some());

    let nobody = crate::keystone("http://127.0.0.1:1", clock.shared(), &[]);
    let error = nobody.identify(&secret(&token)).await.unwrap_err();
    assert!(matches!(error, IdentityError::Away(_)), "{error}");
}

#[tokio::test]
async fn a_trust_lets_us_act_for_its_owner_until_it_is_gone() {
    let (_, fake, keystone) = house().await;
    let token = fake.token("demo");
    let owner = context(&keystone, &token).await.unwrap();
    let trust = keystone
        .create_trust(&secret(&token), &owner)
        .await
        .unwrap();
    let made = &fake.trusts()[0];
    assert_eq!(made["trustor_user_id"], "demo");
    assert_eq!(made["trustee_user_id"], "karbor");
    assert_eq!(made["project_id"], "p1");
    assert_eq!(made["impersonation"], true);
    fake.revoke(&token);
    let acting = keystone.by_trust(&trust, RequestId::new()).await.unwrap();
    assert_eq!(acting.user_id, owner.user_id);
    assert_eq!(acting.project_id, owner.project_id);
    assert_eq!(acting.roles, owner.roles);

    keystone.delete_trust(&trust).await.unwrap();
    assert!(fake.trusts().is_empty());
    let gone = keystone.by_trust(&trust, RequestId::new()).await;
    assert!(matches!(gone, Err(TrustError::Gone { .. })), "{gone:?}");
    keystone.delete_trust(&trust).await.unwrap();
}

/// Keystone answers both with 401; the operation of a trust that is only thought gone would be disabled.
#[tokio::test]
async fn a_wrong_password_is_not_taken_for_a_trust_that_is_gone() {
    let (_, fake, keystone) = house().await;
    let token = fake.token("demo");
    let owner = context(&keystone, &token).await.unwrap();
    let trust = keystone
        .create_trust(&secret(&token), &owner)
        .await
        .unwrap();
    fake.change_password("another");
    let error = keystone.by_trust(&trust, RequestId::new()).await;
    let wanted = Err(TrustError::Identity(IdentityError::Credentials(
        String::new(),
    )));
    assert_eq!(
        error.as_ref().map_err(std::mem::discriminant),
        wanted.as_ref().map_err(std::mem::discriminant),
        "{error:?}"
    );
    fake.trouble(Some(503));
    let error = keystone.by_trust(&trust, RequestId::new()).await;
    assert!(matches!(error, Err(TrustError::Identity(_))), "{error:?}");
}

#[tokio::test]
async fn a_token_that_may_give_no_trusts_is_told_so() {
    let (_, fake, keystone) = house().await;
    let owner = context(&keystone, &fake.token("demo")).await.unwrap();
    let refused = keystone
        .create_trust(&secret(&fake.token("alt")), &owner)
        .await;
    assert!(
        matches!(refused, Err(TrustError::NotGiven(_))),
        "{refused:?}"
    );
    assert_eq!(
        ApiError::from(refused.unwrap_err()).kind,
        ErrorKind::Forbidden
    );
}

#[tokio::test]
async fn trusts_can_have_a_user_of_their_own() {
    let clock = FakeClock::new();
    let fake = FakeKeystone::start(clock.clone()).await;
    let options = [
        ("trustee", "username", "alt"),
        ("trustee", "password", "secret"),
    ];
    let keystone = keystone(&fake.url, clock.shared(), &options);
    let token = fake.token("demo");
    let owner = context(&keystone, &token).await.unwrap();
    let trust = keystone
        .create_trust(&secret(&token), &owner)
        .await
        .unwrap();
    assert_eq!(fake.trusts()[0]["trustee_user_id"], "alt");
    assert!(keystone.by_trust(&trust, RequestId::new()).await.is_ok());
}

#[tokio::test]
async fn other_services_are_found_in_the_catalog() {
    let (_, _fake, keystone) = house().await;
    let catalog = keystone.catalog().await.unwrap();
    let found = catalog.endpoint(&["data-protect"], Interface::Public, Some("one"));
    assert_eq!(found.unwrap().url, "http://127.0.0.1:1/v1/service");
}

#[tokio::test]
async fn many_at_once_learn_together_that_keystone_is_away() {
    let (clock, fake, keystone) = house().await;
    fake.trouble(Some(503));
    let keystone = Arc::new(keystone);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (keystone, token) = (keystone.clone(), secret(&fake.token("demo")));
        asking.spawn(async move { keystone.identify(&token).await.is_err() });
    }
    assert!(asking.join_all().await.into_iter().all(|failed| failed));
    assert_eq!(fake.asked(), ["POST /auth/tokens"]);
    fake.trouble(None);
    clock.turn(Duration::from_secs(1));
    assert!(context(&keystone, &fake.token("demo")).await.is_some());
}

#[tokio::test]
async fn many_at_once_make_one_token_of_our_own() {
    let (_, fake, keystone) = house().await;
    let keystone = Arc::new(keystone);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (keystone, token) = (keystone.clone(), fake.token("demo"));
        asking.spawn(async move { context(&keystone, &token).await.is_some() });
    }
    assert!(asking.join_all().await.into_iter().all(|known| known));
    let logins = fake.asked();
    let logins = logins.iter().filter(|line| line.starts_with("POST"));
    assert_eq!(logins.count(), 1);
}
