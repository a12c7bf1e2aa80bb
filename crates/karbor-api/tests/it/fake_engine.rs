use std::sync::Mutex;

use async_trait::async_trait;
use karbor_interfaces::OperationEngineApi;
use karbor_model::{
    ApiError, RequestContext, ScheduledOperation, ScheduledOperationId, Trigger, TriggerId,
};
use serde_json::{Value, json};

type Answer = Result<(), ApiError>;

/// An operation engine that writes down what it is asked and refuses on command.
#[derive(Default)]
pub struct FakeEngine {
    /// What every call answers instead.
    pub refusal: Mutex<Option<ApiError>>,
    /// What was asked for, with its arguments.
    pub calls: Mutex<Vec<Value>>,
    /// A method that fails although the others do not.
    deaf: Mutex<String>,
}

impl FakeEngine {
    /// Calls of `method` fail from now on.
    pub fn deaf_to(&self, method: &str) {
        method.clone_into(&mut self.deaf.lock().unwrap());
    }

    /// The methods that were called, in order.
    pub fn names(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let names = calls
            .iter()
            .flat_map(|call| call.as_object().unwrap().keys());
        names.cloned().collect()
    }

    fn note(&self, call: Value) -> Answer {
        let deaf = call.get(&*self.deaf.lock().unwrap()).is_some();
        self.calls.lock().unwrap().push(call);
        if deaf {
            return Err(ApiError::unavailable("nobody listens", "nobody listens"));
        }
        match &*self.refusal.lock().unwrap() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl OperationEngineApi for FakeEngine {
    async fn verify_trigger(&self, _: &RequestContext, trigger: Trigger) -> Answer {
        self.note(json!({"verify_trigger": trigger}))
    }

    async fn create_trigger(&self, _: &RequestContext, trigger: Trigger) -> Answer {
        self.note(json!({"create_trigger": trigger}))
    }

    async fn update_trigger(&self, _: &RequestContext, trigger: Trigger) -> Answer {
        self.note(json!({"update_trigger": trigger}))
    }

    async fn delete_trigger(&self, _: &RequestContext, trigger_id: TriggerId) -> Answer {
        self.note(json!({"delete_trigger": trigger_id}))
    }

    async fn create_scheduled_operation(
        &self,
        _: &RequestContext,
        operation: ScheduledOperation,
        trust_id: Option<String>,
    ) -> Answer {
        self.note(json!({"create_scheduled_operation": [operation, trust_id]}))
    }

    async fn delete_scheduled_operation(
        &self,
        _: &RequestContext,
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId,
    ) -> Answer {
        self.note(json!({"delete_scheduled_operation": [operation_id, trigger_id]}))
    }

    async fn suspend_scheduled_operation(
        &self,
        _: &RequestContext,
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId,
    ) -> Answer {
        self.note(json!({"suspend_scheduled_operation": [operation_id, trigger_id]}))
    }

    async fn resume_scheduled_operation(
        &self,
        _: &RequestContext,
        operation_id: ScheduledOperationId,
        trigger_id: TriggerId,
    ) -> Answer {
        self.note(json!({"resume_scheduled_operation": [operation_id, trigger_id]}))
    }
}
