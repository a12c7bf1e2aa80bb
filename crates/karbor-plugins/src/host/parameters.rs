//! Parameters, after the schema has let them pass.

use karbor_plugin::PluginError;
use karbor_vault::Overwrite;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The entry of a dry run's report that says why the restore would be refused.
pub(crate) const REFUSED: &str = "refused";

/// Of a restore. Each kind takes some of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RestoreParameters {
    pub(crate) overwrite: Overwrite,
    pub(crate) dry_run: bool,
    pub(crate) delete_extra: bool,
    pub(crate) restore_to: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) no_owner: Option<bool>,
    pub(crate) no_tablespaces: Option<bool>,
    pub(crate) swap: bool,
    pub(crate) drop_old: bool,
    pub(crate) disconnect: bool,
}

/// Reads parameters.
pub(crate) fn read<T: DeserializeOwned>(parameters: &Map<String, Value>) -> Result<T, PluginError> {
    serde_json::from_value(Value::Object(parameters.clone()))
        .map_err(|error| PluginError::new(format!("the parameters are wrong: {error}")))
}
