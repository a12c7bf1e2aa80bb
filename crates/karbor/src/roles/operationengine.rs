//! The role `operationengine`: what runs by itself.

use std::sync::Arc;

use karbor_interfaces::ProtectionApi;
use karbor_manager::RunningService;
use karbor_operationengine::{EngineStores, OperationEngineManager};

use super::{Common, Failure};
use crate::owners::owners;

/// Starts it; it asks `protection` for its operations.
pub(crate) async fn start(
    common: &Common,
    protection: Arc<dyn ProtectionApi>,
) -> Result<RunningService<OperationEngineManager>, Failure> {
    let owners = owners(&common.config, common.clock.clone())?;
    let db = &common.db;
    let base = common.base(EngineStores {
        schedules: db.schedules(),
        plans: db.plan_views(),
        runs: db.run_views(),
        services: db.service_views(),
        announcements: db.announcements(),
    });
    common
        .serve(OperationEngineManager::new(base, protection, owners)?)
        .await
}
