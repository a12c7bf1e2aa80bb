//! The schemas of request bodies, and the check against them.
//!
//! The original checked bodies with Python's `jsonschema` and sent its words to the client, first
//! complaint first. That order and those words are part of the wire format, so the check is our
//! own: the handful of draft 4 keywords that the original's schemas use, walked in its order, with
//! nothing compiled per request.

use std::borrow::Cow;

use karbor_model::{ApiError, ErrorKind};
use serde_json::{Map, Value, json};

use super::python_texts;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Boolean,
    Integer,
    Null,
}

#[derive(Clone, Copy)]
pub(super) enum Format {
    Uuid,
    Name,
}

/// One schema. The fields are checked from top to bottom.
pub(crate) struct Schema {
    pub(super) types: &'static [Type],
    pub(super) choices: &'static [&'static str],
    pub(super) max_length: usize,
    pub(super) format: Option<Format>,
    pub(super) printable: bool,
    pub(super) properties: &'static [(&'static str, &'static Schema)],
    /// Every other key must look like a parameter's name, and its value like this.
    pub(super) others: Option<&'static Schema>,
    pub(super) items: Option<&'static Schema>,
    pub(super) required: &'static [&'static str],
    /// No keys but the declared ones.
    pub(super) closed: bool,
}

const KEY_PATTERN: &str = "^[a-zA-Z0-9-_:.# ]{1,255}$";
/// The same where a `-` between two ends is a range and nothing else.
const KEY_PATTERN_OF_ECMA: &str = "^[a-zA-Z0-9_:.# -]{1,255}$";
/// What [`is_printable`] says.
const PRINTABLE_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$";

pub(super) const ANY: Schema = Schema {
    types: &[],
    choices: &[],
    max_length: usize::MAX,
    format: None,
    printable: false,
    properties: &[],
    others: None,
    items: None,
    required: &[],
    closed: false,
};

pub(crate) const fn object(
    properties: &'static [(&'static str, &'static Schema)],
    required: &'static [&'static str],
) -> Schema {
    Schema {
        types: &[Type::Object],
        properties,
        required,
        closed: true,
        ..ANY
    }
}

impl Schema {
    /// The first complaint about `body`, if there is one.
    pub(crate) fn check(&self, body: &Value) -> Result<(), ApiError> {
        self.walk(body, None)
    }

    /// `at` is the last step of the path to `value`: all of the path that the original told.
    fn walk(&self, value: &Value, at: Option<&str>) -> Result<(), ApiError> {
        if !self.types.is_empty() && !self.types.iter().any(|known| is(value, *known)) {
            let names: Vec<_> = self.types.iter().map(|known| known.repr()).collect();
            let message = format!(
                "{} is not of type {}",
                python_texts::repr(value),
                names.join(", ")
            );
            return Err(complaint(at, value, &message));
        }
        match value {
            Value::Object(map) => self.walk_object(map, value, at)?,
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(schema) = self.items {
                        schema.walk(item, Some(&index.to_string()))?;
                    }
                }
            }
            Value::String(text) => self.walk_text(text, value, at)?,
            _ => {}
        }
        match self.format {
            Some(Format::Name) => check_name(value.as_str()),
            Some(Format::Uuid) if !value.as_str().is_some_and(is_uuid) => Err(complaint(
                at,
                value,
                &format!("{} is not a 'uuid'", python_texts::repr(value)),
            )),
            _ => Ok(()),
        }
    }

    fn walk_text(&self, text: &str, value: &Value, at: Option<&str>) -> Result<(), ApiError> {
        if !self.choices.is_empty() && !self.choices.contains(&text) {
            let choices: Vec<_> = self
                .choices
                .iter()
                .map(|c| python_texts::repr_str(c))
                .collect();
            let message = format!(
                "{} is not one of [{}]",
                python_texts::repr(value),
                choices.join(", ")
            );
            return Err(complaint(at, value, &message));
        }
        if text.len() > self.max_length && text.chars().count() > self.max_length {
            let message = format!("{} is too long", python_texts::repr(value));
            return Err(complaint(at, value, &message));
        }
        if self.printable && !text.chars().all(is_printable) {
            let message = format!(
                "{} does not match '^[printable characters]*$'",
                python_texts::repr(value)
            );
            return Err(complaint(at, value, &message));
        }
        Ok(())
    }

    fn walk_object(
        &self,
        map: &serde_json::Map<String, Value>,
        value: &Value,
        at: Option<&str>,
    ) -> Result<(), ApiError> {
        for (key, schema) in self.properties {
            if let Some(property) = map.get(*key) {
                schema.walk(property, Some(key))?;
            }
        }
        if let Some(schema) = self.others {
            for (key, other) in map.iter().filter(|(key, _)| is_parameter_name(key)) {
                schema.walk(other, Some(key))?;
            }
        }
        if let Some(missing) = self.required.iter().find(|key| !map.contains_key(**key)) {
            let message = format!("'{missing}' is a required property");
            return Err(complaint(at, value, &message));
        }
        let unexpected = |key: &&String| {
            let declared = self.properties.iter().any(|(known, _)| known == *key);
            !(declared || self.others.is_some() && is_parameter_name(key))
        };
        if self.closed && map.keys().any(|key| unexpected(&key)) {
            let keys: Vec<_> = map
                .keys()
                .filter(unexpected)
                .map(|key| python_texts::repr_str(key))
                .collect();
            return Err(complaint(at, value, &self.unexpected(&keys)));
        }
        Ok(())
    }

    fn unexpected(&self, keys: &[String]) -> String {
        let names = keys.join(", ");
        let one = keys.len() == 1;
        if self.others.is_some() {
            let verb = if one { "does" } else { "do" };
            format!("{names} {verb} not match any of the regexes: '{KEY_PATTERN}'")
        } else {
            let verb = if one { "was" } else { "were" };
            format!("Additional properties are not allowed ({names} {verb} unexpected)")
        }
    }
}

