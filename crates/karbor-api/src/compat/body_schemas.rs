//! What each request body must be.

use super::schema::{ANY, Format, Schema, Type, object};

static NAME: Schema = Schema {
    types: &[Type::String, Type::Null],
    max_length: 255,
    format: Some(Format::Name),
    ..ANY
};
static DESCRIPTION: Schema = Schema {
    types: &[Type::String, Type::Null],
    max_length: 255,
    printable: true,
    ..ANY
};
pub(crate) static UUID: Schema = Schema {
    types: &[Type::String],
    format: Some(Format::Uuid),
    ..ANY
};
pub(crate) static TEXT_OR_NULL: Schema = Schema {
    types: &[Type::String, Type::Null],
    max_length: 255,
    ..ANY
};
static SCALAR: Schema = Schema {
    types: &[Type::Boolean, Type::String, Type::Integer],
    ..ANY
};
pub(crate) static METADATA: Schema = Schema {
    types: &[Type::Object, Type::Null],
    others: Some(&SCALAR),
    closed: true,
    ..ANY
};
static ANYTHING: Schema = ANY;
static VALUES: Schema = Schema {
    types: &[Type::Object],
    others: Some(&ANYTHING),
    closed: true,
    ..ANY
};
pub(crate) static PARAMETERS: Schema = Schema {
    types: &[Type::Object],
    others: Some(&METADATA),
    closed: true,
    ..ANY
};
static RESOURCES: Schema = Schema {
    types: &[Type::Array],
    items: Some(&Schema {
        types: &[Type::Object],
        ..ANY
    }),
    ..ANY
};
static TEXT: Schema = Schema {
    types: &[Type::String],
    max_length: 255,
    ..ANY
};
static TRIGGER_NAME: Schema = Schema {
    types: &[Type::String],
    max_length: 255,
    format: Some(Format::Name),
    ..ANY
};
pub(crate) static BOOLEAN: Schema = Schema {
    types: &[Type::Boolean],
    ..ANY
};
static INTEGER: Schema = Schema {
    types: &[Type::Integer],
    ..ANY
};
/// A pattern fits the smallest text column of any database, whatever its characters.
static PATTERN: Schema = Schema {
    types: &[Type::String],
    max_length: 4000,
    ..ANY
};
const TRIGGER_PROPERTIES: &[(&str, &Schema)] = &[
    ("format", &TEXT),
    ("pattern", &PATTERN),
    ("start_time", &TEXT),
    ("end_time", &TEXT),
    ("window", &INTEGER),
];
static DEFINITION_VALUE: Schema = Schema {
    types: &[Type::Boolean, Type::String, Type::Integer],
    max_length: 255,
    ..ANY
};
/// Each type of operation looks at what it knows.
static OPERATION_DEFINITION: Schema = Schema {
    types: &[Type::Object],
    properties: &[("provider_id", &UUID), ("plan_id", &UUID)],
    others: Some(&DEFINITION_VALUE),
    required: &["provider_id", "plan_id"],
    closed: true,
    ..ANY
};
static STATE: Schema = Schema {
    types: &[Type::String],
    choices: &["available", "error"],
    ..ANY
};
static SERVICE_STATUS: Schema = Schema {
    types: &[Type::String],
    choices: &["enabled", "disabled"],
    ..ANY
};

/// `POST /plans`.
pub(crate) static PLAN_CREATE: Schema = object(
    &[(
        "plan",
        &object(
            &[
                ("name", &NAME),
                ("description", &DESCRIPTION),
                ("provider_id", &UUID),
                ("parameters", &PARAMETERS),
                ("resources", &RESOURCES),
            ],
            &["provider_id", "parameters"],
        ),
    )],
    &["plan"],
);
/// `PUT /plans/{id}`.
pub(crate) static PLAN_UPDATE: Schema = object(
    &[(
        "plan",
        &object(
            &[
                ("name", &NAME),
                ("status", &TEXT_OR_NULL),
                ("resources", &RESOURCES),
                ("description", &DESCRIPTION),
            ],
            &[],
        ),
    )],
    &["plan"],
);
/// `POST /providers/{id}/checkpoints`. The original's schema had `extra-info` and its code read
/// `extra_info` (Q18): both are taken.
pub(crate) static CHECKPOINT_CREATE: Schema = object(
    &[(
        "checkpoint",
        &object(
            &[
                ("plan_id", &UUID),
                ("extra-info", &METADATA),
                ("extra_info", &METADATA),
            ],
            &["plan_id"],
        ),
    )],
    &["checkpoint"],
);
/// `POST /providers/{id}/checkpoints/action`.
pub(crate) static COPY_CREATE: Schema = object(
    &[(
        "copy",
        &object(
            &[("plan_id", &UUID), ("parameters", &PARAMETERS)],
            &["plan_id"],
        ),
    )],
    &["copy"],
);
/// `PUT /providers/{id}/checkpoints/{id}`.
pub(crate) static CHECKPOINT_UPDATE: Schema = object(
    &[("os-resetState", &object(&[("state", &STATE)], &["state"]))],
    &["os-resetState"],
);
/// `PUT /providers/{id}/checkpoints/{id}`, to accept it.
pub(crate) static CHECKPOINT_ACCEPT: Schema =
    object(&[("os-accept", &object(&[], &[]))], &["os-accept"]);
