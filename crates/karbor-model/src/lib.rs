//! The dumb data of Karbor: ids, states and their transitions, records, the resource graph,
//! the request context and the error that people see.
//!
//! Data here has no behaviour that touches the world: no clock, no disk, no network. Managers act
//! on it. See `docs/architecture.md`.

mod checkpoint;
mod context;
mod error;
mod graph;
mod ids;
mod notification;
mod openstack;
mod parameters;
mod quota;
mod records;
mod resource;
mod scheduling;
mod secret;
mod states;
mod visible;

pub use checkpoint::{Checkpoint, CheckpointPlan, INCOMPLETE, INDEX_VERSION, SUSPICIOUS, Seal};
pub use context::{RequestContext, RequestId};
pub use error::{ApiError, ErrorKind};
pub use graph::{GraphError, ResourceGraph};
pub use ids::{
    CheckpointId, IdError, OperationId, OperationLogId, PlanId, ProviderId, RestoreId,
    ScheduledOperationId, TriggerId, VerificationId,
};
pub use notification::{Notification, Outgoing, Priority};
pub use openstack::{OPENSTACK_PARENTS, OPENSTACK_TYPES};
pub use parameters::{KnownType, ParameterFault, ParameterRules, check_parameters};
pub use quota::{QuotaChange, QuotaHolding, QuotaLimits, QuotaResource, QuotaUsage, UNLIMITED};
pub use records::{
    OperationLog, OperationType, Parameters, Plan, ProtectableInstance, ProtectableType, Provider,
    Restore, ServiceRecord, Verification, parameters_for,
};
pub use resource::Resource;
pub use scheduling::{CheckpointCopy, ScheduledOperation, ScheduledOperationType, Trigger};
pub use secret::Secret;
pub use states::{
    CheckpointStatus, FlowStatus, IllegalTransition, OperationLogStatus, PlanStatus, RestoreStatus,
    State, UnknownState, VerificationStatus,
};
pub use visible::{one_line, visible};
