//! What requests bring, out of bodies whose form [`super::schema`] has checked, as typed values.

use std::collections::BTreeMap;

use karbor_model::{
    ApiError, Parameters, PlanStatus, QuotaLimits, QuotaResource, Resource, UNLIMITED,
};
use serde_json::{Map, Value, json};

use super::{error_words::not_a_uuid, python_texts};

/// What fits the database's columns.
const LONGEST: usize = 255;

/// The most bytes of a definition, keys and values: far below what the database's column takes.
const LARGEST_DEFINITION: usize = 16 * 1024;

/// What a body of quotas may name beside resources, without effect.
const IDENTIFIERS: [&str; 2] = ["tenant_id", "id"];

/// The object under `key`; the schema has seen to it that there is one.
pub(crate) fn take(body: &mut Value, key: &str) -> Map<String, Value> {
    match body.get_mut(key).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The text under `key`, if there is one.
pub(crate) fn text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    match map.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Is `key` true?
pub(crate) fn is_true(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key) == Some(&Value::Bool(true))
}

/// An id whose form the schema has checked.
pub(crate) fn parsed<T: std::str::FromStr>(
    map: &Map<String, Value>,
    key: &str,
) -> Result<T, ApiError> {
    let given = map.get(key).and_then(Value::as_str).unwrap_or_default();
    given.parse().map_err(|_| not_a_uuid(key, given))
}

/// Parameters, every value as the text that Python makes of it. A type given as null has none (Q07).
pub(crate) fn parameters(given: Option<Value>) -> Parameters {
    let Some(Value::Object(given)) = given else {
        return Parameters::new();
    };
    let of_type = |values: Value| match values {
        Value::Object(values) => values
            .into_iter()
            .map(|(name, value)| (name, python_texts::parameter(value)))
            .collect(),
        _ => Map::new(),
    };
    given
        .into_iter()
        .map(|(key, values)| (key, of_type(values)))
        .collect()
}

/// The `parameters` of a query: a dictionary, as JSON or as Python prints it, which is how
/// python-karborclient sends it.
pub(crate) fn query_parameters(text: Option<&str>) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let parsed = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace('\'', "\"").replace("None", "null")));
    match parsed {
        Ok(Value::Object(map)) => Ok(Some(map)),
        _ => Err(ApiError::invalid_input("The parameters must be a dict.")),
    }
}

/// The state that a plan is to have.
pub(crate) fn plan_status(given: &Value) -> Result<PlanStatus, ApiError> {
    let parsed = given.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let reason = format!(
            "{} is not one of ['suspended', 'started']",
            python_texts::repr(given)
        );
        ApiError::invalid_field("status", python_texts::text(given), reason)
    })
}

/// The resources of a plan: one at least.
pub(crate) fn resources(given: Value) -> Result<Vec<Resource>, ApiError> {
    let items = match given {
        Value::Array(items) if !items.is_empty() => items,
        _ => {
            return Err(ApiError::invalid_input(
                "list resources must be provided when creating a plan.",
            ));
        }
    };
    items.into_iter().map(resource).collect()
}

fn resource(given: Value) -> Result<Resource, ApiError> {
    let Value::Object(mut map) = given else {
        return Err(incomplete());
    };
    let mut part = |key: &str, may_be_empty: bool| match map.remove(key) {
        None => Err(incomplete()),
        Some(Value::String(text)) if text.chars().count() > LONGEST => {
            let reason = format!("{} is too long", python_texts::repr_str(&text));
            Err(ApiError::invalid_field(
                key,
                python_texts::text(&Value::String(text)),
                reason,
            ))
        }
        Some(Value::String(text)) if may_be_empty || !text.is_empty() => Ok(text),
        Some(other) => {
            let reason = match &other {
                Value::String(_) => "It must not be empty.".to_owned(),
                _ => format!("{} is not of type 'string'", python_texts::repr(&other)),
            };
            Err(ApiError::invalid_field(
                key,
                python_texts::text(&other),
                reason,
            ))
        }
    };
    let id = part("id", false)?;
    let resource_type = part("type", false)?;
    let name = part("name", true)?;
    Ok(Resource {
        id,
        resource_type,
        name,
        extra_info: map.remove("extra_info").filter(|info| !info.is_null()),
    })
}

