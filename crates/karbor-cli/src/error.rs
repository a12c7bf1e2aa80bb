//! How a command ends, and what it says when it does not end well.

use std::{fmt, io, process::ExitCode};

/// The documented exit codes, for the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the operation ran and failed, or the service had a fault of its own
  2  the command or its input is wrong
  3  no such thing
  4  the service refused (token, project, or a state that does not allow it)
  5  the service cannot be reached, or cannot use what it needs now (a bank that is full or away)
  6  timed out waiting; the operation goes on in the service
  7  a checkpoint was made, and is incomplete: something could not be read
130  interrupted; the operation goes on in the service";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The operation ran and failed, or the service had a fault.
    Failed,
    /// The command or its input is wrong.
    Usage,
    /// No such thing.
    NotFound,
    /// The service refused.
    Refused,
    /// The service cannot be reached, or cannot use what it needs now.
    Unreachable,
    /// Timed out waiting.
    TimedOut,
    /// A checkpoint was made that is incomplete.
    Incomplete,
    /// Interrupted while waiting.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
            Self::TimedOut => 6,
            Self::Incomplete => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not end well: what happened, and what to do about it.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Nobody reads our output any more: end without a word.
    pub(crate) silent: bool,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            silent: false,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for CliError {
    /// Only printing gives a bare `io::Error`: files and sockets are told with their names.
    fn from(error: io::Error) -> Self {
        let pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Self {
            exit: if pipe { Exit::Done } else { Exit::Failed },
            message: format!("the output could not be written: {error}"),
            hint: None,
            silent: pipe,
        }
    }
}
