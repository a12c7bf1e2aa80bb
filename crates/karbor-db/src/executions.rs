//! When triggers fire next, and their firing.
//!
//! The engine that moves a due time on fires it: one transaction sets the trigger's next due time, if
//! it still is the one that was read and the trigger still is the version that the next one was
//! worked out from, and enters a run for each of its operations. So of any number of engines one
//! fires it, and one that dies either has or has not.
//!
//! A clock that ran ahead leaves times behind that are still to come once it is right: next due times,
//! runs, times at which an operation was enabled. None of them holds anything up ([`ScheduleStore::triggers_replan`],
//! `Candidate`).

use chrono::{DateTime, Utc};
use karbor_model::{
    OperationId, OperationLog, OperationLogId, OperationLogStatus, ScheduledOperation, Trigger,
    TriggerId,
};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Condition, Expr, ExprTrait, Func, Order, Query, SelectStatement},
};

use crate::{
    Db, DbError, Record, ScheduleStore, Write,
    insert::{CHUNK, insert_rows},
    operation_logs::LOG,
    row::{Row, readable},
    scheduled_operations::OPERATION,
    scheduled_runs::{RunState, is_unended},
    transition::not_deleted,
    triggers::{TRIGGER, forget_execution},
};

/// A trigger, and when it fires next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The trigger as it was when `at` was worked out.
    pub trigger: Trigger,
    /// Its next due time; `None` when it fires no more.
    pub at: Option<DateTime<Utc>>,
}

/// What to do about a due time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The trigger with the due time that was read, and is moved on.
    pub due: Planned,
    /// The due time to be.
    pub next: Option<DateTime<Utc>>,
    /// The due time to run the operations for, and until when they may begin to run. It is not
    /// `due` when due times were missed and the latest of them is made up.
    pub run: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The last due time that was missed, and which were and why, for the operation log.
    pub missed: Option<(DateTime<Utc>, String)>,
}

/// A next due time that is to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replanned {
    /// The trigger with the due time that was read; none when it was found to fire no more.
    pub was: Planned,
    /// Its next due time; `None` when it fires no more.
    pub at: Option<DateTime<Utc>>,
}

/// What came of [`ScheduleStore::triggers_fire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fired {
    /// Due times that this call fired; the others were fired by somebody else.
    pub triggers: u64,
    /// Runs that were entered.
    pub runs: u64,
    /// Records of missed runs that were made.
    pub missed: u64,
}

/// An operation that a firing is about.
struct Candidate {
    operation: ScheduledOperation,
    registered: bool,
    /// The due time of its run that has not ended.
    running: Option<DateTime<Utc>>,
    /// The due time of its last run, of those that are not still to come.
    last: Option<DateTime<Utc>>,
    /// Since when it has been enabled; `None`: since always, as far as the clock can tell.
    since: Option<DateTime<Utc>>,
}

impl Candidate {
    /// Is a due time the operation's, and not yet fired for it? A trigger that was changed just after
    /// it fired may come to the same due time again.
    fn takes(&self, due: DateTime<Utc>) -> bool {
        self.was_enabled(due) && self.last.is_none_or(|last| last < due)
    }

    fn was_enabled(&self, due: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| since <= due)
    }
}

