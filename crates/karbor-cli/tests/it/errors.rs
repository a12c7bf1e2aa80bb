//! What a person is told when it does not work, and the exit code that a script sees.

use serde_json::{Value, json};

use crate::stub::{CHECKPOINT, PLAN, PROVIDER, Stub, refused, run, run_at};

async fn plans_answered(status: u16, body: Value) -> String {
    let stub = Stub::start().await.on("GET /plans", status, body);
    run(&stub, &["plan", "list"]).await.shown(&stub)
}

fn fault(name: &str, message: &str) -> Value {
    json!({name: {"code": 0, "message": message}})
}

#[tokio::test]
async fn answers_that_refuse() {
    insta::assert_snapshot!(
        "401",
        plans_answered(
            401,
            json!({"message": "The request you have made requires authentication."})
        )
        .await
    );
    insta::assert_snapshot!(
        "403",
        plans_answered(
            403,
            fault(
                "forbidden",
                "Policy doesn't allow plan:get_all to be performed."
            )
        )
        .await
    );
    insta::assert_snapshot!(
        "400",
        plans_answered(
            400,
            fault(
                "badRequest",
                "Invalid input for field/attribute limit. Value: x."
            )
        )
        .await
    );
    insta::assert_snapshot!(
        "another_project",
        plans_answered(400, fault("badRequest", "Malformed request url")).await
    );
    insta::assert_snapshot!(
        "409",
        plans_answered(409, fault("conflictingRequest", "The plan is in use.")).await
    );
    insta::assert_snapshot!(
        "413",
        plans_answered(413, fault("overLimit", "Quota exceeded.")).await
    );
    insta::assert_snapshot!(
        "500",
        plans_answered(500, fault("computeFault", "The server has either erred.")).await
    );
    insta::assert_snapshot!(
        "503",
        plans_answered(
            503,
            fault("serviceUnavailable", "karbor-protection is away.")
        )
        .await
    );
    insta::assert_snapshot!("302", plans_answered(302, json!({})).await);
    insta::assert_snapshot!(
        "message_with_escape",
        plans_answered(400, fault("badRequest", "\u{1b}[31mred")).await
    );
}

#[tokio::test]
async fn what_answers_is_something_else() {
    let stub = Stub::start().await.on_text("GET /plans", 200, "<html>");
    insta::assert_snapshot!(run(&stub, &["plan", "list"]).await.shown(&stub));
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"things": []}));
    insta::assert_snapshot!(run(&stub, &["plan", "list"]).await.shown(&stub));
}

#[tokio::test]
async fn nobody_answers() {
    // Bound and dropped: nothing listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let run = run_at(&["--endpoint", &url], &["plan", "list"], None).await;
    assert_eq!(run.exit.code(), 5);
    insta::assert_snapshot!(run.err.replace(&port.to_string(), "PORT"));
}

#[tokio::test]
async fn names_that_nothing_has() {
    let stub = Stub::start()
        .await
        .on(
            "GET /plans",
            200,
            json!({"plans": [{"id": PLAN, "name": "shop"}]}),
        )
        .on("GET /providers", 200, json!({"providers": []}))
        .on(
            "GET /protectables/Host::Application/instances",
            200,
            json!({"instances": []}),
        )
        .on("GET /os-services", 200, json!({"services": []}));
    for (name, arguments) in [
        ("no_plan", &["plan", "show", "shoq"][..]),
        ("no_provider", &["provider", "show", "x"]),
        ("nothing_to_protect", &["protect", "shoq"]),
        ("no_checkpoint", &["checkpoint", "show", "x"]),
        ("no_service", &["service", "enable", "x"]),
        ("no_application", &["application", "list"]),
    ] {
        insta::assert_snapshot!(name, run(&stub, arguments).await.shown(&stub));
    }
}

#[tokio::test]
async fn ids_cannot_climb_out_of_their_place() {
    let stub = Stub::start()
        .await
        .on("GET /restores/..%2Fplans", 404, fault("itemNotFound", "no"));
    let run_away = run(&stub, &["restore", "show", "../plans"]).await;
    assert_eq!(run_away.exit.code(), 3);
    let dots = run(&stub, &["restore", "show", ".."]).await;
    assert_eq!(dots.exit.code(), 2);
    assert_eq!(stub.lines(), ["GET /restores/..%2Fplans"]);
}

#[tokio::test]
async fn parameters_that_are_no_object() {
    let stub = Stub::start().await.on(
        "GET /protectables/Host::Directory/instances",
        200,
        json!({"instances": [{"id": "d1", "type": "Host::Directory", "name": "uploads"}]}),
    );
    for (name, parameters) in [
        ("parameters_list", "[]"),
        ("parameters_text", "{oops"),
        ("parameters_file", "@/nonexistent"),
    ] {
        let arguments = [
            "plan",
            "create",
            "p",
            "--resource",
            "Host::Directory=uploads",
            "--parameters",
            parameters,
        ];
        insta::assert_snapshot!(name, run(&stub, &arguments).await.shown(&stub));
    }
    let arguments = ["plan", "create", "p"];
    insta::assert_snapshot!("plan_of_nothing", run(&stub, &arguments).await.shown(&stub));
    let arguments = ["plan", "create", "p", "--resource", "uploads"];
    insta::assert_snapshot!(
        "resource_without_type",
        run(&stub, &arguments).await.shown(&stub)
    );
    let arguments = ["plan", "update", "p"];
    insta::assert_snapshot!(
        "update_of_nothing",
        run(&stub, &arguments).await.shown(&stub)
    );
}

