//! Configuration of the binary: every crate's options in one list, and where values come from.

use std::path::PathBuf;

use karbor_api::policy::PolicyFiles;
use karbor_manager::{Config, ConfigError, OptionDef, OptionKind};

use crate::state::StateDir;

/// The options of the binary itself.
const OPTIONS: &[OptionDef] = &[
    OptionDef {
        group: "DEFAULT",
        name: "application_config_dir",
        kind: OptionKind::Path,
        default: "applications.d",
        help: "Folder of the applications' files (*.toml): what may be protected on this host. \
               Relative to the state directory.",
        secret: false,
    },
    OptionDef {
        group: "DEFAULT",
        name: "default_project",
        kind: OptionKind::Str,
        default: "default",
        help: "The project of the administrator's token that is made at first start.",
        secret: false,
    },
    OptionDef {
        group: "database",
        name: "connection",
        kind: OptionKind::Str,
        default: "",
        help: "URL of the database, e.g. sqlite:///var/lib/karbor/karbor.db. Not set: `karbor.db` \
               in the state directory.",
        secret: true,
    },
];

/// Every option that there is.
pub(crate) fn options() -> Vec<OptionDef> {
    [
        OPTIONS,
        karbor_manager::service::OPTIONS,
        karbor_api::OPTIONS,
        karbor_operationengine::OPTIONS,
        karbor_identity::OPTIONS,
        karbor_protection::OPTIONS,
    ]
    .concat()
}

/// Reads `karbor.conf` in the state directory, the environment and `overrides`.
pub(crate) fn load(
    state: &StateDir,
    overrides: &[(&str, &str, String)],
) -> Result<Config, ConfigError> {
    let mut builder = Config::builder().options(&options()).env(std::env::vars());
    let file = state.join("karbor.conf");
    if file.exists() {
        builder = builder.file(file);
    }
    for (group, name, value) in overrides {
        builder = builder.set(group, name, value.clone());
    }
    builder.build()
}

/// A folder that an option names, relative to the state directory.
pub(crate) fn folder(
    config: &Config,
    state: &StateDir,
    option: &str,
) -> Result<PathBuf, ConfigError> {
    Ok(state.path().join(config.path("DEFAULT", option)?))
}

/// The policy files, relative to the state directory.
pub(crate) fn policy_files(config: &Config, state: &StateDir) -> Result<PolicyFiles, ConfigError> {
    PolicyFiles::from_config(config, state.path())
}

/// The database's URL.
pub(crate) fn database(config: &Config, state: &StateDir) -> Result<String, ConfigError> {
    if config.is_set("database", "connection")? {
        return Ok(config.str("database", "connection")?.to_owned());
    }
    Ok(format!("sqlite://{}", state.join("karbor.db").display()))
}
