//! The two loops of an engine: one looks for what is due, the other keeps leases.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use karbor_db::{DbError, Firing, Planned};
use karbor_model::{ApiError, Trigger};

use crate::{
    due::{Decision, decide},
    engine::{BATCH, Engine, count, lock},
    runner::Runner,
    schedule::Schedule,
};

/// How far back a trigger is followed that no engine was there for when it was made or changed. It
/// bounds what is recorded as missed when a database of the original is taken over.
const LOOK_BACK: TimeDelta = TimeDelta::days(1);

impl Engine {
    /// Looks for what is due whenever something is, when it hears of a change, and from time to
    /// time, until the service stops.
    pub(crate) async fn schedule(self: Arc<Self>) {
        let stop = self.tasks.cancelled().clone();
        loop {
            let wait = match self.round().await {
                Ok(wait) => {
                    *lock(&self.trouble) = None;
                    wait
                }
                Err(error) => {
                    tracing::error!(?error, "what is due cannot be looked for");
                    *lock(&self.trouble) = Some(error.message);
                    self.settings.poll_interval
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Takes on what no engine was told of, plans what is new or was planned by a wrong clock, fires what is
    /// due, begins what is to run. Returns how long nothing will be due, as far as is known.
    async fn round(self: &Arc<Self>) -> Result<Duration, ApiError> {
        let poll = self.settings.poll_interval;
        if self.is_disabled().await? {
            return Ok(poll);
        }
        if let Err(error) = self.take_on_left().await {
            tracing::error!(?error, "what no engine was told of waits");
        }
        self.plan().await?;
        self.watch_clock().await?;
        let looked = self.clock.now();
        self.fire().await?;
        self.begin().await?;
        let Some(next) = self.stores.schedules.next_execution().await? else {
            return Ok(poll);
        };
        // Due before it was looked for, and still there: it cannot be read, or others fire it.
        if next <= looked {
            return Ok(poll);
        }
        let until = (next - self.clock.now()).to_std().unwrap_or_default();
        Ok(until.min(poll))
    }

    /// An operator may take an engine out of service.
    async fn is_disabled(&self) -> Result<bool, ApiError> {
        let Some(id) = *lock(&self.service_id) else {
            return Ok(false);
        };
        match self.stores.services.get(id).await {
            Ok(service) => Ok(service.disabled),
            // Its record is made anew with the next heartbeat.
            Err(DbError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn plan(&self) -> Result<(), ApiError> {
        loop {
            let triggers = self.stores.schedules.triggers_unplanned(BATCH).await?;
            let last = (triggers.len() as u64) < BATCH;
            let now = self.clock.now();
            let planned: Vec<_> = triggers
                .into_iter()
                .map(|trigger| Planned {
                    at: self
                        .stored(&trigger)
                        .and_then(|schedule| schedule.next_after(since(&trigger, now))),
                    trigger,
                })
                .collect();
            if !planned.is_empty() {
                self.stores.schedules.triggers_plan(&planned).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn fire(&self) -> Result<(), ApiError> {
        loop {
            let now = self.clock.now();
            let due = self.stores.schedules.executions_due(now, BATCH).await?;
            if due.is_empty() {
                return Ok(());
            }
            let last = (due.len() as u64) < BATCH;
            let firings: Vec<_> = due
                .into_iter()
                .filter_map(|due| self.firing(due, now))
                .collect();
            let fired = self.stores.schedules.triggers_fire(&firings).await?;
            count(&self.counters.fired, fired.triggers);
            count(&self.counters.missed, fired.missed);
            if fired.missed > 0 {
                tracing::warn!(
                    missed = fired.missed,
                    "scheduled operations missed runs: see the operation log"
                );
            }
            // Where others won them all, they are looked at again in the next round.
            if last || fired.triggers == 0 {
                return Ok(());
            }
        }
    }

    fn firing(&self, due: Planned, now: DateTime<Utc>) -> Option<Firing> {
        let at = due.at?;
        let decision = match self.stored(&due.trigger) {
            Some(schedule) => decide(&schedule, at, now),
            None => Decision {
                run: None,
                missed: Some((
                    at,
                    format!(
                        "The run due at {at} was missed: its trigger {} cannot be understood. \
                         Update the trigger.",
                        due.trigger.id
                    ),
                )),
                next: None,
            },
        };
        Some(Firing {
            due,
            next: decision.next,
            run: decision.run,
            missed: decision.missed,
        })
    }

    /// The schedule of a trigger in the database.
    pub(crate) fn stored(&self, trigger: &Trigger) -> Option<Schedule> {
        Schedule::stored(&trigger.properties, &self.settings.limits)
            .inspect_err(|error| {
                tracing::error!(trigger = %trigger.id, ?error, "a trigger cannot be understood");
            })
            .ok()
    }

    /// Claims runs and begins them, or goes on with them.
    async fn begin(self: &Arc<Self>) -> Result<(), ApiError> {
        loop {
            let lease = self.lease_until();
            let claimed = self
                .stores
                .schedules
                .runs_claim(&self.owner, lease, BATCH)
                .await?;
            let last = (claimed.len() as u64) < BATCH;
            for (run, operation) in claimed {
                // Ours already, with a lease that had lapsed: it is renewed now, and goes on.
                if lock(&self.running).contains_key(&run.id) {
                    continue;
                }
                if run.started_at.is_some() {
                    tracing::info!(run = %run.id, operation = %operation.id, "going on with a run that was begun before");
                    count(&self.counters.adopted, 1);
                } else {
                    count(&self.counters.begun, 1);
                }
                let stop = self.tasks.cancelled().child_token();
                lock(&self.running).insert(run.id, stop.clone());
                let name = format!("scheduled {} {}", operation.operation_type, operation.id);
                let runner = Runner::new(self.clone(), run, operation, stop);
                self.tasks.spawn(name, runner.go());
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Renews the leases of what this engine runs, and stops what it has lost.
    pub(crate) async fn keep_leases(self: Arc<Self>) {
        let stop = self.tasks.cancelled().clone();
        while !self.wait_or_stop(&stop, self.settings.lease / 3).await {
            // Those that are claimed from here on have a fresh lease.
            let held: Vec<_> = lock(&self.running).keys().copied().collect();
            if held.is_empty() {
                continue;
            }
            let ours = match self
                .stores
                .schedules
                .runs_renew(&self.owner, self.lease_until())
                .await
            {
                Ok(ours) => ours,
                Err(error) => {
                    tracing::error!(%error, "the leases of scheduled runs cannot be renewed yet");
                    continue;
                }
            };
            for id in held.iter().filter(|id| !ours.contains(id)) {
                if let Some(lost) = lock(&self.running).get(id) {
                    tracing::warn!(run = %id, "a scheduled run is not this engine's any more");
                    lost.cancel();
                }
            }
        }
    }
}

/// From when on a trigger's times count: since it is as it is.
fn since(trigger: &Trigger, now: DateTime<Utc>) -> DateTime<Utc> {
    let version = trigger.updated_at.or(trigger.created_at);
    version.unwrap_or(now).clamp(now - LOOK_BACK, now)
}
