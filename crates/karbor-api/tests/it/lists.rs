//! Pages, order and filters of lists.

use serde_json::{Value, json};

use crate::app::{App, HOST, NOBODY, NOOP, OTHER, PROJECT, app, app_with, plan_body};

fn names(answer: &Value) -> Vec<String> {
    let plans = answer["plans"].as_array().unwrap();
    plans
        .iter()
        .map(|plan| plan["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn five(app: &App) {
    for name in ["a", "b", "c", "d", "e"] {
        app.plan(json!({"name": name})).await;
        app.clock.turn(std::time::Duration::from_secs(1));
    }
}

/// Every next link leads to the next page, and the last page to none.
#[tokio::test]
async fn links_lead_through_the_whole_list() {
    let app = app().await;
    five(&app).await;
    let mut path = "/plans?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = app.get(&path).await.json();
        seen.extend(names(&page));
        let Some(link) = page["plans_links"][0]["href"].as_str() else {
            break;
        };
        path = link.split(PROJECT).nth(1).unwrap().to_owned();
    }
    assert_eq!(seen, ["e", "d", "c", "b", "a"]);
    assert_eq!(
        names(&app.get("/plans?sort=name:asc&offset=3").await.json()),
        ["d", "e"]
    );
    assert_eq!(
        names(
            &app.get("/plans?sort_key=name&sort_dir=asc&limit=2")
                .await
                .json()
        ),
        ["a", "b"]
    );
}

#[tokio::test]
async fn the_largest_page_is_the_operators_choice() {
    let app = app_with(&[("DEFAULT", "osapi_max_limit", "2")]).await;
    five(&app).await;
    for path in ["/plans", "/plans?limit=1000"] {
        let page = app.get(path).await.json();
        assert_eq!(names(&page).len(), 2, "{path}");
        assert!(page["plans_links"].is_array());
    }
}

#[tokio::test]
async fn the_base_url_of_links_can_be_set() {
    let app = app_with(&[(
        "DEFAULT",
        "osapi_karbor_base_URL",
        "https://backup.example/dp/",
    )])
    .await;
    app.plan(Value::Null).await;
    let page = app.get("/plans?limit=1").await.json();
    let link = page["plans_links"][0]["href"].as_str().unwrap();
    assert!(
        link.starts_with(&format!(
            "https://backup.example/dp/v1/{PROJECT}/plans?limit=1&marker="
        )),
        "{link}"
    );
}

/// Q12, Q13, Q20, Q24: each was a 500.
#[tokio::test]
async fn q12_q13_q20_q24_bad_questions_are_answered_with_the_field() {
    let app = app().await;
    five(&app).await;
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=abc", "limit"),
        ("offset=-1", "offset"),
        ("sort=bogus", "bogus"),
        ("sort=name:sideways", "sort"),
        ("sort=name&sort_dir=asc", "sort_dir"),
        ("all_tenants=maybe", "all_tenants"),
        ("name=%ff", "query"),
    ] {
        for path in ["/plans", "/restores", "/verifications", "/operation_logs"] {
            let message = app.get(&format!("{path}?{query}")).await.fault(400);
            assert!(message.contains(named), "{path}?{query}: {message}");
        }
    }
    for (path, what) in [
        ("/plans", "Plan"),
        ("/restores", "Restore"),
        ("/verifications", "Verification"),
        ("/operation_logs", "OperationLog"),
    ] {
        for marker in [NOBODY, "x"] {
            let answer = app.get(&format!("{path}?marker={marker}")).await;
            let expected = format!("{what} {marker} could not be found.");
            assert_eq!(answer.fault(404), expected);
        }
    }
    let checkpoints = format!("/providers/{NOOP}/checkpoints");
    for (query, named) in [
        ("start_date=bad", "start_date"),
        ("end_date=2020-1-1", "end_date"),
        ("marker=x", "marker"),
        ("limit=-1", "limit"),
    ] {
        let message = app.get(&format!("{checkpoints}?{query}")).await.fault(400);
        assert!(message.contains(named), "{query}: {message}");
    }
}

