//! What answers each endpoint, one file a resource: takes a request apart, asks the manager, shows what it says.

pub(super) mod checkpoints;
pub(super) mod operation_logs;
pub(super) mod plans;
pub(super) mod protectables;
pub(super) mod quotas;
pub(super) mod readbacks;
pub(super) mod scheduled_operations;
pub(super) mod services;
pub(super) mod triggers;
