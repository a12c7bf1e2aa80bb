//! Users that come from keystone.

use std::{collections::BTreeMap, time::Duration};

use karbor_db::ListQuery;
use karbor_manager::Clock;
use karbor_model::{ScheduledOperation, ScheduledOperationId, ScheduledOperationType};
use karbor_testkit::{FakeClock, FakeKeystone};
use serde_json::{Value, json};

use crate::app::{App, NOOP, app_with, plan_body};

async fn house() -> (App, FakeKeystone) {
    let fake = FakeKeystone::start(FakeClock::new()).await;
    let group = "keystone_authtoken";
    let options = [
        ("DEFAULT", "auth_strategy", "keystone"),
        (group, "auth_url", &fake.url),
        (
            group,
            "www_authenticate_uri",
            "https://login.example/identity",
        ),
        (group, "username", "karbor"),
        (group, "password", FakeKeystone::PASSWORD),
    ];
    (app_with(&options).await, fake)
}

#[tokio::test]
async fn a_token_opens_its_own_project() {
    let (app, fake) = house().await;
    let list = async |token: &str, project| {
        app.call_as(token, project, "GET", "/plans", Value::Null)
            .await
    };
    let token = fake.token("demo");
    assert_eq!(list(&token, "p1").await.status, 200);
    assert_eq!(list(&token, "p2").await.fault(400), "Malformed request url");
    assert_eq!(list(&fake.token("alt"), "p2").await.status, 200);
    let unscoped = list(&fake.unscoped_token("demo"), "p1").await.fault(403);
    assert!(unscoped.contains("scoped to a project"), "{unscoped}");
    // A token of our own is none of keystone's.
    assert_eq!(list(&app.admin, "p1").await.status, 401);
}

