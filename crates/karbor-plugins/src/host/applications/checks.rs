//! What every declaration is checked for, whatever it declares.

use std::{
    path::{Component as PathPart, Path},
    time::Duration,
};

use super::Problem;

/// Checks one component's declaration and notes what is wrong.
pub(crate) struct ComponentChecks<'a> {
    file: &'a Path,
    /// Its place in the file, e.g. `directory.uploads`.
    key: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> ComponentChecks<'a> {
    pub(super) fn new(file: &'a Path, key: String, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            file,
            key,
            problems,
        }
    }

    /// Notes what is wrong with a field.
    pub(crate) fn problem(&mut self, field: &str, message: impl Into<String>) {
        let key = format!("{}.{field}", self.key);
        self.problems.push(Problem::error(self.file, key, message));
    }

    /// A path has to be absolute, without `..`.
    pub(crate) fn path(&mut self, field: &str, path: &Path) {
        if let Err(message) = plain_absolute(path) {
            self.problem(field, message);
        }
    }

    /// A text that is given has to be one line.
    pub(crate) fn line(&mut self, field: &str, text: Option<&String>) {
        if text.is_some_and(|text| text.is_empty() || text.chars().any(char::is_control)) {
            self.problem(field, "it must be a text without control characters");
        }
    }

    /// A port is not 0.
    pub(crate) fn port(&mut self, field: &str, port: u16) {
        if port == 0 {
            self.problem(field, "a port is 1 to 65535");
        }
    }

    /// Limits are seconds of a day at most.
    pub(crate) fn timeout(&mut self, field: &str, seconds: u64) -> Duration {
        if let Err(message) = timeout(seconds) {
            self.problem(field, message);
        }
        Duration::from_secs(seconds)
    }
}

/// Seconds that something may take unless a declaration says otherwise.
pub(crate) fn sixty() -> u64 {
    60
}

pub(super) fn timeout(seconds: u64) -> Result<(), &'static str> {
    match (1..=86_400).contains(&seconds) {
        true => Ok(()),
        false => Err("a timeout is 1 to 86400 seconds"),
    }
}

/// Names become parts of paths (restores) and of names in the vault.
pub(super) fn plain_name(name: &str) -> Result<(), String> {
    let bad = |c: char| c.is_control() || c == '/' || c == '\\';
    let plain = (1..=100).contains(&name.len())
        && !name.starts_with(['.', '-', ' '])
        && !name.contains(bad);
    match plain {
        true => Ok(()),
        false => Err(format!(
            "'{}' is not a name: 1 to 100 bytes without '/', '\\' and control characters, \
             not starting with '.', '-' or a space",
            name.escape_debug()
        )),
    }
}

pub(super) fn plain_absolute(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("'{}' is not an absolute path", path.display()));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("a path cannot hold a NUL character".to_owned());
    }
    if path
        .components()
        .any(|part| matches!(part, PathPart::ParentDir))
    {
        return Err(format!(
            "'{}' has a '..' in it: write it out",
            path.display()
        ));
    }
    Ok(())
}
