//! Protect, restore, verify and delete, followed to their end.

use serde_json::{Value, json};

use crate::stub::{CHECKPOINT, LOG, OLDER, PLAN, PROVIDER, RESTORE, Stub, run, run_patiently};

const GRAPH: &str = "[{\"0x0\": [\"Host::Directory\", \"d1\", \"uploads\", null], \
    \"0x1\": [\"Host::SQLite::Database\", \"s1\", \"sessions\", null], \
    \"0x2\": [\"Host::Application\", \"a1\", \"shop\", null]}, [[\"0x2\", [\"0x0\", \"0x1\"]]]]";

fn checkpoint(id: &str, status: &str) -> Value {
    json!({"checkpoint": {
        "id": id, "project_id": "default", "status": status, "created_at": "2026-11-22",
        "protection_plan": {"id": PLAN, "name": "shop", "resources": []},
        "resource_graph": if status == "protecting" { Value::Null } else { GRAPH.into() },
        "extra_info": null,
    }})
}

fn log(operation: &str, status: &str, error: Option<&str>, extra: Value) -> Value {
    json!({"operation_log": {
        "id": LOG, "operation_type": operation, "checkpoint_id": CHECKPOINT, "plan_id": PLAN,
        "restore_id": null, "status": status, "started_at": "2026-11-22T10:20:39.379530",
        "ended_at": null, "error_info": error, "extra_info": extra.to_string(),
    }})
}

fn listed(log: &Value) -> Value {
    json!({"operation_logs": [log["operation_log"]]})
}

fn providers(sqlite: Value) -> Value {
    json!({"providers": [{"id": PROVIDER, "name": "local", "extended_info_schema": {
        "options_schema": {"Host::Application": {}},
        "restore_schema": {
            "Host::Application": {},
            "Host::Directory": {"properties": {"dry_run": {}, "overwrite": {}, "restore_to": {}}},
            "Host::SQLite::Database": sqlite,
        },
        "verify_schema": {"Host::Directory": {"properties": {"level": {}, "percent": {}}}},
    }}]})
}

fn progress(done: u64) -> Value {
    json!({"progress": {"tasks_done": done, "tasks_total": 4, "bytes_done": 0, "bytes_expected": 0,
        "bytes_per_second": 0.0, "resources": []}})
}

/// A service with an application, no plan, and a protect that ends as told.
async fn protecting(status: &str, end: &str, error: Option<&str>) -> Stub {
    let plan = json!({"id": PLAN, "name": "shop", "provider_id": PROVIDER, "resources": []});
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let reports = json!({"resources": {
        "Host::Directory#d1": {"files": 12, "bytes": 3_145_728, "new_bytes": 1024, "left_out": 1,
            "warnings": ["1 file vanished while it was read"]},
        "Host::SQLite::Database#s1": {"bytes": 8192, "new_bytes": 8192},
    }});
    let running = log("protect", "in_progress", None, progress(1));
    Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}))
        .on(
            "GET /protectables/Host::Application/instances",
            200,
            json!({"instances": [{"id": "a1", "type": "Host::Application", "name": "shop"}]}),
        )
        .on("GET /providers", 200, providers(json!({})))
        .on("POST /plans", 200, json!({"plan": plan}))
        .on(
            &format!("POST /providers/{PROVIDER}/checkpoints"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, status))
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            json!({"operation_logs": []}),
        )
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            listed(&running),
        )
        .on(
            &format!("GET /operation_logs/{LOG}"),
            200,
            log("protect", "in_progress", None, progress(2)),
        )
        .on(
            &format!("GET /operation_logs/{LOG}"),
            200,
            log("protect", "in_progress", None, progress(4)),
        )
        .on(
            &format!("GET /operation_logs/{LOG}"),
            200,
            log("protect", end, error, reports),
        )
}

#[tokio::test]
async fn protect_makes_the_plan_and_waits() {
    let stub = protecting("available", "success", None).await;
    let done = run(&stub, &["protect", "shop", "--wait"]).await;
    insta::assert_snapshot!(done.shown(&stub));
    assert_eq!(
        stub.body("POST /plans"),
        json!({"plan": {"name": "shop", "provider_id": PROVIDER, "parameters": {},
            "resources": [{"id": "a1", "type": "Host::Application", "name": "shop"}]}})
    );
    assert_eq!(
        stub.body(&format!("POST /providers/{PROVIDER}/checkpoints")),
        json!({"checkpoint": {"plan_id": PLAN}})
    );
}

