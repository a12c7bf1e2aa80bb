//! Exchanges as they were recorded from the original: request, status, body.

use serde_json::{Value, json};

use crate::app::{Answer, App, HOST, NOBODY, NOOP, OTHER, PROJECT, VOLUME, app, plan_body};

/// Ids differ from run to run: they are put in the recorded place.
fn same(answer: &Answer, expected: &Value) {
    assert_eq!(answer.json(), *expected);
    assert_eq!(answer.header("content-type"), "application/json");
}

async fn create(app: &App, body: Value) -> (String, Value) {
    let answer = app.call("POST", "/plans", body).await;
    assert_eq!(answer.status, 200, "{}", answer.json());
    let body = answer.json();
    (body["plan"]["id"].as_str().unwrap().to_owned(), body)
}

#[tokio::test]
async fn versions() {
    let app = app().await;
    let answer = app.raw("GET", "/", None, Vec::new()).await;
    assert_eq!(answer.status, 300);
    same(
        &answer,
        &json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links": [
            {"rel": "self", "href": "http://127.0.0.1:18799/data-protect/v1/"}
        ]}]}),
    );
}

#[tokio::test]
async fn unauthorized() {
    let app = app().await;
    let uri = format!("/v1/{PROJECT}/plans");
    let answer = app.raw("GET", &uri, Some("bogus"), Vec::new()).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate"),
        "Keystone uri=\"http://127.0.0.1:18799\""
    );
    same(
        &answer,
        &json!({"error": {
            "code": 401, "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }}),
    );
}

#[tokio::test]
async fn project_mismatch_and_no_route() {
    let app = app().await;
    let uri = format!("/v1/{OTHER}/plans");
    let answer = app.raw("GET", &uri, Some(&app.admin), Vec::new()).await;
    assert_eq!(answer.fault(400), "Malformed request url");
    let nothing = json!({
        "message": "The resource could not be found.<br /><br />\n\n\n",
        "code": "404 Not Found", "title": "Not Found",
    });
    // Resources of the original's API that are not built yet.
    for path in ["/nothing", "/quotas/x", "/plans/"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        same(&answer, &nothing);
    }
    for (method, path) in [
        ("GET", "/plans/new".to_owned()),
        ("GET", format!("/plans/{NOBODY}/edit")),
        ("POST", format!("/plans/{NOBODY}/action")),
        ("PUT", "/plans".to_owned()),
        ("PATCH", "/plans".to_owned()),
        ("POST", "/providers".to_owned()),
        ("DELETE", format!("/providers/{NOOP}")),
        ("PUT", format!("/restores/{NOBODY}")),
    ] {
        let answer = app.call(method, &path, json!({})).await;
        assert_eq!(
            answer.fault(404),
            "The resource could not be found.",
            "{method} {path}"
        );
    }
    assert_eq!(app.call("HEAD", "/plans", Value::Null).await.status, 200);
    assert!(app.get("/plans.json").await.json()["plans"].is_array());
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

#[tokio::test]
async fn checkpoints() {
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
    same(
        &answer,
        &json!({"checkpoint": {
            "id": id, "project_id": PROJECT, "status": "protecting",
            "protection_plan": {"id": plan, "name": "corpus-plan", "resources": resources},
            "resource_graph": null, "created_at": null, "extra_info": "{\"created_by\": \"manual\"}",
        }}),
    );
    let one = format!("{all}/{id}");
    let shown = json!({
        "id": id, "project_id": PROJECT, "status": "available",
        "protection_plan": {"id": plan, "name": "corpus-plan", "provider_id": NOOP, "resources": resources},
        "resource_graph": "[{}, []]", "created_at": "2026-11-22", "extra_info": "{\"created_by\": \"manual\"}",
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
async fn providers_and_protectables() {
    let app = app().await;
    let all = app.get("/providers").await.json();
    assert_eq!(all["providers"].as_array().unwrap().len(), 2);
    assert!(all.get("providers_links").is_none());
    let page = app.get("/providers?limit=1").await.json();
    assert_eq!(
        page["providers_links"],
        json!([{"rel": "next", "href": format!("http://127.0.0.1:18799/v1/{PROJECT}/providers?limit=1&marker={NOOP}")}])
    );
    let rest = app.get("/providers?offset=1").await.json();
    assert_eq!(rest["providers"][0]["id"], HOST);
    assert_eq!(
        app.get("/providers?name=No-Op").await.json(),
        json!({"providers": []})
    );
    let shown = app.get(&format!("/providers/{NOOP}")).await.json();
    assert_eq!(shown["provider"]["name"], "No-Op Provider");
    assert_eq!(
        shown["provider"]["extended_info_schema"]["options_schema"],
        json!({"OS::Cinder::Volume": {}})
    );

    same(
        &app.get("/protectables").await,
        &json!({"protectable_type": ["OS::Nova::Server", "OS::Cinder::Volume"]}),
    );
    same(
        &app.get("/protectables/OS::Nova::Server").await,
        &json!({"protectable_type": {"name": "OS::Nova::Server", "dependent_types": ["OS::Cinder::Volume"]}}),
    );
    let instance = json!({
        "id": "id-1", "type": "OS::Nova::Server", "name": "name-1", "extra_info": null,
        "dependent_resources": [{
            "type": "OS::Cinder::Volume", "id": "vol-of-id-1", "name": "volume-1",
            "extra_info": {"availability_zone": "nova"},
        }],
    });
    same(
        &app.get("/protectables/OS::Nova::Server/instances/id-1")
            .await,
        &json!({"instance": instance}),
    );
    let page = app
        .get("/protectables/OS::Nova::Server/instances?limit=1")
        .await
        .json();
    assert_eq!(page["instances"], json!([instance]));
    let link = page["instances_links"][0]["href"].as_str().unwrap();
    let path = link
        .strip_prefix(&format!("http://127.0.0.1:18799/v1/{PROJECT}"))
        .unwrap();
    assert_eq!(app.get(path).await.json()["instances"][0]["id"], "id-2");

    let python =
        "/protectables/OS::Nova::Server/instances?parameters=%7B%27region%27%3A+%27x%27%7D";
    assert_eq!(app.get(python).await.status, 200);
    let calls = app.protection.calls.lock().unwrap().clone();
    assert!(calls.contains(&json!({"list_protectable_instances": {"region": "x"}})));
    assert_eq!(
        app.get("/protectables/OS::Nova::Server/instances?parameters=5")
            .await
            .fault(400),
        "Invalid input received: The parameters must be a dict."
    );
}

#[tokio::test]
async fn services() {
    let app = app().await;
    let engine = app
        .db
        .service_register("karborref", "karbor-operationengine", "t1")
        .await
        .unwrap();
    let protection = app
        .db
        .service_register("karborref", "karbor-protection", "t2")
        .await
        .unwrap();
    app.db
        .service_report(engine.id, karbor_manager::Clock::now(&app.clock))
        .await
        .unwrap();
    let listed = app.get("/os-services").await.json();
    let rows = listed["services"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["state"], &rows[0]["status"]),
        (&json!("up"), &json!("enabled"))
    );
    assert_eq!(
        rows[0].as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "id",
            "binary",
            "host",
            "status",
            "state",
            "updated_at",
            "disabled_reason"
        ]
    );
    app.clock.turn(std::time::Duration::from_secs(61));
    let listed = app
        .get("/os-services?binary=karbor-operationengine")
        .await
        .json();
    assert_eq!(listed["services"].as_array().unwrap().len(), 1);
    assert_eq!(listed["services"][0]["state"], "down");

    let path = format!("/os-services/{}", engine.id);
    let off = app
        .call(
            "PUT",
            &path,
            json!({"status": "disabled", "disabled_reason": "maintenance"}),
        )
        .await
        .json();
    assert_eq!(
        (
            &off["service"]["status"],
            &off["service"]["disabled_reason"]
        ),
        (&json!("disabled"), &json!("maintenance"))
    );
    let on = app
        .call("PUT", &path, json!({"status": "enabled"}))
        .await
        .json();
    assert_eq!(
        (&on["service"]["status"], &on["service"]["disabled_reason"]),
        (&json!("enabled"), &Value::Null)
    );
    assert_eq!(
        app.call(
            "PUT",
            &path,
            json!({"status": "enabled", "disabled_reason": "x"})
        )
        .await
        .fault(400),
        "Specifying 'disabled_reason' with status 'enabled' is invalid."
    );
    assert_eq!(
        app.call(
            "PUT",
            &format!("/os-services/{}", protection.id),
            json!({"status": "disabled"})
        )
        .await
        .fault(400),
        "Updating a karbor-protection service is not supported. Only karbor-operationengine services can be updated."
    );
    // Q55, Q56: the number in the text, the body looked at.
    assert_eq!(
        app.call("PUT", "/os-services/99", json!({"status": "enabled"}))
            .await
            .fault(404),
        "Service 99 could not be found."
    );
    for body in [json!({}), json!([1]), json!({"status": "bogus"})] {
        app.call("PUT", &path, body).await.fault(400);
    }
    assert_eq!(
        app.call_as(&app.member, PROJECT, "GET", "/os-services", Value::Null)
            .await
            .fault(403),
        "Policy doesn't allow service:get_all to be performed."
    );
    assert_eq!(
        app.call_as(&app.member, PROJECT, "PUT", &path, json!([]))
            .await
            .fault(403),
        "Policy doesn't allow service:update to be performed."
    );
}
