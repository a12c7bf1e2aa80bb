//! Configuration of the binary: every crate's options in one list, and where values come from.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use karbor_api::policy::PolicyFiles;
use karbor_manager::{Config, ConfigBuilder, ConfigError, OptionDef, OptionKind, config::Source};
use tracing_subscriber::EnvFilter;

use crate::{original, state::StateDir};

type Failure = Box<dyn std::error::Error>;

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
        group: "DEFAULT",
        name: "debug",
        kind: OptionKind::Bool,
        default: "false",
        help: "Log what the services do in detail. `log_filter` and the variable KARBOR_LOG win over \
               it. Taken up at SIGHUP.",
        secret: false,
    },
    OptionDef {
        group: "DEFAULT",
        name: "local_rpc",
        kind: OptionKind::Bool,
        default: "false",
        help: "Let the managers of one process call each other by RPC, as those of several hosts do, instead of \
               directly. Slower; for tests of the services.",
        secret: false,
    },
    OptionDef {
        group: "DEFAULT",
        name: "log_filter",
        kind: OptionKind::Str,
        default: "",
        help: "What is logged: a level, or levels by part, e.g. info,karbor_protection=debug. The \
               variable KARBOR_LOG wins over it. Taken up at SIGHUP.",
        secret: false,
    },
    OptionDef {
        group: "DEFAULT",
        name: "state_path",
        kind: OptionKind::Path,
        default: "",
        help: "The state directory, when neither --state-dir nor KARBOR_STATE_DIR names it. Read \
               from files that --config-file and --config-dir name.",
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
        karbor_notification::OPTIONS,
        karbor_protection::OPTIONS,
    ]
    .concat()
}

/// Configuration files beside the state directory's own.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFiles {
    /// Read this configuration file too; may be repeated, later files win
    #[arg(long, global = true, value_name = "FILE")]
    config_file: Vec<PathBuf>,
    /// Read every *.conf in this folder too, in the order of their names; may be repeated
    #[arg(long, global = true, value_name = "DIR")]
    config_dir: Vec<PathBuf>,
}

impl ConfigFiles {
    fn is_empty(&self) -> bool {
        self.config_file.is_empty() && self.config_dir.is_empty()
    }

    /// All files, in the order in which they win.
    fn all(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = self.config_file.clone();
        for folder in &self.config_dir {
            let told = |error| format!("--config-dir {}: {error}", folder.display());
            let mut found = Vec::new();
            for entry in fs::read_dir(folder).map_err(told)? {
                let path = entry.map_err(told)?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    found.push(path);
                }
            }
            found.sort();
            files.append(&mut found);
        }
        Ok(files)
    }

    /// Folders in which something that belongs to the files may lie.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let beside = self.config_file.iter().filter_map(|file| file.parent());
        beside.chain(self.config_dir.iter().map(PathBuf::as_path))
    }
}

/// Where state and configuration are, as the command line says it.
pub(crate) struct Sources<'a> {
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) files: &'a ConfigFiles,
}

