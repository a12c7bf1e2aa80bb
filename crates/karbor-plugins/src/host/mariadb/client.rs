//! MariaDB's own programs: finding them, logging in with them, asking by way of them.
//!
//! How to log in is told a program in an option file that has no name: memory of this process, open under a
//! descriptor that only processes of the same account can look at. Nothing secret is in an argument, a variable or a
//! file system, and options that others left in `my.cnf` are not read: they could make a dump leave something out.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use karbor_plugin::PluginError;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use serde::de::DeserializeOwned;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{messages::failure, source::MariadbSource};
use crate::host::command::{Group, QUESTION, command, drain, drain_up_to, find_program};

/// So much of an answer is kept, in bytes.
const ANSWER: usize = 64 * 1024 * 1024;

/// How long the server may take to make, drop or fill a database with what is already there.
pub(super) const SLOW: Duration = Duration::from_secs(15 * 60);

/// The programs, with one declared connection.
pub(super) struct Client<'a> {
    source: &'a MariadbSource,
}

/// A program that is about to log in.
pub(super) struct Program {
    pub(super) command: Command,
    /// Open until the program has ended.
    _login: File,
}

impl<'a> Client<'a> {
    pub(super) fn new(source: &'a MariadbSource) -> Self {
        Self { source }
    }

    /// How long it may wait for one lock.
    pub(super) fn lock_timeout(&self) -> Duration {
        self.source.lock_timeout
    }

    /// Where a program is: in the declared directory, else in the usual places.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf, PluginError> {
        let usual = || {
            ["/usr/bin", "/usr/local/mysql/bin", "/usr/local/bin"]
                .map(PathBuf::from)
                .into()
        };
        find_program(
            name,
            self.source.bin_dir.as_deref(),
            usual,
            "MariaDB's client programs",
        )
    }

    /// A program that logs in as declared.
    pub(super) fn program(&self, name: &str) -> Result<Program, PluginError> {
        let mut command = command(&self.find(name)?);
        let login = self.login()?;
        let file = format!("/proc/{}/fd/{}", std::process::id(), login.as_raw_fd());
        command
            .arg(format!("--defaults-file={file}"))
            .current_dir("/")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Program {
            command,
            _login: login,
        })
    }

    /// The option file.
    fn login(&self) -> Result<File, PluginError> {
        let source = self.source;
        let port = source.port.to_string();
        let user = source.user.as_deref();
        let mut options =
            String::from("[client]\ndefault-character-set=utf8mb4\nmax-allowed-packet=1G\n");
        let mut option = |name: &str, value: &str| {
            options.push_str(&format!("{name}=\"{}\"\n", escaped(value)));
        };
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        for (name, value) in [
            ("user", user.map(str::to_owned)),
            ("socket", source.socket.as_ref().map(path)),
            ("host", source.host.clone()),
            ("port", source.host.as_ref().map(|_| port)),
            ("protocol", source.host.as_ref().map(|_| "tcp".to_owned())),
            ("ssl-ca", source.ssl_ca.as_ref().map(path)),
            ("ssl-cert", source.ssl_cert.as_ref().map(path)),
            ("ssl-key", source.ssl_key.as_ref().map(path)),
        ] {
            if let Some(value) = value {
                option(name, &value);
            }
        }
        if let Some(file) = &source.password_file {
            option("password", &password(file)?);
        }
        if source.ssl_ca.is_some() {
            options.push_str("ssl-verify-server-cert\n");
        }
        let unusable = |error: io::Error| {
            PluginError::new("the programs of MariaDB cannot be told how to log in")
                .with_cause(error)
        };
        let memory = memfd_create("karbor-mariadb", MemfdFlags::CLOEXEC)
            .and_then(|memory| fchmod(&memory, Mode::RUSR | Mode::WUSR).map(|()| memory));
        let mut file = File::from(memory.map_err(|errno| unusable(errno.into()))?);
        file.write_all(options.as_bytes()).map_err(unusable)?;
        Ok(file)
    }

    /// Runs SQL whose rows are one JSON value each.
    pub(super) async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, PluginError> {
        let answer = self.run(QUESTION, None, sql).await?;
        let rows = answer.lines().map(serde_json::from_str);
        rows.collect::<Result<_, _>>()
            .map_err(|e| PluginError::new("the server gave an unexpected answer").with_cause(e))
    }

    /// Runs SQL, of which parts may be secret: it reaches the program by its standard input. Fails with the first
    /// statement that does; those before it have been done.
    pub(super) async fn run(
        &self,
        limit: Duration,
        database: Option<&str>,
        sql: &str,
    ) -> Result<String, PluginError> {
        let mut script = format!(
            "SET SESSION sql_mode = '', lock_wait_timeout = {};\n",
            self.lock_timeout().as_secs().max(1)
        );
        script.push_str(sql);
        let mut program = self.program("mariadb")?;
        program
            .command
            .args(QUIET)
            .args(["--batch", "--raw", "--skip-column-names"]);
        if let Some(database) = database {
            program.command.arg(format!("--database={database}"));
        }
        let mut child = program
            .command
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| not_started("mariadb", &e))?;
        let group = Group::of(&child);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = pipes else {
            return Err(PluginError::new("mariadb has no input or output"));
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
                "the MariaDB server did not answer within {} s",
                limit.as_secs()
            ))
        })?;
        let status = status.map_err(|e| PluginError::new("mariadb was lost").with_cause(e))?;
        group.done();
        match status.success() {
            true => Ok(answer),
            false => Err(failure("mariadb", status, &said)),
        }
    }
}