/// As recorded (002_unauthorized).
#[tokio::test]
async fn who_comes_without_a_good_token_is_sent_to_keystone() {
    let (app, _fake) = house().await;
    for token in [None, Some(""), Some("bogus")] {
        let answer = app.raw("GET", "/v1/p1/plans", token, Vec::new()).await;
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.header("www-authenticate"),
            "Keystone uri=\"https://login.example/identity\""
        );
        let told = json!({"error": {
            "code": 401,
            "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }});
        assert_eq!(answer.json(), told);
    }
}

#[tokio::test]
async fn roles_decide_what_a_bearer_may_do() {
    let (app, fake) = house().await;
    let services = async |token: &str| {
        let answer = app.call_as(token, "p1", "GET", "/os-services", Value::Null);
        answer.await.status
    };
    assert_eq!(services(&fake.token("demo")).await, 403);
    assert_eq!(services(&fake.token("admin")).await, 200);
}

#[tokio::test]
async fn a_revoked_token_passes_no_longer_than_the_window() {
    let (app, fake) = house().await;
    let token = fake.token("demo");
    let status = async || {
        app.call_as(&token, "p1", "GET", "/plans", Value::Null)
            .await
            .status
    };
    assert_eq!(status().await, 200);
    fake.revoke(&token);
    assert_eq!(status().await, 200);
    app.clock.turn(Duration::from_secs(60));
    assert_eq!(status().await, 401);
}

#[tokio::test]
async fn keystone_away_is_503_and_not_401() {
    let (app, fake) = house().await;
    let token = fake.token("demo");
    fake.trouble(Some(503));
    let away = app
        .call_as(&token, "p1", "GET", "/plans", Value::Null)
        .await;
    let told = away.fault(503);
    assert!(told.contains("Try again"), "{told}");
    fake.trouble(None);
    fake.change_password("another");
    app.clock.turn(Duration::from_secs(1));
    let refused = app
        .call_as(&token, "p1", "GET", "/plans", Value::Null)
        .await;
    let told = refused.fault(503);
    assert!(told.contains("operator"), "{told}");
}

/// The service had a password when the operation was made, and an application credential now: it takes no
/// trust any more, so it cannot end one either.
#[tokio::test]
async fn an_operation_can_be_deleted_when_nobody_can_end_its_trust() {
    let fake = FakeKeystone::start(FakeClock::new()).await;
    let group = "keystone_authtoken";
    let options = [
        ("DEFAULT", "auth_strategy", "keystone"),
        (group, "auth_url", fake.url.as_str()),
        (group, "auth_type", "v3applicationcredential"),
        (group, "application_credential_id", "karbor"),
        (
            group,
            "application_credential_secret",
            FakeKeystone::PASSWORD,
        ),
    ];
    let app = app_with(&options).await;
    let token = fake.token("demo");
    let refused = schedule(&app, &token).await;
    let told = refused.fault(503);
    assert!(told.contains("no user to take trusts"), "{told}");
    let triggers = app
        .db
        .schedules()
        .trigger_list(&ListQuery::of_every_project())
        .await
        .unwrap();
    let operation = ScheduledOperation {
        id: ScheduledOperationId::new(),
        name: "nightly".to_owned(),
        description: None,
        operation_type: ScheduledOperationType::Protect,
        user_id: "demo".to_owned(),
        project_id: "p1".to_owned(),
        trigger_id: triggers[0].id,
        operation_definition: BTreeMap::new(),
        enabled: true,
        created_at: app.clock.now(),
        updated_at: None,
    };
    let id = operation.id;
    app.db
        .schedules()
        .operation_create(&operation, None)
        .await
        .unwrap();
    let services = app.db.services();
    let service = services.register("host", "karbor-operationengine", "t");
    let service = service.await.unwrap().id;
    let schedules = app.db.schedules();
    let registered = schedules.operation_register(id, service, Some("trust-1"));
    registered.await.unwrap();
    let path = format!("/scheduled_operations/{id}");
    let gone = app
        .call_as(&token, "p1", "DELETE", &path, Value::Null)
        .await;
    assert_eq!(gone.status, 200, "{}", gone.json());
    app.db.schedules().operation_get(id).await.unwrap_err();
}

async fn schedule(app: &App, token: &str) -> crate::app::Answer {
    let plan = app
        .call_as(token, "p1", "POST", "/plans", plan_body(Value::Null))
        .await;
    let plan = plan.json()["plan"]["id"].as_str().unwrap().to_owned();
    let properties = json!({"format": "crontab", "pattern": "0 3 * * *"});
    let trigger = json!({"trigger_info": {"name": "t", "type": "time", "properties": properties}});
    let trigger = app.call_as(token, "p1", "POST", "/triggers", trigger).await;
    let trigger = trigger.json()["trigger_info"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let definition = json!({"provider_id": NOOP, "plan_id": plan});
    let operation = json!({"scheduled_operation": {
        "name": "nightly",
        "operation_type": "protect",
        "trigger_id": trigger,
        "operation_definition": definition,
    }});
    app.call_as(token, "p1", "POST", "/scheduled_operations", operation)
        .await
}

#[tokio::test]
async fn a_scheduled_operation_gets_a_trust_of_its_owner() {
    let (app, fake) = house().await;
    let token = fake.token("demo");
    let made = schedule(&app, &token).await;
    assert_eq!(made.status, 200, "{}", made.json());
    let trusts = fake.trusts();
    assert_eq!(trusts.len(), 1);
    assert_eq!(trusts[0]["trustor_user_id"], "demo");
    let calls = app.engine.calls.lock().unwrap().clone();
    let create = calls
        .iter()
        .find_map(|call| call.get("create_scheduled_operation"));
    assert_eq!(create.unwrap()[1], trusts[0]["id"]);
    // Nothing that is written down or sent on holds the token.
    assert!(!format!("{calls:?}").contains(&token));

    let id = made.json()["scheduled_operation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let service = app
        .db
        .services()
        .register("host", "karbor-operationengine", "t")
        .await;
    let service = service.unwrap().id;
    let trust = trusts[0]["id"].as_str();
    let schedules = app.db.schedules();
    let registered = schedules.operation_register(id.parse().unwrap(), service, trust);
    registered.await.unwrap();
    let path = format!("/scheduled_operations/{id}");
    fake.trouble(Some(503));
    let away = app
        .call_as(&token, "p1", "DELETE", &path, Value::Null)
        .await;
    away.fault(503);
    fake.trouble(None);
    let gone = app
        .call_as(&token, "p1", "DELETE", &path, Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    assert!(fake.trusts().is_empty());
}

#[tokio::test]
async fn an_operation_that_is_refused_leaves_no_trust() {
    let (app, fake) = house().await;
    app.engine.deaf_to("create_scheduled_operation");
    let refused = schedule(&app, &fake.token("demo")).await;
    refused.fault(503);
    let asked = fake.asked();
    assert!(
        asked.contains(&"POST /OS-TRUST/trusts".to_owned()),
        "{asked:?}"
    );
    assert!(fake.trusts().is_empty());
}
