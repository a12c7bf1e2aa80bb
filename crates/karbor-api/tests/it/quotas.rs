//! Quotas: the recorded exchanges, and what the original got wrong.

use serde_json::{Value, json};

use crate::app::{App, OTHER, PROJECT, app, app_with, plan_body};

const QUOTA: &str = "d0000000000000000000000000000004";

async fn put(app: &App, body: Value) -> (u16, Value) {
    let answer = app.call("PUT", &format!("/quotas/{QUOTA}"), body).await;
    (answer.status, answer.json())
}

async fn body(app: &App, path: &str) -> Value {
    let answer = app.get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

/// Recordings 098 to 104.
#[tokio::test]
async fn a_quotas_life_as_recorded() {
    let app = app().await;
    let unset = json!({"quota": {"plans": 50, "checkpoints": -1, "id": QUOTA}});
    let at = format!("/quotas/{QUOTA}");
    assert_eq!(body(&app, &format!("{at}/defaults")).await, unset);
    assert_eq!(body(&app, &at).await, unset);
    let free = |limit| json!({"limit": limit, "in_use": 0, "reserved": 0});
    assert_eq!(
        body(&app, &format!("{at}/detail")).await,
        json!({"quota": {"plans": free(50), "checkpoints": free(-1), "id": QUOTA}})
    );
    let (status, updated) = put(&app, json!({"quota": {"plans": 0}})).await;
    assert_eq!(status, 200);
    assert_eq!(updated, json!({"quota": {"plans": 0, "checkpoints": -1}}));
    let answer = app.call("DELETE", &at, Value::Null).await;
    assert_eq!((answer.status, answer.bytes.len()), (200, 0));
    assert_eq!(body(&app, &at).await, unset);
}

/// Recording 102.
#[tokio::test]
async fn a_plan_too_many_is_refused_as_recorded() {
    let app = app().await;
    let at = format!("/quotas/{PROJECT}");
    let zero = json!({"quota": {"plans": 0}});
    assert_eq!(app.call("PUT", &at, zero).await.status, 200);
    let answer = app.call("POST", "/plans", plan_body(Value::Null)).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("retry-after"), "0");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({"overLimit": {
            "code": 413,
            "message": "Maximum number of plans allowed (0) exceeded",
            "retryAfter": "0",
        }})
    );
    let one = json!({"quota": {"plans": 1}});
    assert_eq!(app.call("PUT", &at, one).await.status, 200);
    let id = app.plan(Value::Null).await;
    let detail = body(&app, &format!("{at}/detail")).await;
    assert_eq!(
        detail["quota"]["plans"],
        json!({"limit": 1, "in_use": 1, "reserved": 0})
    );
    let answer = app.call("POST", "/plans", plan_body(Value::Null)).await;
    assert_eq!(answer.status, 413);
    app.call("DELETE", &format!("/plans/{id}"), Value::Null)
        .await;
    app.plan(Value::Null).await;
}

/// Recordings 105 and 106.
#[tokio::test]
async fn classes_as_recorded() {
    let app = app().await;
    assert_eq!(
        body(&app, "/quota_classes/default").await,
        json!({"quota_class": {"plans": 50, "checkpoints": -1, "id": "default"}})
    );
    let eleven = json!({"quota_class": {"plans": 11}});
    let answer = app.call("PUT", "/quota_classes/corpus", eleven).await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            200,
            json!({"quota_class": {"plans": 11, "checkpoints": -1}})
        )
    );
    assert_eq!(
        body(&app, "/quota_classes/corpus").await["quota_class"]["plans"],
        11
    );
}

/// The class `default` is the default, and a project may be put in another.
#[tokio::test]
async fn q61_q77_classes_limit_projects() {
    let app = app().await;
    let five = json!({"quota_class": {"plans": 5}});
    app.call("PUT", "/quota_classes/default", five).await;
    let none = json!({"quota_class": {"plans": 0}});
    app.call("PUT", "/quota_classes/none", none).await;
    let at = format!("/quotas/{PROJECT}");
    assert_eq!(body(&app, &at).await["quota"]["plans"], 5);
    assert_eq!(
        body(&app, &format!("{at}/defaults")).await["quota"]["plans"],
        5
    );
    let answer = app
        .call("PUT", &at, json!({"quota": {"class": "none"}}))
        .await;
    assert_eq!(
        answer.json(),
        json!({"quota": {"plans": 0, "checkpoints": -1, "class": "none"}})
    );
    let answer = app.call("POST", "/plans", plan_body(Value::Null)).await;
    assert_eq!(answer.status, 413);
    let answer = app
        .call("PUT", &at, json!({"quota": {"class": null}}))
        .await;
    assert_eq!(
        answer.json(),
        json!({"quota": {"plans": 5, "checkpoints": -1}})
    );
    app.plan(Value::Null).await;
}

/// Bytes are shown to those who limit them.
#[tokio::test]
async fn bytes_can_be_limited() {
    let app = app().await;
    let (_, limited) = put(&app, json!({"quota": {"bytes": 1_i64 << 40}})).await;
    let expected = json!({"quota": {"plans": 50, "checkpoints": -1, "bytes": 1_i64 << 40}});
    assert_eq!(limited, expected);
    let detail = body(&app, &format!("/quotas/{QUOTA}/detail")).await;
    assert_eq!(
        detail["quota"]["bytes"],
        json!({"limit": 1_i64 << 40, "in_use": 0, "reserved": 0})
    );
    let (_, unlimited) = put(&app, json!({"quota": {"bytes": -1}})).await;
    assert_eq!(
        unlimited,
        json!({"quota": {"plans": 50, "checkpoints": -1}})
    );
}