impl ScheduleStore {
    /// Triggers of which nobody has worked out yet when they fire next, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn triggers_unplanned(&self, limit: u64) -> Result<Vec<Trigger>, DbError> {
        let planned = Query::select()
            .column("id")
            .from("trigger_executions")
            .and_where(Expr::col(("trigger_executions", "trigger_id")).equals(("triggers", "id")))
            .take();
        let select = Query::select()
            .columns(TRIGGER.iter().copied())
            .from(Trigger::TABLE)
            .and_where(not_deleted("deleted"))
            .and_where(Expr::col("exhausted_at").is_null())
            .and_where(Expr::exists(planned).not())
            .order_by("created_at", Order::Asc)
            .limit(limit)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        Ok(readable(&rows, |row| self.db.trigger_from(row)))
    }

    /// Stores when triggers fire next. One that was changed, deleted or planned by somebody else
    /// meanwhile is passed over.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn triggers_plan(&self, planned: &[Planned]) -> Result<(), DbError> {
        let write = self.db.write().await?;
        for plan in planned {
            let stored = match self.db.trigger_for_update(&write, plan.trigger.id).await {
                Ok(stored) => stored,
                Err(DbError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            let known = execution_of(plan.trigger.id);
            if stored.updated_at != plan.trigger.updated_at
                || write.query_one(&known).await?.is_some()
            {
                continue;
            }
            self.db.plan_in(&write, plan.trigger.id, plan.at).await?;
        }
        write.commit().await
    }

    /// Triggers whose next due time is still to come at `now`, and those that were found to fire no more
    /// at a time that is still to come; in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn triggers_ahead(
        &self,
        now: DateTime<Utc>,
        after: Option<TriggerId>,
        limit: u64,
    ) -> Result<Vec<Planned>, DbError> {
        let due = ("trigger_executions", "execution_time");
        let exhausted = (Trigger::TABLE, "exhausted_at");
        let is_to_come = |column| Expr::col(column).gt(Expr::val(self.db.time(now)));
        let mut select = Query::select()
            .columns(TRIGGER.iter().map(|column| (Trigger::TABLE, *column)))
            .column(due)
            .from(Trigger::TABLE)
            .left_join(
                "trigger_executions",
                Expr::col(("trigger_executions", "trigger_id")).equals((Trigger::TABLE, "id")),
            )
            .and_where(not_deleted((Trigger::TABLE, "deleted")))
            .cond_where(
                Condition::any()
                    .add(is_to_come(due))
                    .add(Expr::col(due).is_null().and(is_to_come(exhausted))),
            )
            .order_by((Trigger::TABLE, "id"), Order::Asc)
            .limit(limit)
            .take();
        if let Some(after) = after {
            select.and_where(Expr::col((Trigger::TABLE, "id")).gt(after.to_string()));
        }
        let rows = self.db.read().query_all(&select).await?;
        Ok(readable(&rows, |row| {
            let trigger = self.db.trigger_from(row)?;
            let of_trigger = Row::new(row, self.db.backend(), "trigger_executions", DUE);
            let at = of_trigger.time_opt(TRIGGER.len())?;
            Ok(Planned { trigger, at })
        }))
    }

    /// Stores other next due times in place of those that were read. A trigger that was changed, deleted or
    /// fired meanwhile is passed over. Returns how many were stored.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: none was stored.
    pub async fn triggers_replan(&self, replanned: &[Replanned]) -> Result<u64, DbError> {
        let write = self.db.write().await?;
        let mut stored = 0;
        for Replanned { was, at } in replanned {
            let id = was.trigger.id;
            if was.at.is_some() {
                let moved = Firing {
                    due: was.clone(),
                    next: *at,
                    run: None,
                    missed: None,
                };
                if !self.db.move_on(&write, &moved).await? {
                    continue;
                }
                self.db.forget_runs_to_come(&write, id).await?;
            } else {
                let there = match self.db.trigger_for_update(&write, id).await {
                    Ok(there) => there,
                    Err(DbError::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                };
                if there.updated_at != was.trigger.updated_at
                    || write.query_one(&execution_of(id)).await?.is_some()
                {
                    continue;
                }
                self.db.exhaust(&write, id, None).await?;
                self.db.plan_in(&write, id, *at).await?;
            }
            stored += 1;
        }
        write.commit().await?;
        Ok(stored)
    }

    /// The next due time of any trigger.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn next_execution(&self) -> Result<Option<DateTime<Utc>>, DbError> {
        const AT: &[&str] = &["execution_time"];
        let select = executions()
            .column(("trigger_executions", "execution_time"))
            .order_by(("trigger_executions", "execution_time"), Order::Asc)
            .limit(1)
            .take();
        let row = self.db.read().query_one(&select).await?;
        row.map(|row| Row::new(&row, self.db.backend(), "trigger_executions", AT).time(0))
            .transpose()
    }

    /// Triggers that are due, longest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn executions_due(
        &self,
        now: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<Planned>, DbError> {
        let select = executions()
            .columns(TRIGGER.iter().map(|column| (Trigger::TABLE, *column)))
            .column(("trigger_executions", "execution_time"))
            .and_where(
                Expr::col(("trigger_executions", "execution_time"))
                    .lte(Expr::val(self.db.time(now))),
            )
            .order_by(("trigger_executions", "execution_time"), Order::Asc)
            .limit(limit)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        Ok(readable(&rows, |row| {
            let trigger = self.db.trigger_from(row)?;
            let at =
                Row::new(row, self.db.backend(), "trigger_executions", DUE).time(TRIGGER.len())?;
            Ok(Planned {
                trigger,
                at: Some(at),
            })
        }))
    }

    /// Fires due times, all in one transaction; those that somebody else has fired, and those of
    /// triggers that were changed meanwhile, are passed over.
    ///
    /// Enabled operations get a run; or, where the run before has not ended or no engine ever took
    /// the operation on, a record in the operation log that they missed this one.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: nothing was fired.
    pub async fn triggers_fire(&self, firings: &[Firing]) -> Result<Fired, DbError> {
        let write = self.db.write().await?;
        let now = self.db.now();
        let mut fired = Fired::default();
        let (mut runs, mut logs) = (Vec::new(), Vec::new());
        for firings in firings.chunks(CHUNK) {
            let mut won = Vec::with_capacity(firings.len());
            for firing in firings {
                if self.db.move_on(&write, firing).await? {
                    won.push(firing);
                }
            }
            fired.triggers += won.len() as u64;
            let ids = won.iter().map(|firing| firing.due.trigger.id);
            for candidate in self.db.candidates(&write, ids).await? {
                let of = candidate.operation.trigger_id;
                let Some(firing) = won.iter().find(|firing| firing.due.trigger.id == of) else {
                    continue;
                };
                self.db
                    .fire_one(firing, &candidate, now, &mut runs, &mut logs);
            }
        }
        fired.runs = runs.len() as u64;
        fired.missed = logs.len() as u64;
        insert_rows(&write, "scheduled_runs", RUN, runs).await?;
        self.db.record_missed(&write, &logs).await?;
        write.commit().await?;
        Ok(fired)
    }
}

