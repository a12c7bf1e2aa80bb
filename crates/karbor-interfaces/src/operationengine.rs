//! The operation engine: fires triggers and runs scheduled operations.

use karbor_manager::rpc_interface;
use karbor_model::{ScheduledOperation, ScheduledOperationId, Trigger, TriggerId};

/// The topic that operation engines listen on.
pub const TOPIC: &str = "karbor-operationengine";

rpc_interface! {
    /// What other services may ask of the operation engine. All that an engine must know to run an
    /// operation is in the database; a fanout only tells every engine to look again at once.
    pub trait OperationEngineApi {
        topic: TOPIC, version: (1, 0), client: OperationEngineClient, endpoint: OperationEngineEndpoint
    }

    /// Is the trigger one that can fire? Refused with the property that is wrong.
    since (1, 0) call fn verify_trigger(trigger: Trigger);

    /// A trigger was made.
    since (1, 0) fanout fn create_trigger(trigger: Trigger);

    /// A trigger was changed.
    since (1, 0) fanout fn update_trigger(trigger: Trigger);

    /// A trigger is gone.
    since (1, 0) fanout fn delete_trigger(trigger_id: TriggerId);

    /// Checks an operation and begins to run it. `trust_id`: the trust by which it runs as its
    /// owner, where users come from keystone.
    since (1, 0) call fn create_scheduled_operation(
        operation: ScheduledOperation,
        trust_id: Option<String> = None
    );

    /// Runs it no more.
    since (1, 0) call fn delete_scheduled_operation(
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId
    );

    /// Leaves it out until it is resumed.
    since (1, 0) call fn suspend_scheduled_operation(
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId
    );

    /// Runs it again.
    since (1, 0) call fn resume_scheduled_operation(
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId
    );
}