impl Schema {
    /// The same in JSON Schema, for the document of the API.
    pub(crate) fn described(&self) -> Value {
        let mut out = Map::new();
        // A name may be null for the original's type check alone: its form refuses it then.
        let is_name = matches!(self.format, Some(Format::Name));
        let types = self.types.iter().filter(|t| !is_name || **t != Type::Null);
        let types: Vec<_> = types.map(|known| Value::from(known.name())).collect();
        match types.as_slice() {
            [] => {}
            [one] => drop(out.insert("type".to_owned(), one.clone())),
            _ => drop(out.insert("type".to_owned(), types.into())),
        }
        if !self.choices.is_empty() {
            out.insert("enum".to_owned(), self.choices.into());
        }
        if self.max_length < usize::MAX {
            out.insert("maxLength".to_owned(), self.max_length.into());
        }
        let pattern = match self.format {
            Some(Format::Name) => Some(r"\S"),
            _ => self.printable.then_some(PRINTABLE_PATTERN),
        };
        if let Some(pattern) = pattern {
            out.insert("pattern".to_owned(), pattern.into());
        }
        if let Some(Format::Uuid) = self.format {
            out.insert("format".to_owned(), "uuid".into());
        }
        if let Some(items) = self.items {
            out.insert("items".to_owned(), items.described());
        }
        if !self.properties.is_empty() {
            let properties = self.properties.iter();
            let properties: Map<_, _> = properties
                .map(|(key, schema)| ((*key).to_owned(), schema.described()))
                .collect();
            out.insert("properties".to_owned(), properties.into());
        }
        if let Some(others) = self.others {
            let others = json!({ KEY_PATTERN_OF_ECMA: others.described() });
            out.insert("patternProperties".to_owned(), others);
        }
        if self.closed {
            out.insert("additionalProperties".to_owned(), false.into());
        }
        if !self.required.is_empty() {
            out.insert("required".to_owned(), self.required.into());
        }
        out.into()
    }
}

impl Type {
    fn name(self) -> &'static str {
        self.repr().trim_matches('\'')
    }

    fn repr(self) -> &'static str {
        match self {
            Self::Object => "'object'",
            Self::Array => "'array'",
            Self::String => "'string'",
            Self::Boolean => "'boolean'",
            Self::Integer => "'integer'",
            Self::Null => "'null'",
        }
    }
}

fn is(value: &Value, known: Type) -> bool {
    match known {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Boolean => value.is_boolean(),
        Type::Integer => value.is_i64() || value.is_u64(),
        Type::Null => value.is_null(),
    }
}

fn complaint(at: Option<&str>, value: &Value, message: &str) -> ApiError {
    match at {
        Some(field) => {
            let field: Cow<'_, str> = python_texts::text(&Value::from(field)).into();
            ApiError::invalid_field(&field, python_texts::text(value), message)
        }
        None => ApiError::new(ErrorKind::BadRequest, "ValidationError", message),
    }
}

