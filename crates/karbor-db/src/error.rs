//! What can go wrong, and how each is told to the caller.

use karbor_model::{ApiError, ErrorKind, IllegalTransition, QuotaResource};
use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx::sqlite::SqliteError};

/// Why the database did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DbError {
    /// No such row, or it was deleted.
    #[error("{what} {id} could not be found.")]
    NotFound {
        /// `Plan`, `Restore`, `Verification`, `OperationLog`, `Service`, `Flow`, `Token`, `Trigger`,
        /// `ScheduledOperation`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The row is not in the state that the change needs: somebody was faster, or the rules forbid it.
    #[error("{message}")]
    Conflict {
        /// What it is.
        what: &'static str,
        /// Its id.
        id: String,
        /// The state it is in, if it has one.
        present: Option<String>,
        /// The same in words.
        message: String,
    },
    /// The request names something that is not there: a sort key.
    #[error("{message}")]
    BadRequest {
        /// Which part of the request, e.g. `sort`.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The project has all that it may have.
    #[error("Maximum number of {resource} allowed ({limit}) exceeded")]
    OverQuota {
        /// Of what.
        resource: QuotaResource,
        /// How much it may have.
        limit: i64,
    },
    /// The database cannot be used now. The same request may succeed later.
    #[error("{message} ({cause})")]
    Unavailable {
        /// What an operator can do about it; names no secret.
        message: String,
        /// What the database said.
        cause: String,
    },
    /// The database's schema is not one that this version can work with.
    #[error("{0}")]
    Schema(String),
    /// A fault of ours, or a row that nobody should have written.
    #[error("{0}")]
    Internal(String),
}

impl DbError {
    pub(crate) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            what,
            id: id.to_string(),
        }
    }

    /// A change of state that the rules forbid.
    pub(crate) fn illegal(
        what: &'static str,
        id: impl ToString,
        refused: &IllegalTransition,
    ) -> Self {
        let id = id.to_string();
        Self::Conflict {
            message: format!("{what} {id}: {refused}."),
            what,
            id,
            present: Some(refused.from.clone()),
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>, cause: impl ToString) -> Self {
        Self::Unavailable {
            message: message.into(),
            cause: cause.to_string(),
        }
    }

    /// Can the same request succeed later, unchanged?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound { what, id } => Self::not_found(what, id),
            DbError::Conflict { message, .. } => Self::conflict("Conflict", message),
            DbError::BadRequest { message, .. } => {
                Self::new(ErrorKind::BadRequest, "InvalidInput", message)
            }
            DbError::OverQuota { resource, .. } => {
                let class = match resource {
                    QuotaResource::Plans => "PlanLimitExceeded",
                    QuotaResource::Checkpoints => "CheckpointLimitExceeded",
                    QuotaResource::Bytes => "ByteLimitExceeded",
                };
                Self::new(ErrorKind::OverLimit, class, error.to_string())
            }
            DbError::Unavailable { message, cause } => Self::unavailable(message, cause),
            DbError::Schema(cause) => {
                Self::unavailable("The database has a schema that is not known here.", cause)
            }
            DbError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<DbErr> for DbError {
    fn from(error: DbErr) -> Self {
        if let Some(SqlErr::UniqueConstraintViolation(cause)) = error.sql_err() {
            return Self::Conflict {
                what: "Row",
                id: String::new(),
                present: None,
                message: format!("It exists already: {cause}"),
            };
        }
        match &error {
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => from_sqlx(cause),
            DbErr::ConnectionAcquire(cause) => Self::unavailable(BUSY, cause),
            _ => Self::Internal(error.to_string()),
        }
    }
}

const AWAY: &str = "The database is away. Try again.";
const BUSY: &str = "The database is busy. Try again.";

pub(crate) fn from_sqlx(error: &sea_orm::sqlx::Error) -> DbError {
    use sea_orm::sqlx::Error;
    let database = match error {
        Error::Database(database) => database,
        Error::Io(_) | Error::Tls(_) | Error::PoolClosed | Error::WorkerCrashed => {
            return DbError::unavailable(AWAY, error);
        }
        Error::PoolTimedOut => return DbError::unavailable(BUSY, error),
        _ => return DbError::Internal(error.to_string()),
    };
    let code = database.code().unwrap_or_default();
    let message = match database.try_downcast_ref::<SqliteError>() {
        Some(_) => of_sqlite(&code),
        None => of_sqlstate(&code),
    };
    match message {
        Some(message) => DbError::unavailable(message, error),
        None => DbError::Internal(error.to_string()),
    }
}

/// By SQLite's result codes (<https://www.sqlite.org/rescode.html>): the low byte is the primary one.
fn of_sqlite(code: &str) -> Option<&'static str> {
    Some(match code.parse::<u32>().ok()? & 0xff {
        5 | 6 => BUSY,
        8 => "The database is read-only. Make its file and folder writable for the service.",
        10 => "The disk of the database failed to read or write. Check it.",
        11 => "The database file is damaged. Stop the service and put a good copy in its place.",
        13 => "The disk of the database is full. Make room on it.",
        14 => "The database file cannot be opened. Check that it and its folder exist.",
        26 => "The database file is not a database. Check the configured path.",
        _ => return None,
    })
}

/// By the classes of SQLSTATE that PostgreSQL and MariaDB use for what may pass
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn of_sqlstate(code: &str) -> Option<&'static str> {
    match code.get(..2)? {
        "08" | "57" => Some(AWAY),
        // Deadlocks and collisions, too little memory, disk or connections, locks not granted.
        "40" | "53" | "55" => Some(BUSY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_its_database_means_it() {
        assert_eq!(of_sqlite("5"), Some(BUSY));
        assert_eq!(of_sqlite("261"), Some(BUSY), "SQLITE_BUSY_RECOVERY");
        assert_eq!(of_sqlite("1"), None);
        assert_eq!(of_sqlstate("40P01"), Some(BUSY), "a deadlock");
        assert_eq!(of_sqlstate("57P01"), Some(AWAY), "shut down");
        assert_eq!(of_sqlstate("23505"), None);
        // 42501 & 0xff is 5: no right to do it, and no waiting helps.
        assert_eq!(of_sqlstate("42501"), None);
        assert_eq!(of_sqlstate(""), None);
    }
}
