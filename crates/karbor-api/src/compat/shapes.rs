//! Shapes in answers that no Rust type tells: ids, states, texts with a form.

use std::{borrow::Cow, collections::BTreeSet, marker::PhantomData};

use karbor_model::{
    CheckpointStatus, OperationLogStatus, OperationType, PlanStatus, QuotaResource, ReadbackStatus,
    ScheduledOperationType,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// An id: a UUID as text.
pub(crate) struct Id;

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uuid"})
    }
}

/// The words that a type is on the wire.
pub(crate) trait Names {
    /// Every word.
    fn names() -> Vec<String>;
}

macro_rules! names {
    ($($state:ty),+) => {$(
        impl Names for $state {
            fn names() -> Vec<String> {
                Self::ALL.iter().map(ToString::to_string).collect()
            }
        }
    )+};
}

names!(PlanStatus, CheckpointStatus, ReadbackStatus, OperationType);

impl Names for ScheduledOperationType {
    fn names() -> Vec<String> {
        Self::all().map(|known| known.to_string()).collect()
    }
}

impl Names for OperationLogStatus {
    fn names() -> Vec<String> {
        let words: BTreeSet<_> = OperationType::ALL
            .iter()
            .flat_map(|operation| Self::ALL.iter().map(|status| status.after(*operation)))
            .collect();
        words.into_iter().map(str::to_owned).collect()
    }
}

/// One of the words of `T`.
pub(crate) struct OneOf<T>(PhantomData<T>);

impl<T: Names> JsonSchema for OneOf<T> {
    fn schema_name() -> Cow<'static, str> {
        "State".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": T::names()})
    }
}

/// Limits by what is limited; -1 is no limit.
pub(crate) struct Quotas;

/// Limits by what is limited, and what is used of each.
pub(crate) struct QuotaDetails;

fn by_resource(of_each: &Value) -> Map<String, Value> {
    let resources = QuotaResource::ALL.iter();
    resources
        .map(|resource| (resource.to_string(), of_each.clone()))
        .collect()
}

impl JsonSchema for Quotas {
    fn schema_name() -> Cow<'static, str> {
        "Quotas".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let limits = by_resource(&json!({"type": "integer", "minimum": -1}));
        json_schema!({"type": "object", "properties": limits})
    }
}

impl JsonSchema for QuotaDetails {
    fn schema_name() -> Cow<'static, str> {
        "QuotaDetails".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = json!({"type": "integer"});
        let details = by_resource(&json!({
            "type": "object",
            "properties": {"limit": number, "in_use": number, "reserved": number},
            "required": ["limit", "in_use", "reserved"],
        }));
        json_schema!({"type": "object", "properties": details})
    }
}
