//! PostgreSQL's own programs: finding them, connecting them, understanding what they say.

use std::{
    fs, io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use karbor_plugin::PluginError;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::super::command::{Group, QUESTION, command, drain, ending};
use crate::applications::PostgresqlSource;

/// The programs, with one declared connection.
pub(crate) struct Client<'a> {
    source: &'a PostgresqlSource,
}

impl<'a> Client<'a> {
    pub(crate) fn new(source: &'a PostgresqlSource) -> Self {
        Self { source }
    }

    /// The declared database.
    pub(crate) fn database(&self) -> &str {
        &self.source.database
    }

    /// Where a program is: in the declared directory; else the newest of Debian's places, since a
    /// newer `pg_dump` reads older servers and not the other way round; else in the usual places.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf, PluginError> {
        let dirs = match &self.source.bin_dir {
            Some(dir) => vec![dir.clone()],
            None => usual_places(),
        };
        let found = dirs
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file());
        found.ok_or_else(|| {
            PluginError::new(match &self.source.bin_dir {
                Some(_) => format!("'{name}' is not in the declared bin_dir"),
                None => format!(
                    "'{name}' is not on this machine: install PostgreSQL's client programs, or declare bin_dir"
                ),
            })
        })
    }

    /// A program connected to a database. The password, if any, is in the file that is named.
    pub(crate) fn command(&self, program: &str, database: &str) -> Result<Command, PluginError> {
        let mut command = command(&self.program(program)?);
        command
            .env("PGDATABASE", database)
            .env("PGPORT", self.source.port.to_string())
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGAPPNAME", "karbor")
            .current_dir("/");
        let optional = [("PGHOST", &self.source.host), ("PGUSER", &self.source.user)];
        for (name, value) in optional {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(passfile) = &self.source.passfile {
            command.env("PGPASSFILE", passfile);
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

    /// Runs SQL in which `:'name'` and `:"name"` stand for variables, quoted by `psql`.
    pub(crate) async fn ask(
        &self,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<String, PluginError> {
        let mut command = self.command("psql", database)?;
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
        for (name, value) in variables {
            command.arg(format!("--set={name}={value}"));
        }
        let mut child = command.spawn().map_err(|e| not_started("psql", &e))?;
        let group = Group::of(&child);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = pipes else {
            return Err(PluginError::new("psql has no input or output"));
        };
        let feed = async move {
            // It may have ended already; then its exit status says why.
            let _ = input.write_all(sql.as_bytes()).await;
        };
        let talk = async { tokio::join!(feed, drain(output), drain(errors), child.wait()) };
        let (_, answer, said, status) =
            tokio::time::timeout(QUESTION, talk).await.map_err(|_| {
                PluginError::retryable(format!(
                    "the PostgreSQL server did not answer within {} s",
                    QUESTION.as_secs()
                ))
            })?;
        let status = status.map_err(|e| PluginError::new("psql was lost").with_cause(e))?;
        group.done();
        match status.success() {
            true => Ok(answer),
            false => Err(failure("psql", status, &said)),
        }
    }
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

/// Why a program failed, in its own words and with advice.
pub(crate) fn failure(program: &str, status: ExitStatus, said: &str) -> PluginError {
    let reason = reason(said);
    let advice = advice(said);
    let separator = if advice.is_empty() { "" } else { ". " };
    let text = match reason.is_empty() {
        true => format!("{program} failed ({})", ending(status)),
        false => format!(
            "{program} failed ({}): {reason}{separator}{advice}",
            ending(status)
        ),
    };
    let mut error = PluginError::new(text).with_cause(said);
    let passing = [
        "Connection refused",
        "No such file or directory",
        "the database system is",
        "too many clients",
        "timeout expired",
        "terminating connection",
    ];
    error.retryable = passing.iter().any(|sign| said.contains(sign));
    error
}

/// The last line that speaks of an error; the last line if none does.
fn reason(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let speaks = |line: &&str| {
        ["error:", "ERROR:", "FATAL:", "PANIC:"]
            .iter()
            .any(|word| line.contains(word))
    };
    let line = lines().rfind(speaks).or_else(|| lines().next_back());
    cut(line.unwrap_or_default())
}

/// The end of what a program said.
pub(crate) fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    cut(&lines[lines.len().saturating_sub(2)..].join("; "))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn advice(said: &str) -> &'static str {
    let advice = [
        (
            "server version mismatch",
            "The server is newer than the programs: install client programs of its version and declare bin_dir",
        ),
        (
            "no password supplied",
            "Declare a passfile with the role's password",
        ),
        (
            "password authentication failed",
            "Look at the declared passfile: is the line for this server and role there, and its mode 0600?",
        ),
        ("Connection refused", "Is the server running?"),
        (
            "No such file or directory",
            "Is the server running, and the declared host right?",
        ),
        (
            "permission denied",
            "The declared user needs the right to read everything it protects (and to be superuser for globals)",
        ),
        (
            "must be owner",
            "The declared user must own what is overwritten, or be superuser",
        ),
        (
            "lock timeout",
            "Somebody uses the database: stop the application first (its before_restore command can do that)",
        ),
        (
            "unrecognized configuration parameter",
            "The server is older than the one the dump was made from",
        ),
    ];
    let found = advice.iter().find(|(sign, _)| said.contains(sign));
    match found {
        Some((_, text)) => text,
        None if said.contains("role \"") && said.contains("does not exist") => {
            "Make the role first, or restore with 'no_owner'"
        }
        None => "",
    }
}
