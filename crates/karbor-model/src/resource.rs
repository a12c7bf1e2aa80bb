//! What can be protected.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where extra info tells why a resource cannot be used.
const BROKEN: &str = "broken";

/// A type without where it comes from: of `Host::PostgreSQL::Database`, `PostgreSQL database`.
fn kind_in_words(resource_type: &str) -> String {
    let (maker, kind) = resource_type
        .rsplit_once("::")
        .unwrap_or(("", resource_type));
    let kind = kind.to_lowercase();
    match maker.split_once("::") {
        Some((_, maker)) => format!("{maker} {kind}"),
        None => kind,
    }
}

/// One thing that a plugin knows how to protect. Equal by type and id: name and extra info are
/// what was known of it when it was looked up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resource {
    /// Id, unique within the type. A UUID for our own types; whatever the other service uses otherwise.
    pub id: String,
    /// Type, e.g. `Host::Directory`.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Name, for people.
    #[serde(default)]
    pub name: String,
    /// What else the protectable plugin wants kept with it.
    #[serde(default)]
    pub extra_info: Option<Value>,
}

impl Resource {
    /// A resource without extra info.
    pub fn new(
        resource_type: impl Into<String>,
        id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            resource_type: resource_type.into(),
            name: name.into(),
            extra_info: None,
        }
    }

    /// The resource, marked as one that cannot be used now: its extra info has the reason under `broken`.
    #[must_use]
    pub fn broken_because(mut self, reason: &str) -> Self {
        self.extra_info = Some(json!({ BROKEN: reason }));
        self
    }

    /// Why it cannot be used now.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.extra_info.as_ref()?.get(BROKEN)?.as_str()
    }

    /// `type#id`, the key by which parameters and log entries address one resource.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}#{}", self.resource_type, self.id)
    }

    /// As a person knows it: `documents (directory)`, `shop (PostgreSQL database)`. One without a name goes by its id.
    #[must_use]
    pub fn in_words(&self) -> String {
        let name = match self.name.is_empty() {
            true => &self.id,
            false => &self.name,
        };
        format!("{name} ({})", kind_in_words(&self.resource_type))
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.resource_type == other.resource_type
    }
}

impl Eq for Resource {}

impl std::hash::Hash for Resource {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.resource_type.hash(state);
        self.id.hash(state);
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.resource_type, self.name, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_goes_by_its_name_and_what_it_is() {
        for (resource_type, name, words) in [
            ("Host::Directory", "documents", "documents (directory)"),
            (
                "Host::PostgreSQL::Database",
                "shop",
                "shop (PostgreSQL database)",
            ),
            ("OS::Cinder::Volume", "data", "data (Cinder volume)"),
            ("Simulated::Resource", "", "17 (resource)"),
            ("T", "one", "one (t)"),
        ] {
            assert_eq!(Resource::new(resource_type, "17", name).in_words(), words);
        }
    }
}
