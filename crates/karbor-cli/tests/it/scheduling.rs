//! Triggers, scheduled operations, quotas, copies.

use karbor_cli::Exit;
use serde_json::{Value, json};

use crate::stub::{CHECKPOINT, OLDER, PLAN, PROVIDER, Run, Stub, refused, run};

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
        .on("GET /scheduled_operations", 200, json!({"operations": []}))
        .on("GET /triggers", 200, json!({"triggers": []}))
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
        .on("GET /scheduled_operations", 200, json!({"operations": []}))
        .on("GET /triggers", 200, json!({"triggers": []}))
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

/// The same schedule again changes the one that is there: two of a name could be neither paused nor told apart.
#[tokio::test]
async fn a_schedule_of_a_name_that_is_there_is_changed() {
    let there = trigger(
        "shop-daily",
        json!({"format": "crontab", "pattern": "30 3 * * *", "start_time": "2001-11-22 05:00:00",
            "end_time": "2026-12-20 00:00:00", "window": "900"}),
    );
    let changed = trigger(
        "shop-daily",
        json!({"format": "crontab", "pattern": "15 4 * * *", "end_time": "2031-01-01 00:00:00"}),
    );
    let put = format!("PUT /triggers/{TRIGGER}");
    let scheduled = async |named: &[Value]| {
        Stub::start()
            .await
            .on("GET /plans", 200, plans())
            .on(
                "GET /scheduled_operations",
                200,
                json!({"operations": named}),
            )
            .on(
                &format!("GET /triggers/{TRIGGER}"),
                200,
                json!({"trigger_info": there}),
            )
            .on(&put, 200, json!({"trigger_info": changed}))
            .on(
                &format!("GET /scheduled_operations/{OPERATION}"),
                200,
                json!({"scheduled_operation": operation("shop-daily", "retention_protect")}),
            )
    };
    let again = [
        "schedule",
        "shop",
        "--daily",
        "--at",
        "04:15",
        "--end",
        "2031-01-01 00:00:00",
        "--keep-last",
    ];
    let one = operation("shop-daily", "retention_protect");
    let stub = scheduled(&[operation("other", "protect"), one.clone()]).await;
    let done = run(&stub, &[&again[..], &["7"]].concat()).await;
    assert_eq!(done.exit, Exit::Done, "{}", done.err);
    assert!(done.err.contains("updated: shop-daily"), "{}", done.err);
    // It ends and may be late as is said now: an end of before would stop it in silence. It has begun.
    assert_eq!(
        stub.body(&put),
        json!({"trigger_info": {"properties": {
            "format": "crontab", "pattern": "15 4 * * *", "start_time": "2001-11-22 05:00:00",
            "end_time": "2031-01-01 00:00:00",
        }}})
    );
    for told in ["15 4 * * *", "2031-01-01 00:00:00"] {
        assert!(done.out.contains(told), "{}", done.out);
    }
    assert!(stub.lines().iter().all(|line| !line.starts_with("POST")));

    // Nothing is changed where it would come out as something else than was said.
    let mut of_another = one.clone();
    of_another["operation_definition"]["plan_id"] = json!(PROVIDER);
    let mut second = one.clone();
    second["id"] = json!(TRIGGER);
    for (named, keep, words) in [
        (vec![one.clone()], "14", "keeps other checkpoints"),
        (vec![of_another], "7", "give another --name"),
        (vec![one, second], "7", "delete all but one"),
    ] {
        let stub = scheduled(&named).await;
        let refused = run(&stub, &[&again[..], &[keep]].concat()).await;
        assert_eq!(refused.exit, Exit::Usage, "{words}");
        assert!(refused.err.contains(words), "{}", refused.err);
        assert!(
            stub.lines().iter().all(|line| line.starts_with("GET")),
            "{words}"
        );
    }
}

