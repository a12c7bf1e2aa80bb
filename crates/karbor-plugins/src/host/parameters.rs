//! Parameters, after the schema has let them pass.

use karbor_plugin::PluginError;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The entry of a dry run's report that says why the restore would be refused.
pub(crate) const REFUSED: &str = "refused";

/// So many changes of a dry run are listed; all are counted.
pub(crate) const LISTED: usize = 1000;

/// Reads parameters.
pub(crate) fn read<T: DeserializeOwned>(parameters: &Map<String, Value>) -> Result<T, PluginError> {
    serde_json::from_value(Value::Object(parameters.clone()))
        .map_err(|error| PluginError::new(format!("the parameters are wrong: {error}")))
}
