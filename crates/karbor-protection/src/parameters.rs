//! Checks what a user gives to an operation against the plugins' schemas.

use karbor_model::{
    ApiError, KnownType, ParameterFault, ParameterRules, Parameters, check_parameters,
};
use karbor_plugin::SchemaKind;
use serde_json::{Map, Value};

use crate::providers::Provider;

/// Gives values back the types that their schema asks for: the API keeps parameters as texts, as the
/// original did (`true` becomes `True`). A text that is no such value stays, for [`validate`] to refuse.
pub(crate) fn typed(
    provider: &Provider,
    kind: SchemaKind,
    mut parameters: Parameters,
) -> Parameters {
    for (key, given) in &mut parameters {
        let resource_type = key.split('#').next().unwrap_or_default();
        let Some(schema) = provider.schema(resource_type, kind) else {
            continue;
        };
        for (name, value) in given {
            if let Value::String(text) = value
                && let Some(of_type) = schema["properties"][name.as_str()]["type"].as_str()
                && let Some(read) = read_as(of_type, text)
            {
                *value = read;
            }
        }
    }
    parameters
}

fn read_as(of_type: &str, text: &str) -> Option<Value> {
    match of_type {
        "boolean" if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
        "boolean" if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "number" => text.parse::<serde_json::Number>().ok().map(Value::Number),
        _ => None,
    }
}

/// Checks that every key of `parameters` is a type that the provider protects (or `type#id`) and
/// every value fits the schema of its type. `what` they are for is said in the refusal.
///
/// # Errors
/// A 400 that names the key and the property.
pub(crate) fn validate(
    provider: &Provider,
    kind: SchemaKind,
    what: &str,
    parameters: &Parameters,
) -> Result<(), ApiError> {
    let rules = OfProvider { provider, kind };
    check_parameters(&rules, parameters).map_err(|refused| match refused {
        Refused::Fault(ParameterFault::ResourceId { key }) => {
            ApiError::invalid_input(format!("The resource_id must be a uuid. Key: {key}"))
        }
        Refused::Fault(ParameterFault::UnknownType { key }) => {
            ApiError::invalid_input(format!("The key of {what} parameters is invalid: {key}"))
        }
        Refused::Fault(ParameterFault::UnknownName { key, name }) => ApiError::invalid_input(
            format!("The {what} property of {what} parameters is invalid: {name} of {key}"),
        ),
        Refused::Value(error) => error,
    })
}

/// What a provider's plugins know of parameters.
struct OfProvider<'a> {
    provider: &'a Provider,
    kind: SchemaKind,
}

/// Why parameters are refused.
enum Refused {
    Fault(ParameterFault),
    /// A value does not fit its schema.
    Value(ApiError),
}

impl From<ParameterFault> for Refused {
    fn from(fault: ParameterFault) -> Self {
        Self::Fault(fault)
    }
}

impl ParameterRules for OfProvider<'_> {
    type Error = Refused;

    fn known_type(&self, resource_type: &str) -> KnownType<'_> {
        let schema = self.provider.schema(resource_type, self.kind);
        schema.map_or(KnownType::Unknown, KnownType::Described)
    }

    fn check_values(
        &self,
        key: &str,
        given: &Map<String, Value>,
        schema: &Value,
    ) -> Result<(), Refused> {
        check_schema(schema, key, given).map_err(Refused::Value)
    }
}

/// A resource's own parameters may leave out what its type's give, so `required` is not asked here.
fn check_schema(schema: &Value, key: &str, given: &Map<String, Value>) -> Result<(), ApiError> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_read_as_their_schema_says() {
        assert_eq!(read_as("boolean", "True"), Some(json!(true)));
        assert_eq!(read_as("boolean", "false"), Some(json!(false)));
        assert_eq!(read_as("boolean", "yes"), None);
        assert_eq!(read_as("integer", "10"), Some(json!(10)));
        assert_eq!(read_as("integer", "1.5"), None);
        assert_eq!(read_as("number", "0.5"), Some(json!(0.5)));
        assert_eq!(read_as("string", "10"), None);
    }
}
