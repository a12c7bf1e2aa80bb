//! Tables, JSON, values; names wherever ids are.

use karbor_cli::Exit;
use serde_json::{Value, json};

use crate::stub::{
    CHECKPOINT, OLDER, PLAN, PROVIDER, RESTORE, Stub, refused, run, run_into_closed_pipe,
};

fn plan(name: &str, id: &str) -> Value {
    json!({
        "id": id, "name": name, "description": "made by the suite", "status": "suspended",
        "provider_id": PROVIDER, "parameters": {},
        "resources": [{"id": "a1", "type": "Host::Application", "name": "shop"}],
    })
}

fn checkpoint(id: &str, status: &str) -> Value {
    json!({
        "id": id, "project_id": "default", "status": status, "created_at": "2026-11-22",
        "protection_plan": {"id": PLAN, "name": "shop", "provider_id": PROVIDER, "resources": []},
        "resource_graph": "[{\"0x0\": [\"Host::Directory\", \"d1\", \"uploads\", null], \
            \"0x1\": [\"Host::Application\", \"a1\", \"shop\", null]}, [[\"0x1\", [\"0x0\"]]]]",
        "extra_info": "{\"created_by\": \"manual\"}",
    })
}

fn providers() -> Value {
    json!({"providers": [{
        "id": PROVIDER, "name": "local", "description": "This machine",
        "extended_info_schema": {
            "options_schema": {"Host::Application": {}, "Host::Directory": {}},
            "restore_schema": {"Host::Application": {}, "Host::Directory": {"properties": {
                "dry_run": {"type": "boolean", "description": "Change nothing"},
                "overwrite": {"type": "string", "description": "What to do with what is there"}}}},
            "saved_info_schema": {},
        },
    }]})
}

#[tokio::test]
async fn a_table_for_people() {
    let stub = Stub::start().await.on(
        "GET /plans",
        200,
        json!({"plans": [plan("shop", PLAN), plan("\u{1b}[2Jevil", OLDER)]}),
    );
    let run = run(&stub, &["plan", "list"]).await;
    insta::assert_snapshot!(run.shown(&stub));
    assert_eq!(stub.asked()[0].token.as_deref(), Some("sesame"));
}

#[tokio::test]
async fn json_is_the_apis_own() {
    let plans = json!({"plans": [plan("shop", PLAN)]});
    let stub = Stub::start().await.on("GET /plans", 200, plans.clone());
    let run = run(&stub, &["plan", "list", "-f", "json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&run.out).unwrap(),
        plans["plans"]
    );
    assert_eq!(run.err, "");
}

#[tokio::test]
async fn values_for_shells() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": [plan("shop", PLAN)]}));
    let one = run(&stub, &["plan", "show", "shop", "-f", "value", "-c", "id"]).await;
    assert_eq!(one.out, format!("{PLAN}\n"));
    let list = run(
        &stub,
        &["plan", "list", "-f", "value", "-c", "name", "-c", "status"],
    )
    .await;
    assert_eq!(list.out, "shop\tsuspended\n");
    let wrong = run(&stub, &["plan", "list", "-c", "colour"]).await;
    insta::assert_snapshot!(wrong.shown(&stub));
}

#[tokio::test]
async fn an_empty_list_says_so_to_people_only() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}));
    insta::assert_snapshot!(run(&stub, &["plan", "list"]).await.shown(&stub));
    insta::assert_snapshot!(
        run(&stub, &["plan", "list", "-f", "json"])
            .await
            .shown(&stub)
    );
}

#[tokio::test]
async fn every_page_is_read_by_its_marker() {
    // The path and host of the link are the service's own view (Q23): only the marker counts.
    let link = json!([{"rel": "next", "href": "http://elsewhere/v1/x/plans?limit=1&marker=m%201"}]);
    let stub = Stub::start()
        .await
        .on(
            "GET /plans",
            200,
            json!({"plans": [plan("a", "1")], "plans_links": link}),
        )
        .on(
            "GET /plans?marker=m+1",
            200,
            json!({"plans": [plan("b", "2")], "plans_links": link}),
        );
    let all = run(&stub, &["plan", "list", "-f", "value", "-c", "name"]).await;
    assert_eq!(all.out, "a\nb\n");
    assert_eq!(stub.lines(), ["GET /plans", "GET /plans?marker=m+1"]);
}

