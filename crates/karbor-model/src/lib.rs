//! The dumb data of Karbor: ids, states and their transitions, records, the resource graph,
//! the request context and the error that people see.
//!
//! Data here has no behaviour that touches the world: no clock, no disk, no network. Managers act
//! on it. See `docs/architecture.md`.

mod checkpoint;
mod checkpoint_info;
mod checkpoint_properties;
mod context;
mod error;
mod graph;
mod ids;
mod journal;
mod notification;
mod openstack;
mod operation;
mod options;
mod parameters;
mod quota;
mod readback;
mod records;
mod report;
mod resource;
mod scheduling;
mod secret;
mod states;
mod visible;

pub use checkpoint::{Checkpoint, CheckpointPlan, INDEX_VERSION, Seal};
pub use checkpoint_info::{
    CheckpointInfo, Holds, INCOMPLETE, Incomplete, Measure, Missing, Origin, SUSPICIOUS,
    Suspicious, Unread,
};
pub use checkpoint_properties::CheckpointProperties;
pub use context::{RequestContext, RequestId};
pub use error::{ApiError, ErrorKind};
pub use graph::{GraphError, ResourceGraph};
pub use ids::{
    CheckpointId, IdError, OperationId, OperationLogId, PlanId, ProviderId, ReadbackId,
    ScheduledOperationId, TriggerId,
};
pub use journal::{EventKind, JournalEvent};
pub use notification::{Notification, Outgoing, Priority};
pub use openstack::{OPENSTACK_PARENTS, OPENSTACK_TYPES};
pub use operation::{OperationType, ReadbackNames};
pub use options::{ConfigError, GivenOption, OptionDef, OptionKind, Options, Source};
pub use parameters::{KnownType, ParameterFault, ParameterRules, check_parameters};
pub use quota::{QuotaChange, QuotaHolding, QuotaLimits, QuotaResource, QuotaUsage, UNLIMITED};
pub use readback::Readback;
pub use records::{
    OperationLog, Parameters, Plan, ProtectableInstance, ProtectableType, Provider, ServiceRecord,
    parameters_for,
};
pub use report::{ResourceProgress, ResourceReport, RunProgress, RunReport};
pub use resource::Resource;
pub use scheduling::{CheckpointCopy, ScheduledOperation, ScheduledOperationType, Trigger};
pub use secret::Secret;
pub use states::{
    CheckpointStatus, FlowStatus, IllegalTransition, OperationLogStatus, PlanStatus,
    ReadbackStatus, State, UnknownState,
};
pub use visible::{one_line, visible};
