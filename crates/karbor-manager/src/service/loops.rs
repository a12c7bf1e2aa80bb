//! The two loops of a running service.

use std::{future::Future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Shared;
use crate::{Health, Manager, tasks::lock, timeout};

/// The shortest time that the database is given to take a heartbeat or a report.
const SHORTEST_STORE_TIMEOUT: Duration = Duration::from_secs(1);

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

impl<M: Manager> Shared<M> {
    /// Beats at once, then every `report_interval`.
    pub(super) async fn heartbeat_loop(self: Arc<Self>, stop: CancellationToken) {
        let beat = async {
            loop {
                self.report_state().await;
                self.clock().sleep(self.options.report_interval).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = beat => {}
        }
    }

    /// One heartbeat, if the manager works.
    async fn report_state(&self) {
        if !self.note_health(&self.manager.is_working()) {
            return;
        }
        let at = self.clock().now();
        let outcome = self.in_time(self.report(at)).await;
        if outcome.is_ok() {
            lock(&self.beat).last = Some(at);
        }
        self.note_store(&outcome);
    }

    /// A database that does not answer counts as away.
    async fn in_time(
        &self,
        request: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let limit = self.options.report_interval.max(SHORTEST_STORE_TIMEOUT);
        timeout(self.clock(), limit, request)
            .await
            .unwrap_or_else(|late| Err(ApiError::unavailable("The database is away.", late)))
    }

    async fn report(&self, at: DateTime<Utc>) -> Result<(), ApiError> {
        let record = self.record();
        match self.store.report(record.id, at).await {
            Err(gone) if gone.kind == ErrorKind::NotFound => {
                info!(binary = M::BINARY, host = %record.host, "the service's row is gone; registering again");
                let again = self.store.register(&record.host, M::BINARY, M::TOPIC);
                let again = again.await?;
                let id = again.id;
                *lock(&self.record) = again;
                self.store.report(id, at).await
            }
            outcome => outcome,
        }
    }

    /// Logs when the manager stops working and when it works again.
    fn note_health(&self, health: &Health) -> bool {
        let working = health.is_working();
        let was = std::mem::replace(&mut lock(&self.beat).working, working);
        match health {
            Health::NotWorking { reason } if was => error!(
                binary = M::BINARY,
                "the manager reports a problem, no heartbeat is sent and the service will show as \
                 down: {reason}"
            ),
            Health::Working if !was => info!(binary = M::BINARY, "the manager works again"),
            _ => {}
        }
        working
    }

    /// Logs when the database is lost and when it is back.
    fn note_store(&self, outcome: &Result<(), ApiError>) {
        let reachable = outcome.is_ok();
        let was = std::mem::replace(&mut lock(&self.beat).store_reachable, reachable);
        match outcome {
            Err(failure) if was => error!(
                binary = M::BINARY,
                "the database went away; heartbeats go on as soon as it is back: {failure:?}"
            ),
            Ok(()) if !was => warn!(binary = M::BINARY, "the database is back"),
            _ => {}
        }
    }

    /// Runs the periodic tasks that are due, then idles until the next is.
    pub(super) async fn periodic_loop(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.clock().sleep(random_part(self.options.periodic_fuzzy_delay)) => {}
        }
        loop {
            let context = RequestContext::admin();
            let ran = self.periodic.periodic_tasks(&self.manager, &context, false);
            let longest = self.options.periodic_interval;
            let idle = ran.await.map_or(longest, |idle| idle.min(longest));
            self.save_reports().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.clock().sleep(idle) => {}
                () = self.periodic.added() => {}
            }
        }
    }

    /// Keeps new reports; those that cannot be kept now are kept with the next.
    pub(super) async fn save_reports(&self) {
        for report in self.periodic.unsaved() {
            let id = self.record().id;
            let save = self.store.save_task_report(id, &report);
            let outcome = self.in_time(save).await;
            let failed = outcome.is_err();
            self.note_store(&outcome);
            if failed {
                return;
            }
            self.periodic.saved(&report);
        }
    }
}

fn random_part(of: Duration) -> Duration {
    // The low 32 bits of a random UUID are random.
    let part = f64::from(Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX);
    Duration::try_from_secs_f64(of.as_secs_f64() * part).unwrap_or(of)
}
