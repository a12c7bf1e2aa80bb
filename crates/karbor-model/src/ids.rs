//! Typed ids. On the wire and in the database each is a hyphenated lower-case UUID.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that should have been a UUID was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a 'uuid'")]
pub struct IdError(pub String);

macro_rules! typed_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random (version 4) id.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a random default would surprise")]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts any UUID notation (with or without hyphens), as the original did.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self).map_err(|_| IdError(text.to_owned()))
            }
        }
    )+};
}

typed_id! {
    /// A plan.
    PlanId,
    /// A provider: a bank joined with protection plugins.
    ProviderId,
    /// A checkpoint in a bank.
    CheckpointId,
    /// A readback: a restore or a verification.
    ReadbackId,
    /// A trigger.
    TriggerId,
    /// A scheduled operation.
    ScheduledOperationId,
    /// A record in the operation log.
    OperationLogId,
    /// One run of an operation (protect, restore, …): the id of its flow and of its journal.
    OperationId,
}

impl CheckpointId {
    /// A new one that sorts after those that were made before (UUID version 7, RFC 9562): checkpoints
    /// of one second are listed by their ids.
    #[must_use]
    pub fn next() -> Self {
        Self(Uuid::now_v7())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_one_second_are_in_their_order() {
        let ids: Vec<_> = (0..1000).map(|_| CheckpointId::next()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn accepts_uuid_without_hyphens_and_prints_with_them() {
        let id: PlanId = "222202b557864959b6ada6150f78f1e1".parse().unwrap();
        assert_eq!(id.to_string(), "222202b5-5786-4959-b6ad-a6150f78f1e1");
    }

    #[test]
    fn refuses_other_text_and_names_it() {
        let error = "../etc".parse::<PlanId>().unwrap_err();
        assert_eq!(error.to_string(), "'../etc' is not a 'uuid'");
    }
}
