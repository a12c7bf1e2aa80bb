//! A PostgreSQL database as it is declared.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use uuid::Uuid;

use crate::host::applications::{ComponentChecks, sixty};

/// What a declaration says of a PostgreSQL database.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresqlTable {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
    database: String,
    host: Option<String>,
    #[serde(default = "port")]
    port: u16,
    user: Option<String>,
    passfile: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    #[serde(default)]
    globals: bool,
    sslmode: Option<String>,
    sslrootcert: Option<PathBuf>,
    sslcert: Option<PathBuf>,
    sslkey: Option<PathBuf>,
    #[serde(default = "maintenance_database")]
    maintenance_database: String,
    #[serde(default = "sixty")]
    lock_timeout: u64,
    #[serde(default)]
    no_owner: bool,
    #[serde(default)]
    no_tablespaces: bool,
}

fn port() -> u16 {
    5432
}

fn maintenance_database() -> String {
    "postgres".to_owned()
}

/// A PostgreSQL database and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct PostgresqlSource {
    /// Name of the database.
    pub(crate) database: String,
    /// Host name, or the directory of the server's socket; libpq's default unless given.
    pub(crate) host: Option<String>,
    /// Port.
    pub(crate) port: u16,
    /// Role to connect as; libpq's default unless given.
    pub(crate) user: Option<String>,
    /// A file with the password, in libpq's format.
    pub(crate) passfile: Option<PathBuf>,
    /// Where `pg_dump` and the others are; found by themselves unless given.
    pub(crate) bin_dir: Option<PathBuf>,
    /// Keep roles and tablespaces too.
    pub(crate) globals: bool,
    /// How a connection is encrypted, in libpq's words ([`SSL_MODES`]); libpq's default unless given.
    pub(crate) sslmode: Option<String>,
    /// The authority that signed the server's certificate.
    pub(crate) sslrootcert: Option<PathBuf>,
    /// The role's own certificate.
    pub(crate) sslcert: Option<PathBuf>,
    /// The key of that.
    pub(crate) sslkey: Option<PathBuf>,
    /// The database to connect to for making and renaming others.
    pub(crate) maintenance_database: String,
    /// How long a protect or restore waits for one lock.
    pub(crate) lock_timeout: Duration,
    /// Unless a restore says otherwise: all belongs to the role that restores it.
    pub(crate) no_owner: bool,
    /// Unless a restore says otherwise: all lies in the default tablespace.
    pub(crate) no_tablespaces: bool,
}

/// libpq's `sslmode`, as its documentation lists it.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

impl PostgresqlSource {
    pub(super) fn declare(table: PostgresqlTable, checks: &mut ComponentChecks<'_>) -> Self {
        let source = Self {
            database: table.database,
            host: table.host,
            port: table.port,
            user: table.user,
            passfile: table.passfile,
            bin_dir: table.bin_dir,
            globals: table.globals,
            sslmode: table.sslmode,
            sslrootcert: table.sslrootcert,
            sslcert: table.sslcert,
            sslkey: table.sslkey,
            maintenance_database: table.maintenance_database,
            lock_timeout: checks.timeout("lock_timeout", table.lock_timeout),
            no_owner: table.no_owner,
            no_tablespaces: table.no_tablespaces,
        };
        let databases = [
            ("database", &source.database),
            ("maintenance_database", &source.maintenance_database),
        ];
        for (field, database) in databases {
            if let Err(message) = database_name(database) {
                checks.problem(field, message);
            }
        }
        let unknown = |mode: &&String| !SSL_MODES.contains(&mode.as_str());
        if source.sslmode.as_ref().filter(unknown).is_some() {
            checks.problem("sslmode", format!("it is one of {}", SSL_MODES.join(", ")));
        }
        checks.line("host", source.host.as_ref());
        checks.line("user", source.user.as_ref());
        checks.port("port", source.port);
        for (field, path) in source.files() {
            checks.path(field, path);
        }
        source
    }

    /// The files and directories that it names, by its fields.
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let files = [
            ("passfile", &self.passfile),
            ("bin_dir", &self.bin_dir),
            ("sslrootcert", &self.sslrootcert),
            ("sslcert", &self.sslcert),
            ("sslkey", &self.sslkey),
        ];
        let given = files.into_iter();
        given
            .filter_map(|(field, path)| Some((field, path.as_deref()?)))
            .collect()
    }
}

/// Is this a name that PostgreSQL takes as it is, without cutting it short?
pub(super) fn database_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
        return Err("a database's name is 1 to 63 bytes without control characters".to_owned());
    }
    Ok(())
}
