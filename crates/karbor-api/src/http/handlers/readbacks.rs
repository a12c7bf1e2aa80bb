//! `/restores` and `/verifications`: the kinds of readbacks.

use karbor_model::{OperationType, Readback};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    compat::{
        bodies::{is_true, parameters, parsed, take, text},
        body_schemas::{METADATA, TEXT_OR_NULL, readback_create},
        envelope::{Answer, many, one},
        schema::Schema,
        views::ReadbackView,
    },
    http::call::{Call, Json},
    manager::NewReadback,
    openapi::{Operation, get, post},
};

/// A kind of readback, as the original's API has it.
trait ReadbackApi: 'static {
    const OPERATION: OperationType;
    /// What one is called in bodies and answers, and many in answers.
    const NAMES: (&'static str, &'static str);
    /// Path of the collection, and of a member.
    const PATHS: (&'static str, &'static str);
    /// Policy rules of create, show and list, each with what it allows.
    const RULES: [(&'static str, &'static str); 3];
    /// What a list can be narrowed down by.
    const FILTERS: &'static [&'static str];
    /// What creates one.
    const BODY: &'static Schema;
    /// What it alone has, as it is shown.
    type Own<'a>: From<&'a Readback> + Serialize + JsonSchema;
}

struct Restores;

static RESTORE_BODY: Schema = readback_create!(
    "restore",
    [
        ("restore_target", &TEXT_OR_NULL),
        ("restore_auth", &METADATA)
    ],
    ["parameters"]
);

impl ReadbackApi for Restores {
    const OPERATION: OperationType = OperationType::Restore;
    const NAMES: (&'static str, &'static str) = ("restore", "restores");
    const PATHS: (&'static str, &'static str) = ("/restores", "/restores/{id}");
    const RULES: [(&'static str, &'static str); 3] = [
        ("restore:create", "Restore a checkpoint"),
        ("restore:get", "Show a restore"),
        ("restore:get_all", "List restores"),
    ];
    const FILTERS: &'static [&'static str] = &[
        "id",
        "status",
        "provider_id",
        "checkpoint_id",
        "restore_target",
    ];
    const BODY: &'static Schema = &RESTORE_BODY;
    type Own<'a> = OfRestore<'a>;
}

/// What a restore alone has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Restore")]
struct OfRestore<'a> {
    restore_target: Option<&'a str>,
}

impl<'a> From<&'a Readback> for OfRestore<'a> {
    fn from(restore: &'a Readback) -> Self {
        Self {
            restore_target: restore.restore_target.as_deref(),
        }
    }
}

struct Verifications;

static VERIFICATION_BODY: Schema = readback_create!("verification", [], []);

impl ReadbackApi for Verifications {
    const OPERATION: OperationType = OperationType::Verify;
    const NAMES: (&'static str, &'static str) = ("verification", "verifications");
    const PATHS: (&'static str, &'static str) = ("/verifications", "/verifications/{id}");
    const RULES: [(&'static str, &'static str); 3] = [
        ("verification:create", "Verify a checkpoint"),
        ("verification:get", "Show a verification"),
        ("verification:get_all", "List verifications"),
    ];
    const FILTERS: &'static [&'static str] = &["id", "status", "provider_id", "checkpoint_id"];
    const BODY: &'static Schema = &VERIFICATION_BODY;
    type Own<'a> = OfVerification;
}

/// What a verification alone has.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Verification")]
struct OfVerification {}

impl From<&Readback> for OfVerification {
    fn from(_: &Readback) -> Self {
        Self {}
    }
}

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    let (restores, verifications) = (
        operations_of::<Restores>(),
        operations_of::<Verifications>(),
    );
    restores.into_iter().chain(verifications).collect()
}

fn operations_of<K: ReadbackApi>() -> [Operation; 3] {
    let [create_rule, show_rule, list_rule] = K::RULES;
    [
        get(K::PATHS.0, list::<K>, list_rule.0, list_rule.1)
            .lists::<ReadbackView<'_, K::Own<'_>>>(K::NAMES.1, K::FILTERS),
        post(K::PATHS.0, create::<K>, create_rule.0, create_rule.1)
            .takes(K::BODY)
            .gives::<ReadbackView<'_, K::Own<'_>>>(K::NAMES.0),
        get(K::PATHS.1, show::<K>, show_rule.0, show_rule.1)
            .gives::<ReadbackView<'_, K::Own<'_>>>(K::NAMES.0),
    ]
}

async fn list<K: ReadbackApi>(call: Call) -> Answer {
    let query = call.list_query()?;
    let found = call
        .manager
        .readback_list(call.permit()?, K::OPERATION, &query.page, K::FILTERS)
        .await?;
    let last = found.last().map(|readback| readback.id);
    let next = call.next(&query, K::NAMES.1, found.len(), last);
    many(
        K::NAMES.1,
        found.iter().map(ReadbackView::<K::Own<'_>>::from),
        next,
    )
}

async fn create<K: ReadbackApi>(call: Call, body: Json) -> Answer {
    let mut body = body.checked(K::BODY)?;
    let mut asked = take(&mut body, K::NAMES.0);
    let new = NewReadback {
        operation: K::OPERATION,
        provider_id: parsed(&asked, "provider_id")?,
        checkpoint_id: parsed(&asked, "checkpoint_id")?,
        restore_target: text(&mut asked, "restore_target"),
        restore_auth: match asked.remove("restore_auth") {
            Some(Value::Object(auth)) => Some(auth),
            _ => None,
        },
        accept_unsealed: is_true(&asked, "accept_unsealed"),
        parameters: parameters(asked.remove("parameters")),
    };
    let readback = call.manager.readback(call.permit()?, new).await?;
    one(K::NAMES.0, &ReadbackView::<K::Own<'_>>::from(&readback))
}

async fn show<K: ReadbackApi>(call: Call) -> Answer {
    let id = call.member_id(K::NAMES.0)?;
    let readback = call
        .manager
        .readback_get(call.caller(), K::OPERATION, id)
        .await?;
    one(K::NAMES.0, &ReadbackView::<K::Own<'_>>::from(&readback))
}
