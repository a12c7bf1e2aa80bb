//! A service wraps a manager.
//!
//! [`Service::start`]: register in the services table → `init_host` → serve RPC →
//! `init_host_with_rpc` → loops. Two loops run: one beats the heart every `report_interval` while
//! the manager `is_working`, the other runs the periodic tasks. A database that goes away stops
//! neither: it is logged once when it is lost and once when it is back, and a row that was removed
//! meanwhile is made again.
//!
//! [`RunningService::shutdown`]: intake closed → calls in flight finished → manager's tasks asked
//! to stop and joined → last heartbeat → `cleanup_host`; all within one deadline, after which what
//! is left is dropped and named. The heart beats until the end, so a service that drains does not
//! show as down. [`run_until_signal`] ties that to SIGTERM and SIGINT: the first drains, a second
//! stops at once.
//!
//! Besides the manager's endpoints every service answers [`ServiceApi`], by which operators ask for
//! its health, version, configuration and the reports of its periodic tasks.

mod api;
mod loops;
mod options;
mod running;
mod signals;

use std::sync::{Arc, Mutex};

pub use api::{ServiceApi, ServiceClient, ServiceEndpoint, ServiceHealth};
use chrono::{DateTime, Utc};
use karbor_model::{ApiError, ServiceRecord};
use loops::Beat;
pub use options::{OPTIONS, ServiceOptions};
pub use running::{RunningService, ShutdownReport};
pub use signals::{Signal, Signals, Stopped, run_until_signal};
use tracing::{info, warn};

use crate::{
    Clock, Manager, PeriodicTasks, RpcEndpoint, RpcTransport, ServiceStore, Target, tasks::lock,
};

/// A service that has not been started.
pub struct Service<M: Manager> {
    manager: Arc<M>,
    options: ServiceOptions,
    store: Arc<dyn ServiceStore>,
    transport: Arc<dyn RpcTransport>,
}

/// What the loops and the endpoint of a running service share.
pub(crate) struct Shared<M: Manager> {
    manager: Arc<M>,
    options: ServiceOptions,
    store: Arc<dyn ServiceStore>,
    periodic: PeriodicTasks<M>,
    record: Mutex<ServiceRecord>,
    beat: Mutex<Beat>,
    started_at: DateTime<Utc>,
}

impl<M: Manager> Shared<M> {
    fn clock(&self) -> &dyn Clock {
        &**self.manager.base().clock()
    }

    fn record(&self) -> ServiceRecord {
        lock(&self.record).clone()
    }
}

impl<M: Manager> Service<M> {
    /// Wraps `manager`. Host and clock are those of the manager's [`base`](Manager::base).
    #[must_use]
    pub fn new(
        manager: Arc<M>,
        options: ServiceOptions,
        store: Arc<dyn ServiceStore>,
        transport: Arc<dyn RpcTransport>,
    ) -> Self {
        Self {
            manager,
            options,
            store,
            transport,
        }
    }

    /// Starts it; see the module for the order.
    ///
    /// # Errors
    /// The first step that fails: the database is away, or the manager's `init_host` or
    /// `init_host_with_rpc` refuses. Then nothing is left running.
    pub async fn start(self) -> Result<RunningService<M>, ApiError> {
        let manager = self.manager.clone();
        let started = self.start_in_order().await;
        if started.is_err() {
            manager.base().tasks().abort();
        }
        started
    }

    async fn start_in_order(self) -> Result<RunningService<M>, ApiError> {
        let (options, warning) = self.options.checked();
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        let manager = self.manager;
        let host = manager.base().host().to_owned();
        info!(binary = M::BINARY, %host, version = manager.service_version(), "starting");
        let record = self.store.register(&host, M::BINARY, M::TOPIC).await?;
        manager.init_host(&record).await?;

        let periodic = manager.periodic_tasks();
        periodic.set_run_external(options.run_external_periodic_tasks);
        match self.store.task_reports(record.id).await {
            Ok(reports) => periodic.restore(&reports),
            Err(error) => warn!("earlier reports of periodic tasks are not known: {error:?}"),
        }
        let shared = Arc::new(Shared {
            started_at: manager.base().clock().now(),
            manager: manager.clone(),
            options,
            store: self.store,
            periodic,
            record: Mutex::new(record),
            beat: Mutex::new(Beat::default()),
        });
        let target = Target::topic(M::TOPIC).with_server(host);
        let server = self.transport.serve(target, endpoints(&shared)).await?;
        // From here on dropping `running` undoes what was started.
        let running = RunningService::new(shared, server);
        manager.init_host_with_rpc().await?;
        running.spawn_loops();
        Ok(running)
    }
}

fn endpoints<M: Manager>(shared: &Arc<Shared<M>>) -> Vec<Arc<dyn RpcEndpoint>> {
    let mut endpoints = shared.manager.endpoints();
    endpoints.extend(shared.manager.additional_endpoints());
    endpoints.push(Arc::new(ServiceEndpoint::new(shared.clone())));
    endpoints
}