impl Sources<'_> {
    /// The state directory: as told, else `state_path` of the named files, else this user's.
    pub(crate) fn state(&self) -> Result<StateDir, Failure> {
        if self.state_dir.is_some() || self.files.is_empty() {
            return Ok(StateDir::new(self.state_dir.clone()));
        }
        let config = with_files(builder(), self.files.all()?).build()?;
        let told = config.is_set("DEFAULT", "state_path")?;
        let path = told.then(|| config.path("DEFAULT", "state_path"));
        Ok(StateDir::new(path.transpose()?))
    }

    /// Reads `karbor.conf` in the state directory, the named files, the environment and `overrides`. Files
    /// that others may change are not obeyed.
    pub(crate) fn load(&self, overrides: &[(&str, &str, String)]) -> Result<Loaded, Failure> {
        let loaded = self.read(overrides)?;
        self.closed(&loaded.state)?;
        Ok(loaded)
    }

    /// Checks that none but trusted accounts may change the state directory or a configuration file, or
    /// put another in its place.
    pub(crate) fn closed(&self, state: &StateDir) -> Result<(), Failure> {
        let own = [state.path().to_owned(), state.join("karbor.conf")];
        let there = own.into_iter().filter(|path| path.exists());
        let folders = self.files.config_dir.iter().cloned();
        for path in there.chain(folders).chain(self.files.all()?) {
            obeyed(&std::path::absolute(path)?)?;
        }
        Ok(())
    }

    /// As [`load`](Self::load), without the look at who may change the files.
    pub(crate) fn read(&self, overrides: &[(&str, &str, String)]) -> Result<Loaded, Failure> {
        let state = self.state()?;
        let build = |beside: &[Beside]| -> Result<Config, Failure> {
            let own = Some(state.join("karbor.conf")).filter(|file| file.exists());
            let files = own.into_iter().chain(self.files.all()?);
            let mut builder = with_files(builder(), files);
            let path = state.path().display().to_string();
            builder = builder.set("DEFAULT", "state_path", path.replace('$', "$$"));
            for (group, name, path) in beside {
                let path = path.display().to_string().replace('$', "$$");
                builder = builder.set(group, name, path);
            }
            for (group, name, value) in overrides {
                builder = builder.set(group, name, value.clone());
            }
            Ok(builder.build()?)
        };
        let config = build(&[])?;
        let beside = self.beside(&state, &config)?;
        let config = if beside.is_empty() {
            config
        } else {
            build(&beside)?
        };
        Ok(Loaded { state, config })
    }

    /// What lies beside a named configuration file, where the original looks for it too, and not in
    /// the state directory: providers' files and policies.
    fn beside(&self, state: &StateDir, config: &Config) -> Result<Vec<Beside>, Failure> {
        let mut wanted = vec![
            (
                "DEFAULT",
                "provider_config_dir",
                config.path("DEFAULT", "provider_config_dir")?,
            ),
            (
                "oslo_policy",
                "policy_file",
                config.path("oslo_policy", "policy_file")?,
            ),
        ];
        if *config.source("oslo_policy", "policy_file")? == Source::Default {
            wanted.push(("oslo_policy", "policy_file", PathBuf::from("policy.json")));
        }
        for folder in config.list("oslo_policy", "policy_dirs")? {
            wanted.push(("oslo_policy", "policy_dirs", PathBuf::from(folder)));
        }
        let mut found: Vec<Beside> = Vec::new();
        for (group, name, path) in wanted {
            let known = found.iter().any(|(_, other, _)| *other == name);
            if path.is_absolute() || known || state.path().join(&path).exists() {
                continue;
            }
            let mut places = self.files.folders().map(|folder| folder.join(&path));
            if let Some(place) = places.find(|place| place.exists()) {
                found.push((group, name, std::path::absolute(place)?));
            }
        }
        Ok(found)
    }
}

/// Refuses a file that others may change: the service does what it says.
pub(crate) fn obeyed(path: &Path) -> Result<(), Failure> {
    karbor_fs::closed(path)
        .map_err(|refused| format!("the service would obey others: {refused}").into())
}

/// Group, name and value of an option whose file or folder lies beside a configuration file.
type Beside = (&'static str, &'static str, PathBuf);

/// The effective configuration, and the state directory that it is for.
pub(crate) struct Loaded {
    pub(crate) state: StateDir,
    pub(crate) config: Config,
}

fn builder() -> ConfigBuilder {
    Config::builder()
        .version(env!("CARGO_PKG_VERSION"))
        .options(&options())
        .idle(original::IDLE)
        .env(std::env::vars())
}

fn with_files(builder: ConfigBuilder, files: impl IntoIterator<Item = PathBuf>) -> ConfigBuilder {
    files.into_iter().fold(builder, ConfigBuilder::file)
}

/// What is wrong with values that are each good by themselves. A default gives way by itself.
pub(crate) fn disagreements(config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut found = Vec::new();
    let less = [
        (
            ("DEFAULT", "rpc_response_timeout"),
            ("DEFAULT", "osapi_request_timeout"),
        ),
        (
            ("DEFAULT", "report_interval"),
            ("DEFAULT", "service_down_time"),
        ),
        (
            ("keystone_authtoken", "http_connect_timeout"),
            ("DEFAULT", "osapi_request_timeout"),
        ),
    ];
    let seconds = |(group, name)| config.seconds(group, name);
    let source = |(group, name)| config.source(group, name);
    for (less, more) in less {
        if seconds(less)? >= seconds(more)? && *source(more)? != Source::Default {
            found.push(format!(
                "{} in [{}] ({:?}, {}) must be more than {} in [{}] ({:?}, {})",
                more.1,
                more.0,
                seconds(more)?,
                source(more)?,
                less.1,
                less.0,
                seconds(less)?,
                source(less)?
            ));
        }
    }
    found.extend(karbor_protection::out_of_range(config)?);
    Ok(found)
}

/// What is to be logged.
pub(crate) fn log_filter(config: &Config) -> Result<EnvFilter, Failure> {
    let told = config.str("DEFAULT", "log_filter")?;
    let filter = match (told, config.bool("DEFAULT", "debug")?) {
        ("", false) => "info",
        // Every crate of ours; what others log in detail is for their makers.
        ("", true) => "info,karbor=debug",
        (told, _) => told,
    };
    EnvFilter::try_new(filter).map_err(|error| {
        format!("option 'log_filter' in group [DEFAULT] is '{filter}': {error}").into()
    })
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
