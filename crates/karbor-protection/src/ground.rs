//! What the manager, its worker and the operations stand on.

use std::sync::Arc;

use karbor_db::RunStore;
use karbor_manager::Clock;
use karbor_plugin::Registry;

use crate::providers::Providers;

/// What every operation of this service works with.
pub(crate) struct Ground {
    pub(crate) runs: RunStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) providers: Arc<Providers>,
    /// In whose name checkpoints are claimed.
    pub(crate) owner: String,
    /// How much less a resource may hold than before.
    pub(crate) suspicious_share: f64,
}
