//! Random requests — any method, any query, random JSON and random changes of good JSON, for things
//! that are there and things that are not — never make a 5xx.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::{
    app::{App, NOBODY, NOOP, PROJECT, app},
    auth::endpoints,
};

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

const KEYS: [&str; 27] = [
    "plan",
    "name",
    "description",
    "status",
    "provider_id",
    "parameters",
    "resources",
    "id",
    "type",
    "checkpoint",
    "plan_id",
    "extra-info",
    "restore",
    "checkpoint_id",
    "os-resetState",
    "state",
    "trigger_info",
    "properties",
    "pattern",
    "window",
    "start_time",
    "scheduled_operation",
    "operation_type",
    "trigger_id",
    "operation_definition",
    "enabled",
    "OS::Cinder::Volume#abc",
];

const QUERY_KEYS: [&str; 14] = [
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "project_id",
    "name",
    "status",
    "created_at",
    "start_date",
    "properties",
    "parameters",
];

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        3 => proptest::sample::select(KEYS.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from(NOOP)),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

fn any_query() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "[a-z_:,]{0,12}",
        "(%[0-9a-fA-F]{0,2}|[+'()0-9-]){0,12}",
        Just("created_at:asc,id".to_owned()),
        Just("2026-01-31%2012:00:00.000000".to_owned()),
        Just(NOBODY.to_owned()),
    ];
    let pair = (proptest::sample::select(QUERY_KEYS.to_vec()), value);
    proptest::collection::vec(pair, 0..4).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join("&")
    })
}

/// Puts `odd` at the `at`-th place of `body`, counted depth-first.
fn replace(body: &mut Value, at: &mut usize, odd: &Value) {
    if *at == 0 {
        *body = odd.clone();
    }
    *at = at.wrapping_sub(1);
    match body {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, odd)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, at, odd)),
        _ => {}
    }
}

/// Something of every kind.
struct World {
    app: App,
    ids: Vec<(&'static str, &'static str, String)>,
}

impl World {
    async fn new() -> Self {
        let app = app().await;
        let plan = app.plan(Value::Null).await;
        let trigger = crate::triggers::trigger(&app, "t").await;
        let create = async |path: &str, body: Value, key: &str| {
            let answer = app.call("POST", path, body).await.json();
            answer[key]["id"].as_str().unwrap().to_owned()
        };
        let checkpoints = format!("/providers/{NOOP}/checkpoints");
        let body = json!({"checkpoint": {"plan_id": plan}});
        let checkpoint = create(&checkpoints, body, "checkpoint").await;
        let body = crate::scheduled_operations::body(&trigger, &plan, Value::Null);
        let operation = create("/scheduled_operations", body, "scheduled_operation").await;
        let body = json!({"restore": {
            "provider_id": NOOP, "checkpoint_id": checkpoint, "parameters": {},
        }});
        let restore = create("/restores", body, "restore").await;
        let ids = vec![
            ("/plans/", "plan_id", plan),
            ("/triggers/", "trigger_id", trigger),
            ("/checkpoints/", "checkpoint_id", checkpoint),
            ("/scheduled_operations/", "operation_id", operation),
            ("/restores/", "restore_id", restore),
        ];
        Self { app, ids }
    }

    /// The path of something that is there (or was, until a request before deleted it).
    fn path(&self, path: &str) -> String {
        let known = self.ids.iter().find(|(part, ..)| path.contains(part));
        known.map_or(path.to_owned(), |(.., id)| path.replace(NOBODY, id))
    }

    fn body(&self, body: &mut Value) {
        match body {
            Value::Array(items) => items.iter_mut().for_each(|item| self.body(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    let known = self.ids.iter().find(|(_, name, _)| name == key);
                    match known {
                        Some((.., id)) if value == NOBODY => *value = json!(id),
                        _ => self.body(value),
                    }
                }
            }
            _ => {}
        }
    }

    async fn ask(&self, method: &str, path: &str, bytes: Vec<u8>) {
        let uri = format!("/v1/{PROJECT}{path}");
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = self
            .app
            .raw(method, &uri, Some(&self.app.admin), bytes)
            .await;
        assert!(
            answer.status < 500,
            "{method} {path} {shown}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.bytes)
        );
        // The answer is JSON whatever came in.
        if !answer.bytes.is_empty() {
            answer.json();
        }
    }
}

#[test]
fn never_a_5xx() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::new());
    let endpoints = endpoints();
    let at = 0..endpoints.len();
    let method = proptest::sample::select(METHODS.to_vec());
    let strategy = (
        at,
        method,
        any_json(),
        0_usize..20,
        any_query(),
        any::<bool>(),
    );
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(3000)
    };
    let asked = TestRunner::new(config).run(&strategy, |(at, other, odd, place, query, there)| {
        let (method, path, mut good) = endpoints[at].clone();
        let path = if there { world.path(&path) } else { path };
        if there {
            world.body(&mut good);
        }
        let mut changed = good;
        replace(&mut changed, &mut place.clone(), &odd);
        let [odd, changed] = [odd, changed].map(|body| body.to_string().into_bytes());
        runtime.block_on(async {
            world.ask(method, &path, changed).await;
            world.ask(other, &path, odd).await;
            world
                .ask("GET", &format!("{path}?{query}"), Vec::new())
                .await;
        });
        Ok(())
    });
    asked.unwrap();
}
