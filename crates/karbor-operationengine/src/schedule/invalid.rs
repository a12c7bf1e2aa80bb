//! How a schedule that cannot be is refused.

use karbor_model::{ApiError, ErrorKind};

/// A 400 of the original's class.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, "InvalidInput", message)
}
