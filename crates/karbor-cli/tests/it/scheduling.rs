//! Triggers, scheduled operations, quotas, copies.

use serde_json::{Value, json};

use crate::stub::{CHECKPOINT, OLDER, PLAN, PROVIDER, Stub, refused, run};

const TRIGGER: &str = "018280be-618c-427d-b546-06080113955a";
const OPERATION: &str = "aaf235a0-8107-4b8c-b912-7e535ae05a31";

fn trigger(name: &str, properties: Value) -> Value {
    json!({"id": TRIGGER, "name": name, "type": "time", "properties": properties})
}

fn operation(name: &str, kind: &str) -> Value {
    json!({"id": OPERATION, "name": name, "description": null, "operation_type": kind,
        "trigger_id": TRIGGER, "enabled": true,
        "operation_definition": {"provider_id": PROVIDER, "plan_id": PLAN, "keep_last": 7}})
}

fn plans() -> Value {
    json!({"plans": [{"id": PLAN, "name": "shop", "provider_id": PROVIDER, "resources": []}]})
}

#[tokio::test]
async fn a_schedule_is_a_trigger_and_an_operation() {
    let properties = json!({"format": "crontab", "pattern": "30 3 * * *"});
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, plans())
        .on(
            "POST /triggers",
            200,
            json!({"trigger_info": trigger("shop-daily", properties.clone())}),
        )
        .on(
            "POST /scheduled_operations",
            200,
            json!({"scheduled_operation": operation("shop-daily", "retention_protect")}),
        );
    let arguments = [
        "schedule",
        "shop",
        "--daily",
        "--at",
        "03:30",
        "--keep-last",
        "7",
    ];
    insta::assert_snapshot!(run(&stub, &arguments).await.shown(&stub));
    assert_eq!(
        stub.body("POST /triggers"),
        json!({"trigger_info": {"name": "shop-daily", "type": "time", "properties": properties}})
    );
    assert_eq!(
        stub.body("POST /scheduled_operations"),
        json!({"scheduled_operation": {
            "name": "shop-daily", "operation_type": "retention_protect", "trigger_id": TRIGGER,
            "operation_definition": {"provider_id": PROVIDER, "plan_id": PLAN, "keep_last": 7},
        }})
    );
}

#[tokio::test]
async fn a_schedule_that_is_refused_leaves_no_trigger_behind() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, plans())
        .on(
            "POST /triggers",
            200,
            json!({"trigger_info": trigger("nightly", json!({}))}),
        )
        .on(
            "POST /scheduled_operations",
            400,
            json!({"badRequest": {"code": 400, "message": "no"}}),
        )
        .on_text(&format!("DELETE /triggers/{TRIGGER}"), 200, "");
    let arguments = [
        "schedule",
        "shop",
        "--cron",
        "0 3 * * *",
        "--name",
        "nightly",
    ];
    let failed = run(&stub, &arguments).await;
    assert_eq!(failed.exit.code(), 2, "{}", failed.err);
    assert!(
        stub.lines()
            .contains(&format!("DELETE /triggers/{TRIGGER}"))
    );
}

#[tokio::test]
async fn triggers() {
    let calendar = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT\nEND:VCALENDAR";
    let daily = trigger(
        "daily",
        json!({"format": "calendar", "pattern": calendar, "window": "25"}),
    );
    let path = format!("/triggers/{TRIGGER}");
    let stub = Stub::start()
        .await
        .on("GET /triggers", 200, json!({"triggers": [daily]}))
        .on(
            "GET /triggers?name=daily&type=time",
            200,
            json!({"triggers": [daily]}),
        )
        .on(&format!("GET {path}"), 200, json!({"trigger_info": daily}))
        .on(&format!("PUT {path}"), 200, json!({"trigger_info": daily}))
        .on_text(
            &format!("DELETE {path}"),
            424,
            "{\"computeFault\": {\"code\": 424, \"message\": \"Trigger is being used\"}}",
        );
    let listed = run(
        &stub,
        &["trigger", "list", "--name", "daily", "--type", "time"],
    )
    .await;
    insta::assert_snapshot!(listed.shown(&stub));
    insta::assert_snapshot!(run(&stub, &["trigger", "show", TRIGGER]).await.shown(&stub));
    let arguments = [
        "trigger",
        "update",
        "daily",
        "--cron",
        "0 3 * * *",
        "--end",
        "2031-01-01 00:00:00",
    ];
    let updated = run(&stub, &arguments).await;
    assert_eq!(updated.exit.code(), 0, "{}", updated.err);
    // What was not given stays: the API takes the properties as a whole.
    assert_eq!(
        stub.body(&format!("PUT {path}")),
        json!({"trigger_info": {"properties": {"format": "crontab", "pattern": "0 3 * * *",
            "window": "25", "end_time": "2031-01-01 00:00:00"}}})
    );
    let in_use = run(&stub, &["trigger", "delete", "daily"]).await;
    assert_eq!(in_use.exit.code(), 4, "{}", in_use.err);
}

#[tokio::test]
async fn a_trigger_without_a_time_is_not_asked_for() {
    let stub = Stub::start().await;
    insta::assert_snapshot!(run(&stub, &["trigger", "create", "x"]).await.shown(&stub));
    assert!(stub.lines().is_empty());
}

