//! States and which of them can follow which. Every change of a state in the database or the bank
//! is a compare-and-set that first asks [`State::can_become`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not a {what} status")]
pub struct UnknownState {
    /// What the state is of, e.g. `checkpoint`.
    pub what: &'static str,
    /// The text.
    pub value: String,
}

/// A change of state that the rules forbid, or that somebody else was faster to make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} cannot go from '{from}' to '{to}'")]
pub struct IllegalTransition {
    /// What the state is of.
    pub what: &'static str,
    /// The state it is in.
    pub from: String,
    /// The state that was asked for.
    pub to: String,
}

/// A state of a record.
pub trait State:
    Copy + Eq + fmt::Display + FromStr<Err = UnknownState> + Send + Sync + 'static
{
    /// What the state is of, in words: `plan`, `checkpoint`, …
    const WHAT: &'static str;

    /// The text on the wire, in the database and in the bank.
    fn as_str(self) -> &'static str;

    /// May a record in this state be put into `next`?
    fn can_become(self, next: Self) -> bool;

    /// `next`, or the reason why not.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the rules forbid the change.
    fn becoming(self, next: Self) -> Result<Self, IllegalTransition> {
        if self.can_become(next) {
            Ok(next)
        } else {
            Err(IllegalTransition {
                what: Self::WHAT,
                from: self.to_string(),
                to: next.to_string(),
            })
        }
    }
}

macro_rules! states {
    ($(#[$doc:meta])* $name:ident ($what:literal) {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal => [$($next:ident),*]),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }

        impl State for $name {
            const WHAT: &'static str = $what;

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            fn can_become(self, next: Self) -> bool {
                match self {
                    $(Self::$variant => {
                        const NEXT: &[$name] = &[$($name::$next),*];
                        NEXT.contains(&next)
                    })+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownState { what: $what, value: text.to_owned() }),
                }
            }
        }
    };
}

states! {
    /// Whether a plan's schedule is live.
    PlanStatus ("plan") {
        /// May be changed.
        Suspended = "suspended" => [Started],
        /// In use by schedules; may not be changed.
        Started = "started" => [Suspended],
    }
}

states! {
    /// Where a checkpoint is in its life. Copy states come with the copy operation.
    CheckpointStatus ("checkpoint") {
        /// Being made; not usable.
        Protecting = "protecting" => [Available, Error],
        /// Whole: every resource of its graph is in the bank.
        Available = "available" => [Deleting, Error],
        /// Not whole. May be deleted.
        Error = "error" => [Deleting, Available],
        /// Its data are being removed.
        Deleting = "deleting" => [Deleted, ErrorDeleting],
        /// Gone; the index file is kept as a record.
        Deleted = "deleted" => [],
        /// Some of its data could not be removed. May be deleted again, or reset to error.
        ErrorDeleting = "error-deleting" => [Deleting, Error],
        /// A copy that waits for its turn.
        WaitCopying = "wait_copying" => [Copying, Error],
        /// A copy being made.
        Copying = "copying" => [Finished, Available, Error],
        /// A finished copy, as the original named it.
        Finished = "finished" => [Available, Deleting, Error],
    }
}

states! {
    /// How a readback goes.
    ReadbackStatus ("readback") {
        /// Running.
        InProgress = "in_progress" => [Success, Fail],
        /// Every resource is back, or was found whole.
        Success = "success" => [],
        /// At least one is not; `resources_reason` names it.
        Fail = "fail" => [],
    }
}

states! {
    /// How an operation in the log went.
    OperationLogStatus ("operation log") {
        /// Running.
        InProgress = "in_progress" => [Success, Failed],
        /// Done, whole.
        Success = "success" => [],
        /// Not done, or not whole; `error_info` says what and why.
        Failed = "failed" => [],
        /// Scheduled, and never begun; `error_info` says which run and why.
        Missed = "missed" => [],
    }
}

states! {
    /// Where a flow (one run of an operation) is.
    FlowStatus ("flow") {
        /// Its hooks are running, or it waits to be resumed after a restart.
        Running = "running" => [Success, Failed, Cancelled],
        /// Every hook is done.
        Success = "success" => [],
        /// At least one hook failed; undone as far as possible.
        Failed = "failed" => [],
        /// Somebody stopped it; undone as far as possible.
        Cancelled = "cancelled" => [],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_parses_back() {
        for state in CheckpointStatus::ALL {
            assert_eq!(state.as_str().parse::<CheckpointStatus>().unwrap(), *state);
        }
    }

    /// Q68, Q69: no state but `deleted` is a dead end.
    #[test]
    fn every_checkpoint_state_but_deleted_has_a_way_on() {
        for state in CheckpointStatus::ALL {
            let way_on = CheckpointStatus::ALL
                .iter()
                .any(|next| state.can_become(*next));
            assert_eq!(way_on, *state != CheckpointStatus::Deleted, "{state}");
        }
    }

    #[test]
    fn the_refusal_names_both_states() {
        let error = ReadbackStatus::Fail
            .becoming(ReadbackStatus::Success)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a readback cannot go from 'fail' to 'success'"
        );
    }
}
