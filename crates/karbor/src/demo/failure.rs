//! Why the demo ends early.

use std::io;

/// Why the demo ended early.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// An error with a word about what was being done.
pub(super) fn during(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| format!("{what}: {error}").into()
}