impl Db {
    async fn plan_in(
        &self,
        write: &Write<'_>,
        id: TriggerId,
        at: Option<DateTime<Utc>>,
    ) -> Result<(), DbError> {
        match at {
            Some(at) => self.insert_execution(write, id, at).await?,
            None => self.exhaust(write, id, Some(self.now())).await?,
        }
        self.forget_runs_to_come(write, id).await
    }

    /// Forgets ended runs whose due times are still to come: a clock that ran ahead made them, and they
    /// would be taken for the runs of those times.
    async fn forget_runs_to_come(&self, write: &Write<'_>, id: TriggerId) -> Result<(), DbError> {
        let operations = Query::select()
            .column("id")
            .from(ScheduledOperation::TABLE)
            .and_where(Expr::col("trigger_id").eq(id.to_string()))
            .take();
        let delete = Query::delete()
            .from_table(Alias::new("scheduled_runs"))
            .and_where(Expr::col("status").eq(RunState::Ended.as_str()))
            .and_where(Expr::col("due_at").gt(Expr::val(self.time(self.now()))))
            .and_where(Expr::col("operation_id").in_subquery(operations))
            .take();
        write.execute(&delete).await?;
        Ok(())
    }

    async fn record_missed(&self, write: &Write<'_>, logs: &[OperationLog]) -> Result<(), DbError> {
        let rows = logs.iter().map(|log| self.log_values(log).map(Vec::from));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        insert_rows(write, OperationLog::TABLE, LOG, rows).await?;
        for log in logs {
            self.announce_operation(write, log).await?;
        }
        Ok(())
    }

    /// Forgets when a trigger that changes fires next. A due time that has come and that nobody has
    /// fired is recorded as missed.
    pub(crate) async fn overtake_execution(
        &self,
        write: &Write<'_>,
        id: TriggerId,
    ) -> Result<(), DbError> {
        let now = self.now();
        let select = execution_of(id).column("execution_time").take();
        if let Some(row) = write.query_one(&select).await? {
            let row = Row::new(
                &row,
                self.backend(),
                "trigger_executions",
                &["id", "execution_time"],
            );
            let due = row.time(1)?;
            if due <= now {
                let reason = format!(
                    "The run due at {due} was left out: its trigger was changed before it was fired."
                );
                let candidates = self.candidates(write, std::iter::once(id)).await?;
                let logs: Vec<_> = candidates
                    .iter()
                    .filter(|candidate| candidate.takes(due))
                    .map(|candidate| missed(&candidate.operation, now, reason.clone()))
                    .collect();
                self.record_missed(write, &logs).await?;
            }
        }
        write.execute(&forget_execution(id)).await?;
        Ok(())
    }

