//! JSON Schemas (draft 4) of the plugins' parameters, in the original's manner.

use karbor_plugin::SchemaKind;
use serde_json::{Map, Value, json};

use crate::{
    host::applications::{APPLICATION, DIRECTORY, POSTGRESQL, SQLITE},
    protections::verify,
};

/// The schema of one of this host's types; `{}` when nothing may be given.
pub(crate) fn schema(resource_type: &str, kind: SchemaKind) -> Value {
    let Some(title) = title(resource_type) else {
        return json!({});
    };
    let (what, properties) = match kind {
        SchemaKind::Options => return json!({}),
        SchemaKind::Restore => ("Restore", restore(resource_type)),
        SchemaKind::Verify => ("Verify", Value::Object(verify::properties())),
        SchemaKind::SavedInfo => ("Saved Info", saved_info(resource_type)),
    };
    json!({
        "title": format!("{title} {what}"),
        "type": "object",
        "properties": properties,
        "required": [],
        "additionalProperties": false,
    })
}

fn title(resource_type: &str) -> Option<&'static str> {
    match resource_type {
        APPLICATION => Some("Host Application"),
        DIRECTORY => Some("Host Directory"),
        SQLITE => Some("Host SQLite Database"),
        POSTGRESQL => Some("Host PostgreSQL Database"),
        _ => None,
    }
}

fn restore(resource_type: &str) -> Value {
    let dry_run = json!({
        "type": "boolean", "title": "Dry Run", "default": false,
        "description": "Change nothing; report what would change.",
    });
    let overwrite = json!({
        "type": "string", "title": "Overwrite", "default": "never",
        "enum": ["never", "if-changed", "always"],
        "description": "What to do with what is there: refuse to touch it, replace what differs, or replace all.",
    });
    let restore_to = json!({
        "type": "string", "title": "Restore To", "minLength": 1, "maxLength": 4096,
        "description": "A folder under one of the application's restore roots; it is restored into <folder>/<application>/<component> there. Its original place unless given.",
    });
    match resource_type {
        APPLICATION => json!({"dry_run": dry_run}),
        POSTGRESQL => json!({
            "overwrite": overwrite,
            "dry_run": dry_run,
            "restore_to": {
                "type": "string", "title": "Restore To", "minLength": 1, "maxLength": 4096,
                "description": "A folder under one of the application's restore roots; the dump, and roles and tablespaces if they were kept, are written into <folder>/<application>/<component> there, and no server is asked. Has no effect together with 'database'.",
            },
            "database": {
                "type": "string", "title": "Database", "minLength": 1, "maxLength": 63,
                "description": "Name of a new database to restore into, on the same server. The original one unless given.",
            },
            "no_owner": {
                "type": "boolean", "title": "No Owner",
                "description": "Everything restored belongs to the role that restores it; owners and grants are left out. As declared unless given.",
            },
            "no_tablespaces": {
                "type": "boolean", "title": "No Tablespaces",
                "description": "Everything restored lies in the server's default tablespace. As declared unless given.",
            },
            "swap": {
                "type": "boolean", "title": "Swap", "default": false,
                "description": "Restore into a new database beside the one that is there, then exchange their names. The old one is kept as <name>_before_<time>.",
            },
            "drop_old": {
                "type": "boolean", "title": "Drop Old", "default": false,
                "description": "With 'swap': drop the old database when the restore is complete.",
            },
            "disconnect": {
                "type": "boolean", "title": "Disconnect", "default": false,
                "description": "With 'swap': end the sessions that use the database when the names are exchanged. It fails while the database is in use unless given.",
            },
        }),
        DIRECTORY => json!({
            "overwrite": overwrite,
            "dry_run": dry_run,
            "restore_to": restore_to,
            "delete_extra": {
                "type": "boolean", "title": "Delete Extra", "default": false,
                "description": "With overwrite 'if-changed' or 'always': remove what is in the place and not in the checkpoint. What the declaration's patterns leave out stays.",
            },
        }),
        _ => json!({"overwrite": overwrite, "dry_run": dry_run, "restore_to": restore_to}),
    }
}

fn saved_info(resource_type: &str) -> Value {
    if resource_type == APPLICATION {
        return json!({"application": {
            "type": "object", "title": "Application",
            "description": "The application as it was declared when it was protected.",
        }});
    }
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
