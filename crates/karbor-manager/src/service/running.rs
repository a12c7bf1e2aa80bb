//! A service that runs, and how it ends.

use std::{sync::Arc, time::Duration};

use karbor_model::ServiceRecord;
use tracing::{info, warn};

use super::{api::ServiceApi, shared::Shared};
use crate::{Manager, PeriodicTasks, RpcServer, ServiceOptions, timeout};

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Calls and tasks that had not ended by the deadline and were dropped.
    pub dropped: Vec<String>,
    /// `cleanup_host` ended before the deadline.
    pub cleaned_up: bool,
}

impl ShutdownReport {
    /// Did everything end by itself?
    #[must_use]
    pub fn is_graceful(&self) -> bool {
        self.dropped.is_empty() && self.cleaned_up
    }
}

/// A service that runs. Dropping it stops it at once: no drain, no `cleanup_host`.
pub struct RunningService<M: Manager> {
    shared: Arc<Shared<M>>,
    server: Box<dyn RpcServer>,
}

impl<M: Manager> RunningService<M> {
    pub(super) fn new(shared: Arc<Shared<M>>, server: Box<dyn RpcServer>) -> Self {
        Self { shared, server }
    }

    pub(super) fn spawn_loops(&self) {
        let options = &self.shared.options;
        let clock = self.shared.manager.base().clock();
        if !options.report_interval.is_zero() {
            let (tasks, shared) = (&self.shared.heart, self.shared.clone());
            let stop = tasks.cancelled().clone();
            let beats = move || shared.clone().heartbeat_loop(stop.clone());
            tasks.supervise("heartbeat", clock.clone(), beats);
        }
        if !options.periodic_interval.is_zero() {
            let (tasks, shared) = (&self.shared.periodic_loop, self.shared.clone());
            let stop = tasks.cancelled().clone();
            let runs = move || shared.clone().periodic_loop(stop.clone());
            tasks.supervise("periodic tasks", clock.clone(), runs);
        }
    }

    /// The manager.
    #[must_use]
    pub fn manager(&self) -> &Arc<M> {
        &self.shared.manager
    }

    /// The service's record, as it last registered.
    #[must_use]
    pub fn record(&self) -> ServiceRecord {
        self.shared.record()
    }

    /// The options in use, after [`ServiceOptions::checked`].
    #[must_use]
    pub fn options(&self) -> &ServiceOptions {
        &self.shared.options
    }

    /// The periodic tasks; more may be added.
    #[must_use]
    pub fn periodic_tasks(&self) -> &PeriodicTasks<M> {
        &self.shared.periodic
    }

    /// What the service answers about itself, without RPC.
    #[must_use]
    pub fn api(&self) -> Arc<dyn ServiceApi> {
        self.shared.clone()
    }

    /// Ends the service within `deadline`; see the module for the order. Calls in flight have eight
    /// tenths of the time, tasks what is then left up to nine, so that `cleanup_host` has its turn.
    pub async fn shutdown(self, deadline: Duration) -> ShutdownReport {
        let shared = &self.shared;
        let clock = shared.clock();
        let started = clock.monotonic();
        let left =
            |until: Duration| until.saturating_sub(clock.monotonic().saturating_sub(started));
        let (calls, work) = (deadline / 10 * 8, deadline / 10 * 9);
        info!(binary = M::BINARY, "stopping");
        self.server.stop().await;
        shared.manager.base().closing().cancel();
        self.shared.periodic_loop.cancel();
        let mut dropped = self.server.wait(left(calls)).await;
        let tasks = shared.manager.base().tasks();
        tasks.cancel();
        dropped.extend(tasks.join(clock, left(work)).await);
        dropped.extend(self.shared.periodic_loop.join(clock, left(work)).await);
        if timeout(clock, left(work), shared.save_reports())
            .await
            .is_err()
        {
            warn!("the last reports of periodic tasks were not kept: the database did not answer");
        }
        self.shared.heart.cancel();
        dropped.extend(self.shared.heart.join(clock, left(deadline)).await);
        let cleanup = timeout(clock, left(deadline), shared.manager.cleanup_host()).await;
        let report = ShutdownReport {
            dropped,
            cleaned_up: cleanup.is_ok(),
        };
        if report.is_graceful() {
            info!(binary = M::BINARY, "stopped");
        } else {
            warn!(
                binary = M::BINARY,
                ?report,
                "stopped before everything had ended"
            );
        }
        report
    }
}

impl<M: Manager> Drop for RunningService<M> {
    fn drop(&mut self) {
        self.shared.heart.abort();
        self.shared.periodic_loop.abort();
        self.shared.manager.base().tasks().abort();
    }
}
