//! How thoroughly a verification looks: the same parameters for every plugin.

use karbor_vault::VerifyLevel;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Parameters of a verification, after the schema has let them pass.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct VerifyParameters {
    level: Word,
    percent: u8,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Metadata,
    Data,
}

impl Default for VerifyParameters {
    fn default() -> Self {
        Self {
            level: Word::Metadata,
            percent: 100,
        }
    }
}

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Everything is there, and as large as it must be.
    Metadata,
    /// And so many percent of the data (1 to 100) are read and compared with their hashes.
    Data(u8),
}

impl Level {
    pub(crate) fn of_vault(self) -> VerifyLevel {
        match self {
            Self::Metadata => VerifyLevel::Metadata,
            Self::Data(percent) => VerifyLevel::Data { percent },
        }
    }
}

impl VerifyParameters {
    pub(crate) fn level(&self) -> Level {
        match self.level {
            Word::Metadata => Level::Metadata,
            Word::Data => Level::Data(self.percent.clamp(1, 100)),
        }
    }
}

/// The properties of the parameters' schema.
pub(crate) fn properties() -> Map<String, Value> {
    let level = json!({
        "type": "string", "title": "Level", "enum": ["metadata", "data"], "default": "metadata",
        "description": "Check that everything is there, or read it back as well.",
    });
    let percent = json!({
        "type": "integer", "title": "Percent", "minimum": 1, "maximum": 100, "default": 100,
        "description": "How much of the data to read back.",
    });
    Map::from_iter([("level".to_owned(), level), ("percent".to_owned(), percent)])
}