/// What the service says is to be done is not followed by a hint to do something else.
#[tokio::test]
async fn a_hint_does_not_contradict_the_service() {
    for (status, name, message) in [
        (
            503,
            "serviceUnavailable",
            "The bank's directory was moved, removed or unmounted. Bring it back, then try again.",
        ),
        (
            409,
            "conflictingRequest",
            "It is damaged; `karbor checkpoint delete x` removes it.",
        ),
        (
            409,
            "conflictingRequest",
            "The checkpoint x can not be deleted: it is deleted.",
        ),
    ] {
        let told = plans_answered(status, fault(name, message)).await;
        assert!(told.contains(message) && !told.contains("hint"), "{told}");
    }
}

/// The service answers in the original's few words: the client says what they may mean.
#[tokio::test]
async fn a_reset_that_is_refused_says_what_to_do() {
    let here = format!("/providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let found = json!({"checkpoint": {"id": CHECKPOINT, "status": "protecting"}});
    let stub = Stub::start()
        .await
        .on(
            "GET /providers",
            200,
            json!({"providers": [{"id": PROVIDER, "name": "local"}]}),
        )
        .on(&format!("GET {here}"), 200, found)
        .on(
            &format!("PUT {here}"),
            400,
            fault("badRequest", "The checkpoint can not be reset."),
        );
    let reset = run(&stub, &["checkpoint", "reset-state", CHECKPOINT, "error"]).await;
    assert_eq!(reset.exit.code(), 2, "{}", reset.err);
    for words in [
        "it is 'protecting'",
        "karbor operation-log list --checkpoint",
    ] {
        assert!(reset.err.contains(words), "{}", reset.err);
    }
}

/// An application whose declaration is broken: that is mended by nobody's trying again, and no plan is made of it.
#[tokio::test]
async fn a_broken_application_is_not_protected() {
    let stub = Stub::start()
        .await
        .on("GET /plans", 200, json!({"plans": []}))
        .on(
            "GET /protectables/Host::Application/instances",
            200,
            json!({"instances": [{"id": "a1", "type": "Host::Application", "name": "shop",
                "extra_info": {"broken": "shop.toml: name (line 1)"}}]}),
        )
        .on(
            "GET /providers",
            200,
            json!({"providers": [{"id": PLAN, "name": "local",
            "extended_info_schema": {"options_schema": {"Host::Application": {}}}}]}),
        );
    let refused = run(&stub, &["protect", "shop", "--wait"]).await;
    assert_eq!(refused.exit.code(), 2, "{}", refused.err);
    for words in ["shop.toml: name (line 1)", "karbor config validate"] {
        assert!(refused.err.contains(words), "{}", refused.err);
    }
    assert!(
        stub.lines().iter().all(|line| line.starts_with("GET")),
        "{:?}",
        stub.lines()
    );
}

#[tokio::test]
async fn orders_and_states_that_are_none_are_refused() {
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, json!({"providers": []}));
    for sort in ["bogus", "created_at:up", "created_at:asc,bogus"] {
        let refused = run(&stub, &["checkpoint", "list", "--sort", sort]).await;
        assert_eq!(refused.exit.code(), 2, "{sort}");
        assert!(refused.err.contains("give created_at"), "{}", refused.err);
    }
    for sort in ["created_at", "created_at:asc"] {
        let listed = run(&stub, &["checkpoint", "list", "--sort", sort]).await;
        assert_eq!(listed.exit.code(), 0, "{}", listed.err);
    }
    for (what, known) in [
        ("checkpoint", "error-deleting"),
        ("restore", "in_progress"),
        ("verification", "in_progress"),
    ] {
        let told = refused(&[what, "list", "--status", "bogus"]).unwrap();
        assert!(told.contains(known), "{told}");
        assert!(refused(&[what, "list", "--status", known]).is_none());
    }
}

/// What a deletion may have left is said where it was asked for.
#[tokio::test]
async fn what_a_deletion_warns_of_is_shown() {
    let path = format!("/providers/{PROVIDER}/checkpoints/{CHECKPOINT}");
    let gone = |status: &str| json!({"checkpoint": {"id": CHECKPOINT, "status": status}});
    let stub = Stub::start()
        .await
        .on("GET /providers", 200, json!({"providers": [{"id": PROVIDER, "name": "local"}]}))
        .on(&format!("GET {path}"), 200, gone("error"))
        .on(&format!("GET {path}"), 200, gone("deleted"))
        .on_text(&format!("DELETE {path}"), 200, "")
        .on(
            &format!("GET /operation_logs?checkpoint_id={CHECKPOINT}"),
            200,
            json!({"operation_logs": [{"operation_type": "delete", "status": "deleted", "started_at": "x",
                "extra_info": json!({"warnings": ["snapshots may be left"]}).to_string()}]}),
        );
    let done = run(&stub, &["checkpoint", "delete", CHECKPOINT, "--wait"]).await;
    assert_eq!(done.exit.code(), 0, "{}", done.err);
    assert!(
        done.err.contains("warning: snapshots may be left"),
        "{}",
        done.err
    );
}