/// Nothing of the text is a command of the program itself, which could run programs or read files, but `DELIMITER`;
/// the program hands the server no file of this host, which `LOAD DATA LOCAL` asks for and the sandbox does not refuse;
/// it ends with the first statement that fails.
pub(super) const QUIET: [&str; 4] = [
    "--binary-mode",
    "--sandbox",
    "--local-infile=0",
    "--abort-source-on-error",
];

/// The password: the file's only line.
fn password(file: &Path) -> Result<String, PluginError> {
    let read = || {
        let mut open = File::open(file)?;
        let is_open = open.metadata()?.mode() & 0o077 != 0;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        Ok((text, is_open))
    };
    let (text, is_open) = read().map_err(|error: io::Error| {
        PluginError::new("the declared password_file cannot be read").with_cause(error)
    })?;
    if is_open {
        return Err(PluginError::new(
            "others may read the declared password_file: the operator has to chmod it to 600",
        ));
    }
    let mut lines = text.lines();
    let password = lines.next().unwrap_or_default();
    match lines.next().is_some() || password.chars().any(char::is_control) {
        false => Ok(password.to_owned()),
        true => Err(PluginError::new(
            "the declared password_file has to hold the password and nothing else, on one line",
        )),
    }
}

/// In double quotes of an option file.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A name as SQL has it.
pub(super) fn named(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A name in backquotes, and what follows.
pub(super) fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let (part, after) = rest.split_once('`')?;
        found.push_str(part);
        match after.strip_prefix('`') {
            Some(more) => {
                found.push('`');
                rest = more;
            }
            None => return Some((found, after)),
        }
    }
}

/// A text as SQL has it, whatever is in it.
pub(super) fn text(value: &str) -> String {
    let digits: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 X'{digits}'")
}

/// A text where SQL takes one in quotes only; sessions have no `sql_mode`.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

pub(super) fn not_started(program: &str, error: &io::Error) -> PluginError {
    PluginError::new(format!("{program} could not be started ({})", error.kind())).with_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_what_they_are() {
        assert_eq!(escaped(r#"a"b\n#'"#), r#"a\"b\\n#'"#);
        assert_eq!(named("a`b"), "`a``b`");
        assert_eq!(text("ü'"), "_utf8mb4 X'c3bc27'");
        assert_eq!(quoted(r"it's \"), r"'it''s \\'");
    }
}