/// What the original called a name: given, and not only spaces.
pub(crate) fn check_name(name: Option<&str>) -> Result<(), ApiError> {
    let reason = match name {
        None | Some("") => "None",
        Some(name) if name.trim().is_empty() => "empty",
        Some(_) => return Ok(()),
    };
    Err(ApiError::new(
        ErrorKind::BadRequest,
        "InvalidName",
        format!("An invalid 'name' value was provided. The 'name' can not be {reason}."),
    ))
}

pub(crate) fn is_uuid(text: &str) -> bool {
    text.parse::<karbor_model::PlanId>().is_ok()
}

fn is_parameter_name(key: &str) -> bool {
    (1..=255).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_:.# ".contains(&b))
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::body_schemas::{CHECKPOINT_UPDATE, PLAN_CREATE},
        *,
    };

    fn plan(changes: Value) -> Value {
        let mut body = json!({"plan": {
            "name": "n", "description": "d", "parameters": {},
            "provider_id": "b766f37c-d011-4026-8228-28730d734a3f",
            "resources": [{"id": "x", "type": "y", "name": "z"}],
        }});
        for (key, value) in changes.as_object().unwrap() {
            body["plan"][key] = value.clone();
        }
        body
    }

    /// The words are from recordings of the original.
    #[test]
    fn complains_in_the_originals_words() {
        let long = "x".repeat(256);
        for (body, expected) in [
            (json!([1]), "[1] is not of type 'object'".to_owned()),
            (json!({}), "'plan' is a required property".to_owned()),
            (
                json!({"plan": null}),
                "Invalid input for field/attribute plan. Value: None. None is not of type 'object'".to_owned(),
            ),
            (
                json!({"plan": {}}),
                "Invalid input for field/attribute plan. Value: {}. 'provider_id' is a required property".to_owned(),
            ),
            (
                plan(json!({"name": 5})),
                "Invalid input for field/attribute name. Value: 5. 5 is not of type 'string', 'null'".to_owned(),
            ),
            (
                plan(json!({"name": null})),
                "An invalid 'name' value was provided. The 'name' can not be None.".to_owned(),
            ),
            (
                plan(json!({"name": "  "})),
                "An invalid 'name' value was provided. The 'name' can not be empty.".to_owned(),
            ),
            (
                plan(json!({"name": long})),
                format!("Invalid input for field/attribute name. Value: {long}. '{long}' is too long"),
            ),
            (
                plan(json!({"provider_id": "abc"})),
                "Invalid input for field/attribute provider_id. Value: abc. 'abc' is not a 'uuid'".to_owned(),
            ),
            (
                plan(json!({"resources": ["x"]})),
                "Invalid input for field/attribute 0. Value: x. 'x' is not of type 'object'".to_owned(),
            ),
            (
                plan(json!({"parameters": {"OS::Cinder::Volume": "x"}})),
                "Invalid input for field/attribute OS::Cinder::Volume. Value: x. 'x' is not of type 'object', 'null'".to_owned(),
            ),
            (
                plan(json!({"parameters": {"T": {"a": 1.5}}})),
                "Invalid input for field/attribute a. Value: 1.5. 1.5 is not of type 'boolean', 'string', 'integer'".to_owned(),
            ),
            (
                plan(json!({"parameters": {"bad!key": {}}})),
                "Invalid input for field/attribute parameters. Value: {'bad!key': {}}. 'bad!key' does not match any of the regexes: '^[a-zA-Z0-9-_:.# ]{1,255}$'".to_owned(),
            ),
        ] {
            assert_eq!(PLAN_CREATE.check(&body).unwrap_err().message, expected);
        }
        assert!(
            PLAN_CREATE
                .check(&plan(json!({"description": "ünï ☃"})))
                .is_ok()
        );
        assert!(
            PLAN_CREATE
                .check(&plan(json!({"description": "\u{1}"})))
                .is_err()
        );
    }

    /// Q05: a top-level key `type` made the original walk its own schema wrongly.
    #[test]
    fn q05_a_top_level_key_type_is_only_unexpected() {
        let mut body = plan(json!({}));
        body["type"] = json!("x");
        assert_eq!(
            PLAN_CREATE.check(&body).unwrap_err().message,
            "Additional properties are not allowed ('type' was unexpected)"
        );
    }

    #[test]
    fn states_are_listed_in_the_refusal() {
        let body = json!({"os-resetState": {"state": "x"}});
        assert_eq!(
            CHECKPOINT_UPDATE.check(&body).unwrap_err().message,
            "Invalid input for field/attribute state. Value: x. 'x' is not one of ['available', 'error']"
        );
    }
}
