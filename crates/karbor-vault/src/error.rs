//! What can go wrong, in words for the person who has to act.

use karbor_plugin::{BankError, PluginError, one_line};

use crate::Mishaps;

/// Why the vault could not do something.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// No key of the repository opens with the password.
    #[error(
        "the password does not open the repository '{0}': it was made with another master key; \
         put back the master key file it was made with"
    )]
    WrongPassword(String),
    /// There is no repository.
    #[error("there is no repository at '{0}': nothing was protected into it yet")]
    NotARepository(String),
    /// A repository that this version does not understand.
    #[error("the repository has format version {0}; only version 2 is understood")]
    UnsupportedVersion(u64),
    /// Somebody holds the repository for themselves (a restic prune, usually).
    #[error(
        "the repository is locked exclusively by {holder}; wait until it has finished and try again"
    )]
    Locked {
        /// Who holds it.
        holder: String,
    },
    /// Our own lock was not kept up: somebody may have pruned below us.
    #[error("the lock on the repository was lost ({0}); run the operation again")]
    LockLost(String),
    /// Another repository, or none, is where this one was when it was opened.
    #[error(
        "the repository '{0}' was moved, removed or exchanged while it was in use: nothing that was written \
         meanwhile counts; see that the right one is in the bank, then run the operation again"
    )]
    Exchanged(String),
    /// No such snapshot.
    #[error("there is no snapshot '{0}' in the repository")]
    NoSuchSnapshot(String),
    /// No such file or folder in a snapshot.
    #[error("there is no '{}' in the snapshot {snapshot}", one_line(path))]
    NoSuchPath {
        /// The snapshot.
        snapshot: String,
        /// The path within.
        path: String,
    },
    /// The repository is not what was written.
    #[error("{object} is damaged: {reason}{}{}", in_file(file.as_deref()), and_others(*others))]
    Damaged {
        /// The object in the repository, e.g. `pack data/ab/abcd…`.
        object: String,
        /// The file of the snapshot that needs it.
        file: Option<String>,
        /// What was found.
        reason: String,
        /// How much more damage was found.
        others: u64,
    },
    /// A file or stream that is to be stored could not be read whole.
    #[error("'{}' could not be read: {reason}", one_line(path))]
    Source {
        /// The file or stream.
        path: String,
        /// What happened.
        reason: String,
    },
    /// Entries of a tree cannot be read, and that is not put up with, or nothing else is in it.
    #[error("{}", unreadable(.0))]
    Unreadable(Mishaps),
    /// A file could not be restored.
    #[error("'{}' could not be restored: {reason}", one_line(path))]
    Target {
        /// The file.
        path: String,
        /// What happened.
        reason: String,
    },
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// An earlier failure makes it impossible to commit.
    #[error("the snapshot cannot be committed, because an earlier step failed: {0}")]
    Poisoned(String),
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The bank is full.
    #[error("the bank is full ({0}): free space or add some, then run the operation again")]
    Full(String),
    /// The bank failed.
    #[error(transparent)]
    Bank(BankError),
    /// A fault of ours.
    #[error("internal error in the vault: {0}")]
    Internal(String),
}

fn in_file(file: Option<&str>) -> String {
    file.map_or_else(String::new, |file| {
        format!("; '{}' needs it", one_line(file))
    })
}

fn unreadable(mishaps: &Mishaps) -> String {
    match mishaps.total {
        1 => format!("a file or directory cannot be read: {mishaps}"),
        n => format!("{n} files or directories cannot be read: {mishaps}"),
    }
}

fn and_others(others: u64) -> String {
    match others {
        0 => String::new(),
        n => format!(" (and {n} more damaged objects)"),
    }
}

impl VaultError {
    pub(crate) fn damaged(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged {
            object: object.into(),
            file: None,
            reason: reason.into(),
            others: 0,
        }
    }

    /// Names the file that needs a damaged object, if none is named yet.
    #[must_use]
    pub(crate) fn for_file(mut self, path: &str) -> Self {
        if let Self::Damaged { file, .. } = &mut self {
            file.get_or_insert_with(|| path.to_owned());
        }
        self
    }

    pub(crate) fn source(path: impl Into<String>, reason: impl ToString) -> Self {
        Self::Source {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn target(path: impl Into<String>, reason: impl ToString) -> Self {
        Self::Target {
            path: path.into(),
            reason: reason.to_string(),
        }
    }

    /// Can trying again help?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::LockLost(_) => true,
            Self::Bank(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<BankError> for VaultError {
    fn from(error: BankError) -> Self {
        match error {
            BankError::Full(what) => Self::Full(what),
            BankError::Corrupt { key, reason } => {
                Self::damaged(format!("the object '{key}'"), reason)
            }
            other => Self::Bank(other),
        }
    }
}

impl From<VaultError> for PluginError {
    fn from(error: VaultError) -> Self {
        if matches!(error, VaultError::Cancelled) {
            return Self::cancelled();
        }
        Self {
            message: error.to_string(),
            retryable: error.is_retryable(),
            cause: None,
        }
    }
}
