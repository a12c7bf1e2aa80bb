//! What the parts of a running service share.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use karbor_model::ServiceRecord;

use super::options::ServiceOptions;
use crate::{Clock, Manager, PeriodicTasks, ServiceStore, TaskSet, tasks::lock};

/// What the loops and the endpoint of a running service share.
pub(crate) struct Shared<M: Manager> {
    pub(super) manager: Arc<M>,
    pub(super) options: ServiceOptions,
    pub(super) store: Arc<dyn ServiceStore>,
    pub(super) periodic: PeriodicTasks<M>,
    pub(super) record: Mutex<ServiceRecord>,
    pub(super) beat: Mutex<Beat>,
    pub(super) heart: TaskSet,
    pub(super) periodic_loop: TaskSet,
    pub(super) started_at: DateTime<Utc>,
}

impl<M: Manager> Shared<M> {
    pub(super) fn clock(&self) -> &dyn Clock {
        &**self.manager.base().clock()
    }

    pub(super) fn record(&self) -> ServiceRecord {
        lock(&self.record).clone()
    }
}

/// How the heart beats.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    pub(super) store_reachable: bool,
    pub(super) working: bool,
    pub(super) last: Option<DateTime<Utc>>,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            store_reachable: true,
            working: true,
            last: None,
        }
    }
}