/// `PUT /providers/{id}/checkpoints/{id}`: one of the two.
pub(crate) static CHECKPOINT_ACTIONS: Schema = object(
    &[
        ("os-resetState", &object(&[("state", &STATE)], &["state"])),
        ("os-accept", &object(&[], &[])),
    ],
    &[],
);
/// What creates a readback that is called so, with what it has of its own: each property, and those that must be given.
macro_rules! readback_create {
    ($one:literal, [$($own:expr),*], [$($required:literal),*]) => {
        crate::compat::schema::object(
            &[(
                $one,
                &crate::compat::schema::object(
                    &[
                        ("provider_id", &crate::compat::body_schemas::UUID),
                        ("checkpoint_id", &crate::compat::body_schemas::UUID),
                        $($own,)*
                        ("parameters", &crate::compat::body_schemas::PARAMETERS),
                        ("accept_unsealed", &crate::compat::body_schemas::BOOLEAN),
                    ],
                    &["provider_id", "checkpoint_id" $(, $required)*],
                ),
            )],
            &[$one],
        )
    };
}
pub(crate) use readback_create;
/// `PUT /quotas/{id}`. The original took a null and failed (Q59). Values are checked where they are
/// read.
pub(crate) static QUOTA_UPDATE: Schema = object(&[("quota", &VALUES)], &["quota"]);
/// `PUT /quota_classes/{id}`.
pub(crate) static QUOTA_CLASS_UPDATE: Schema =
    object(&[("quota_class", &VALUES)], &["quota_class"]);
/// `PUT /os-services/{id}`. The original did not check this body at all (Q56).
pub(crate) static SERVICE_UPDATE: Schema = object(
    &[
        ("status", &SERVICE_STATUS),
        ("disabled_reason", &DESCRIPTION),
    ],
    &["status"],
);
/// `POST /triggers`. The original let any name through (Q34).
pub(crate) static TRIGGER_CREATE: Schema = object(
    &[(
        "trigger_info",
        &object(
            &[
                ("name", &TRIGGER_NAME),
                ("type", &TEXT),
                (
                    "properties",
                    &object(TRIGGER_PROPERTIES, &["format", "pattern"]),
                ),
            ],
            &["name", "type", "properties"],
        ),
    )],
    &["trigger_info"],
);
/// `PUT /triggers/{id}`.
pub(crate) static TRIGGER_UPDATE: Schema = object(
    &[(
        "trigger_info",
        &object(
            &[
                ("name", &TRIGGER_NAME),
                ("type", &TEXT),
                ("properties", &object(TRIGGER_PROPERTIES, &[])),
            ],
            &[],
        ),
    )],
    &["trigger_info"],
);
/// `POST /scheduled_operations`.
pub(crate) static SCHEDULED_OPERATION_CREATE: Schema = object(
    &[(
        "scheduled_operation",
        &object(
            &[
                ("name", &NAME),
                ("description", &DESCRIPTION),
                ("operation_type", &TEXT),
                ("trigger_id", &UUID),
                ("operation_definition", &OPERATION_DEFINITION),
            ],
            &["operation_type", "trigger_id", "operation_definition"],
        ),
    )],
    &["scheduled_operation"],
);
/// `PATCH /scheduled_operations/{id}`, which the original did not have.
pub(crate) static SCHEDULED_OPERATION_UPDATE: Schema = object(
    &[(
        "scheduled_operation",
        &object(&[("enabled", &BOOLEAN)], &["enabled"]),
    )],
    &["scheduled_operation"],
);
