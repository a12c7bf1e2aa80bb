//! Checkpoints as they were recorded from the original, and what it refused.

use serde_json::{Value, json};

use crate::{
    app::{HOST, NOBODY, NOOP, OTHER, PROJECT, VOLUME, app},
    recorded::same,
};

#[tokio::test]
async fn q26_q27_checkpoints() {
    let app = app().await;
    let plan = app.plan(json!({"resources": [{
        "id": VOLUME, "type": "OS::Cinder::Volume", "name": "volume-2", "extra_info": {"availability_zone": "nova"},
    }]})).await;
    let all = format!("/providers/{NOOP}/checkpoints");
    let answer = app
        .call("POST", &all, json!({"checkpoint": {"plan_id": plan}}))
        .await;
    let id = answer.json()["checkpoint"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let resources = json!([{
        "id": VOLUME, "type": "OS::Cinder::Volume", "name": "volume-2",
        "extra_info": "{\"availability_zone\": \"nova\"}",
    }]);
    // The original's answer had null here, over which its own command-line client stumbled: it had
    // made a checkpoint and ended with an error.
    let graph = "[{\"0x0\":[\"OS::Cinder::Volume\",\"aaaaaaaa-0000-4000-8000-0000000000e2\",\
                 \"volume-2\",{\"availability_zone\":\"nova\"}]},[]]";
    same(
        &answer,
        &json!({"checkpoint": {
            "id": id, "project_id": PROJECT, "status": "protecting",
            "protection_plan": {"id": plan, "name": "corpus-plan", "resources": resources},
            "resource_graph": graph, "created_at": null, "extra_info": "{\"created_by\": \"manual\"}",
        }}),
    );
    let one = format!("{all}/{id}");
    let shown = json!({
        "id": id, "project_id": PROJECT, "status": "available",
        "protection_plan": {"id": plan, "name": "corpus-plan", "provider_id": NOOP, "resources": resources},
        "resource_graph": graph, "created_at": "2026-11-22", "extra_info": "{\"created_by\": \"manual\"}",
    });
    same(&app.get(&one).await, &json!({"checkpoint": shown}));
    same(
        &app.get(&format!("{all}?start_date=2020-01-01&end_date=2099-01-01"))
            .await,
        &json!({"checkpoints": [shown]}),
    );

    let foreign = app
        .call_as(&app.other, OTHER, "GET", &one, Value::Null)
        .await;
    assert_eq!(
        foreign.fault(403),
        format!("Access checkpoint {id} is not allowed")
    );

    // Nothing is suspicious about it.
    assert_eq!(
        app.call("PUT", &one, json!({"os-accept": {}}))
            .await
            .fault(409),
        format!("The checkpoint {id} can not be accepted: it is not suspicious.")
    );
    app.call(
        "PUT",
        &one,
        json!({"os-accept": {}, "os-resetState": {"state": "error"}}),
    )
    .await
    .fault(400);
    same(
        &app.call("PUT", &one, json!({"os-resetState": {"state": "error"}}))
            .await,
        &json!({}),
    );
    assert_eq!(
        app.call("PUT", &one, json!({"os-resetState": {"state": "x"}}))
            .await
            .fault(400),
        "Invalid input for field/attribute state. Value: x. 'x' is not one of ['available', 'error']"
    );
    same(&app.call("DELETE", &one, Value::Null).await, &json!({}));
    // Clients wait for this: a deleted checkpoint can still be shown (Q26).
    assert_eq!(
        app.get(&one).await.json()["checkpoint"]["status"],
        "deleted"
    );
    // Q27: the second time was a 500.
    assert_eq!(
        app.call("DELETE", &one, Value::Null).await.fault(409),
        format!("The checkpoint {id} can not be deleted.")
    );
    assert_eq!(
        app.call("PUT", &one, json!({"os-resetState": {"state": "error"}}))
            .await
            .fault(400),
        format!("The checkpoint {id} can not be reset.")
    );
}

#[tokio::test]
async fn checkpoint_refusals() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let at = |provider: &str| format!("/providers/{provider}/checkpoints");
    let post = async |path: String, plan: &str| {
        app.call("POST", &path, json!({"checkpoint": {"plan_id": plan}}))
            .await
    };
    assert_eq!(
        post(at(NOOP), NOBODY).await.fault(404),
        format!("Plan {NOBODY} could not be found.")
    );
    let wrong = "Invalid plan: The parameter provider_id is not the same as the value in the plan.";
    assert_eq!(post(at(HOST), &plan).await.fault(400), wrong);
    assert_eq!(post(at("abc"), &plan).await.fault(400), wrong);
    assert_eq!(
        post(at(NOOP), "abc").await.fault(400),
        "Invalid input for field/attribute plan_id. Value: abc. 'abc' is not a 'uuid'"
    );
    let odd = app
        .plan(json!({"resources": [{"id": "x", "type": "OS::Bogus", "name": "n"}]}))
        .await;
    assert_eq!(
        post(at(NOOP), &odd).await.fault(400),
        "Create checkpoint failed: Protection Plugin for OS::Bogus could not be found."
    );
    // Another project's plan does not exist for you.
    let body = json!({"checkpoint": {"plan_id": plan}});
    let foreign = app
        .call_as(&app.other, OTHER, "POST", &at(NOOP), body)
        .await;
    assert_eq!(
        foreign.fault(404),
        format!("Plan {plan} could not be found.")
    );
}