/// Text is searched for the original's regular expressions; a list, as Python writes it, is one of
/// several, compared exactly.
#[tokio::test]
async fn text_is_searched_for_expressions_and_a_list_is_one_of_several() {
    let app = app().await;
    five(&app).await;
    app.plan(json!({"name": "web-1", "description": "the shop"}))
        .await;
    let ask = async |query: &str| app.get(&format!("/plans?{query}")).await;
    for (query, expected) in [
        ("name=%5E%5Bab%5D%24", vec!["b", "a"]),
        ("name=%5B'a',%20'd'%5D", vec!["d", "a"]),
        ("name=('web-1','e')", vec!["web-1", "e"]),
        // Compared exactly, as the original's IN: neither parts of names nor expressions.
        ("name=%5B'web',%20'%5Ee'%5D", vec![]),
        ("name=%5B'a(',%20'a'%5D", vec!["a"]),
        ("description=%5Ethe%20sho.%24", vec!["web-1"]),
        ("name='web-1'", vec!["web-1"]),
        ("name=%5B%5D", vec![]),
        ("status=%5B'suspended'%5D&name=c", vec!["c"]),
        ("status=%5B'started',%20'bogus'%5D", vec![]),
    ] {
        assert_eq!(names(&ask(query).await.json()), expected, "{query}");
    }
    let message = ask("name=%28").await.fault(400);
    assert!(
        message.starts_with("Invalid input for field/attribute name."),
        "{message}"
    );
    for (path, field) in [
        ("/triggers", "name"),
        ("/triggers", "properties"),
        ("/scheduled_operations", "name"),
        ("/scheduled_operations", "operation_definition"),
        ("/plans", "description"),
    ] {
        let message = app.get(&format!("{path}?{field}=%2A")).await.fault(400);
        assert!(
            message.contains(&format!("attribute {field}.")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn runs_of_one_of_several_states_are_listed() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let create = json!({"checkpoint": {"plan_id": plan}});
    let at = format!("/providers/{NOOP}/checkpoints");
    let made = app.call("POST", &at, create).await.json();
    for checkpoint in [made["checkpoint"]["id"].clone(), json!(NOBODY)] {
        let restore = json!({"restore": {
            "provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {},
        }});
        assert_eq!(app.call("POST", "/restores", restore).await.status, 200);
    }
    for (query, count) in [
        ("status=fail", 1),
        ("status=%5B'fail',%20'in_progress'%5D", 2),
        ("status=%5B'success'%5D", 0),
        ("status=%5B%5D", 0),
    ] {
        let listed = app.get(&format!("/restores?{query}")).await.json();
        assert_eq!(
            listed["restores"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
}

/// Q14, Q70: a filter filters, whatever its text looks like.
#[tokio::test]
async fn q14_q70_filters_filter() {
    let app = app().await;
    five(&app).await;
    app.plan(json!({"name": "5 (", "provider_id": HOST})).await;
    for (query, expected) in [
        ("name=5", vec!["5 ("]),
        ("name=5%20%5C%28", vec!["5 ("]),
        ("name=None", vec![]),
        (&format!("provider_id={HOST}"), vec!["5 ("]),
        ("name=a&status=suspended", vec!["a"]),
        ("status=started", vec![]),
    ] {
        assert_eq!(
            names(&app.get(&format!("/plans?{query}")).await.json()),
            expected,
            "{query}"
        );
    }
    // As the original: unknown filters of plans, and of members, are ignored.
    assert_eq!(names(&app.get("/plans?bogus=1").await.json()).len(), 6);
    let answer = app
        .call_as(&app.member, PROJECT, "GET", "/plans?bogus=1", Value::Null)
        .await;
    assert_eq!(names(&answer.json()).len(), 6);
}

#[tokio::test]
async fn projects_are_apart() {
    let app = app().await;
    five(&app).await;
    let answer = app
        .call_as(
            &app.other,
            OTHER,
            "POST",
            "/plans",
            plan_body(json!({"name": "theirs"})),
        )
        .await;
    let theirs = answer.json()["plan"]["id"].as_str().unwrap().to_owned();
    assert_eq!(names(&app.get("/plans").await.json()).len(), 5);
    assert_eq!(
        names(&app.get("/plans?all_tenants=1").await.json()).len(),
        6
    );
    assert_eq!(
        names(
            &app.get(&format!("/plans?all_tenants=1&project_id={OTHER}"))
                .await
                .json()
        ),
        ["theirs"]
    );
    for query in ["", "?all_tenants=1"] {
        let mine = app
            .call_as(
                &app.member,
                PROJECT,
                "GET",
                &format!("/plans{query}"),
                Value::Null,
            )
            .await;
        assert_eq!(names(&mine.json()).len(), 5, "{query}");
    }
    let peek = format!("/plans?project_id={OTHER}&all_tenants=1");
    let mine = app
        .call_as(&app.member, PROJECT, "GET", &peek, Value::Null)
        .await;
    assert_eq!(names(&mine.json()), Vec::<String>::new());

    let path = format!("/plans/{theirs}");
    for (method, body) in [
        ("GET", Value::Null),
        ("PUT", json!({"plan": {"name": "x"}})),
        ("DELETE", Value::Null),
    ] {
        let answer = app.call_as(&app.member, PROJECT, method, &path, body).await;
        assert_eq!(
            answer.fault(404),
            format!("Plan {theirs} could not be found.")
        );
    }
}

/// What the lists of the protection manager are asked for.
#[tokio::test]
async fn checkpoint_lists_pass_their_question_on() {
    let app = app().await;
    let query = format!("plan_id={NOBODY}&status=error&end_date=2026-01-01&bogus=1&all_tenants=1");
    app.get(&format!("/providers/{NOOP}/checkpoints?{query}"))
        .await;
    let asked = app.protection.calls.lock().unwrap().pop().unwrap();
    assert_eq!(
        asked,
        json!({
            "list_checkpoints": {"end_date": "2026-01-01", "plan_id": NOBODY, "status": "error"},
            "sort": [["created_at"], ["desc"]], "all": true,
        })
    );
}

/// Q23: the original's link lacked the provider.
#[tokio::test]
async fn q23_the_link_of_checkpoints_leads_to_the_next_page() {
    let app = app().await;
    let plan = app.plan(Value::Null).await;
    let all = format!("/providers/{NOOP}/checkpoints");
    let mut made = Vec::new();
    for _ in 0..3 {
        let answer = app
            .call("POST", &all, json!({"checkpoint": {"plan_id": plan}}))
            .await;
        made.push(answer.json()["checkpoint"]["id"].clone());
    }
    let (mut path, mut seen) = (format!("{all}?limit=1"), Vec::new());
    loop {
        let page = app.get(&path).await.json();
        seen.extend(
            page["checkpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["id"].clone()),
        );
        let Some(link) = page["checkpoints_links"][0]["href"].as_str() else {
            break;
        };
        path = link.split(PROJECT).nth(1).unwrap().to_owned();
        assert!(path.starts_with(&all), "{path}");
    }
    assert_eq!(seen, made);
}
