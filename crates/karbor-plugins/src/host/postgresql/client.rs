//! PostgreSQL's own programs: finding them, connecting them, asking them.

use std::{fmt::Write as _, fs, io, path::PathBuf, process::Stdio, time::Duration};

use karbor_plugin::{OperationContext, PluginError};
use serde::de::DeserializeOwned;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{messages::failure, source::PostgresqlSource};
use crate::host::command::{Group, QUESTION, command, drain, drain_up_to, find_program};

/// So much of an answer is kept, in bytes.
const ANSWER: usize = 64 * 1024 * 1024;

/// How long the server may take to make, drop or rename a database: it may have to write out all that it
/// has in memory first.
pub(super) const SLOW: Duration = Duration::from_secs(15 * 60);

/// The programs, with one declared connection.
pub(crate) struct Client<'a> {
    source: &'a PostgresqlSource,
    session: String,
}

impl<'a> Client<'a> {
    pub(crate) fn new(source: &'a PostgresqlSource) -> Self {
        Self {
            source,
            session: "karbor".to_owned(),
        }
    }

    /// As [`new`](Self::new), with sessions that the server shows under a name of this operation and
    /// resource, so that they can be told from all others.
    pub(crate) fn of(source: &'a PostgresqlSource, context: &OperationContext) -> Self {
        let resource: String = context.resource.id.to_string().chars().take(8).collect();
        Self {
            source,
            session: format!("karbor {} {resource}", context.operation_id),
        }
    }

    /// The name that the server shows for its sessions.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// The database to connect to for work on databases as a whole.
    pub(crate) fn maintenance(&self) -> &str {
        &self.source.maintenance_database
    }

    /// How long it may wait for one lock.
    pub(super) fn lock_timeout(&self) -> Duration {
        self.source.lock_timeout
    }

    /// The declared database.
    pub(crate) fn database(&self) -> &str {
        &self.source.database
    }

