//! Plans as they were recorded from the original, and what it refused.

use serde_json::{Value, json};

use crate::{
    app::{App, HOST, NOBODY, NOOP, PROJECT, VOLUME, app, plan_body},
    recorded::same,
};

async fn create(app: &App, body: Value) -> (String, Value) {
    let answer = app.call("POST", "/plans", body).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let body = answer.json();
    (body["plan"]["id"].as_str().unwrap().to_owned(), body)
}

#[tokio::test]
async fn plans() {
    let app = app().await;
    let info = json!({"availability_zone": "nova"});
    let body = plan_body(json!({"resources": [{
        "id": VOLUME, "type": "OS::Cinder::Volume", "name": "volume-2", "extra_info": info, "bogus": 1
    }]}));
    let (id, created) = create(&app, body).await;
    let expected = json!({"plan": {
        "id": id, "name": "corpus-plan", "description": "made by the suite",
        "resources": [{"id": VOLUME, "name": "volume-2", "type": "OS::Cinder::Volume", "extra_info": info}],
        "provider_id": NOOP, "status": "suspended", "parameters": {},
    }});
    assert_eq!(created, expected);
    let shown = app.get(&format!("/plans/{id}")).await;
    same(&shown, &expected);
    assert_eq!(app.get(&format!("/plans/{id}.json")).await.json(), expected);
    // Field order is the original's too.
    let text = String::from_utf8(shown.bytes).unwrap();
    let places: Vec<_> = [
        "\"id\"",
        "\"description\"",
        "\"resources\"",
        "\"provider_id\"",
        "\"status\"",
        "\"parameters\"",
    ]
    .map(|key| text.find(key).unwrap())
    .into();
    assert!(places.is_sorted(), "{text}");

    let parameters = json!({
        "OS::Cinder::Volume": {"backup_mode": "full", "force": true},
        format!("OS::Cinder::Volume#{VOLUME}"): {"backup_name": "bk"},
    });
    let (with, created) = create(
        &app,
        plan_body(json!({"name": "corpus-params", "provider_id": HOST, "parameters": parameters})),
    )
    .await;
    assert_eq!(
        created["plan"]["parameters"],
        json!({
            "OS::Cinder::Volume": {"backup_mode": "full", "force": "True"},
            format!("OS::Cinder::Volume#{VOLUME}"): {"backup_name": "bk"},
        })
    );
    let page = app.get("/plans?limit=1&sort=name:asc").await.json();
    assert_eq!(page["plans"][0]["name"], "corpus-params");
    assert_eq!(
        page["plans_links"],
        json!([{"rel": "next", "href": format!(
            "http://127.0.0.1:18799/v1/{PROJECT}/plans?limit=1&sort=name%3Aasc&marker={with}"
        )}])
    );
    let second = app
        .get(&format!("/plans?limit=1&sort=name%3Aasc&marker={with}"))
        .await
        .json();
    assert_eq!(second["plans"][0]["id"], json!(id));

    let path = format!("/plans/{with}");
    let renamed = app
        .call(
            "PUT",
            &path,
            json!({"plan": {"name": "corpus-renamed", "description": null}}),
        )
        .await
        .json();
    assert_eq!(renamed["plan"]["name"], "corpus-renamed");
    assert_eq!(renamed["plan"]["description"], Value::Null);
    assert_eq!(renamed["plan"]["parameters"], created["plan"]["parameters"]);
    let started = app
        .call("PUT", &path, json!({"plan": {"status": "started"}}))
        .await
        .json();
    assert_eq!(started["plan"]["status"], "started");
    assert_eq!(
        app.call("PUT", &path, json!({"plan": {"name": "x"}}))
            .await
            .fault(400),
        "Invalid plan: The plan can be only updated in suspended status."
    );

    let gone = app.call("DELETE", &path, Value::Null).await;
    assert_eq!((gone.status, gone.bytes.len()), (200, 0));
    assert_eq!(gone.header("content-type"), "application/json");
    assert_eq!(
        app.call("DELETE", &path, Value::Null).await.fault(404),
        format!("Plan {with} could not be found.")
    );
}