/// Every name, and how many more there are; and a code of its own.
#[tokio::test]
async fn an_incomplete_checkpoint_ends_with_7_and_names_what_is_missing() {
    let named = ["secret1", "secret2"].map(|name| {
        let path = format!("/srv/shop/{name}\nwarning: all is well");
        json!({"path": path, "reason": "Permission denied (os error 13)"})
    });
    let mut incomplete = checkpoint(CHECKPOINT, "available");
    let info = json!({"incomplete": {"total": 5, "resources": {
        "Host::Directory#d1": {"total": 5, "named": named},
    }}});
    incomplete["checkpoint"]["extra_info"] = info.to_string().into();
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let stub = protecting("protecting", "success", None)
        .await
        .on(&path, 200, incomplete);
    let done = run(&stub, &["protect", "shop", "--wait"]).await;
    assert_eq!(done.exit.code(), 7, "{}", done.err);
    for told in [
        "secret1",
        "secret2",
        "and 3 more",
        "Permission denied",
        "5 files",
    ] {
        assert!(done.err.contains(told), "{told}: {}", done.err);
    }
    // A name is one line, whatever is in it.
    assert!(!done.err.contains("\nwarning: all is well"), "{}", done.err);
}

#[tokio::test]
async fn protect_without_waiting_says_how_to_follow() {
    let stub = protecting("available", "success", None).await;
    insta::assert_snapshot!(run(&stub, &["protect", "shop"]).await.shown(&stub));
}

#[tokio::test]
async fn a_failed_protect_names_every_resource() {
    let error = "uploads (directory): the directory is gone\n\
                 sessions (SQLite database): database is locked";
    let stub = protecting("error", "failed", Some(error)).await;
    insta::assert_snapshot!(
        run(&stub, &["protect", "shop", "--wait"])
            .await
            .shown(&stub)
    );
}

#[tokio::test]
async fn waiting_in_json_gives_record_and_log() {
    let stub = protecting("available", "success", None).await;
    let done = run(&stub, &["protect", "shop", "--wait", "-f", "json"]).await;
    let record: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(record["status"], "available");
    assert_eq!(
        record["operation_log"]["extra_info"]["resources"]["Host::Directory#d1"]["files"],
        12
    );
    assert_eq!(done.err, "");
}