    /// A run, a record, or both.
    fn fire_one(
        &self,
        firing: &Firing,
        candidate: &Candidate,
        now: DateTime<Utc>,
        runs: &mut Vec<Vec<Expr>>,
        logs: &mut Vec<OperationLog>,
    ) {
        let operation = &candidate.operation;
        let missed = |reason| missed(operation, now, reason);
        if let Some((_, reason)) = firing
            .missed
            .as_ref()
            .filter(|(last, _)| candidate.was_enabled(*last))
        {
            logs.push(missed(reason.clone()));
        }
        let Some((due, run_before)) = firing.run.filter(|(due, _)| candidate.takes(*due)) else {
            return;
        };
        let skipped = match candidate.running {
            _ if !candidate.registered => Some(format!(
                "The run due at {due} was left out: the operation's creation was never finished. \
                 Delete it and create it again."
            )),
            Some(before) => Some(format!(
                "The run due at {due} was left out: the one due at {before} is still going."
            )),
            None => None,
        };
        if let Some(reason) = skipped {
            logs.push(missed(reason));
            return;
        }
        runs.push(vec![
            OperationId::new().to_string().into(),
            operation.id.to_string().into(),
            self.time(due).into(),
            self.time(run_before).into(),
            self.time(now).into(),
            RunState::Due.as_str().into(),
        ]);
    }

    /// Sets the next due time, if the trigger and its due time are as they were read.
    async fn move_on(&self, write: &Write<'_>, firing: &Firing) -> Result<bool, DbError> {
        let Planned {
            trigger,
            at: Some(due),
        } = &firing.due
        else {
            return Ok(false);
        };
        let version = match trigger.updated_at {
            Some(at) => Expr::col("updated_at").eq(Expr::val(self.time(at))),
            None => Expr::col("updated_at").is_null(),
        };
        let unchanged = Query::select()
            .column("id")
            .from(Trigger::TABLE)
            .and_where(Expr::col("id").eq(trigger.id.to_string()))
            .and_where(not_deleted("deleted"))
            .and_where(version)
            .take();
        let as_read = Condition::all()
            .add(Expr::col("trigger_id").eq(trigger.id.to_string()))
            .add(Expr::col("execution_time").eq(Expr::val(self.time(*due))))
            .add(Expr::exists(unchanged));
        let Some(next) = firing.next else {
            let delete = Query::delete()
                .from_table(Alias::new("trigger_executions"))
                .cond_where(as_read)
                .take();
            let won = write.execute(&delete).await?.rows_affected() == 1;
            if won {
                self.exhaust(write, trigger.id, Some(self.now())).await?;
            }
            return Ok(won);
        };
        let update = Query::update()
            .table(Alias::new("trigger_executions"))
            .value("execution_time", self.time(next))
            .value("updated_at", self.time(self.now()))
            .cond_where(as_read)
            .take();
        Ok(write.execute(&update).await?.rows_affected() == 1)
    }

    /// The enabled operations of triggers, with what decides whether they run.
    async fn candidates(
        &self,
        write: &Write<'_>,
        triggers: impl Iterator<Item = TriggerId>,
    ) -> Result<Vec<Candidate>, DbError> {
        let triggers = triggers.map(|id| id.to_string());
        let operations = ScheduledOperation::TABLE;
        let of_operation =
            |table: &'static str| Expr::col((table, "operation_id")).equals((operations, "id"));
        let registered = Query::select()
            .expr(Func::count(Expr::col(("scheduled_operation_states", "id"))))
            .from("scheduled_operation_states")
            .and_where(of_operation("scheduled_operation_states"))
            .and_where(Expr::col(("scheduled_operation_states", "state")).ne("deleted"))
            .take();
        let now = self.now();
        let due_at = ("scheduled_runs", "due_at");
        let runs = Query::select()
            .expr(Func::max(Expr::col(due_at)))
            .from("scheduled_runs")
            .and_where(of_operation("scheduled_runs"))
            .take();
        let running = runs.clone().cond_where(is_unended()).take();
        let last = runs
            .clone()
            .and_where(Expr::col(due_at).lte(Expr::val(self.time(now))))
            .take();
        let select = Query::select()
            .columns(OPERATION.iter().map(|column| (operations, *column)))
            .expr(registered)
            .expr(running)
            .expr(last)
            .expr(Expr::col((operations, "enabled_at")))
            .from(operations)
            .and_where(Expr::col((operations, "trigger_id")).is_in(triggers))
            .and_where(Expr::col((operations, "enabled")).eq(Expr::Constant(true.into())))
            .and_where(not_deleted((operations, "deleted")))
            .order_by((operations, "created_at"), Order::Asc)
            .take();
        let rows = write.query_all(&select).await?;
        Ok(readable(&rows, |row| self.candidate_from(row, now)))
    }

