//! What the operating system says, in words that tell an operator what to do.

use std::path::Path;

use karbor_plugin::BankError;
use rustix::io::Errno;

/// `what` names the deed and the object: "writing 'a/b'".
pub(super) fn failure(what: impl std::fmt::Display, error: impl Into<std::io::Error>) -> BankError {
    failure_at(what, None, error)
}

/// As [`failure`], of the bank's directory itself.
pub(super) fn failure_of(
    what: impl std::fmt::Display,
    directory: &Path,
    error: impl Into<std::io::Error>,
) -> BankError {
    failure_at(what, Some(directory.display().to_string()), error)
}

fn failure_at(
    what: impl std::fmt::Display,
    at: Option<String>,
    error: impl Into<std::io::Error>,
) -> BankError {
    let error: std::io::Error = error.into();
    let errno = Errno::from_io_error(&error);
    let other = |advice: &str, retryable| BankError::Other {
        message: format!("{what}: {error}{advice}"),
        at: at.clone(),
        retryable,
    };
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => BankError::Full(format!(
            "{what}: {error}; free or add space, or raise the quota, then try again"
        )),
        Some(Errno::ROFS) => other(
            "; the file system is read-only: look in the kernel's log why, and mount it writable",
            false,
        ),
        Some(Errno::ACCESS | Errno::PERM) => other(
            "; the bank's directory and all in it must belong to the user that the service runs as",
            false,
        ),
        Some(Errno::IO) => other(
            "; the disk or the file server fails: look in the kernel's log",
            false,
        ),
        Some(Errno::XDEV) => other(
            "; the bank spans more than one file system: mount the whole of it in one place",
            false,
        ),
        Some(Errno::LOOP) => other(
            "; it is a symbolic link, which a bank does not follow: mount or move what it points to",
            false,
        ),
        // Of an object this is never a failure, so it is the container that went.
        Some(Errno::NOENT) => other(
            "; the bank's directory was removed or unmounted: bring it back and start again",
            false,
        ),
        Some(Errno::MFILE | Errno::NFILE) => other(
            "; raise the limit of open files (LimitNOFILE=, ulimit -n)",
            true,
        ),
        Some(Errno::INTR | Errno::AGAIN | Errno::STALE | Errno::TIMEDOUT | Errno::NOMEM) => {
            other("", true)
        }
        _ => other("", false),
    }
}

/// The one word of the bank about a name that cannot be both an object and a directory.
pub(super) fn in_the_way(key: &str, of: &str) -> BankError {
    BankError::Other {
        message: format!(
            "'{key}' and '{of}' cannot both be in a file system bank: a file cannot also be a \
             directory"
        ),
        at: None,
        retryable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_says_what_to_do() {
        for (errno, wanted) in [
            (Errno::NOSPC, "the bank is full: writing 'a': No space left"),
            (Errno::DQUOT, "the bank is full: writing 'a': "),
            (Errno::ROFS, "mount it writable"),
            (Errno::ACCESS, "must belong to the user"),
            (Errno::XDEV, "one file system"),
            (Errno::LOOP, "symbolic link"),
            (Errno::IO, "kernel's log"),
            (Errno::NOENT, "bring it back"),
            (Errno::MFILE, "limit of open files"),
        ] {
            let error = failure("writing 'a'", errno).to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn only_what_passes_is_retryable() {
        let retryable = |errno| match failure("x", errno) {
            BankError::Other { retryable, .. } => retryable,
            _ => false,
        };
        assert!(retryable(Errno::MFILE) && retryable(Errno::STALE));
        assert!(!retryable(Errno::ROFS) && !retryable(Errno::ACCESS));
    }
}
