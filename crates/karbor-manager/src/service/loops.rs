//! The two loops of a running service.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::shared::Shared;
use crate::{
    Health, Manager,
    periodic::random_part,
    tasks::{caught, lock, panic_text},
    timeout,
};

/// The shortest time that the database is given to take a heartbeat or a report.
const SHORTEST_STORE_TIMEOUT: Duration = Duration::from_secs(1);

impl<M: Manager> Shared<M> {
    /// Beats at once, then every `report_interval`, however long the database takes to note a beat.
    pub(super) async fn heartbeat_loop(self: Arc<Self>, stop: CancellationToken) {
        let beat = async {
            let first = self.clock().monotonic();
            loop {
                self.report_state().await;
                let since = self.clock().monotonic().saturating_sub(first);
                let next = until_next(since, self.options.report_interval);
                self.clock().sleep(next).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = beat => {}
        }
    }

    /// One heartbeat, if the manager works.
    async fn report_state(&self) {
        if !self.note_health(&self.health()) {
            return;
        }
        let at = self.clock().now();
        let outcome = self.in_time(self.report(at)).await;
        if outcome.is_ok() {
            lock(&self.beat).last = Some(at);
        }
        self.note_store(&outcome);
    }

    /// What the manager says, and what it cannot say: that a loop which it or its service needs does
    /// not run.
    pub(super) fn health(&self) -> Health {
        let said = catch_unwind(AssertUnwindSafe(|| self.manager.is_working()));
        let health = said.unwrap_or_else(|panic| {
            error!(
                binary = M::BINARY,
                "is_working panicked: {}",
                panic_text(&*panic)
            );
            Health::NotWorking {
                reason: "whether it works cannot be told: the check itself panicked; the log says \
                         why"
                .to_owned(),
            }
        });
        let loops = [
            self.manager.base().tasks(),
            &self.periodic_loop,
            &self.heart,
        ];
        let mut down = loops.into_iter().flat_map(|tasks| tasks.down());
        match (health, down.next()) {
            (Health::Working, Some(name)) => Health::NotWorking {
                reason: format!("'{name}' panicked and will be begun again soon; the log says why"),
            },
            (health, _) => health,
        }
    }

    /// A database that does not answer, or whose driver panics, counts as away.
    async fn in_time(
        &self,
        request: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let limit = self.options.report_interval.max(SHORTEST_STORE_TIMEOUT);
        match timeout(self.clock(), limit, caught(request)).await {
            Ok(outcome) => outcome.flatten(),
            Err(late) => Err(ApiError::unavailable("The database is away.", late)),
        }
    }

    async fn report(&self, at: DateTime<Utc>) -> Result<(), ApiError> {
        let record = self.record();
        match self.store.report(record.id, at).await {
            Err(gone) if gone.kind == ErrorKind::NotFound => {
                info!(binary = M::BINARY, host = %record.host, "the service's row is gone; registering again");
                let again = self.store.register(&record.host, M::BINARY, M::TOPIC);
                let again = again.await?;
                let id = again.id;
                *lock(&self.record) = again.clone();
                self.manager.registered_again(&again);
                self.periodic.keep_again();
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
            () = self.clock().sleep(self.options.periodic_fuzzy_delay.mul_f64(random_part())) => {}
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
            // In a block, for a driver may panic before there is a future.
            let save = async { self.store.save_task_report(id, &report).await };
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

/// Until the next multiple of `interval`, `since` the first.
fn until_next(since: Duration, interval: Duration) -> Duration {
    let into = since.as_nanos() % interval.as_nanos().max(1);
    interval.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
}
