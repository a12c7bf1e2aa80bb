//! Providers and protectables as they were recorded from the original.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::{
    app::{HOST, NOOP, PROJECT, app},
    recorded::same,
};

/// Q17, Q40: an offset was ignored. Q46: the key of the list is in the singular. Q50: pages of
/// instances, and a link that leads to the next one.
#[tokio::test]
async fn q17_q46_q50_providers_and_protectables() {
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

/// A page of instances is two calls, however long it is. Where the service lists without what they depend on, as the
/// original's did, that is asked for, and the answer is the same.
#[tokio::test]
async fn a_page_of_instances_asks_for_none_of_them() {
    let app = app().await;
    let path = "/protectables/OS::Nova::Server/instances";
    let whole = app.get(path).await.json();
    assert_eq!(whole["instances"].as_array().unwrap().len(), 3);
    let calls = std::mem::take(&mut *app.protection.calls.lock().unwrap());
    assert_eq!(
        calls,
        [
            json!("list_protectable_types"),
            json!({"list_protectable_instances": null})
        ]
    );
    app.protection.lists_bare.store(true, Ordering::Relaxed);
    assert_eq!(app.get(path).await.json(), whole);
    assert_eq!(app.protection.calls.lock().unwrap().len(), 5);
}