#[tokio::test]
async fn scheduled_operations() {
    let path = format!("/scheduled_operations/{OPERATION}");
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, plans())
        .on(
            "GET /triggers",
            200,
            json!({"triggers": [trigger("daily", json!({}))]}),
        )
        .on(
            "GET /scheduled_operations",
            200,
            json!({"operations": [operation("nightly", "protect")]}),
        )
        .on(
            "POST /scheduled_operations",
            200,
            json!({"scheduled_operation": operation("nightly", "verify")}),
        )
        .on_text(&format!("DELETE {path}"), 200, "");
    let listed = run(&stub, &["scheduled-operation", "list"]).await;
    insta::assert_snapshot!(listed.shown(&stub));
    let arguments = [
        "scheduledoperation",
        "create",
        "nightly",
        "--plan",
        "shop",
        "--trigger",
        "daily",
        "--type",
        "verify",
        "--definition",
        "{\"level\": \"data\"}",
        "--description",
        "d",
    ];
    let made = run(&stub, &arguments).await;
    insta::assert_snapshot!(made.shown(&stub));
    assert_eq!(
        stub.body("POST /scheduled_operations"),
        json!({"scheduled_operation": {
            "name": "nightly", "operation_type": "verify", "trigger_id": TRIGGER, "description": "d",
            "operation_definition": {"provider_id": PROVIDER, "plan_id": PLAN, "level": "data"},
        }})
    );
    let deleted = run(&stub, &["scheduled-operation", "delete", "nightly"]).await;
    assert_eq!(deleted.exit.code(), 0, "{}", deleted.err);
    assert!(stub.lines().contains(&format!("DELETE {path}")));
}

#[tokio::test]
async fn quotas() {
    let stub = Stub::start()
        .await
        .on(
            "GET /quotas/default/detail",
            200,
            json!({"quota": {"plans": {"limit": 50, "in_use": 2, "reserved": 1},
                "checkpoints": {"limit": -1, "in_use": 0, "reserved": 0}, "id": "default"}}),
        )
        .on(
            "GET /quotas/web/defaults",
            200,
            json!({"quota": {"plans": 50, "checkpoints": -1, "id": "web"}}),
        )
        .on(
            "PUT /quotas/web",
            200,
            json!({"quota": {"plans": 0, "checkpoints": -1}}),
        )
        .on_text("DELETE /quotas/web", 202, "")
        .on(
            "PUT /quota_classes/gold",
            200,
            json!({"quota_class": {"plans": 11, "checkpoints": -1}}),
        );
    let detail = run(&stub, &["quota", "show", "--detail"]).await;
    insta::assert_snapshot!(detail.shown(&stub));
    insta::assert_snapshot!(
        run(&stub, &["quota", "defaults", "web", "-f", "json"])
            .await
            .shown(&stub)
    );
    let arguments = [
        "quota",
        "update",
        "web",
        "--plans",
        "0",
        "--bytes",
        "-1",
        "--no-class",
    ];
    assert_eq!(run(&stub, &arguments).await.exit.code(), 0);
    assert_eq!(
        stub.body("PUT /quotas/web"),
        json!({"quota": {"plans": 0, "bytes": -1, "class": null}})
    );
    assert_eq!(run(&stub, &["quota", "delete", "web"]).await.exit.code(), 0);
    let class = run(&stub, &["quota-class", "update", "gold", "--plans", "11"]).await;
    insta::assert_snapshot!(class.shown(&stub));
    assert_eq!(run(&stub, &["quota", "update", "web"]).await.exit.code(), 2);
}

#[tokio::test]
async fn copies_are_waited_for_one_by_one() {
    let copies = [
        "c0000000-0000-4000-8000-000000000001",
        "c0000000-0000-4000-8000-000000000002",
    ];
    let pairs = json!([
        {"checkpoint_protect_id": CHECKPOINT, "checkpoint_copy_id": copies[0]},
        {"checkpoint_protect_id": OLDER, "checkpoint_copy_id": copies[1]},
    ]);
    let mut stub = Stub::start().await.on("GET /plans", 200, plans()).on(
        &format!("POST /providers/{PROVIDER}/checkpoints/action"),
        200,
        json!({"copy": {"plan_id": PLAN, "provider_id": PROVIDER, "checkpoint_id": pairs}}),
    );
    for (copy, states) in [
        (copies[0], ["wait_copying", "available"]),
        (copies[1], ["copying", "error"]),
    ] {
        let path = format!("GET /providers/{PROVIDER}/checkpoints/{copy}");
        for status in states {
            stub = stub.on(
                &path,
                200,
                json!({"checkpoint": {"id": copy, "status": status}}),
            );
        }
        stub = stub.on(
            &format!("GET /operation_logs?checkpoint_id={copy}"),
            200,
            json!({"operation_logs": [{"operation_type": "copy", "status": "failed", "started_at": "x",
                "error_info": "the second bank is full"}]}),
        );
    }
    let copied = run(&stub, &["checkpoint", "copy", "shop", "--wait"]).await;
    insta::assert_snapshot!(copied.shown(&stub));
}

#[test]
fn schedules_that_make_no_sense() {
    for arguments in [
        &["schedule", "shop", "--daily", "--weekly"][..],
        &["schedule", "shop", "--daily", "--keep-last", "0"],
        &["quota", "update"],
        &["quota", "update", "web", "--class", "gold", "--no-class"],
        &["checkpoint", "copy"],
    ] {
        assert!(refused(arguments).is_some(), "{arguments:?}");
    }
}
