//! Why the manager refuses a request, as it tells the cases apart. What a person reads of it is in
//! [`crate::compat::error_words`].

use std::fmt::Display;

use karbor_db::DbError;
use karbor_identity::TrustError;
use karbor_model::{ApiError, ErrorKind, OperationType, ParameterFault};
use serde_json::Value;

use crate::policy::Denied;

/// What stands before the reason why no checkpoint was begun.
pub(crate) const NOT_PROTECTED: &str = "Create checkpoint failed";

/// Is what was to be protected the reason why no checkpoint was begun? Then asking again does not help.
pub(crate) fn is_of_the_plan(error: &ApiError) -> bool {
    error.needs_mending || matches!(error.kind, ErrorKind::BadRequest | ErrorKind::NotFound)
}

/// A kind of record that requests name by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Plan,
    /// A readback by this operation.
    Readback(OperationType),
    OperationLog,
    Trigger,
    ScheduledOperation,
    Service,
}

/// What is wrong with the definition of a scheduled operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefinitionFault {
    /// Its plan's id is none.
    PlanId,
    /// Its plan is another project's than the operation.
    ForeignPlan,
    /// Its plan is protected by another provider than it names.
    Provider,
}

/// Why the manager refuses a request.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The policy does not allow it.
    Denied(Denied),
    /// There is no such record, or none that who asks may know of.
    NotFound { what: RecordKind, id: String },
    /// The marker of a page is no id.
    MarkerIsNoId { marker: String },
    /// A day to list from or to is none.
    DateIsNone { field: &'static str, date: String },

    /// A plan to be made names a provider that is not there.
    NoProviderForPlan,
    /// Something else than its suspension was asked of a plan that is started.
    PlanIsStarted,
    /// A key or a name in the parameters of a plan is not known.
    Parameters(ParameterFault),
    /// A parameter of a plan is none of the values that it can have.
    NotAChoice {
        name: String,
        given: Value,
        choices: Vec<Value>,
    },

    /// A checkpoint was asked of another provider than its plan's.
    ProtectedByAnotherProvider,
    /// The protection manager refused to make a checkpoint.
    NotProtected(ApiError),
    /// A copy was asked of what can be no provider.
    CopyProviderIsNoId,
    /// A copy was asked of another provider than the plan's.
    CopiedByAnotherProvider,
    /// A copy was asked of a plan that has no checkpoint.
    NothingToCopy,
    /// Nobody knows whether the run was begun.
    MayHaveBegun {
        what: RecordKind,
        id: String,
        error: ApiError,
    },

    /// No provider protects resources of the type.
    NoProtectableType,
    /// There is no such resource, or none that who asks may know of.
    NoProtectableInstance {
        protectable_type: String,
        id: String,
    },

    /// The type of a trigger cannot be changed.
    TriggerTypeIsFixed { wanted: String },
    /// A changed trigger has no time to start at.
    NoStartTime,
    /// Scheduled operations use the trigger.
    TriggerIsUsed,
    /// The trigger of an operation is another project's.
    ForeignTrigger,
    /// No operation of this type can be scheduled.
    NoOperationType { given: String },
    /// What a scheduled operation is to do cannot be done.
    Definition(DefinitionFault),

    /// The work of this service cannot be stopped by a request.
    ServiceIsFixed {
        binary: String,
        changeable: &'static str,
    },
    /// Why a service is disabled was given for one that is enabled.
    ReasonWithoutStop,
    /// A quota of another project was asked for.
    ForeignQuota,

    /// The database, a service or keystone refuses.
    Other(ApiError),
}

impl Refusal {
    pub(crate) fn not_found(what: RecordKind, id: impl Display) -> Self {
        Self::NotFound {
            what,
            id: id.to_string(),
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<ParameterFault> for Refusal {
    fn from(fault: ParameterFault) -> Self {
        Self::Parameters(fault)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        Self::Other(error.into())
    }
}

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Self::Other(error.into())
    }
}