#[tokio::test]
async fn a_limit_ends_the_paging() {
    let stub = Stub::start().await.on(
        "GET /plans?sort=name%3Aasc&all_tenants=true&limit=1",
        200,
        json!({"plans": [plan("a", "1")],
               "plans_links": [{"rel": "next", "href": "/v1/x/plans?marker=1"}]}),
    );
    let arguments = [
        "plan",
        "list",
        "--limit",
        "1",
        "--sort",
        "name:asc",
        "--all-projects",
        "-f",
        "value",
        "-c",
        "name",
    ];
    assert_eq!(run(&stub, &arguments).await.out, "a\n");
}

#[tokio::test]
async fn checkpoints_of_a_plan_with_their_times() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": [plan("shop", PLAN)]}))
        .on("GET /providers", 200, providers())
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints?plan_id={PLAN}"),
            200,
            json!({"checkpoints": [checkpoint(CHECKPOINT, "available"), checkpoint(OLDER, "error")]}),
        )
        .on(
            "GET /operation_logs",
            200,
            json!({"operation_logs": [
                {"operation_type": "protect", "checkpoint_id": CHECKPOINT, "started_at": "2026-11-22T10:20:39.379530"},
                {"operation_type": "delete", "checkpoint_id": OLDER, "started_at": "2026-11-23T10:20:39"},
            ]}),
        );
    insta::assert_snapshot!(
        run(&stub, &["checkpoint", "list", "shop"])
            .await
            .shown(&stub)
    );
}

/// A copy says what it is a copy of, and is as old as that.
#[tokio::test]
async fn a_copy_is_told_from_what_was_protected() {
    let mut copy = checkpoint(OLDER, "available");
    copy["extra_info"] = json!({
        "copied_from": CHECKPOINT, "protected_at": "2026-11-22T10:20:39+00:00",
        "copied_at": "2026-11-25T20:00:00+00:00", "copy_status": "finished",
    })
    .to_string()
    .into();
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, providers())
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints"),
            200,
            json!({"checkpoints": [checkpoint(CHECKPOINT, "available"), copy]}),
        )
        .on("GET /operation_logs", 200, json!({"operation_logs": []}));
    let list = run(&stub, &["checkpoint", "list"]).await;
    insta::assert_snapshot!(list.shown(&stub));
    let show = run(&stub, &["checkpoint", "show", &OLDER[..6]]).await;
    insta::assert_snapshot!(show.shown(&stub));
}

/// Of a record that cannot be read it is not known whether it had a seal.
#[tokio::test]
async fn only_of_what_can_be_read_it_is_said_that_it_has_no_seal() {
    for (extra_info, is_told) in [
        (json!({}), true),
        (json!({"unreadable": "the index is damaged"}), false),
    ] {
        let mut shown = checkpoint(CHECKPOINT, "error");
        shown["extra_info"] = extra_info.to_string().into();
        shown["sealed"] = json!(false);
        let stub = Stub::start()
            .await
            .on("GET /providers", 200, providers())
            .on(
                &format!("GET /providers/{PROVIDER}/checkpoints/{CHECKPOINT}"),
                200,
                json!({"checkpoint": shown}),
            )
            .on("GET /operation_logs", 200, json!({"operation_logs": []}));
        let show = run(&stub, &["checkpoint", "show", CHECKPOINT]).await;
        assert_eq!(show.exit.code(), 0, "{}", show.err);
        assert_eq!(show.err.contains("no seal"), is_told, "{}", show.err);
    }
}

#[tokio::test]
async fn a_checkpoint_by_the_beginning_of_its_id() {
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, providers())
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints"),
            200,
            json!({"checkpoints": [checkpoint(CHECKPOINT, "available"), checkpoint(OLDER, "error")]}),
        )
        .on("GET /operation_logs", 200, json!({"operation_logs": []}));
    insta::assert_snapshot!(
        run(&stub, &["checkpoint", "show", "d2c3"])
            .await
            .shown(&stub)
    );
    insta::assert_snapshot!(
        run(&stub, &["checkpoint", "show", "ffff"])
            .await
            .shown(&stub)
    );
}

#[tokio::test]
async fn checkpoints_outlive_their_plan() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}))
        .on("GET /providers", 200, providers())
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints"),
            200,
            json!({"checkpoints": [checkpoint(CHECKPOINT, "available")]}),
        );
    let listed = run(
        &stub,
        &["checkpoint", "list", "shop", "-f", "value", "-c", "id"],
    )
    .await;
    assert_eq!(listed.out, format!("{CHECKPOINT}\n"), "{}", listed.err);
}