    /// Where a program is: in the declared directory; else the newest of Debian's places, since a
    /// newer `pg_dump` reads older servers and not the other way round; else in the usual places.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf, PluginError> {
        let bin_dir = self.source.bin_dir.as_deref();
        find_program(name, bin_dir, usual_places, "PostgreSQL's client programs")
    }

    /// A program connected to a database. The password, if any, is in the file that is named.
    pub(crate) fn command(&self, program: &str, database: &str) -> Result<Command, PluginError> {
        let mut command = command(&self.program(program)?);
        command
            .env("PGDATABASE", database)
            .env("PGPORT", self.source.port.to_string())
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGAPPNAME", &self.session)
            .current_dir("/");
        let texts = [
            ("PGHOST", &self.source.host),
            ("PGUSER", &self.source.user),
            ("PGSSLMODE", &self.source.sslmode),
        ];
        for (name, value) in texts {
            command.envs(value.as_ref().map(|value| (name, value)));
        }
        let files = [
            ("PGPASSFILE", &self.source.passfile),
            ("PGSSLROOTCERT", &self.source.sslrootcert),
            ("PGSSLCERT", &self.source.sslcert),
            ("PGSSLKEY", &self.source.sslkey),
        ];
        for (name, value) in files {
            command.envs(value.as_ref().map(|value| (name, value)));
        }
        Ok(command)
    }

    /// The major version of the programs.
    pub(crate) async fn version(&self) -> Result<u32, PluginError> {
        let mut command = self.command("pg_dump", self.database())?;
        let output = command.arg("--version").stderr(Stdio::null()).output();
        let output = tokio::time::timeout(QUESTION, output)
            .await
            .map_err(|_| PluginError::new("pg_dump does not tell its version"))?
            .map_err(|e| not_started("pg_dump", &e))?;
        // `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text
            .split(')')
            .nth(1)
            .and_then(|rest| rest.trim().split('.').next());
        let digits: String = number
            .unwrap_or_default()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits
            .parse()
            .map_err(|_| PluginError::new("pg_dump does not tell its version"))
    }

    /// Runs SQL in which `:'name'` and `:"name"` stand for variables, quoted by `psql`. Their values may be
    /// secret: they reach `psql` by its standard input.
    pub(crate) async fn ask(
        &self,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<String, PluginError> {
        self.ask_within(QUESTION, database, variables, sql).await
    }

    /// As [`ask`](Self::ask), for an answer that is one JSON value.
    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<T, PluginError> {
        json(&self.ask(database, variables, sql).await?)
    }

    /// As [`ask_json`](Self::ask_json), in the encoding of the database, which is that of a dump's list of
    /// contents: the two are compared.
    pub(super) async fn ask_json_as_dumped<T: DeserializeOwned>(
        &self,
        database: &str,
        sql: &str,
    ) -> Result<T, PluginError> {
        let psql = self.command("psql", database)?;
        json(&self.talk(psql, QUESTION, &[], sql).await?)
    }

    /// As [`ask`](Self::ask), with a limit of its own.
    pub(super) async fn ask_within(
        &self,
        limit: Duration,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<String, PluginError> {
        let mut psql = self.command("psql", database)?;
        // The server's own is the default where there is no terminal.
        psql.env("PGCLIENTENCODING", "UTF8");
        self.talk(psql, limit, variables, sql).await
    }

    async fn talk(
        &self,
        mut command: Command,
        limit: Duration,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<String, PluginError> {
        command
            .args([
                "--no-psqlrc",
                "--no-align",
                "--tuples-only",
                "--quiet",
                "--no-password",
            ])
            .args(["--set=ON_ERROR_STOP=1", "--file=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut script = String::new();
        for (name, value) in variables {
            let _ = writeln!(script, "\\set {name} {}", quoted(value));
        }
        // What the owner of a database calls as the catalog's functions are called is not for us to run. And
        // the server gives up before we do: a session that we leave behind would wait on.
        let patience = limit.as_millis() * 9 / 10;
        let _ = writeln!(
            script,
            "SET search_path = ''; SET lock_timeout = {patience};"
        );
        script.push_str(sql);
        let mut child = command.spawn().map_err(|e| not_started("psql", &e))?;
        let group = Group::of(&child);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = pipes else {
            return Err(PluginError::new("psql has no input or output"));
        };
        let feed = async move {
            // It may have ended already; then its exit status says why.
            let _ = input.write_all(script.as_bytes()).await;
        };
        let talk = async {
            let answer = drain_up_to(output, ANSWER);
            tokio::join!(feed, answer, drain(errors), child.wait())
        };
        let (_, answer, said, status) = tokio::time::timeout(limit, talk).await.map_err(|_| {
            PluginError::retryable(format!(
                "the PostgreSQL server did not answer within {} s",
                limit.as_secs()
            ))
        })?;
        let status = status.map_err(|e| PluginError::new("psql was lost").with_cause(e))?;
        group.done();
        match status.success() {
            true => Ok(answer),
            false => Err(failure("psql", status, &said)),
        }
    }

    /// Ends every other session of this operation and resource: one that waits for a lock does not notice
    /// that its program is gone, and holds up all that come after it.
    pub(super) async fn end_sessions(&self, database: &str) -> Result<(), PluginError> {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = :'session' AND pid <> pg_backend_pid();";
        let variables = [("session", self.session.as_str())];
        self.ask(database, &variables, sql).await.map(|_| ())
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, PluginError> {
    serde_json::from_str(text)
        .map_err(|e| PluginError::new("the server gave an unexpected answer").with_cause(e))
}

/// As an argument of `psql`'s own commands.
fn quoted(value: &str) -> String {
    let mut text = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

fn usual_places() -> Vec<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let others = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"];
    let newest_first = versions.into_iter().rev().map(|(_, place)| place);
    newest_first.chain(others.map(PathBuf::from)).collect()
}

pub(crate) fn not_started(program: &str, error: &io::Error) -> PluginError {
    PluginError::new(format!("{program} could not be started ({})", error.kind())).with_cause(error)
}
