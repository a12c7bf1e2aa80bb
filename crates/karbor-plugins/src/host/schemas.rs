//! JSON Schemas (draft 4) of the plugins' parameters, in the original's manner: what kinds have in common.

use karbor_plugin::SchemaKind;
use serde_json::{Map, Value, json};

use crate::protections::verify;

/// The schema of a type with this title, of what a restore of it may be told and what a checkpoint says of it; `{}`
/// when nothing may be given.
pub(crate) fn schema(title: &str, kind: SchemaKind, restore: Value, saved_info: Value) -> Value {
    let (what, properties) = match kind {
        SchemaKind::Options => return json!({}),
        SchemaKind::Restore => ("Restore", restore),
        SchemaKind::Verify => ("Verify", Value::Object(verify::properties())),
        SchemaKind::SavedInfo => ("Saved Info", saved_info),
    };
    json!({
        "title": format!("{title} {what}"),
        "type": "object",
        "properties": properties,
        "required": [],
        "additionalProperties": false,
    })
}

/// Of a restore: change nothing.
pub(crate) fn dry_run() -> Value {
    json!({
        "type": "boolean", "title": "Dry Run", "default": false,
        "description": "Change nothing; report what would change.",
    })
}

/// Of a restore: what becomes of what is there.
pub(crate) fn overwrite() -> Value {
    json!({
        "type": "string", "title": "Overwrite", "default": "never",
        "enum": ["never", "if-changed", "always"],
        "description": "What to do with what is there: refuse to touch it, replace what differs, or replace all.",
    })
}

/// Of a restore of files: another place.
pub(crate) fn restore_to() -> Value {
    json!({
        "type": "string", "title": "Restore To", "minLength": 1, "maxLength": 4096,
        "description": "A folder under one of the application's restore roots; it is restored into <folder>/<application>/<component> there. Its original place unless given.",
    })
}

/// What a checkpoint says of a component.
pub(crate) fn saved_info() -> Value {
    let mut properties = Map::new();
    let texts = [
        ("snapshot", "Snapshot", "Id of the snapshot in the vault."),
        (
            "application",
            "Application",
            "The application it belongs to.",
        ),
    ];
    for (name, title, description) in texts {
        properties.insert(
            name.to_owned(),
            json!({"type": "string", "title": title, "description": description}),
        );
    }
    let numbers = [
        ("bytes", "Bytes", "How much it is."),
        (
            "new_bytes",
            "New Bytes",
            "How much was added to the bank for it.",
        ),
        ("files", "Files", "How many files."),
        (
            "left_out",
            "Left Out",
            "Files and directories that vanished while the directory was read.",
        ),
    ];
    for (name, title, description) in numbers {
        properties.insert(
            name.to_owned(),
            json!({"type": "integer", "title": title, "description": description}),
        );
    }
    Value::Object(properties)
}
