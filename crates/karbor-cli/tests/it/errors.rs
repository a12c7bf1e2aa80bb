//! What a person is told when it does not work, and the exit code that a script sees.

use serde_json::{Value, json};

use crate::stub::{PLAN, Stub, run, run_at};

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
