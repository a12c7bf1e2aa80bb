//! The protection service: providers, protectables, checkpoints and the operations on them.

use std::collections::BTreeMap;

use karbor_manager::rpc_interface;
use karbor_model::{
    ApiError, Checkpoint, CheckpointCopy, CheckpointId, CheckpointProperties, OperationLog,
    OperationLogId, OperationType, Plan, ProtectableInstance, ProtectableType, Provider,
    ProviderId, Readback, RequestContext, Resource,
};
use serde_json::{Map, Value};

/// The topic that protection services listen on.
pub const TOPIC: &str = "karbor-protection";

rpc_interface! {
    /// What other services may ask of the protection manager. Operations are refused at once with
    /// the reason, or accepted and run on in the background.
    pub trait ProtectionApi {
        topic: TOPIC, version: (1, 4), client: ProtectionClient, endpoint: ProtectionEndpoint
    }

    /// Makes a checkpoint of what the plan names and all it depends on.
    since (1, 0) call fn protect(
        plan: Plan,
        checkpoint_properties: CheckpointProperties = CheckpointProperties::default()
    ) -> CheckpointId;

    /// Brings back what a checkpoint holds. `restore_auth`: how to log in at the restore target. Records the restore
    /// under its id, unless it is recorded; what is refused is recorded as failed, but for what a schedule may ask
    /// again. One that was asked for before is begun once.
    since (1, 0) call fn restore(
        restore: Readback,
        restore_auth: Option<Map<String, Value>>
    );

    /// Checks that a checkpoint can be restored. Records the verification as `restore` does the restore.
    since (1, 0) call fn verification(verification: Readback);

    /// Copies the plan's available checkpoints that are not copied yet into the provider's copy bank
    /// (without one, into its bank); answers which copies were begun. The copies are made of what the
    /// checkpoints hold. `plan.parameters` may tell the plugins how.
    since (1, 0) call fn copy(plan: Plan) -> Vec<CheckpointCopy>;

    /// Removes a checkpoint and its data.
    since (1, 0) call fn delete(provider_id: ProviderId, checkpoint_id: CheckpointId);

    /// Sets the state of a checkpoint that no operation works on.
    since (1, 0) call fn reset_state(
        provider_id: ProviderId,
        checkpoint_id: CheckpointId,
        state: String
    );

    /// One checkpoint.
    since (1, 0) call fn show_checkpoint(
        provider_id: ProviderId,
        checkpoint_id: CheckpointId
    ) -> Checkpoint;

    /// Checkpoints of a provider, a page at a time. Filters: `plan_id`, `start_date`, `end_date`,
    /// `project_id`, `status`. `all_tenants`: of every project, for administrators.
    since (1, 0) call fn list_checkpoints(
        provider_id: ProviderId,
        marker: Option<CheckpointId>,
        limit: Option<usize>,
        sort_keys: Vec<String> = Vec::new(),
        sort_dirs: Vec<String> = Vec::new(),
        filters: BTreeMap<String, String> = BTreeMap::new(),
        all_tenants: bool = false
    ) -> Vec<Checkpoint>;

    /// The types of resources that can be protected.
    since (1, 0) call fn list_protectable_types() -> Vec<String>;

    /// One type, with the types that it may depend on.
    since (1, 0) call fn show_protectable_type(protectable_type: String) -> ProtectableType;

    /// Resources of a type that the project may see, a page at a time, each with what it depends on directly. (An
    /// original service answers without.)
    since (1, 0) call fn list_protectable_instances(
        protectable_type: String,
        marker: Option<String>,
        limit: Option<usize>,
        sort_keys: Vec<String> = Vec::new(),
        sort_dirs: Vec<String> = Vec::new(),
        filters: BTreeMap<String, String> = BTreeMap::new(),
        parameters: Option<Map<String, Value>>
    ) -> Vec<ProtectableInstance>;

    /// One resource, if the project may see it.
    since (1, 0) call fn show_protectable_instance(
        protectable_type: String,
        protectable_id: String,
        parameters: Option<Map<String, Value>>
    ) -> Option<Resource>;

    /// What a resource depends on directly.
    since (1, 0) call fn list_protectable_dependents(
        protectable_id: String,
        protectable_type: String,
        protectable_name: String
    ) -> Vec<Resource>;

    /// Providers, a page at a time. Filters: `name`, `description`.
    since (1, 0) call fn list_providers(
        marker: Option<ProviderId>,
        limit: Option<usize>,
        sort_keys: Vec<String> = Vec::new(),
        sort_dirs: Vec<String> = Vec::new(),
        filters: BTreeMap<String, String> = BTreeMap::new()
    ) -> Vec<Provider>;

    /// One provider.
    since (1, 0) call fn show_provider(provider_id: ProviderId) -> Provider;

    /// Stops a running operation; what it has half made is undone. (Not in the original.)
    since (1, 1) call fn cancel_operation(operation_log_id: OperationLogId);

    /// Takes the suspicion off a checkpoint: it is what the next ones are measured by. (Not in the original.)
    since (1, 2) call fn accept_checkpoint(provider_id: ProviderId, checkpoint_id: CheckpointId);

    /// Enters in the operation log what came to its end without a run: one of a schedule that did not begin. Answers
    /// whether it is entered; a record with its id is left as it is. (Not in the original.)
    since (1, 3) call fn record_operation(operation_log: OperationLog) -> bool;

    /// Answers with an operation's record as soon as the operation has ended, or when it has gone on for so many
    /// `seconds`. (Not in the original.)
    since (1, 3) call fn await_operation(
        operation_log_id: OperationLogId,
        seconds: u64
    ) -> OperationLog;

    /// Reads a checkpoint back by an operation that the original did not have. Records it as `restore` does the restore.
    /// (Not in the original.)
    since (1, 4) call fn read_back(operation: OperationType, readback: Readback);
}

/// Asks for a readback by the method for its operation; `restore_auth` is for a restore alone.
///
/// # Errors
/// What the method answers.
pub async fn ask_for(
    protection: &dyn ProtectionApi,
    context: &RequestContext,
    readback: Readback,
    restore_auth: Option<Map<String, Value>>,
) -> Result<(), ApiError> {
    match readback.operation {
        OperationType::Restore => protection.restore(context, readback, restore_auth).await,
        OperationType::Verify => protection.verification(context, readback).await,
        operation => protection.read_back(context, operation, readback).await,
    }
}
