//! Scheduled operations.

use karbor_db::ListQuery;
use karbor_model::{ApiError, ErrorKind};
use serde_json::{Value, json};

use crate::{
    app::{App, HOST, NOBODY, NOOP, OTHER, PROJECT, app, plan_body},
    triggers::trigger,
};

/// What creates a scheduled operation, with something more in its definition.
pub fn body(trigger: &str, plan: &str, definition: Value) -> Value {
    let mut all = json!({"provider_id": NOOP, "plan_id": plan});
    if let Value::Object(definition) = definition {
        for (key, value) in definition {
            all[key] = value;
        }
    }
    json!({"scheduled_operation": {
        "name": "corpus-op", "description": "d", "operation_type": "retention_protect",
        "trigger_id": trigger, "operation_definition": all,
    }})
}

async fn post(app: &App, body: Value) -> crate::app::Answer {
    app.call("POST", "/scheduled_operations", body).await
}

async fn made(app: &App) -> (String, String, String) {
    let (trigger, plan) = (trigger(app, "t").await, app.plan(Value::Null).await);
    let answer = post(app, body(&trigger, &plan, json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let id = answer.json()["scheduled_operation"]["id"].clone();
    (id.as_str().unwrap().to_owned(), trigger, plan)
}

async fn nothing_stays(app: &App) {
    let all = app
        .db
        .schedules()
        .operation_list(&ListQuery::of_every_project())
        .await;
    assert_eq!(all.unwrap(), []);
}

/// Made, shown, listed, deleted, as recorded. Q41: numbers come back as texts. Q44: the key of the
/// list is `operations`. Q39: what its trigger says while it is there.
#[tokio::test]
async fn q39_q41_q44_an_operation_as_recorded() {
    let app = app().await;
    let (trigger, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    let extra = json!({"max_backups": 3, "retention_duration": "14", "odd": true});
    let answer = post(&app, body(&trigger, &plan, extra)).await;
    let id = answer.json()["scheduled_operation"]["id"].clone();
    let expected = json!({
        "id": id, "name": "corpus-op", "description": "d", "operation_type": "retention_protect",
        "trigger_id": trigger, "enabled": true, "operation_definition": {
            "provider_id": NOOP, "plan_id": plan,
            "max_backups": "3", "retention_duration": "14", "odd": "True",
        },
    });
    assert_eq!(answer.json(), json!({"scheduled_operation": expected}));
    let path = format!("/scheduled_operations/{}", id.as_str().unwrap());
    assert_eq!(
        app.get(&path).await.json(),
        json!({"scheduled_operation": expected})
    );
    assert_eq!(
        app.get("/scheduled_operations").await.json(),
        json!({"operations": [expected]})
    );

    let trigger_path = format!("/triggers/{trigger}");
    assert_eq!(
        app.call("DELETE", &trigger_path, Value::Null)
            .await
            .fault(424),
        "Trigger is being used by one or more operations"
    );
    let gone = app.call("DELETE", &path, Value::Null).await;
    assert_eq!((gone.status, gone.bytes.len()), (200, 0));
    let missing = format!(
        "Scheduled Operation {} could not be found.",
        id.as_str().unwrap()
    );
    assert_eq!(app.get(&path).await.fault(404), missing);
    assert_eq!(
        app.call("DELETE", &path, Value::Null).await.fault(404),
        missing
    );
    assert_eq!(
        app.call("DELETE", &trigger_path, Value::Null).await.status,
        200
    );
}

/// As recorded, and Q43: an unknown plan was a 500.
#[tokio::test]
async fn q43_what_cannot_be_scheduled() {
    let app = app().await;
    let (trigger, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    let refused = async |key: &str, value: Value| {
        let mut body = body(&trigger, &plan, json!({}));
        match value {
            Value::Null => drop(
                body["scheduled_operation"]
                    .as_object_mut()
                    .unwrap()
                    .remove(key),
            ),
            value => body["scheduled_operation"][key] = value,
        }
        post(&app, body).await
    };
    for (key, value, message) in [
        (
            "operation_type",
            json!("bogus"),
            "Invalid operation type: bogus",
        ),
        (
            "name",
            Value::Null,
            "Operation name or type or definition is not provided.",
        ),
        (
            "operation_type",
            json!(""),
            "Operation name or type or definition is not provided.",
        ),
        (
            "trigger_id",
            json!("abc"),
            "Invalid input for field/attribute trigger_id. Value: abc. 'abc' is not a 'uuid'",
        ),
        (
            "operation_definition",
            json!({"provider_id": HOST, "plan_id": plan}),
            "Invalid operation definition, reason:Provider_id is conflict",
        ),
    ] {
        assert_eq!(refused(key, value).await.fault(400), message);
    }
    for definition in [
        json!({}),
        json!({"provider_id": NOOP}),
        json!({"provider_id": NOOP, "plan_id": plan, "odd": null}),
        json!({"provider_id": NOOP, "plan_id": plan, "odd": {"a": 1}}),
        json!({"provider_id": NOOP, "plan_id": plan, "odd": "x".repeat(256)}),
    ] {
        let message = refused("operation_definition", definition).await.fault(400);
        assert!(
            message.contains("Invalid input for field/attribute"),
            "{message}"
        );
    }
    let many: serde_json::Map<String, Value> = (0..200)
        .map(|n| (format!("k{n}"), json!("x".repeat(255))))
        .collect();
    let answer = post(&app, body(&trigger, &plan, Value::Object(many))).await;
    assert!(answer.fault(400).contains("operation_definition has"));
    assert_eq!(
        refused("trigger_id", json!(NOBODY)).await.fault(404),
        format!("Trigger {NOBODY} could not be found.")
    );
    let unknown = json!({"provider_id": NOOP, "plan_id": NOBODY});
    assert_eq!(
        refused("operation_definition", unknown).await.fault(404),
        format!("Plan {NOBODY} could not be found.")
    );
    for method in ["GET", "DELETE"] {
        let answer = app.call(method, "/scheduled_operations/abc", Value::Null);
        assert_eq!(answer.await.fault(400), "Invalid operation id provided.");
    }
    nothing_stays(&app).await;
    assert!(
        !app.engine
            .names()
            .contains(&"create_scheduled_operation".to_owned())
    );
}

/// Q65: the original's engine read the plan as an administrator. Nobody schedules another project's.
#[tokio::test]
async fn q65_another_projects_plan_is_not_scheduled() {
    let app = app().await;
    let (mine, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    let theirs = app
        .call_as(
            &app.other,
            OTHER,
            "POST",
            "/triggers",
            crate::triggers::body(json!({})),
        )
        .await
        .json();
    let theirs = theirs["trigger_info"]["id"].as_str().unwrap();
    let all = "/scheduled_operations";
    let foreign_plan = body(theirs, &plan, json!({}));
    let answer = app
        .call_as(&app.other, OTHER, "POST", all, foreign_plan)
        .await;
    assert_eq!(
        answer.fault(404),
        format!("Plan {plan} could not be found.")
    );
    let foreign_trigger = body(&mine, &plan, json!({}));
    let answer = app
        .call_as(&app.other, OTHER, "POST", all, foreign_trigger)
        .await;
    assert_eq!(answer.fault(400), "Invalid trigger id provided.");
    // Not even an administrator: the operation would run in the wrong project.
    let made = app
        .call_as(&app.other, OTHER, "POST", "/plans", plan_body(Value::Null))
        .await;
    let theirs = made.json()["plan"]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        post(&app, body(&mine, &theirs, json!({}))).await.fault(400),
        "Invalid operation definition, reason:The plan belongs to another project"
    );
    nothing_stays(&app).await;
}

/// What the engine does not take on is not there, whatever its reason was.
#[tokio::test]
async fn a_refused_operation_leaves_nothing() {
    let app = app().await;
    let (trigger, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    for (error, status) in [
        (ApiError::invalid_input("max_backups must be a number"), 400),
        (ApiError::unavailable("No engine is up.", "cause"), 503),
        (
            ApiError::new(ErrorKind::Timeout, "MessagingTimeout", "No answer in time."),
            504,
        ),
    ] {
        let message = error.message.clone();
        *app.engine.refusal.lock().unwrap() = Some(error);
        let answer = post(&app, body(&trigger, &plan, json!({}))).await;
        assert_eq!(answer.fault(status), message);
        nothing_stays(&app).await;
    }
}

/// An engine that does not let go keeps the record: the client asks again.
#[tokio::test]
async fn a_deletion_that_was_interrupted_can_be_asked_for_again() {
    let app = app().await;
    let (id, ..) = made(&app).await;
    let path = format!("/scheduled_operations/{id}");
    let away = ApiError::unavailable("No engine is up.", "cause");
    *app.engine.refusal.lock().unwrap() = Some(away);
    app.call("DELETE", &path, Value::Null).await.fault(503);
    assert_eq!(app.get(&path).await.status, 200);
    *app.engine.refusal.lock().unwrap() = None;
    assert_eq!(app.call("DELETE", &path, Value::Null).await.status, 200);
    nothing_stays(&app).await;
}

#[tokio::test]
async fn projects_are_apart() {
    let app = app().await;
    let (id, ..) = made(&app).await;
    let path = format!("/scheduled_operations/{id}");
    let pause = json!({"scheduled_operation": {"enabled": false}});
    // The rule of what the original was not recorded to admit: it is not there.
    for (method, body) in [
        ("GET", Value::Null),
        ("PATCH", pause),
        ("DELETE", Value::Null),
    ] {
        let answer = app.call_as(&app.other, OTHER, method, &path, body).await;
        assert_eq!(
            answer.fault(404),
            format!("Scheduled Operation {id} could not be found."),
            "{method}"
        );
    }
    for query in ["", "?all_tenants=1", &format!("?project_id={PROJECT}")] {
        let path = format!("/scheduled_operations{query}");
        let answer = app
            .call_as(&app.other, OTHER, "GET", &path, Value::Null)
            .await;
        assert_eq!(answer.json(), json!({"operations": []}), "{query}");
    }
    let mine = app.call_as(
        &app.member,
        PROJECT,
        "GET",
        "/scheduled_operations",
        Value::Null,
    );
    assert_eq!(mine.await.json()["operations"][0]["id"], json!(id));
}

/// Q12, Q13, Q40, as for triggers.
#[tokio::test]
async fn q12_q13_q40_operations_are_listed_as_asked() {
    let app = app().await;
    let (trigger, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let mut body = body(&trigger, &plan, json!({}));
        body["scheduled_operation"]["name"] = json!(name);
        let answer = post(&app, body).await.json();
        ids.push(answer["scheduled_operation"]["id"].clone());
        app.clock.turn(std::time::Duration::from_secs(1));
    }
    let listed = async |query: &str| {
        let page = app
            .get(&format!("/scheduled_operations?{query}"))
            .await
            .json();
        let operations = page["operations"].as_array().unwrap();
        operations
            .iter()
            .map(|o| o["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("sort=name:asc&offset=1").await, ids[1..]);
    assert_eq!(listed("name=b").await, ids[1..2]);
    // As of plans, what is no filter filters nothing.
    assert_eq!(listed("name=b&bogus=1").await, ids[1..2]);
    assert_eq!(
        listed(&format!("trigger_id={NOBODY}")).await,
        [] as [Value; 0]
    );
    assert_eq!(
        listed(&format!(
            "trigger_id={trigger}&operation_type=retention_protect"
        ))
        .await
        .len(),
        3
    );
    assert_eq!(listed("operation_type=protect").await.len(), 0);
    assert_eq!(
        listed(&format!("operation_definition={plan}")).await.len(),
        3
    );
    let page = app
        .get("/scheduled_operations?limit=2&sort=id:asc")
        .await
        .json();
    let link = page["operations_links"][0]["href"].as_str().unwrap();
    let start = format!("http://127.0.0.1:18799/v1/{PROJECT}/scheduled_operations?limit=2");
    assert!(link.starts_with(&start), "{link}");
    let next = app.get(link.split(PROJECT).nth(1).unwrap()).await.json();
    assert_eq!(next["operations"].as_array().unwrap().len(), 1);
    assert!(next.get("operations_links").is_none());
    for (query, status, named) in [
        (format!("marker={NOBODY}"), 404, NOBODY),
        ("sort=bogus".to_owned(), 400, "bogus"),
    ] {
        let message = app
            .get(&format!("/scheduled_operations?{query}"))
            .await
            .fault(status);
        assert!(message.contains(named), "{query}: {message}");
    }
}

/// An operation without its plan could only fail: it stays, disabled, to be deleted as ever.
#[tokio::test]
async fn operations_outlive_their_plan_disabled() {
    let app = app().await;
    let (trigger, plan) = (trigger(&app, "t").await, app.plan(Value::Null).await);
    let shouted = plan.to_uppercase();
    let mut ids = Vec::new();
    for plan in [&shouted, &app.plan(Value::Null).await] {
        let answer = post(&app, body(&trigger, plan, json!({}))).await.json();
        let id = answer["scheduled_operation"]["id"].as_str().unwrap();
        ids.push(format!("/scheduled_operations/{id}"));
    }
    let path = format!("/plans/{plan}");
    assert_eq!(app.call("DELETE", &path, Value::Null).await.status, 200);
    for (path, enabled) in ids.iter().zip([false, true]) {
        let shown = app.get(path).await.json();
        assert_eq!(shown["scheduled_operation"]["enabled"], enabled, "{shown}");
        let gone = app.call("DELETE", path, Value::Null).await;
        assert_eq!(gone.status, 200);
    }
}

/// Ours: an operation can be paused.
#[tokio::test]
async fn an_operation_is_paused_and_goes_on() {
    let app = app().await;
    let (id, _, plan) = made(&app).await;
    let path = format!("/scheduled_operations/{id}");
    let set = async |enabled: Value| {
        let body = json!({"scheduled_operation": {"enabled": enabled}});
        app.call("PATCH", &path, body).await
    };
    assert_eq!(set(json!(false)).await.status, 200);
    assert_eq!(set(json!(true)).await.status, 200);
    let asked = app.engine.names();
    assert_eq!(
        asked[asked.len() - 2..],
        ["suspend_scheduled_operation", "resume_scheduled_operation"]
    );
    assert!(set(json!("yes")).await.fault(400).contains("enabled"));
    // Without its plan it could only fail.
    let gone = format!("/plans/{plan}");
    assert_eq!(app.call("DELETE", &gone, Value::Null).await.status, 200);
    assert_eq!(
        set(json!(true)).await.fault(404),
        format!("Plan {plan} could not be found.")
    );
    let unknown = format!("/scheduled_operations/{NOBODY}");
    let body = json!({"scheduled_operation": {"enabled": false}});
    assert_eq!(app.call("PATCH", &unknown, body).await.status, 404);
}