/// Clients decode the graph of whatever they are shown, so there always is one.
#[tokio::test]
async fn a_checkpoint_whose_graph_is_not_known_has_that_of_nothing() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let all = format!("/providers/{NOOP}/checkpoints");
    let create = json!({"checkpoint": {"plan_id": plan}});
    let made = app.call("POST", &all, create).await.json();
    app.protection.checkpoints.lock().unwrap()[0].resource_graph = None;
    let id = made["checkpoint"]["id"].as_str().unwrap();
    let shown = app.get(&format!("{all}/{id}")).await.json();
    assert_eq!(shown["checkpoint"]["resource_graph"], "[{}, []]");
    let listed = app.get(&all).await.json();
    assert_eq!(listed["checkpoints"][0]["resource_graph"], "[{}, []]");
}

/// Q18: the original read a key that its schema did not allow.
#[tokio::test]
async fn q18_extra_info_is_kept_under_both_spellings() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    for key in ["extra_info", "extra-info"] {
        let body = json!({"checkpoint": {"plan_id": plan, key: {"k": "v"}}});
        let answer = app
            .call("POST", &format!("/providers/{NOOP}/checkpoints"), body)
            .await;
        assert_eq!(answer.json()["checkpoint"]["extra_info"], "{\"k\": \"v\"}");
    }
    let body = json!({"checkpoint": {"plan_id": plan, "extra-info": null}});
    let answer = app
        .call("POST", &format!("/providers/{NOOP}/checkpoints"), body)
        .await;
    assert_eq!(
        answer.json()["checkpoint"]["extra_info"],
        "{\"created_by\": \"manual\"}"
    );
}

#[tokio::test]
async fn copies() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let at = |provider: &str| format!("/providers/{provider}/checkpoints/action");
    let post = async |provider: &str, body: Value| {
        app.call("POST", &at(provider), json!({ "copy": body }))
            .await
    };
    let wanted = json!({"plan_id": plan, "parameters": {}});
    assert_eq!(
        post(NOOP, wanted.clone()).await.fault(400),
        "Invalid input received: The plan has not been protected."
    );
    let protected = app
        .call(
            "POST",
            &format!("/providers/{NOOP}/checkpoints"),
            json!({"checkpoint": {"plan_id": plan}}),
        )
        .await;
    let source = protected.json()["checkpoint"]["id"].clone();
    let answer = post(NOOP, wanted.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let copy = answer.json()["copy"]["checkpoint_id"][0]["checkpoint_copy_id"].clone();
    same(
        &answer,
        &json!({"copy": {
            "project_id": PROJECT, "provider_id": NOOP, "plan_id": plan,
            "checkpoint_id": [{"checkpoint_protect_id": source, "checkpoint_copy_id": copy}],
            "parameters": {},
        }}),
    );
    for (given, answered) in [
        (json!({"plan_id": plan}), Value::Null),
        (
            json!({"plan_id": plan, "parameters": {"OS::Cinder::Volume": {}}}),
            json!({"OS::Cinder::Volume": {}}),
        ),
    ] {
        let answer = post(NOOP, given).await;
        assert_eq!(answer.json()["copy"]["parameters"], answered);
    }
    let invalid = "Invalid input received: ";
    assert_eq!(
        post("abc", wanted.clone()).await.fault(400),
        format!("{invalid}Invalid provider id provided.")
    );
    assert_eq!(
        post(HOST, wanted).await.fault(400),
        format!("{invalid}The provider id is not the same as the value in the plan.")
    );
    assert_eq!(
        post(NOOP, json!({"plan_id": NOBODY})).await.fault(404),
        format!("Plan {NOBODY} could not be found.")
    );
    for nonsense in [
        json!({}),
        json!({"plan_id": "x"}),
        json!({"plan_id": plan, "parameters": 1}),
        json!({"plan_id": plan, "more": 1}),
    ] {
        assert_eq!(post(NOOP, nonsense.clone()).await.status, 400, "{nonsense}");
    }
    let foreign = json!({"copy": {"plan_id": plan}});
    let foreign = app
        .call_as(&app.other, OTHER, "POST", &at(NOOP), foreign)
        .await;
    assert_eq!(
        foreign.fault(404),
        format!("Plan {plan} could not be found.")
    );
}