#[tokio::test]
async fn q57_q58_q59_q60_bad_limits_are_named() {
    let app = app().await;
    for (given, message) in [
        (
            json!({"plans": true}),
            "Quota 'True' for plans should be integer.",
        ),
        (
            json!({"plans": ""}),
            "Quota '' for plans should be integer.",
        ),
        (
            json!({"plans": null}),
            "Invalid input for field/attribute plans. Value: None. None is not of type 'boolean', \
             'string', 'integer'",
        ),
        (
            json!({"plans": 1.5}),
            "Invalid input for field/attribute plans. Value: 1.5. 1.5 is not of type 'boolean', \
             'string', 'integer'",
        ),
        (
            json!({"plans": "ten"}),
            "Quota 'ten' for plans should be integer.",
        ),
        (json!({"plans": -2}), "Quota limit must be -1 or greater."),
        (
            json!({"volumes": 3}),
            "There is no quota of 'volumes': give one of plans, checkpoints, bytes.",
        ),
    ] {
        for (kind, path) in [
            ("quota", format!("/quotas/{QUOTA}")),
            ("quota_class", "/quota_classes/c".to_owned()),
        ] {
            let answer = app.call("PUT", &path, json!({kind: given.clone()})).await;
            assert_eq!(answer.fault(400), message);
        }
    }
    for null in [json!({"quota": null}), json!({}), json!({"quota": [1]})] {
        assert_eq!(put(&app, null).await.0, 400);
    }
    let answer = app.get("/quotas/nobody").await;
    assert_eq!(answer.fault(400), "Invalid project id provided.");
    let long = format!("/quota_classes/{}", "c".repeat(256));
    assert_eq!(app.get(&long).await.status, 400);
    assert_eq!(put(&app, json!({"quota": {"class": 5}})).await.0, 400);
    // Texts of numbers, and what names the project, are fine.
    let (status, set) = put(
        &app,
        json!({"quota": {"plans": " 7 ", "tenant_id": "x", "id": 1}}),
    )
    .await;
    assert_eq!((status, &set["quota"]["plans"]), (200, &json!(7)));
    for path in ["/quotas", "/quota_classes", "/quotas/new"] {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
}

/// Q62: a member may read its own quota and every class, and change nothing.
#[tokio::test]
async fn q62_what_a_member_may() {
    let app = app().await;
    let as_member = async |method: &str, path: &str, body: Value| {
        let answer = app.call_as(&app.member, PROJECT, method, path, body).await;
        (answer.status, answer)
    };
    for path in [
        format!("/quotas/{PROJECT}"),
        format!("/quotas/{PROJECT}/detail"),
        format!("/quotas/{PROJECT}/defaults"),
        format!("/quotas/{OTHER}/defaults"),
        "/quota_classes/default".to_owned(),
    ] {
        assert_eq!(as_member("GET", &path, Value::Null).await.0, 200, "{path}");
    }
    for path in [
        format!("/quotas/{OTHER}"),
        format!("/quotas/{OTHER}/detail"),
    ] {
        let (_, answer) = as_member("GET", &path, Value::Null).await;
        let message = "Access was denied to this resource.";
        assert_eq!(answer.fault(403), message);
    }
    let own = format!("/quotas/{PROJECT}");
    for (method, path, rule) in [
        ("PUT", own.as_str(), "quota:update"),
        ("DELETE", own.as_str(), "quota:delete"),
        ("PUT", "/quota_classes/c", "quota_class:update"),
    ] {
        // Recording 103. The rights come before the body.
        let (_, answer) = as_member(method, path, json!({"quota": {"plans": 1}})).await;
        let message = format!("Policy doesn't allow {rule} to be performed.");
        assert_eq!(answer.fault(403), message);
    }
}

/// What the protection manager refuses for the quota, clients are told as the original told it.
#[tokio::test]
async fn a_checkpoint_too_many_is_refused() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let over = karbor_db::DbError::OverQuota {
        resource: karbor_model::QuotaResource::Checkpoints,
        limit: 3,
    };
    *app.protection.refusal.lock().unwrap() = Some(over.into());
    let path = format!("/providers/{}/checkpoints", crate::app::NOOP);
    let answer = app
        .call("POST", &path, json!({"checkpoint": {"plan_id": plan}}))
        .await;
    assert_eq!(answer.status, 413);
    let message = "Maximum number of checkpoints allowed (3) exceeded";
    assert_eq!(answer.json()["overLimit"]["message"], message);
}

#[tokio::test]
async fn a_project_with_a_name_has_a_quota_unless_the_name_is_too_long() {
    let app = app_with(&[("DEFAULT", "auth_strategy", "noauth")]).await;
    for (project, status) in [("shop", 200), (&*"s".repeat(256), 400)] {
        let path = format!("/quotas/{project}");
        let body = json!({"quota": {"plans": 7}});
        let answer = app.call_as("admin:home", "home", "PUT", &path, body).await;
        assert_eq!(answer.status, status, "{}", answer.json());
    }
}