    fn candidate_from(&self, row: &QueryResult, now: DateTime<Utc>) -> Result<Candidate, DbError> {
        let rest = Row::new(row, self.backend(), ScheduledOperation::TABLE, CANDIDATE);
        let operation = self.operation_from(row)?;
        let enabled_at = rest.time_opt(OPERATION.len() + 3)?;
        Ok(Candidate {
            since: Some(enabled_at.unwrap_or(operation.created_at)).filter(|since| *since <= now),
            operation,
            registered: rest.get::<i64>(OPERATION.len())? > 0,
            running: rest.time_opt(OPERATION.len() + 1)?,
            last: rest.time_opt(OPERATION.len() + 2)?,
        })
    }

    async fn insert_execution(
        &self,
        write: &Write<'_>,
        id: TriggerId,
        at: DateTime<Utc>,
    ) -> Result<(), DbError> {
        const EXECUTION: &[&str] = &["id", "trigger_id", "execution_time", "created_at"];
        let row = vec![
            OperationId::new().to_string().into(),
            id.to_string().into(),
            self.time(at).into(),
            self.time(self.now()).into(),
        ];
        insert_rows(write, "trigger_executions", EXECUTION, vec![row]).await
    }

    /// Notes since when a trigger fires no more, or that it does.
    async fn exhaust(
        &self,
        write: &Write<'_>,
        id: TriggerId,
        since: Option<DateTime<Utc>>,
    ) -> Result<(), DbError> {
        let update = Query::update()
            .table(Alias::new(Trigger::TABLE))
            .value("exhausted_at", self.time_opt(since))
            .and_where(Expr::col("id").eq(id.to_string()))
            .take();
        write.execute(&update).await?;
        Ok(())
    }
}

fn missed(operation: &ScheduledOperation, now: DateTime<Utc>, reason: String) -> OperationLog {
    let id = OperationLogId::new();
    operation.log_record(id, OperationLogStatus::Missed, now, reason)
}

/// The due times of triggers that are not deleted.
fn executions() -> SelectStatement {
    Query::select()
        .from("trigger_executions")
        .inner_join(
            Trigger::TABLE,
            Expr::col(("trigger_executions", "trigger_id")).equals((Trigger::TABLE, "id")),
        )
        .and_where(not_deleted((Trigger::TABLE, "deleted")))
        .take()
}

/// The due time of one trigger, if it is known.
fn execution_of(id: TriggerId) -> SelectStatement {
    Query::select()
        .column("id")
        .from("trigger_executions")
        .and_where(Expr::col("trigger_id").eq(id.to_string()))
        .take()
}

/// What a firing enters of a run.
const RUN: &[&str] = &[
    "id",
    "operation_id",
    "due_at",
    "run_before",
    "triggered_at",
    "status",
];

/// [`TRIGGER`] and its due time.
const DUE: &[&str] = &[
    "id",
    "name",
    "project_id",
    "type",
    "properties",
    "created_at",
    "updated_at",
    "execution_time",
];

/// [`OPERATION`] and what decides whether it runs.
const CANDIDATE: &[&str] = &[
    "id",
    "name",
    "description",
    "operation_type",
    "user_id",
    "project_id",
    "trigger_id",
    "operation_definition",
    "enabled",
    "created_at",
    "updated_at",
    "registered",
    "running",
    "last",
    "enabled_at",
];
