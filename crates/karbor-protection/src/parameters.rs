//! Checks what a user gives to an operation against the plugins' schemas.

use karbor_model::{ApiError, Parameters};
use karbor_plugin::SchemaKind;
use serde_json::Value;

use crate::providers::Provider;

/// Checks that every key of `parameters` is a type that the provider protects (or `type#id`) and
/// every value fits the schema of its type.
///
/// # Errors
/// A 400 that names the key and the property.
pub(crate) fn validate(
    provider: &Provider,
    kind: SchemaKind,
    what: &str,
    parameters: &Parameters,
) -> Result<(), ApiError> {
    for (key, given) in parameters {
        let (resource_type, id) = match key.split_once('#') {
            Some((resource_type, id)) => (resource_type, Some(id)),
            None => (key.as_str(), None),
        };
        if id.is_some_and(|id| uuid::Uuid::try_parse(id).is_err()) {
            return Err(ApiError::invalid_input(format!(
                "The resource_id must be a uuid. Key: {key}"
            )));
        }
        let schema = provider.schema(resource_type, kind).ok_or_else(|| {
            ApiError::invalid_input(format!("The key of {what} parameters is invalid: {key}"))
        })?;
        let known = schema.get("properties").and_then(Value::as_object);
        if let Some(unknown) = given
            .keys()
            .find(|name| known.is_none_or(|known| !known.contains_key(*name)))
        {
            return Err(ApiError::invalid_input(format!(
                "The {what} property of {what} parameters is invalid: {unknown} of {key}"
            )));
        }
        check_schema(schema, key, given)?;
    }
    Ok(())
}

/// A resource's own parameters may leave out what its type's give, so `required` is not asked here.
fn check_schema(
    schema: &Value,
    key: &str,
    given: &serde_json::Map<String, Value>,
) -> Result<(), ApiError> {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft4)
        .build(&schema)
        .map_err(|e| ApiError::internal(format!("the schema of {key} is not a schema: {e}")))?;
    let given = Value::Object(given.clone());
    match validator.iter_errors(&given).next() {
        None => Ok(()),
        Some(error) => {
            let at = error.instance_path().to_string();
            let field = if at.is_empty() {
                key.to_owned()
            } else {
                format!("{key}{at}")
            };
            Err(ApiError::invalid_field(&field, error.instance(), &error))
        }
    }
}