/// A deleted operation leaves its trigger: the next schedule of that name takes it, and makes no second.
#[tokio::test]
async fn a_trigger_that_was_left_behind_is_taken_again() {
    let put = format!("PUT /triggers/{TRIGGER}");
    let created = "POST /scheduled_operations";
    let stub = |operations: Value, status: u16| async move {
        let properties = json!({"format": "crontab", "pattern": "30 2 * * *", "window": "900",
            "start_time": "2999-11-22 05:00:00", "end_time": "2999-12-20 00:00:00"});
        let named = trigger("shop-daily", properties);
        Stub::start()
            .await
            .on("GET /plans", 200, plans())
            .on(
                "GET /scheduled_operations",
                200,
                json!({"operations": operations}),
            )
            .on("GET /triggers", 200, json!({"triggers": [named]}))
            .on("POST /triggers", 200, json!({"trigger_info": named}))
            .on_text(&format!("DELETE /triggers/{TRIGGER}"), 200, "")
            .on(
                &format!("PUT /triggers/{TRIGGER}"),
                200,
                json!({"trigger_info": named}),
            )
            .on(
                "POST /scheduled_operations",
                status,
                json!({"scheduled_operation": operation("shop-daily", "protect")}),
            )
    };
    let arguments = ["schedule", "shop", "--daily"];
    let taken = stub(json!([]), 200).await;
    assert_eq!(run(&taken, &arguments).await.exit, Exit::Done);
    // Nothing of what was said of the schedule that was deleted: it would end with that. It begins now.
    let mut changed = taken.body(&put)["trigger_info"]["properties"].take();
    let start = changed["start_time"].take();
    assert!(
        start.as_str().is_some_and(|start| start < "2999"),
        "{start}"
    );
    assert_eq!(
        changed,
        json!({"format": "crontab", "pattern": "0 0 * * *", "start_time": null})
    );
    assert_eq!(
        taken.body(created)["scheduled_operation"]["trigger_id"],
        TRIGGER
    );
    assert!(!taken.lines().contains(&"POST /triggers".to_owned()));

    // It was there before: what is refused does not take it away.
    let refused = stub(json!([]), 400).await;
    assert_ne!(run(&refused, &arguments).await.exit, Exit::Done);
    assert!(
        refused
            .lines()
            .iter()
            .all(|line| !line.starts_with("DELETE"))
    );

    // What another operation goes by is left alone.
    let used = stub(json!([operation("other", "protect")]), 200).await;
    assert_eq!(run(&used, &arguments).await.exit, Exit::Done);
    assert!(used.lines().contains(&"POST /triggers".to_owned()));
    assert!(used.lines().iter().all(|line| !line.starts_with("PUT")));
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

const COPIES: [&str; 2] = [
    "c0000000-0000-4000-8000-000000000001",
    "c0000000-0000-4000-8000-000000000002",
];

fn pair(source: &str, copy: &str) -> Value {
    json!({"checkpoint_protect_id": source, "checkpoint_copy_id": copy})
}

/// A checkpoint in a list; with `of`, a copy.
fn listed(id: &str, status: &str, of: Option<&str>) -> Value {
    let extra_info = of.map(|of| {
        json!({"copied_from": of, "protected_at": "2026-11-22T10:20:39+00:00"}).to_string()
    });
    json!({"id": id, "status": status, "extra_info": extra_info})
}

/// A service that answers to copies with these, one after the other, and lists `checkpoints`.
async fn copying(answers: &[Result<&[Value], Value>], checkpoints: &[Value]) -> Stub {
    let mut stub = Stub::start().await.on("GET /plans", 200, plans()).on(
        &format!("GET /providers/{PROVIDER}/checkpoints?plan_id={PLAN}"),
        200,
        json!({"checkpoints": checkpoints}),
    );
    for answer in answers {
        let (status, body) = match answer {
            Ok(pairs) => (
                200,
                json!({"copy": {"plan_id": PLAN, "provider_id": PROVIDER, "checkpoint_id": pairs}}),
            ),
            Err(fault) => (413, json!({"overLimit": fault})),
        };
        stub = stub.on(
            &format!("POST /providers/{PROVIDER}/checkpoints/action"),
            status,
            body,
        );
    }
    stub
}

/// What a copy goes through, and why it failed if it did.
fn goes_through(mut stub: Stub, copy: &str, states: &[&str], reason: &str) -> Stub {
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{copy}");
    for status in states {
        let body = json!({"checkpoint": {"id": copy, "status": status}});
        stub = stub.on(&path, 200, body);
    }
    stub.on(
        &format!("GET /operation_logs?checkpoint_id={copy}"),
        200,
        json!({"operation_logs": [{"operation_type": "copy", "status": "failed", "started_at": "x",
            "error_info": reason}]}),
    )
}

async fn copy(stub: &Stub, more: &[&str]) -> Run {
    run(stub, &[&["checkpoint", "copy", "shop"], more].concat()).await
}

#[tokio::test]
async fn copies_are_waited_for_one_by_one() {
    let checkpoints = [
        listed(CHECKPOINT, "available", None),
        listed(COPIES[0], "available", Some(CHECKPOINT)),
        listed(OLDER, "available", None),
        listed(COPIES[1], "error", Some(OLDER)),
    ];
    let pairs = [pair(CHECKPOINT, COPIES[0]), pair(OLDER, COPIES[1])];
    let stub = copying(&[Ok(&pairs)], &checkpoints).await;
    let stub = goes_through(stub, COPIES[0], &["wait_copying", "available"], "");
    let failed = ["copying", "error"];
    let stub = goes_through(stub, COPIES[1], &failed, "the second bank is full");
    insta::assert_snapshot!(copy(&stub, &["--wait"]).await.shown(&stub));
    // What failed would fail once more.
    let asked = stub.lines().into_iter();
    assert_eq!(asked.filter(|line| line.starts_with("POST")).count(), 1);
}

/// What could not begin at once is asked for again when the others are copied.
#[tokio::test]
async fn copies_are_asked_for_until_none_is_left() {
    let checkpoints = [
        listed(CHECKPOINT, "available", None),
        listed(COPIES[0], "available", Some(CHECKPOINT)),
        listed(OLDER, "available", None),
        listed(COPIES[1], "available", Some(OLDER)),
    ];
    let rounds = [[pair(CHECKPOINT, COPIES[0])], [pair(OLDER, COPIES[1])]];
    let answers = [Ok(&rounds[0][..]), Ok(&rounds[1][..]), Ok(&[][..])];
    let stub = copying(&answers, &checkpoints).await;
    let stub = goes_through(stub, COPIES[0], &["available"], "");
    let stub = goes_through(stub, COPIES[1], &["copying", "available"], "");
    let done = copy(&stub, &["--wait"]).await;
    assert_eq!(done.exit, Exit::Done, "{done:?}");
    insta::assert_snapshot!(done.shown(&stub));
    let stub = copying(&answers, &checkpoints).await;
    let begun = copy(&stub, &[]).await;
    insta::assert_snapshot!(begun.shown(&stub));
    let stub = copying(&answers, &checkpoints).await;
    let begun = copy(&stub, &["-f", "json"]).await;
    let answer: Value = serde_json::from_str(&begun.out).unwrap();
    assert_eq!(answer["checkpoint_id"], json!([rounds[0][0], rounds[1][0]]));
}

#[tokio::test]
async fn what_is_left_to_copy_is_told() {
    let message = "1 checkpoint of the plan is not copied: Maximum number of checkpoints exceeded";
    let full = || Err(json!({"message": message}));
    let checkpoints = [
        listed(CHECKPOINT, "available", None),
        listed(COPIES[0], "available", Some(CHECKPOINT)),
        listed(OLDER, "available", None),
    ];
    let pairs = [pair(CHECKPOINT, COPIES[0])];
    for wait in [&["--wait"][..], &[]] {
        let stub = copying(&[Ok(&pairs), full()], &checkpoints).await;
        let stub = goes_through(stub, COPIES[0], &["available"], "");
        let partly = copy(&stub, wait).await;
        assert_eq!(partly.exit, Exit::Failed, "{partly:?}");
        assert!(partly.out.contains(COPIES[0]), "{partly:?}");
        assert!(partly.err.contains("1 copy has begun"), "{partly:?}");
        assert!(partly.err.contains(message), "{partly:?}");
    }
    // A copy that fails at once is not made for ever.
    let stub = copying(&[Ok(&pairs)], &checkpoints).await;
    let endless = copy(&stub, &[]).await;
    assert_eq!(endless.exit, Exit::Failed, "{endless:?}");
    // The service's word is not taken for it.
    let stub = copying(&[Ok(&[])], &checkpoints).await;
    insta::assert_snapshot!(copy(&stub, &[]).await.shown(&stub));
}

#[tokio::test]
async fn when_all_is_copied_that_is_shown() {
    let checkpoints = [
        listed(CHECKPOINT, "available", None),
        listed(OLDER, "error", None),
        listed(COPIES[0], "available", Some(CHECKPOINT)),
        // Of one that was deleted.
        listed(COPIES[1], "available", Some("gone")),
    ];
    let stub = copying(&[Ok(&[])], &checkpoints).await;
    let done = copy(&stub, &["--wait"]).await;
    insta::assert_snapshot!(done.shown(&stub));
    assert_eq!(copy(&stub, &["-f", "value"]).await.out, "");

    let stub = copying(&[Ok(&[])], &checkpoints[1..2]).await;
    let nothing = copy(&stub, &[]).await;
    assert_eq!(nothing.out, "");
    assert!(
        nothing.err.contains("no available checkpoint"),
        "{nothing:?}"
    );
}

/// Somebody else began to copy: that is waited for, too.
#[tokio::test]
async fn what_is_being_copied_is_not_called_copied() {
    let checkpoints = [
        listed(CHECKPOINT, "available", None),
        listed(COPIES[0], "copying", Some(CHECKPOINT)),
    ];
    let stub = copying(&[Ok(&[])], &checkpoints).await;
    let now = copy(&stub, &[]).await;
    assert!(now.err.contains("being copied (1 now)"), "{now:?}");
    let stub = copying(&[Ok(&[])], &checkpoints).await;
    let stub = goes_through(stub, COPIES[0], &["copying", "error"], "the bank is full");
    let failed = copy(&stub, &["--wait"]).await;
    assert_eq!(failed.exit, Exit::Failed, "{failed:?}");
    assert!(failed.err.contains("the bank is full"), "{failed:?}");
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

#[tokio::test]
async fn a_scheduled_operation_is_paused_and_resumed() {
    for (verb, enabled) in [("pause", false), ("resume", true)] {
        let at = format!("PATCH /scheduled_operations/{OPERATION}");
        let answer = json!({"scheduled_operation": operation("nightly", "protect")});
        let found = json!({"operations": [operation("nightly", "protect")]});
        let stub = Stub::start()
            .await
            .on("GET /scheduled_operations", 200, found)
            .on(&at, 200, answer);
        let run = run(&stub, &["scheduled-operation", verb, "nightly"]).await;
        assert_eq!(run.exit, Exit::Done);
        assert!(run.err.contains("nightly"), "{}", run.err);
        let asked = json!({"scheduled_operation": {"enabled": enabled}});
        assert_eq!(stub.body(&at), asked);
    }
}

/// A second copy in the same bank is none for the day that the bank is lost.
#[tokio::test]
async fn copies_in_the_same_bank_are_warned_of() {
    let mut made = listed(COPIES[0], "available", Some(CHECKPOINT));
    let of_second_bank = [listed(CHECKPOINT, "available", None), made.clone()];
    let mut info: Value = serde_json::from_str(made["extra_info"].as_str().unwrap()).unwrap();
    info["same_bank"] = json!(true);
    made["extra_info"] = json!(info.to_string());
    let of_same_bank = [listed(CHECKPOINT, "available", None), made];
    for (checkpoints, warned) in [(of_second_bank, false), (of_same_bank, true)] {
        let stub = copying(&[Ok(&[])], &checkpoints).await.on(
            "GET /providers",
            200,
            json!({"providers": [{"id": PROVIDER, "name": "local"}]}),
        );
        for format in ["table", "json"] {
            let done = copy(&stub, &["--wait", "-f", format]).await;
            assert_eq!(done.exit, Exit::Done, "{}", done.err);
            let told = done
                .err
                .contains("warning: the provider local names no second bank (copy_bank)");
            assert_eq!(told, warned, "{}", done.err);
        }
    }
}
