//! A service wraps a manager.
//!
//! [`Service::start`]: register in the services table → `init_host` → serve RPC →
//! `init_host_with_rpc` → loops. Two loops run: one beats the heart every `report_interval` while
//! the manager `is_working`, the other runs the periodic tasks. A database that goes away stops
//! neither: it is logged once when it is lost and once when it is back, and a row that was removed
//! meanwhile is made again, of which the manager hears (`registered_again`). Nor does a panic, in the
//! manager, in a task or in the database's driver: each loop is supervised, and one that does not run
//! shows in the service's health.
//!
//! [`RunningService::shutdown`]: intake closed → calls in flight finished → manager's tasks asked
//! to stop and joined → last heartbeat → `cleanup_host`; all within one deadline, after which what
//! is left is dropped and named. The heart beats until the end, so a service that drains does not
//! show as down. [`run_until_signal`] ties that to SIGTERM and SIGINT: the first drains, a second
//! stops at once; SIGHUP reloads. A signal during the start ends that ([`start_unless_signal`]), and a
//! start that hangs ends by itself after `service_start_timeout`.
//!
//! Besides the manager's endpoints every service answers [`ServiceApi`], by which operators ask for
//! its health, version, configuration and the reports of its periodic tasks.

mod api;
mod loops;
mod options;
mod running;
mod shared;
mod signals;

use std::sync::{Arc, Mutex};

pub use api::{ServiceApi, ServiceClient, ServiceEndpoint, ServiceHealth};
use karbor_model::ApiError;
pub use options::{OPTIONS, ServiceOptions};
pub use running::{RunningService, ShutdownReport};
use shared::{Beat, Shared};
pub use signals::{
    Signal, Signals, Started, Stopped, drain_unless_signal, run_until_signal, start_unless_signal,
};
use tracing::{info, warn};

use crate::{
    Manager, RpcEndpoint, RpcTransport, ServiceStore, Target, TaskSet, tasks::lock, timeout,
};

/// A service that has not been started.
pub struct Service<M: Manager> {
    manager: Arc<M>,
    options: ServiceOptions,
    store: Arc<dyn ServiceStore>,
    transport: Arc<dyn RpcTransport>,
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
    /// The first step that fails: the database is away, the manager and its endpoint disagree about
    /// their version, `init_host` or `init_host_with_rpc` refuses, or it takes too long. Then nothing
    /// is left running.
    pub async fn start(self) -> Result<RunningService<M>, ApiError> {
        // Also when the start is given up by dropping it.
        let mut unless_started = AbortOnDrop(Some(self.manager.clone()));
        let limit = self.options.start_timeout;
        let step = Mutex::new("checking its options");
        let clock = self.manager.base().clock().clone();
        let start = self.start_in_order(&step);
        let running = match limit.is_zero() {
            true => start.await?,
            false => timeout(&*clock, limit, start).await.map_err(|late| {
                let step = *lock(&step);
                ApiError::unavailable(
                    format!(
                        "{} did not start within {} s (service_start_timeout): it was {step}.",
                        M::BINARY,
                        limit.as_secs_f64()
                    ),
                    late,
                )
            })??,
        };
        unless_started.0 = None;
        Ok(running)
    }

    async fn start_in_order(
        self,
        step: &Mutex<&'static str>,
    ) -> Result<RunningService<M>, ApiError> {
        let begin = |what| *lock(step) = what;
        let (options, warning) = self.options.checked();
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        let manager = self.manager;
        check_targets(&manager)?;
        let host = manager.base().host().to_owned();
        info!(binary = M::BINARY, %host, version = manager.service_version(), "starting");
        begin("registering in the database");
        let record = self.store.register(&host, M::BINARY, M::TOPIC).await?;
        begin("taking up what was left from before (init_host)");
        manager.init_host(&record).await?;
        begin("reading the reports of its periodic tasks");

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
            heart: TaskSet::new(),
            periodic_loop: TaskSet::new(),
        });
        begin("beginning to answer RPC");
        let target = Target::topic(M::TOPIC).with_server(host);
        let server = self.transport.serve(target, endpoints(&shared)).await?;
        // From here on dropping `running` undoes what was started.
        let running = RunningService::new(shared, server);
        begin("taking up what needs RPC (init_host_with_rpc)");
        manager.init_host_with_rpc().await?;
        running.spawn_loops();
        Ok(running)
    }
}

/// Ends the tasks that a manager has begun in a start that came to nothing.
struct AbortOnDrop<M: Manager>(Option<Arc<M>>);

impl<M: Manager> Drop for AbortOnDrop<M> {
    fn drop(&mut self) {
        if let Some(manager) = &self.0 {
            manager.base().tasks().abort();
        }
    }
}

/// A manager and the endpoints of its interface say the same version: what others are told to ask for
/// is what is answered.
fn check_targets<M: Manager>(manager: &Arc<M>) -> Result<(), ApiError> {
    let told = manager.target();
    for endpoint in manager.endpoints() {
        let answered = endpoint.target();
        if answered.namespace == told.namespace && answered.version != told.version {
            return Err(ApiError::internal(format!(
                "the manager of {} says it is {told}, its endpoint answers as {answered}",
                M::BINARY
            )));
        }
    }
    Ok(())
}

fn endpoints<M: Manager>(shared: &Arc<Shared<M>>) -> Vec<Arc<dyn RpcEndpoint>> {
    let mut endpoints = shared.manager.endpoints();
    endpoints.extend(shared.manager.additional_endpoints());
    endpoints.push(Arc::new(ServiceEndpoint::new(shared.clone())));
    endpoints
}
