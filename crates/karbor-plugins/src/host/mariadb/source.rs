//! A MariaDB database as it is declared.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use uuid::Uuid;

use crate::host::applications::{ComponentChecks, sixty};

/// What a declaration says of a MariaDB database.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MariadbTable {
    pub(super) name: String,
    pub(super) id: Option<Uuid>,
    database: String,
    socket: Option<PathBuf>,
    host: Option<String>,
    #[serde(default = "port")]
    port: u16,
    user: Option<String>,
    password_file: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    #[serde(default)]
    accounts: bool,
    ssl_ca: Option<PathBuf>,
    ssl_cert: Option<PathBuf>,
    ssl_key: Option<PathBuf>,
    #[serde(default = "sixty")]
    lock_timeout: u64,
}

fn port() -> u16 {
    3306
}

/// A MariaDB database and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct MariadbSource {
    /// Name of the database.
    pub(super) database: String,
    /// The server's socket; the client's default unless this or `host` is given.
    pub(super) socket: Option<PathBuf>,
    /// Host name.
    pub(super) host: Option<String>,
    /// Port.
    pub(super) port: u16,
    /// Account to log in as; that of the service unless given.
    pub(super) user: Option<String>,
    /// A file with the account's password, and nothing else.
    pub(super) password_file: Option<PathBuf>,
    /// Where `mariadb-dump` and `mariadb` are; found by themselves unless given.
    pub(super) bin_dir: Option<PathBuf>,
    /// Keep the server's accounts and their rights too.
    pub(super) accounts: bool,
    /// The authority that signed the server's certificate: connections are encrypted, and the certificate is checked.
    pub(super) ssl_ca: Option<PathBuf>,
    /// The account's own certificate.
    pub(super) ssl_cert: Option<PathBuf>,
    /// The key of that.
    pub(super) ssl_key: Option<PathBuf>,
    /// How long a protect or restore waits for one lock.
    pub(super) lock_timeout: Duration,
}

impl MariadbSource {
    pub(super) fn declare(table: MariadbTable, checks: &mut ComponentChecks<'_>) -> Self {
        let source = Self {
            database: table.database,
            socket: table.socket,
            host: table.host,
            port: table.port,
            user: table.user,
            password_file: table.password_file,
            bin_dir: table.bin_dir,
            accounts: table.accounts,
            ssl_ca: table.ssl_ca,
            ssl_cert: table.ssl_cert,
            ssl_key: table.ssl_key,
            lock_timeout: checks.timeout("lock_timeout", table.lock_timeout),
        };
        if let Err(message) = database_name(&source.database) {
            checks.problem("database", message);
        }
        if source.socket.is_some() && source.host.is_some() {
            checks.problem(
                "host",
                "it is reached by a socket or by a host, not by both",
            );
        }
        checks.line("host", source.host.as_ref());
        checks.line("user", source.user.as_ref());
        checks.port("port", source.port);
        if let Some(socket) = &source.socket {
            checks.path("socket", socket);
        }
        for (field, path) in source.files() {
            checks.path(field, path);
        }
        source
    }

    /// The files and directories that it names and that the service trusts, by its fields.
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let files = [
            ("password_file", &self.password_file),
            ("bin_dir", &self.bin_dir),
            ("ssl_ca", &self.ssl_ca),
            ("ssl_cert", &self.ssl_cert),
            ("ssl_key", &self.ssl_key),
        ];
        let given = files.into_iter();
        given
            .filter_map(|(field, path)| Some((field, path.as_deref()?)))
            .collect()
    }

    /// The server, as one is told from another.
    pub(super) fn server(&self) -> String {
        match (&self.host, &self.socket) {
            (Some(host), _) => format!("mariadb {host}:{}", self.port),
            (None, Some(socket)) => format!("mariadb {}", socket.display()),
            (None, None) => "mariadb".to_owned(),
        }
    }
}

/// How the names of databases begin that a restore makes for itself.
pub(super) const OWN: &str = "karbor-";

/// Is this a name of a database that may be protected, and restored into?
pub(super) fn database_name(name: &str) -> Result<(), String> {
    let plain = (1..=64).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && !name.starts_with('-')
        && !name.ends_with(' ');
    if !plain {
        return Err(
            "a database's name is 1 to 64 characters without control characters, does not begin with '-' and does not end with a space"
                .to_owned(),
        );
    }
    if name.contains(['\'', '"', '\\']) {
        return Err(format!(
            "mariadb-dump finds no database with a quote or backslash in its name: '{name}'"
        ));
    }
    let servers = ["mysql", "information_schema", "performance_schema", "sys"];
    if servers.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(format!(
            "'{name}' is the server's own: its accounts are kept with accounts = true"
        ));
    }
    if name.starts_with(OWN) {
        return Err(format!(
            "names that begin with '{OWN}' are those of databases that restores make for themselves"
        ));
    }
    Ok(())
}
