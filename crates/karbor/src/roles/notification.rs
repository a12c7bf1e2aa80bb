//! The role `notification`: what happened is told.

use std::sync::Arc;

use karbor_manager::{NotificationOutbox, RunningService};
use karbor_notification::NotificationManager;

use super::{Common, Failure};

/// Starts it.
pub(crate) async fn start(common: &Common) -> Result<RunningService<NotificationManager>, Failure> {
    let outbox: Arc<dyn NotificationOutbox> = Arc::new(common.db.outbox());
    common
        .serve(NotificationManager::new(common.base(outbox))?)
        .await
}
