//! The file as it is written, before anything is checked but its shape.

use std::path::PathBuf;

use karbor_vault::OnUnreadable;
use serde::Deserialize;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApplication {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) projects: Vec<String>,
    pub(super) id: Option<Uuid>,
    #[serde(default)]
    pub(super) restore_roots: Vec<PathBuf>,
    pub(super) quiesce: Option<RawCommand>,
    pub(super) resume: Option<RawCommand>,
    pub(super) before_restore: Option<RawCommand>,
    pub(super) after_restore: Option<RawCommand>,
    #[serde(default)]
    pub(super) directory: Vec<RawDirectory>,
    #[serde(default)]
    pub(super) sqlite: Vec<RawSqlite>,
    #[serde(default)]
    pub(super) postgresql: Vec<RawPostgresql>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    pub(super) command: Vec<String>,
    #[serde(default = "sixty")]
    pub(super) timeout: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDirectory {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) include: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) one_file_system: bool,
    #[serde(default)]
    pub(super) exclude_caches: bool,
    #[serde(default)]
    pub(super) on_unreadable: OnUnreadable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSqlite {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
    pub(super) path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPostgresql {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
    pub(super) database: String,
    pub(super) host: Option<String>,
    #[serde(default = "postgres_port")]
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) passfile: Option<PathBuf>,
    pub(super) bin_dir: Option<PathBuf>,
    #[serde(default)]
    pub(super) globals: bool,
    pub(super) sslmode: Option<String>,
    pub(super) sslrootcert: Option<PathBuf>,
    pub(super) sslcert: Option<PathBuf>,
    pub(super) sslkey: Option<PathBuf>,
    #[serde(default = "postgres_database")]
    pub(super) maintenance_database: String,
    #[serde(default = "sixty")]
    pub(super) lock_timeout: u64,
    #[serde(default)]
    pub(super) no_owner: bool,
    #[serde(default)]
    pub(super) no_tablespaces: bool,
}

fn sixty() -> u64 {
    60
}

fn postgres_port() -> u16 {
    5432
}

fn postgres_database() -> String {
    "postgres".to_owned()
}