#[tokio::test]
async fn plan_refusals() {
    let app = app().await;
    let post = async |changes: Value| {
        app.call("POST", "/plans", plan_body(changes))
            .await
            .fault(400)
    };
    assert_eq!(
        post(json!({"provider_id": NOBODY})).await,
        "The provider could not be found."
    );
    assert_eq!(
        post(json!({"name": null})).await,
        "An invalid 'name' value was provided. The 'name' can not be None."
    );
    assert_eq!(
        post(json!({"resources": []})).await,
        "Invalid input received: list resources must be provided when creating a plan."
    );
    assert_eq!(
        post(json!({"resources": [{"id": "x", "type": "y"}]})).await,
        "Invalid input received: Resource in list must be a dict when creating a plan.The keys of resource are id,type and name."
    );
    assert_eq!(
        post(json!({"parameters": {"OS::Foo::Bar": {"a": "b"}}})).await,
        "The key of plan parameters is invalid."
    );
    let host = async |parameters: Value| {
        post(json!({"provider_id": HOST, "parameters": parameters})).await
    };
    assert_eq!(
        host(json!({"OS::Cinder::Volume": {"bogus": "x"}})).await,
        "The protect property of plan parameters is invalid."
    );
    assert_eq!(
        host(json!({"OS::Cinder::Volume#abc": {"backup_name": "x"}})).await,
        "The resource_id must be a uuid."
    );
    assert_eq!(
        host(json!({"Host::Directory": {"overwrite": "sometimes"}})).await,
        "Invalid input for field/attribute overwrite. Value: sometimes. 'sometimes' is not one of ['never', 'always']"
    );
    // Only names are compared for the original's types.
    let lenient = plan_body(
        json!({"provider_id": HOST, "parameters": {"OS::Cinder::Volume": {"backup_mode": "bogus"}, "OS::Glance::Image": {"any": 1}}}),
    );
    assert_eq!(app.call("POST", "/plans", lenient).await.status, 200);
    assert_eq!(
        app.call("POST", "/plans", json!({"plan": {}}))
            .await
            .fault(400),
        "Invalid input for field/attribute plan. Value: {}. 'provider_id' is a required property"
    );
    for (path, status, message) in [
        (
            "/plans/abc".to_owned(),
            400,
            "Invalid plan id provided.".to_owned(),
        ),
        (
            format!("/plans/{NOBODY}"),
            404,
            format!("Plan {NOBODY} could not be found."),
        ),
        (
            "/providers/abc".to_owned(),
            400,
            "Invalid provider id provided.".to_owned(),
        ),
        (
            format!("/providers/{NOBODY}"),
            404,
            format!("Provider {NOBODY} could not be found."),
        ),
        (
            "/providers/abc/checkpoints".to_owned(),
            404,
            "Provider abc could not be found.".to_owned(),
        ),
        (
            format!("/providers/{NOOP}/checkpoints/abc"),
            400,
            "Invalid checkpoint id provided.".to_owned(),
        ),
        (
            format!("/providers/abc/checkpoints/{NOBODY}"),
            400,
            "Invalid provider id provided.".to_owned(),
        ),
        (
            format!("/providers/{NOOP}/checkpoints/{NOBODY}"),
            404,
            format!("Checkpoint {NOBODY} could not be found."),
        ),
        (
            "/restores/abc".to_owned(),
            400,
            "Invalid restore id provided.".to_owned(),
        ),
        (
            format!("/restores/{NOBODY}"),
            404,
            format!("Restore {NOBODY} could not be found."),
        ),
        (
            "/verifications/abc".to_owned(),
            400,
            "Invalid verification id provided.".to_owned(),
        ),
        (
            format!("/verifications/{NOBODY}"),
            404,
            format!("Verification {NOBODY} could not be found."),
        ),
        (
            "/operation_logs/abc".to_owned(),
            400,
            "Invalid operation log id provided.".to_owned(),
        ),
        (
            format!("/operation_logs/{NOBODY}"),
            404,
            format!("OperationLog {NOBODY} could not be found."),
        ),
        (
            "/protectables/OS::Bogus".to_owned(),
            400,
            "Invalid input received: Invalid protectable type provided.".to_owned(),
        ),
        (
            "/protectables/OS::Bogus/instances".to_owned(),
            400,
            "Invalid input received: Invalid protectable type provided.".to_owned(),
        ),
        (
            "/protectables/OS::Nova::Server/instances/gone".to_owned(),
            404,
            "The resource gone of type OS::Nova::Server could not be found: not found".to_owned(),
        ),
    ] {
        assert_eq!(app.get(&path).await.fault(status), message, "{path}");
    }
}
