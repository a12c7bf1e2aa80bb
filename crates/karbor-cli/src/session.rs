//! What a command works with.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use karbor_model::visible;

use crate::{Cloud, client::Client, error::CliError, output::View};

/// How often a waiting command asks, and how long it puts up with a service that is away.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// First pause between two questions; it grows to `slowest`.
    pub first: Duration,
    /// Longest pause.
    pub slowest: Duration,
    /// How long the service may be away before the command gives up.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            slowest: Duration::from_secs(1),
            patience: Duration::from_secs(60),
        }
    }
}

/// What a command sees of the world besides the service.
pub struct Surroundings {
    /// Answers.
    pub out: Box<dyn Write + Send>,
    /// Errors, hints, progress.
    pub err: Box<dyn Write + Send>,
    /// Stderr is a terminal: progress bars are drawn on it.
    pub bars: bool,
    /// Stdout is a terminal: tables fit its width.
    pub fit: bool,
    /// `KARBOR_TOKEN`.
    pub token: Option<String>,
    /// The variables `OS_…`, by which to log in at keystone.
    pub cloud: Cloud,
    /// How to wait.
    pub pace: Pace,
}

impl Surroundings {
    /// The process's own.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            bars: io::stderr().is_terminal(),
            fit: io::stdout().is_terminal(),
            token: std::env::var("KARBOR_TOKEN")
                .ok()
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            cloud: Cloud::new(std::env::vars()),
            pace: Pace::default(),
        }
    }
}

/// What commands work with.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) view: View,
    pub(crate) io: Surroundings,
}

impl Session {
    /// Tells a person something beside the answer. Nothing in formats meant for programs.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), CliError> {
        if self.view.for_people() {
            writeln!(self.io.err, "{}", visible(text))?;
        }
        Ok(())
    }

    /// Warns beside the answer, in any format.
    pub(crate) fn warn(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.io.err, "warning: {}", visible(text))?;
        Ok(())
    }
}