#[tokio::test]
async fn waiting_ends_with_the_time() {
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let plan = json!({"plan": {"id": PLAN, "name": "shop", "provider_id": PROVIDER}});
    let stub = Stub::start()
        .await
        .on(&format!("GET /plans/{PLAN}"), 200, plan)
        .on(
            &format!("POST /providers/{PROVIDER}/checkpoints"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            json!({"operation_logs": []}),
        );
    let late = run(
        &stub,
        &["checkpoint", "create", PLAN, "--wait", "--timeout", "0s"],
    )
    .await;
    insta::assert_snapshot!(late.shown(&stub));
}

#[tokio::test]
async fn a_service_that_stays_away_ends_the_wait() {
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let plan = json!({"plan": {"id": PLAN, "name": "shop", "provider_id": PROVIDER}});
    let stub = Stub::start()
        .await
        .on(&format!("GET /plans/{PLAN}"), 200, plan)
        .on(
            &format!("POST /providers/{PROVIDER}/checkpoints"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(
            &path,
            503,
            json!({"serviceUnavailable": {"message": "karbor-protection is away"}}),
        );
    let lost = run(&stub, &["checkpoint", "create", PLAN, "--wait"]).await;
    insta::assert_snapshot!(lost.shown(&stub));
}

#[tokio::test]
async fn a_service_that_comes_back_is_waited_for() {
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let away = json!({"serviceUnavailable": {"message": "starting"}});
    let stub = Stub::start()
        .await
        .on(
            &format!("GET /plans/{PLAN}"),
            200,
            json!({"plan": {"id": PLAN, "name": "shop", "provider_id": PROVIDER}}),
        )
        .on(
            &format!("POST /providers/{PROVIDER}/checkpoints"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 503, away.clone())
        .on(&path, 504, away)
        .on(&path, 200, checkpoint(CHECKPOINT, "available"))
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            json!({"operation_logs": []}),
        );
    let done = run_patiently(
        &stub,
        &[
            "checkpoint",
            "create",
            PLAN,
            "--wait",
            "-f",
            "value",
            "-c",
            "status",
        ],
    )
    .await;
    assert_eq!(
        (done.exit.code(), done.out.as_str()),
        (0, "available\n"),
        "{}",
        done.err
    );
}

/// A plan with a checkpoint in error and two that are available.
async fn restorable(sqlite: Value) -> Stub {
    let available = |id| checkpoint(id, "available")["checkpoint"].take();
    let checkpoints = json!({"checkpoints": [
        checkpoint("0000ffff-0000-4000-8000-000000000000", "error")["checkpoint"],
        available(CHECKPOINT), available(OLDER)]});
    let plan = json!({"id": PLAN, "name": "shop", "provider_id": PROVIDER});
    Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": [plan]}))
        .on("GET /providers", 200, providers(sqlite))
        .on(
            // A service that does not know the status filter answers with all.
            &format!("GET /providers/{PROVIDER}/checkpoints?status=available&plan_id={PLAN}"),
            200,
            checkpoints,
        )
}

fn restore(status: &str, reason: Value) -> Value {
    json!({"restore": {"id": RESTORE, "project_id": "default", "provider_id": PROVIDER,
        "checkpoint_id": CHECKPOINT, "restore_target": null, "parameters": {}, "status": status,
        "resources_status": {}, "resources_reason": reason}})
}

#[tokio::test]
async fn a_dry_run_lists_what_would_change() {
    let changes = json!({"resources": {
        "Host::Directory#d1": {"changes": [
            {"path": "/srv/uploads/a", "kind": "create"}, {"path": "/srv/uploads/b\u{1b}", "kind": "overwrite"}]},
        "Host::SQLite::Database#s1": {"changes": []},
    }});
    let ended = log("restore", "success", None, changes);
    let stub = restorable(json!({"properties": {"dry_run": {}}}))
        .await
        .on("POST /restores", 200, restore("in_progress", json!({})))
        .on(
            &format!("GET /restores/{RESTORE}"),
            200,
            restore("in_progress", json!({})),
        )
        .on(
            &format!("GET /restores/{RESTORE}"),
            200,
            restore("success", json!({})),
        )
        .on(
            &format!("GET /operation_logs?restore_id={RESTORE}"),
            200,
            listed(&ended),
        );
    let arguments = [
        "restore",
        "shop",
        "--latest",
        "--dry-run",
        "--overwrite",
        "if-changed",
    ];
    insta::assert_snapshot!(run(&stub, &arguments).await.shown(&stub));
    assert_eq!(
        stub.body("POST /restores"),
        json!({"restore": {"provider_id": PROVIDER, "checkpoint_id": CHECKPOINT, "parameters": {
            "Host::Directory": {"dry_run": true, "overwrite": "if-changed"},
            "Host::SQLite::Database": {"dry_run": true},
        }}})
    );
}

#[tokio::test]
async fn a_dry_run_that_would_be_refused_is_no_success() {
    let reports = json!({"resources": {
        "Host::Directory#d1": {"changes": [], "warnings": ["it is not empty"], "refused": "it is not empty"},
    }});
    let ended = log("restore", "success", None, reports);
    let stub = restorable(json!({"properties": {"dry_run": {}}}))
        .await
        .on("POST /restores", 200, restore("in_progress", json!({})))
        .on(
            &format!("GET /restores/{RESTORE}"),
            200,
            restore("success", json!({})),
        )
        .on(
            &format!("GET /operation_logs?restore_id={RESTORE}"),
            200,
            listed(&ended),
        );
    let tried = run(&stub, &["restore", "shop", "--latest", "--dry-run"]).await;
    insta::assert_snapshot!(tried.shown(&stub));
}

#[tokio::test]
async fn a_failed_restore_tells_the_records_reasons() {
    let reason = json!({"Host::Directory#d1": "the disk is full"});
    let stub = restorable(json!({}))
        .await
        .on("POST /restores", 200, restore("in_progress", json!({})))
        .on(
            &format!("GET /restores/{RESTORE}"),
            200,
            restore("fail", reason),
        )
        .on(
            &format!("GET /operation_logs?restore_id={RESTORE}"),
            200,
            json!({"operation_logs": []}),
        );
    let failed = run(&stub, &["restore", "shop", "--latest", "--wait"]).await;
    insta::assert_snapshot!(failed.shown(&stub));
}

/// What stays is only told of where something was restored.
#[tokio::test]
async fn a_restore_that_failed_half_way_says_what_stays() {
    let mut half = restore("fail", json!({"Host::Directory#d1": "the disk is full"}));
    half["restore"]["resources_status"] =
        json!({"Host::Directory#d1": "error", "Host::SQLite::Database#s1": "available"});
    let stub = restorable(json!({}))
        .await
        .on("POST /restores", 200, restore("in_progress", json!({})))
        .on(&format!("GET /restores/{RESTORE}"), 200, half)
        .on(
            &format!("GET /operation_logs?restore_id={RESTORE}"),
            200,
            json!({"operation_logs": []}),
        );
    let failed = run(&stub, &["restore", "shop", "--latest", "--wait"]).await;
    assert!(
        failed.err.contains("again; what was restored stays"),
        "{}",
        failed.err
    );
}

/// A refusal is a record with a reason that is about the checkpoint, and it has ended: not "running".
#[tokio::test]
async fn what_is_refused_with_a_record_has_failed() {
    let reason =
        json!({format!("Checkpoint#{CHECKPOINT}"): "500 is greater than the maximum of 100"});
    let stub = restorable(json!({}))
        .await
        .on("POST /restores", 200, restore("fail", reason))
        .on(
            &format!("GET /restores/{RESTORE}"),
            500,
            json!("nobody has to wait"),
        );
    for wait in [&[][..], &["--wait"]] {
        let arguments = [&["restore", "shop", "--latest"][..], wait].concat();
        let shown = run(&stub, &arguments).await.shown(&stub);
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown);
        }
    }
}

/// Names for whom there are any: of a checkpoint that is gone, and of what is no resource, the key.
#[tokio::test]
async fn a_record_shows_what_became_of_each_resource_and_why() {
    let mut record = restore("fail", json!({"Host::Directory#d1": "the disk is full"}));
    record["restore"]["resources_status"] =
        json!({"Host::Directory#d1": "error", "Host::SQLite::Database#s1": "available"});
    let gone =
        json!({format!("Checkpoint#{OLDER}"): format!("Checkpoint {OLDER} could not be found.")});
    let mut verification = restore("fail", gone)["restore"].take();
    verification["checkpoint_id"] = OLDER.into();
    let stub = Stub::start()
        .await
        .on(&format!("GET /restores/{RESTORE}"), 200, record)
        .on(
            &format!("GET /verifications/{RESTORE}"),
            200,
            json!({"verification": verification}),
        )
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}"),
            200,
            checkpoint(CHECKPOINT, "available"),
        );
    for kind in ["restore", "verification"] {
        let shown = run(&stub, &[kind, "show", RESTORE]).await;
        insta::assert_snapshot!(format!("show_{kind}"), shown.shown(&stub));
    }
    let json = run(&stub, &["verification", "show", RESTORE, "-f", "json"]).await;
    assert!(json.out.contains("could not be found."), "{}", json.out);
}

