//! The check of what a user gives to an operation: keys, names, and values as far as who asks knows them.

use serde_json::{Map, Value};

use crate::{Parameters, PlanId};

/// What is known of the parameters of a resource type.
#[derive(Debug, Clone, Copy)]
pub enum KnownType<'a> {
    /// This JSON Schema says which there are.
    Described(&'a Value),
    /// There is such a type, and nothing is known of its parameters: any are taken.
    Open,
    /// There is no such type.
    Unknown,
}

/// What is wrong with the keys or names of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterFault {
    /// A key names one resource, by what is no UUID.
    ResourceId {
        /// The key.
        key: String,
    },
    /// A key names a type that is not known.
    UnknownType {
        /// The key.
        key: String,
    },
    /// The type has no such parameter.
    UnknownName {
        /// The key.
        key: String,
        /// The parameter.
        name: String,
    },
}

/// What parameters are checked against.
pub trait ParameterRules {
    /// Why parameters are refused.
    type Error: From<ParameterFault>;

    /// What is known of a type's parameters.
    fn known_type(&self, resource_type: &str) -> KnownType<'_>;

    /// Checks one value against its part of the type's schema.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn check_value(
        &self,
        resource_type: &str,
        name: &str,
        value: &Value,
        schema: &Value,
    ) -> Result<(), Self::Error> {
        let _ = (resource_type, name, value, schema);
        Ok(())
    }

    /// Checks all that is given under a key, whose names are good, against the type's schema.
    ///
    /// # Errors
    /// What is wrong with one of the values.
    fn check_values(
        &self,
        key: &str,
        given: &Map<String, Value>,
        schema: &Value,
    ) -> Result<(), Self::Error> {
        let _ = (key, given, schema);
        Ok(())
    }
}

/// Checks that every key is a type that `rules` know, or a resource of one (`type#id`), that the type has a parameter
/// of each name given, and that the values are good.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_parameters<R: ParameterRules>(
    rules: &R,
    parameters: &Parameters,
) -> Result<(), R::Error> {
    for (key, given) in parameters {
        let (resource_type, id) = match key.split_once('#') {
            Some((resource_type, id)) => (resource_type, Some(id)),
            None => (key.as_str(), None),
        };
        if id.is_some_and(|id| id.parse::<PlanId>().is_err()) {
            return Err(ParameterFault::ResourceId { key: key.clone() }.into());
        }
        let schema = match rules.known_type(resource_type) {
            KnownType::Described(schema) => schema,
            KnownType::Open => continue,
            KnownType::Unknown => {
                return Err(ParameterFault::UnknownType { key: key.clone() }.into());
            }
        };
        for (name, value) in given {
            let of_name = schema.get("properties").and_then(|all| all.get(name));
            let of_name = of_name.ok_or_else(|| ParameterFault::UnknownName {
                key: key.clone(),
                name: name.clone(),
            })?;
            rules.check_value(resource_type, name, value, of_name)?;
        }
        rules.check_values(key, given, schema)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Knows one type, and one that nothing is known of.
    struct Rules(Value);

    impl ParameterRules for Rules {
        type Error = ParameterFault;

        fn known_type(&self, resource_type: &str) -> KnownType<'_> {
            match resource_type {
                "Known" => KnownType::Described(&self.0),
                "Open" => KnownType::Open,
                _ => KnownType::Unknown,
            }
        }
    }

    #[test]
    fn the_first_fault_is_named() {
        let rules = Rules(json!({"properties": {"level": {}}}));
        let id = "5f5c5d7e-0000-4000-8000-000000000001";
        let check = |key: &str, name: &str| {
            let given = Map::from_iter([(name.to_owned(), json!(1))]);
            check_parameters(&rules, &Parameters::from([(key.to_owned(), given)]))
        };
        assert_eq!(check("Known", "level"), Ok(()));
        assert_eq!(check(&format!("Known#{id}"), "level"), Ok(()));
        assert_eq!(check("Open", "anything"), Ok(()));
        let key = |key: &str| key.to_owned();
        assert_eq!(
            check("Known#x", "level"),
            Err(ParameterFault::ResourceId {
                key: key("Known#x")
            })
        );
        assert_eq!(
            check("Other", "level"),
            Err(ParameterFault::UnknownType { key: key("Other") })
        );
        assert_eq!(
            check("Known", "speed"),
            Err(ParameterFault::UnknownName {
                key: key("Known"),
                name: "speed".to_owned()
            })
        );
    }
}
