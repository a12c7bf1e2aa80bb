//! Places that are being restored into, so that two restores never mix in one.
//!
//! In memory is enough: a state directory, and with it the right to restore on this host, belongs to
//! one service. An operation holds its places from its first write until it completes or is undone;
//! one that ends as neither is resumed at the next start, and nobody should be in its place before.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use karbor_model::OperationId;
use karbor_plugin::{OperationContext, PluginError};

/// A place, without symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Path(PathBuf),
    Database { server: String, name: String },
}

impl Place {
    /// The same, or one inside the other.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(one), Self::Path(other)) => {
                one.starts_with(other) || other.starts_with(one)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "'{}'", path.display()),
            Self::Database { name, .. } => write!(f, "the database '{name}'"),
        }
    }
}

/// Who restores where: by operation and resource.
#[derive(Debug, Default)]
pub(crate) struct Occupied(Mutex<HashMap<(OperationId, String), Place>>);

impl Occupied {
    /// Takes a place for a restore, which may have it already. Components of one operation may lie
    /// in each other: a database in a directory that excludes it.
    pub(crate) fn take(&self, context: &OperationContext, place: Place) -> Result<(), PluginError> {
        let mut taken = self.lock();
        let other = taken.iter().find(|((operation, _), theirs)| {
            *operation != context.operation_id && place.meets(theirs)
        });
        if let Some(((operation, _), theirs)) = other {
            return Err(PluginError::retryable(format!(
                "another restore (operation {operation}) is writing to {theirs}: wait until it has ended, or restore to another place"
            )));
        }
        taken.insert(key(context), place);
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn leave(&self, context: &OperationContext) {
        self.lock().remove(&key(context));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(OperationId, String), Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(context: &OperationContext) -> (OperationId, String) {
    (context.operation_id, context.resource.id.to_string())
}
