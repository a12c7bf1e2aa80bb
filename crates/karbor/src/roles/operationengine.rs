//! The role `operationengine`: what runs by itself.

use std::sync::Arc;

use karbor_interfaces::ProtectionApi;
use karbor_manager::RunningService;
use karbor_operationengine::OperationEngineManager;

use super::{Common, Failure};
use crate::owners::owners;

/// Starts it; it asks `protection` for its operations.
pub(crate) async fn start(
    common: &Common,
    protection: Arc<dyn ProtectionApi>,
) -> Result<RunningService<OperationEngineManager>, Failure> {
    let owners = owners(&common.config, common.clock.clone())?;
    let base = common.base(common.db.clone());
    common
        .serve(OperationEngineManager::new(base, protection, owners)?)
        .await
}