#[tokio::test]
async fn restores_that_are_refused_before_they_are_asked_for() {
    let stub = restorable(json!({})).await.on(
        &format!("GET /providers/{PROVIDER}/checkpoints/{OLDER}"),
        200,
        {
            let mut other = checkpoint(OLDER, "available");
            other["checkpoint"]["protection_plan"]["name"] = "other".into();
            other["checkpoint"]["protection_plan"]["id"] = "x".into();
            other
        },
    );
    for (name, arguments) in [
        ("which_checkpoint", &["restore", "shop"][..]),
        (
            "dry_run_unknown",
            &["restore", "shop", "--latest", "--dry-run"],
        ),
        (
            "database_unknown",
            &["restore", "shop", "--latest", "--database", "copy"],
        ),
        (
            "of_another_plan",
            &["restore", "shop", "--checkpoint", OLDER],
        ),
    ] {
        insta::assert_snapshot!(name, run(&stub, arguments).await.shown(&stub));
    }
    assert!(!stub.lines().iter().any(|line| line.starts_with("POST")));
}

#[tokio::test]
async fn a_verification_that_finds_damage() {
    let verification = |status: &str| {
        json!({"verification": {"id": RESTORE, "provider_id": PROVIDER, "checkpoint_id": CHECKPOINT,
            "parameters": {}, "status": status, "resources_status": {}, "resources_reason": {}}})
    };
    let error = "uploads (directory): data/4f/4f21 is damaged";
    let older = log("verify", "success", None, json!({}))["operation_log"].take();
    let mut newer = log("verify", "failed", Some(error), json!({}))["operation_log"].take();
    newer["started_at"] = "2026-11-23T00:00:00".into();
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, providers(json!({})))
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}"),
            200,
            checkpoint(CHECKPOINT, "available"),
        )
        .on("POST /verifications", 200, verification("in_progress"))
        .on(
            &format!("GET /verifications/{RESTORE}"),
            200,
            verification("in_progress"),
        )
        .on(
            &format!("GET /verifications/{RESTORE}"),
            200,
            verification("fail"),
        )
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            json!({"operation_logs": [older, newer]}),
        );
    let arguments = [
        "verification",
        "create",
        CHECKPOINT,
        "--wait",
        "--data",
        "--percent",
        "10",
    ];
    insta::assert_snapshot!(run(&stub, &arguments).await.shown(&stub));
    assert_eq!(
        stub.body("POST /verifications")["verification"]["parameters"],
        json!({"Host::Directory": {"level": "data", "percent": 10}})
    );
}

