//! Why a task fails.

/// Why a task failed, for a person.
pub(crate) type Failure = Box<dyn std::error::Error>;
