//! Random JSON, and random changes of good JSON, never make a 5xx.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::{app::app, auth::endpoints};

const KEYS: [&str; 16] = [
    "plan",
    "name",
    "description",
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
    "OS::Cinder::Volume#abc",
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
        Just(Value::from(crate::app::NOOP)),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn never_a_5xx(odd in any_json(), place in 0_usize..20) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let app = app().await;
            for (method, path, good) in endpoints().into_iter().filter(|(_, _, body)| !body.is_null()) {
                let mut changed = good;
                replace(&mut changed, &mut place.clone(), &odd);
                for body in [odd.clone(), changed] {
                    let bytes = body.to_string().into_bytes();
                    let uri = format!("/v1/{}{path}", crate::app::PROJECT);
                    let answer = app.raw(method, &uri, Some(&app.admin), bytes).await;
                    assert!(answer.status < 500, "{method} {path} {body}: {}", answer.status);
                    // The answer is JSON whatever came in.
                    if !answer.bytes.is_empty() {
                        answer.json();
                    }
                }
            }
        });
    }
}