#[tokio::test]
async fn a_delete_is_over_when_the_checkpoint_says_so() {
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let logs = format!("GET /operation_logs?checkpoint_id={CHECKPOINT}");
    let delete = format!("DELETE /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let base = || async {
        Stub::start()
            .await
            .on("GET /providers", 200, providers(json!({})))
            .on(&path, 200, checkpoint(CHECKPOINT, "available"))
            .on(&path, 200, checkpoint(CHECKPOINT, "available"))
            .on(&path, 200, checkpoint(CHECKPOINT, "deleting"))
            .on(&delete, 200, json!({}))
    };
    let gone = base()
        .await
        .on(&path, 404, json!({"itemNotFound": {"message": "gone"}}))
        .on(&logs, 200, json!({"operation_logs": []}));
    let arguments = ["checkpoint", "delete", CHECKPOINT, "--wait"];
    insta::assert_snapshot!(run(&gone, &arguments).await.shown(&gone));
    let stuck = base()
        .await
        .on(&path, 200, checkpoint(CHECKPOINT, "error-deleting"))
        .on(
            &logs,
            200,
            listed(&log(
                "delete",
                "failed",
                Some("the bank is read-only"),
                json!({}),
            )),
        );
    insta::assert_snapshot!(run(&stuck, &arguments).await.shown(&stuck));
}

const TURN: &str = "waits for its turn: 8 operations are at work";

/// What waits for its turn says so, once, and then how it ends.
#[tokio::test]
async fn an_operation_that_waits_for_its_turn_says_so() {
    let at = format!("GET /operation_logs?checkpoint_id={CHECKPOINT}");
    let path = format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let waits = log("protect", "protecting", None, json!({ "waiting": TURN }));
    let plan = json!({"id": PLAN, "name": "shop", "provider_id": PROVIDER, "resources": []});
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": [plan]}))
        .on(
            &format!("POST /providers/{PROVIDER}/checkpoints"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, "protecting"))
        .on(&path, 200, checkpoint(CHECKPOINT, "available"))
        .on(&at, 200, listed(&waits))
        .on(&format!("GET /operation_logs/{LOG}"), 200, waits.clone())
        .on(
            &format!("GET /operation_logs/{LOG}"),
            200,
            log("protect", "available", None, json!({"resources": {}})),
        );
    let arguments = ["checkpoint", "create", "shop", "--wait"];
    let done = run(&stub, &arguments).await;
    assert_eq!(done.exit.code(), 0, "{}", done.shown(&stub));
    assert_eq!(done.err.matches(TURN).count(), 1, "{}", done.err);
}

/// A record and the log show what waits.
#[tokio::test]
async fn what_waits_for_its_turn_is_shown() {
    let mut waits = log("verify", "in_progress", None, json!({ "waiting": TURN }));
    waits["operation_log"]["id"] = RESTORE.into();
    let run_record = json!({
        "id": RESTORE, "project_id": "default", "provider_id": PROVIDER, "checkpoint_id": CHECKPOINT,
        "parameters": {}, "status": "in_progress", "resources_status": {}, "resources_reason": {},
    });
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, providers(json!({})))
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}"),
            200,
            checkpoint(CHECKPOINT, "protecting"),
        )
        .on(
            &format!("GET /verifications/{RESTORE}"),
            200,
            json!({ "verification": run_record }),
        )
        .on(
            &format!("GET /restores/{RESTORE}"),
            200,
            json!({ "restore": run_record }),
        )
        .on(
            &format!("GET /operation_logs/{RESTORE}"),
            200,
            waits.clone(),
        )
        .on("GET /operation_logs", 200, listed(&waits))
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            listed(&waits),
        );
    for arguments in [
        ["verification", "show", RESTORE],
        ["restore", "show", RESTORE],
        ["checkpoint", "show", CHECKPOINT],
    ] {
        let shown = run(&stub, &arguments).await;
        assert!(
            shown.out.contains(TURN),
            "{arguments:?}: {}",
            shown.shown(&stub)
        );
    }
    let listed = run(&stub, &["operation-log", "list"]).await;
    assert!(
        listed.out.contains("in_progress, waiting"),
        "{}",
        listed.out
    );
}
