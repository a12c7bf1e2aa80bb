//! Triggers.

use karbor_model::{ApiError, ErrorKind};
use serde_json::{Value, json};

use crate::app::{App, NOBODY, OTHER, PROJECT, app};

const DAILY: &str = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT\nEND:VCALENDAR";
const WEEKLY: &str = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=WEEKLY\nEND:VEVENT\nEND:VCALENDAR";

/// What creates a trigger, with some properties more.
pub fn body(properties: Value) -> Value {
    let mut all = json!({"format": "calendar", "pattern": DAILY});
    if let Value::Object(properties) = properties {
        for (key, value) in properties {
            all[key] = value;
        }
    }
    json!({"trigger_info": {"name": "corpus-trigger", "type": "time", "properties": all}})
}

/// A trigger; its id.
pub async fn trigger(app: &App, name: &str) -> String {
    let mut body = body(json!({}));
    body["trigger_info"]["name"] = json!(name);
    let answer = app.call("POST", "/triggers", body).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()["trigger_info"]["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn names(answer: &Value) -> Vec<&str> {
    let triggers = answer["triggers"].as_array().unwrap();
    triggers
        .iter()
        .map(|trigger| trigger["name"].as_str().unwrap())
        .collect()
}

/// Made, shown, listed, changed, deleted, as recorded. Q31: a window goes in as a number and comes
/// out as a text.
#[tokio::test]
async fn q31_a_trigger_as_recorded() {
    let app = app().await;
    let times = json!({
        "window": 25, "start_time": "2030-01-01 00:00:00", "end_time": "2031-01-01 00:00:00",
    });
    let answer = app.call("POST", "/triggers", body(times)).await;
    let id = answer.json()["trigger_info"]["id"].clone();
    let expected = json!({
        "id": id, "name": "corpus-trigger", "type": "time", "properties": {
            "format": "calendar", "pattern": DAILY, "window": "25",
            "start_time": "2030-01-01 00:00:00", "end_time": "2031-01-01 00:00:00",
        },
    });
    assert_eq!(answer.json(), json!({"trigger_info": expected}));
    let path = format!("/triggers/{}", id.as_str().unwrap());
    assert_eq!(
        app.get(&path).await.json(),
        json!({"trigger_info": expected})
    );
    assert_eq!(
        app.get("/triggers").await.json(),
        json!({"triggers": [expected]})
    );
    let change = json!({"trigger_info": {"name": "corpus-trigger-2", "properties": {
        "format": "calendar", "pattern": WEEKLY, "start_time": "2030-01-02 00:00:00",
    }}});
    let changed = app.call("PUT", &path, change).await.json();
    assert_eq!(
        changed,
        json!({"trigger_info": {
            "id": id, "name": "corpus-trigger-2", "type": "time", "properties": {
                "format": "calendar", "pattern": WEEKLY, "start_time": "2030-01-02 00:00:00",
            },
        }})
    );
    assert_eq!(app.get(&path).await.json(), changed);
    let gone = app.call("DELETE", &path, Value::Null).await;
    assert_eq!((gone.status, gone.bytes.len()), (200, 0));
    assert_eq!(
        app.get(&path).await.fault(404),
        format!("Trigger {} could not be found.", id.as_str().unwrap())
    );
    // The engine is asked before anything is recorded, and told after.
    let asked: Vec<String> = app.engine.names();
    assert_eq!(
        asked,
        [
            "verify_trigger",
            "create_trigger",
            "verify_trigger",
            "update_trigger",
            "delete_trigger"
        ]
    );
}

#[tokio::test]
async fn a_trigger_starts_now_if_not_said_otherwise() {
    let app = app().await;
    let made = app.call("POST", "/triggers", body(json!({}))).await.json();
    let now = karbor_manager::Clock::now(&app.clock);
    assert_eq!(
        made["trigger_info"]["properties"],
        json!({
            "format": "calendar", "pattern": DAILY,
            "start_time": now.format("%Y-%m-%d %H:%M:%S").to_string(),
        })
    );
}

/// What the engine says against a trigger is the answer, and nothing stays.
#[tokio::test]
async fn the_engine_has_a_word_first() {
    let app = app().await;
    let kept = trigger(&app, "kept").await;
    let path = format!("/triggers/{kept}");
    let before = app.get(&path).await.json();
    let message = "The trigger windows 5 must be between 20 and 30";
    let refusal = ApiError::new(ErrorKind::BadRequest, "InvalidInput", message);
    *app.engine.refusal.lock().unwrap() = Some(refusal);
    let answer = app
        .call("POST", "/triggers", body(json!({"window": 5})))
        .await;
    assert_eq!(answer.fault(400), message);
    let change = json!({"trigger_info": {"properties": {"start_time": "2030-01-01 00:00:00"}}});
    assert_eq!(app.call("PUT", &path, change).await.fault(400), message);
    assert_eq!(app.get(&path).await.json(), before);
    assert_eq!(names(&app.get("/triggers").await.json()), ["kept"]);
}

/// A broadcast only makes engines look sooner: without it the trigger is as good.
#[tokio::test]
async fn an_engine_that_was_not_told_does_not_lose_the_trigger() {
    let app = app().await;
    app.engine.deaf_to("create_trigger");
    trigger(&app, "t").await;
    assert_eq!(names(&app.get("/triggers").await.json()), ["t"]);
}

#[tokio::test]
async fn refusals_in_the_originals_words() {
    let app = app().await;
    let post = async |path: &[&str], value: Value| {
        let mut body = body(json!({}));
        let (last, parents) = path.split_last().unwrap();
        let mut at = &mut body["trigger_info"];
        for key in parents {
            at = &mut at[key];
        }
        match value {
            Value::Null => drop(at.as_object_mut().unwrap().remove(*last)),
            value => at[last] = value,
        }
        app.call("POST", "/triggers", body).await.fault(400)
    };
    for (path, value, expected) in [
        (
            ["properties", "window"].as_slice(),
            json!("20"),
            "Invalid input for field/attribute window. Value: 20. '20' is not of type 'integer'",
        ),
        (
            &["properties", "start_time"],
            json!(5),
            "Invalid input for field/attribute start_time. Value: 5. 5 is not of type 'string'",
        ),
        (
            &["properties", "pattern"],
            Value::Null,
            "'pattern' is a required property",
        ),
        (
            &["properties", "format"],
            Value::Null,
            "'format' is a required property",
        ),
        (
            &["properties", "bogus"],
            json!(1),
            "Additional properties are not allowed ('bogus' was unexpected)",
        ),
        (&["name"], Value::Null, "'name' is a required property"),
        (&["type"], Value::Null, "'type' is a required property"),
        (
            &["properties"],
            Value::Null,
            "'properties' is a required property",
        ),
    ] {
        let message = post(path, value).await;
        assert!(message.ends_with(expected), "{message}");
    }
    for body in [json!({}), json!({"trigger_info": {}})] {
        app.call("POST", "/triggers", body).await.fault(400);
    }
    // Q34, Q37: names without bounds.
    for name in [json!(""), json!(" "), json!("x".repeat(300))] {
        let message = post(&["name"], name).await;
        assert!(message.contains("name"), "{message}");
    }
    for method in ["GET", "DELETE", "PUT"] {
        let body = match method {
            "PUT" => json!({"trigger_info": {"name": "x"}}),
            _ => Value::Null,
        };
        let answer = app.call(method, "/triggers/abc", body.clone()).await;
        assert_eq!(answer.fault(400), "Invalid trigger id provided.");
        let unknown = format!("/triggers/{NOBODY}");
        let answer = app.call(method, &unknown, body).await;
        assert_eq!(
            answer.fault(404),
            format!("Trigger {NOBODY} could not be found.")
        );
    }
}

/// Q36: the type was taken and not changed. Q37: a long name was a 500.
#[tokio::test]
async fn q36_q37_an_update_does_what_it_says_or_says_that_it_does_not() {
    let app = app().await;
    let path = format!("/triggers/{}", trigger(&app, "t").await);
    let before = app.get(&path).await.json();
    let put = async |info: Value| app.call("PUT", &path, json!({"trigger_info": info})).await;
    assert!(
        put(json!({"type": "event"}))
            .await
            .fault(400)
            .contains("The type of a trigger cannot be changed.")
    );
    for name in ["", "x".repeat(256).as_str()] {
        assert!(put(json!({"name": name})).await.fault(400).contains("name"));
    }
    for properties in [
        json!({"format": "calendar", "pattern": DAILY}),
        json!({"pattern": DAILY, "start_time": ""}),
    ] {
        assert_eq!(
            put(json!({"properties": properties})).await.fault(400),
            "start_time should be supplied"
        );
    }
    for nothing in [
        json!({}),
        json!({"type": "time"}),
        json!({"properties": {}}),
    ] {
        assert_eq!(put(nothing).await.json(), before);
    }
    assert_eq!(app.get(&path).await.json(), before);
    let renamed = put(json!({"name": "new"})).await.json();
    assert_eq!(renamed["trigger_info"]["name"], "new");
    assert_eq!(
        renamed["trigger_info"]["properties"],
        before["trigger_info"]["properties"]
    );
}

/// As recorded: another project's trigger is forbidden, not unknown.
#[tokio::test]
async fn projects_are_apart() {
    let app = app().await;
    let path = format!("/triggers/{}", trigger(&app, "mine").await);
    for (method, body, rule) in [
        ("GET", Value::Null, "get"),
        ("PUT", json!({"trigger_info": {"name": "x"}}), "update"),
        ("DELETE", Value::Null, "delete"),
    ] {
        let answer = app.call_as(&app.other, OTHER, method, &path, body).await;
        assert_eq!(
            answer.fault(403),
            format!("Policy doesn't allow trigger:{rule} to be performed.")
        );
    }
    let listed = async |token: &str, project: &str, query: &str| {
        let path = format!("/triggers{query}");
        let answer = app.call_as(token, project, "GET", &path, Value::Null).await;
        answer.json()["triggers"].as_array().unwrap().len()
    };
    assert_eq!(listed(&app.other, OTHER, "?all_tenants=1").await, 0);
    let peek = format!("?project_id={PROJECT}&all_tenants=1");
    assert_eq!(listed(&app.other, OTHER, &peek).await, 0);
    assert_eq!(listed(&app.member, PROJECT, "").await, 1);
    let mut theirs = body(json!({}));
    theirs["trigger_info"]["name"] = json!("theirs");
    let made = app.call_as(&app.other, OTHER, "POST", "/triggers", theirs);
    assert_eq!(made.await.status, 200);
    assert_eq!(listed(&app.admin, PROJECT, "?all_tenants=1").await, 2);
    assert_eq!(listed(&app.admin, PROJECT, "").await, 1);
}

/// Pages, order and filters. Q40: the offset was dropped; Q12, Q13: a marker or sort key that is
/// not known was a 500.
#[tokio::test]
async fn q12_q13_q40_triggers_are_listed_as_asked() {
    let app = app().await;
    for name in ["a", "b", "c", "d", "e"] {
        trigger(&app, name).await;
        app.clock.turn(std::time::Duration::from_secs(1));
    }
    let (mut path, mut seen) = ("/triggers?limit=2".to_owned(), Vec::new());
    loop {
        let page = app.get(&path).await.json();
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(link) = page["triggers_links"][0]["href"].as_str() else {
            break;
        };
        path = link.split(PROJECT).nth(1).unwrap().to_owned();
    }
    assert_eq!(seen, ["e", "d", "c", "b", "a"]);
    for (query, expected) in [
        ("offset=3", vec!["b", "a"]),
        ("sort=name:asc&limit=2", vec!["a", "b"]),
        ("name=c", vec!["c"]),
        ("name=c&type=time", vec!["c"]),
        // As of plans, what is no filter filters nothing.
        ("name=c&bogus=1", vec!["c"]),
        ("name=c&type=x", vec![]),
        ("properties=FREQ%3DDAILY&limit=1", vec!["e"]),
        ("properties=FREQ%3DHOURLY", vec![]),
        ("name=%5C%28", vec![]),
    ] {
        let page = app.get(&format!("/triggers?{query}")).await.json();
        assert_eq!(names(&page), expected, "{query}");
    }
    for (query, named) in [
        ("sort=bogus", "bogus"),
        ("limit=0", "limit"),
        ("all_tenants=maybe", "all_tenants"),
    ] {
        let message = app.get(&format!("/triggers?{query}")).await.fault(400);
        assert!(message.contains(named), "{query}: {message}");
    }
    for marker in [NOBODY, "x"] {
        let answer = app.get(&format!("/triggers?marker={marker}")).await;
        let expected = format!("Trigger {marker} could not be found.");
        assert_eq!(answer.fault(404), expected);
    }
}
