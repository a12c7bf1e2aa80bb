//! The operation engine's manager.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_db::Db;
use karbor_interfaces::{OperationEngineApi, OperationEngineEndpoint, ProtectionApi};
use karbor_manager::{Manager, ManagerBase, rpc::RpcEndpoint};
use karbor_model::{
    ApiError, RequestContext, ScheduledOperation, ScheduledOperationId, Trigger, TriggerId,
};

/// The operation engine's manager.
pub struct OperationEngineManager {
    base: ManagerBase<Db>,
    protection: Arc<dyn ProtectionApi>,
}

impl OperationEngineManager {
    /// `base` brings host, database, configuration and clock; `protection` is the manager itself or
    /// a client of it.
    #[must_use]
    pub fn new(base: ManagerBase<Db>, protection: Arc<dyn ProtectionApi>) -> Self {
        Self { base, protection }
    }

    /// Who makes, verifies and deletes checkpoints.
    #[must_use]
    pub fn protection(&self) -> &Arc<dyn ProtectionApi> {
        &self.protection
    }
}

impl Manager for OperationEngineManager {
    type Db = Db;

    const BINARY: &'static str = "karbor-operationengine";
    const TOPIC: &'static str = "karbor-operationengine";

    fn base(&self) -> &ManagerBase<Db> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        vec![Arc::new(OperationEngineEndpoint::new(self.clone()))]
    }
}

#[async_trait]
impl OperationEngineApi for OperationEngineManager {
    async fn verify_trigger(&self, _: &RequestContext, _: Trigger) -> Result<(), ApiError> {
        Ok(())
    }

    async fn create_trigger(&self, _: &RequestContext, _: Trigger) -> Result<(), ApiError> {
        Ok(())
    }

    async fn update_trigger(&self, _: &RequestContext, _: Trigger) -> Result<(), ApiError> {
        Ok(())
    }

    async fn delete_trigger(&self, _: &RequestContext, _: TriggerId) -> Result<(), ApiError> {
        Ok(())
    }

    async fn create_scheduled_operation(
        &self,
        _: &RequestContext,
        _: ScheduledOperation,
        _: Option<String>,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn delete_scheduled_operation(
        &self,
        _: &RequestContext,
        _: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn suspend_scheduled_operation(
        &self,
        _: &RequestContext,
        _: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    async fn resume_scheduled_operation(
        &self,
        _: &RequestContext,
        _: ScheduledOperationId,
        _: TriggerId,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}