/// Without the plan nothing says which provider has the newest; a copy of before counts by its data.
#[tokio::test]
async fn the_latest_is_the_newest_of_all_providers() {
    const OTHER: &str = "0ca4b6f0-0000-4000-8000-000000000001";
    let made = |id: &str, on: &str| {
        let mut made = checkpoint(id, "available");
        made["created_at"] = on.into();
        made
    };
    let mut copy = made("c0000000-0000-4000-8000-000000000001", "2026-11-25");
    let origin = json!({"copied_from": "x", "protected_at": "2025-11-22T10:20:39+00:00"});
    copy["extra_info"] = origin.to_string().into();
    let mut providers = providers();
    let mut other = providers["providers"][0].clone();
    other["id"] = OTHER.into();
    providers["providers"].as_array_mut().unwrap().push(other);
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}))
        .on("GET /providers", 200, providers)
        .on(
            &format!("GET /providers/{PROVIDER}/checkpoints?status=available"),
            200,
            json!({"checkpoints": [copy, made(OLDER, "2026-11-22")]}),
        )
        .on(
            &format!("GET /providers/{OTHER}/checkpoints?status=available"),
            200,
            json!({"checkpoints": [made(CHECKPOINT, "2026-11-24")]}),
        )
        .on("POST /restores", 200, json!({"restore": {"id": RESTORE}}));
    let begun = run(&stub, &["restore", "shop", "--latest"]).await;
    assert_eq!(begun.exit, Exit::Done, "{begun:?}");
    assert_eq!(
        stub.body("POST /restores")["restore"]["checkpoint_id"],
        CHECKPOINT
    );
}

#[tokio::test]
async fn a_provider_shows_what_may_be_given() {
    let stub = Stub::start().await.on("GET /providers", 200, providers());
    insta::assert_snapshot!(
        run(&stub, &["provider", "show", "local"])
            .await
            .shown(&stub)
    );
}

#[tokio::test]
async fn a_plan_is_made_from_names() {
    let instances = json!({"instances": [{"id": "d1", "type": "Host::Directory", "name": "uploads",
        "extra_info": null, "dependent_resources": []}]});
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, providers())
        .on(
            "GET /protectables/Host::Directory/instances",
            200,
            instances,
        )
        .on("POST /plans", 200, json!({"plan": plan("files", PLAN)}));
    let made = run(
        &stub,
        &[
            "plan",
            "create",
            "files",
            "--resource",
            "Host::Directory=uploads",
            "--description",
            "d",
            "--parameters",
            "{\"Host::Directory\": {}}",
        ],
    )
    .await;
    insta::assert_snapshot!(made.shown(&stub));
    assert_eq!(
        stub.body("POST /plans"),
        json!({"plan": {
            "name": "files", "description": "d", "provider_id": PROVIDER,
            "parameters": {"Host::Directory": {}},
            "resources": [{"id": "d1", "type": "Host::Directory", "name": "uploads"}],
        }})
    );
}

#[tokio::test]
async fn applications_and_protectables() {
    let shop = json!({"id": "a1", "type": "Host::Application", "name": "shop", "extra_info": null,
        "dependent_resources": [
            {"id": "d1", "type": "Host::Directory", "name": "uploads", "extra_info": null},
            {"id": "s1", "type": "Host::SQLite::Database", "name": "sessions", "extra_info": null}]});
    let stub = Stub::start()
        .await
        .on("GET /protectables/Host::Application/instances", 200, json!({"instances": [shop]}))
        .on("GET /protectables", 200, json!({"protectable_type": ["Host::Directory", "Host::Application"]}))
        .on(
            "GET /protectables/Host::Application",
            200,
            json!({"protectable_type": {"name": "Host::Application", "dependent_types": ["Host::Directory"]}}),
        );
    insta::assert_snapshot!(run(&stub, &["application", "list"]).await.shown(&stub));
    insta::assert_snapshot!(
        run(&stub, &["application", "show", "shop"])
            .await
            .shown(&stub)
    );
    insta::assert_snapshot!(run(&stub, &["protectable", "list"]).await.shown(&stub));
    insta::assert_snapshot!(
        run(&stub, &["protectable", "show", "Host::Application"])
            .await
            .shown(&stub)
    );
}

