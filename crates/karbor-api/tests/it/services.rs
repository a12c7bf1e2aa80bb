//! Services as they were recorded from the original.

use serde_json::{Value, json};

use crate::app::{PROJECT, app, app_with};

#[tokio::test]
async fn q55_q56_services() {
    let app = app().await;
    let engine = app
        .db
        .services()
        .register("karborref", "karbor-operationengine", "t1")
        .await
        .unwrap();
    let protection = app
        .db
        .services()
        .register("karborref", "karbor-protection", "t2")
        .await
        .unwrap();
    app.db
        .services()
        .report(engine.id, karbor_manager::Clock::now(&app.clock))
        .await
        .unwrap();
    // What the original does not have is listed to those who know it.
    let services = app.db.services();
    let ours = services.register("host", "karbor-notification", "karbor-notification");
    ours.await.unwrap();
    let named = app.get("/os-services?binary=karbor-notification").await;
    let named = named.json();
    assert_eq!(named["services"].as_array().unwrap().len(), 1);
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
    // What an engine's report wants to be known is shown with it.
    let report: karbor_manager::TaskReport = serde_json::from_value(json!({
        "name": "scheduled_operations",
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:00Z",
        "runs": 1,
        "failures": 0,
        "outcome": {"status": "ok", "details": {"notice": "The clock was set back."}},
    }))
    .unwrap();
    app.db
        .services()
        .save_task_report(engine.id, &report)
        .await
        .unwrap();
    let listed = app.get("/os-services").await.json();
    let rows = listed["services"].as_array().unwrap();
    assert_eq!(rows[0]["notice"], "The clock was set back.");
    assert_eq!(rows[1].get("notice"), None);
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

/// A service corrects a service_down_time that is shorter than its own heartbeat; what shows it goes by
/// the same, or it would be down before every beat.
#[tokio::test]
async fn a_service_does_not_show_as_down_between_two_heartbeats() {
    let app = app_with(&[
        ("DEFAULT", "report_interval", "30"),
        ("DEFAULT", "service_down_time", "20"),
    ])
    .await;
    let engine = app
        .db
        .services()
        .register("h", "karbor-operationengine", "t")
        .await
        .unwrap();
    let now = karbor_manager::Clock::now(&app.clock);
    app.db.services().report(engine.id, now).await.unwrap();
    let state = async |seconds| {
        app.clock.turn(std::time::Duration::from_secs(seconds));
        app.get("/os-services").await.json()["services"][0]["state"].clone()
    };
    assert_eq!(state(29).await, "up");
    assert_eq!(state(46).await, "up");
    assert_eq!(state(1).await, "down");
}