fn incomplete() -> ApiError {
    ApiError::invalid_input(
        "Resource in list must be a dict when creating a plan.The keys of resource are id,type \
         and name.",
    )
}

/// The JSON text that a checkpoint keeps as its extra info, as `json.dumps` wrote it.
pub(crate) fn extra_info(checkpoint: &mut Map<String, Value>) -> String {
    let given = ["extra_info", "extra-info"].into_iter().find_map(|key| {
        let value = checkpoint.remove(key)?;
        value.is_object().then_some(value)
    });
    python_texts::json(&given.unwrap_or_else(|| json!({"created_by": "manual"})))
}

/// Properties of a trigger are kept as texts: a window goes in as a number and comes out as a text (Q31).
pub(crate) fn trigger_properties(info: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    let Some(Value::Object(given)) = info.remove("properties") else {
        return None;
    };
    let texts = given
        .into_iter()
        .map(|(key, value)| (key, python_texts::parameter(value)));
    Some(texts.collect())
}

/// What a scheduled operation is to do: every value as a text, as the original kept them (Q41).
pub(crate) fn operation_definition(
    given: Option<Value>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(Value::Object(given)) = given else {
        return Ok(BTreeMap::new());
    };
    let texts: BTreeMap<_, _> = given
        .into_iter()
        .map(|(key, value)| (key, python_texts::text(&value)))
        .collect();
    let size: usize = texts.iter().map(|(key, text)| key.len() + text.len()).sum();
    if size > LARGEST_DEFINITION {
        return Err(ApiError::bad_request(format!(
            "The operation_definition has {size} bytes; it may have {LARGEST_DEFINITION}."
        )));
    }
    Ok(texts)
}

/// The name of a quota class.
pub(crate) fn quota_class_name(name: &str) -> Result<&str, ApiError> {
    match name.trim().is_empty() || name.chars().count() > LONGEST {
        true => Err(ApiError::bad_request(format!(
            "The name of a quota class has 1 to {LONGEST} characters."
        ))),
        false => Ok(name),
    }
}

/// Can this be the name of a project that is no UUID?
pub(crate) fn is_project_name(text: &str) -> bool {
    text.chars().count() <= LONGEST
}

/// The class to put a project in; null or an empty text takes it out.
pub(crate) fn quota_class(given: Value) -> Result<Option<String>, ApiError> {
    match given {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) => quota_class_name(&name).map(|name| Some(name.to_owned())),
        other => Err(ApiError::invalid_field(
            "class",
            python_texts::text(&other),
            format!(
                "{} is not of type 'string', 'null'",
                python_texts::repr(&other)
            ),
        )),
    }
}

/// The limits that a body names. A name that is nothing that can be limited is refused: the
/// original took it and did nothing (Q60).
pub(crate) fn quota_limits(given: Map<String, Value>) -> Result<QuotaLimits, ApiError> {
    let mut limits = QuotaLimits::new();
    for (key, value) in given {
        if IDENTIFIERS.contains(&key.as_str()) {
            continue;
        }
        let resource: QuotaResource = key.parse().map_err(|_| {
            let known: Vec<_> = QuotaResource::ALL.iter().map(|r| r.as_str()).collect();
            ApiError::bad_request(format!(
                "There is no quota of '{key}': give one of {}.",
                known.join(", ")
            ))
        })?;
        limits.insert(resource, quota_limit(&key, &value)?);
    }
    Ok(limits)
}

/// A whole number, also as text, as the original's client may send it. Neither `true` (Q57) nor an
/// empty text (Q58) is one.
fn quota_limit(key: &str, value: &Value) -> Result<i64, ApiError> {
    let is_scalar = value.is_boolean() || value.is_string() || value.is_i64() || value.is_u64();
    if !is_scalar {
        // In the words of the original's schema, which knew no class.
        let shown = python_texts::repr(value);
        return Err(ApiError::invalid_field(
            key,
            python_texts::text(value),
            format!("{shown} is not of type 'boolean', 'string', 'integer'"),
        ));
    }
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(limit) if limit < UNLIMITED => {
            Err(ApiError::bad_request("Quota limit must be -1 or greater."))
        }
        Some(limit) => Ok(limit),
        None => Err(ApiError::bad_request(format!(
            "Quota '{}' for {key} should be integer.",
            python_texts::text(value)
        ))),
    }
}