#[tokio::test]
async fn services_by_name() {
    let service = json!({"id": 2, "binary": "karbor-protection", "host": "h", "status": "enabled",
        "state": "up", "updated_at": "2026-11-22T10:21:23.633902", "disabled_reason": null});
    let mut disabled = service.clone();
    disabled["status"] = "disabled".into();
    disabled["disabled_reason"] = "maintenance".into();
    let stub = Stub::start()
        .await
        .on("GET /os-services", 200, json!({"services": [service]}))
        .on("PUT /os-services/2", 200, json!({"service": disabled}));
    insta::assert_snapshot!(run(&stub, &["service", "list"]).await.shown(&stub));
    let done = run(
        &stub,
        &[
            "service",
            "disable",
            "karbor-protection@h",
            "--reason",
            "maintenance",
        ],
    )
    .await;
    assert_eq!(done.exit.code(), 0, "{}", done.err);
    assert_eq!(
        stub.body("PUT /os-services/2"),
        json!({"status": "disabled", "disabled_reason": "maintenance"})
    );
}

#[tokio::test]
async fn a_service_is_asked_about_itself() {
    let service = json!({"id": 2, "binary": "karbor-protection", "host": "h", "status": "enabled",
        "state": "down", "updated_at": "2026-11-22T10:21:23.633902", "disabled_reason": null,
        "health": {"version": "0.1.0", "started_at": "2026-11-22T10:00:00.000001Z", "running_tasks": ["run"],
            "health": {"state": "not_working", "reason": "the bank is read-only"}},
        "task_reports": [
            {"name": "sweep", "ended_at": "2026-11-22T10:21:00Z", "runs": 3, "failures": 0,
             "outcome": {"status": "ok", "details": {"removed": 2}}},
            {"name": "renew", "ended_at": "2026-11-22T10:21:01Z", "runs": 3, "failures": 3,
             "outcome": {"status": "error", "message": "the bank is read-only"}}],
        "config": {"DEFAULT": {"host": {"value": null, "source": "default"},
            "report_interval": {"value": 10.0, "source": "karbor.conf"}}}});
    let stub = Stub::start()
        .await
        .on("GET /os-services", 200, json!({"services": [service]}))
        .on(
            "GET /os-services/2/detail",
            200,
            json!({"service": service}),
        );
    let shown = run(&stub, &["service", "show", "karbor-protection"]).await;
    insta::assert_snapshot!(shown.shown(&stub));
}

#[tokio::test]
async fn an_operation_log_is_laid_out() {
    let log = json!({"operation_log": {"id": "128be61f-4d13-42a5-a2c2-11a6dba0f409",
        "operation_type": "protect", "checkpoint_id": CHECKPOINT, "plan_id": PLAN, "restore_id": null,
        "status": "failed", "started_at": "2026-11-22T10:21:08.161356", "ended_at": "2026-11-22T10:21:09",
        "error_info": "uploads (directory): gone\nsessions (SQLite database): locked",
        "extra_info": "{\"resources\": {\"Host::Directory#d1\": {\"files\": 3}}}"}});
    let path = "GET /operation_logs/128be61f-4d13-42a5-a2c2-11a6dba0f409";
    let stub = Stub::start().await.on(path, 200, log);
    let shown = run(
        &stub,
        &[
            "operation-log",
            "show",
            "128be61f-4d13-42a5-a2c2-11a6dba0f409",
        ],
    )
    .await;
    insta::assert_snapshot!(shown.shown(&stub));
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": [plan("shop", PLAN)]}));
    let (exit, told) = run_into_closed_pipe(&stub, &["plan", "list"]).await;
    assert_eq!((exit.code(), told.as_str()), (0, ""));
}

#[test]
fn command_lines_that_make_no_sense() {
    for arguments in [
        &["restore"][..],
        &["restore", "shop", "--latest", "--checkpoint", "x"],
        &["restore", "shop", "--overwrite", "sometimes"],
        &["checkpoint", "reset-state", "x", "lovely"],
        &["protect", "shop", "--wait", "--timeout", "soon"],
        &["plan", "list", "-f", "yaml"],
    ] {
        assert!(refused(arguments).is_some(), "{arguments:?}");
    }
    for arguments in [
        &["restore", "list"][..],
        &[
            "restore",
            "shop",
            "--latest",
            "--dry-run",
            "--overwrite",
            "if-changed",
        ],
        &["restore", "create", "d2c3", "--wait", "--timeout", "10m"],
    ] {
        assert_eq!(refused(arguments), None, "{arguments:?}");
    }
}
