//! Runs of scheduled operations: one for each operation and due time.
//!
//! A run is `due` until an engine claims it, `running` while the engine that has it renews its
//! lease, `ended` after. One whose lease ran out can be claimed anew. Everything that its engine
//! writes of it names the engine: what a slow one writes after its runs were adopted is refused.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use karbor_model::{CheckpointId, OperationId, ScheduledOperation, ScheduledOperationId};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Condition, Expr, ExprTrait, Func, Order, Query, UpdateStatement},
};

use crate::{
    Db, DbError, Record, ScheduleStore, Write,
    row::{Row, readable},
    scheduled_operations::OPERATION,
    transition::not_deleted,
};

const RUN: &[&str] = &[
    "id",
    "operation_id",
    "due_at",
    "run_before",
    "triggered_at",
    "started_at",
    "checkpoint_id",
];

const STATUS: (&str, &str) = ("scheduled_runs", "status");
const LEASE: (&str, &str) = ("scheduled_runs", "lease_until");

/// How much longer than an engine's own lease another's may be.
const LONGEST_LEASE: i32 = 10;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunState {
    Due,
    Running,
    Ended,
}

impl RunState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

/// "The run is to come, or goes on."
pub(crate) fn is_unended() -> Condition {
    Condition::all()
        .add(Expr::col(STATUS).is_in([RunState::Due.as_str(), RunState::Running.as_str()]))
}

/// One run of a scheduled operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledRun {
    /// Its id; what it asks the protection manager for carries it.
    pub id: OperationId,
    /// The operation.
    pub operation_id: ScheduledOperationId,
    /// The due time it is for.
    pub due_at: DateTime<Utc>,
    /// It may not begin after.
    pub run_before: DateTime<Utc>,
    /// When it was fired.
    pub triggered_at: DateTime<Utc>,
    /// When an engine first claimed it. Set before this claim: it is adopted.
    pub started_at: Option<DateTime<Utc>>,
    /// The checkpoint that it made, once that is known.
    pub checkpoint_id: Option<CheckpointId>,
}

/// How a run ended, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// Done.
    Success,
    /// Not done; the operation log says why.
    Failed,
    /// It was not begun in time.
    Missed,
}

impl RunOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Missed => "dropped_out_of_window",
        }
    }
}

impl ScheduleStore {
    /// Claims runs for `owner` until `lease_until`: those that are due, and those whose lease ran
    /// out, longest due first. Each comes as it was before, with its operation.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: nothing was claimed.
    pub async fn runs_claim(
        &self,
        owner: &str,
        lease_until: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<(ScheduledRun, ScheduledOperation)>, DbError> {
        let write = self.db.write().await?;
        let now = self.db.now();
        let mut claimed = Vec::new();
        let is_free = self.db.is_free(now, lease_until);
        for (run, operation) in self.db.claimable(&write, &is_free, limit).await? {
            let update = Query::update()
                .table(Alias::new("scheduled_runs"))
                .value("status", RunState::Running.as_str())
                .value("owner", owner)
                .value("lease_until", self.db.time(lease_until))
                .value("started_at", self.db.time(run.started_at.unwrap_or(now)))
                .and_where(Expr::col("id").eq(run.id.to_string()))
                .cond_where(is_free.clone())
                .take();
            if write.execute(&update).await?.rows_affected() == 1 {
                claimed.push((run, operation));
            }
        }
        write.commit().await?;
        Ok(claimed)
    }

    /// Renews the leases of all that `owner` runs; returns the ids. A run that is not among them is
    /// somebody else's now, or was deleted with its operation.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn runs_renew(
        &self,
        owner: &str,
        lease_until: DateTime<Utc>,
    ) -> Result<BTreeSet<OperationId>, DbError> {
        const ID: &[&str] = &["id"];
        let write = self.db.write().await?;
        let update = Query::update()
            .table(Alias::new("scheduled_runs"))
            .value("lease_until", self.db.time(lease_until))
            .cond_where(is_run_by(owner))
            .take();
        write.execute(&update).await?;
        let select = Query::select()
            .column("id")
            .from("scheduled_runs")
            .cond_where(is_run_by(owner))
            .take();
        let rows = write.query_all(&select).await?;
        let ids = rows
            .iter()
            .map(|row| Row::new(row, self.db.backend(), "scheduled_runs", ID).parse(0))
            .collect::<Result<_, _>>()?;
        write.commit().await?;
        Ok(ids)
    }

    /// Gives up every run whose owner's name begins with `owner`, for any engine to go on with.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn runs_release(&self, owner: &str) -> Result<u64, DbError> {
        let length = i32::try_from(owner.chars().count()).unwrap_or(i32::MAX);
        let begins = Func::cust(Alias::new("substr"));
        let begins = begins.args([Expr::col("owner"), Expr::val(1), Expr::val(length)]);
        let update = release().and_where(Expr::from(begins).eq(owner)).take();
        self.db.execute(&update).await
    }

    /// Gives up one run, for any engine to go on with.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn run_release(&self, id: OperationId, owner: &str) -> Result<(), DbError> {
        let update = release()
            .and_where(Expr::col("id").eq(id.to_string()))
            .and_where(Expr::col("owner").eq(owner))
            .take();
        self.db.execute(&update).await?;
        Ok(())
    }

    /// Notes which checkpoint a run makes.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the run is not `owner`'s any more.
    pub async fn run_set_checkpoint(
        &self,
        id: OperationId,
        owner: &str,
        checkpoint: CheckpointId,
    ) -> Result<(), DbError> {
        let update = Query::update()
            .table(Alias::new("scheduled_runs"))
            .value("checkpoint_id", checkpoint.to_string())
            .and_where(Expr::col("id").eq(id.to_string()))
            .cond_where(is_run_by(owner))
            .take();
        if self.db.execute(&update).await? == 0 {
            return Err(lost(id));
        }
        Ok(())
    }

    /// Ends a run. `keep`: how many ended runs of an operation are remembered.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the run is not `owner`'s any more.
    pub async fn run_end(
        &self,
        run: &ScheduledRun,
        owner: &str,
        outcome: RunOutcome,
        keep: u64,
    ) -> Result<(), DbError> {
        let now = self.db.now();
        let update = Query::update()
            .table(Alias::new("scheduled_runs"))
            .value("status", RunState::Ended.as_str())
            .value("ended_at", self.db.time(now))
            .and_where(Expr::col("id").eq(run.id.to_string()))
            .cond_where(is_run_by(owner))
            .take();
        let write = self.db.write().await?;
        if write.execute(&update).await?.rows_affected() == 0 {
            return Err(lost(run.id));
        }
        let began = Query::select()
            .column("started_at")
            .from("scheduled_runs")
            .and_where(Expr::col("id").eq(run.id.to_string()))
            .take();
        let log = Query::insert()
            .into_table(Alias::new("scheduled_operation_logs"))
            .columns([
                "operation_id",
                "expect_start_time",
                "triggered_time",
                "actual_start_time",
                "end_time",
                "state",
                "created_at",
                "deleted",
            ])
            .values([
                run.operation_id.to_string().into(),
                self.db.time(run.due_at).into(),
                self.db.time(run.triggered_at).into(),
                began.into(),
                self.db.time(now).into(),
                outcome.as_str().into(),
                self.db.time(now).into(),
                false.into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take();
        write.execute(&log).await?;
        self.db.forget_old(&write, run, keep).await?;
        write.commit().await
    }
}

impl Db {
    /// The runs before this one, those that a clock that ran ahead made for times to come, and all but the last `keep` of the original's logs.
    async fn forget_old(
        &self,
        write: &Write<'_>,
        run: &ScheduledRun,
        keep: u64,
    ) -> Result<(), DbError> {
        const ID: &[&str] = &["id"];
        const LOGS: &str = "scheduled_operation_logs";
        let of_operation = Expr::col("operation_id").eq(run.operation_id.to_string());
        let runs = Query::delete()
            .from_table(Alias::new("scheduled_runs"))
            .and_where(of_operation.clone())
            .and_where(Expr::col("status").eq(RunState::Ended.as_str()))
            .and_where(Expr::col("id").ne(run.id.to_string()))
            .cond_where(
                Condition::any()
                    .add(Expr::col("due_at").lt(Expr::val(self.time(run.due_at))))
                    .add(Expr::col("due_at").gt(Expr::val(self.time(self.now())))),
            )
            .take();
        write.execute(&runs).await?;
        let first_old = Query::select()
            .column("id")
            .from(LOGS)
            .and_where(of_operation.clone())
            .order_by("id", Order::Desc)
            .limit(1)
            .offset(keep)
            .take();
        let Some(row) = write.query_one(&first_old).await? else {
            return Ok(());
        };
        let first_old = Row::new(&row, self.backend(), LOGS, ID).int(0)?;
        let logs = Query::delete()
            .from_table(Alias::new(LOGS))
            .and_where(of_operation)
            .and_where(Expr::col("id").lte(first_old))
            .take();
        write.execute(&logs).await?;
        Ok(())
    }

    /// Runs that nobody has, with their operations.
    async fn claimable(
        &self,
        write: &Write<'_>,
        is_free: &Condition,
        limit: u64,
    ) -> Result<Vec<(ScheduledRun, ScheduledOperation)>, DbError> {
        let operations = ScheduledOperation::TABLE;
        let select = Query::select()
            .columns(OPERATION.iter().map(|column| (operations, *column)))
            .columns(RUN.iter().map(|column| ("scheduled_runs", *column)))
            .from("scheduled_runs")
            .inner_join(
                operations,
                Expr::col(("scheduled_runs", "operation_id")).equals((operations, "id")),
            )
            .cond_where(is_free.clone())
            .and_where(not_deleted((operations, "deleted")))
            .order_by(("scheduled_runs", "due_at"), Order::Asc)
            .limit(limit)
            .take();
        let rows = write.query_all(&select).await?;
        Ok(readable(&rows, |row| {
            let operation = self.operation_from(row)?;
            Ok((self.run_from(row)?, operation))
        }))
    }

    /// "Nobody has the run": it is due, or the engine that had it let its lease run out, or has not renewed
    /// one that it took while its clock was ahead. No engine takes a lease that is so much longer than
    /// ours, which would end at `lease_until`.
    fn is_free(&self, now: DateTime<Utc>, lease_until: DateTime<Utc>) -> Condition {
        let longest = now + (lease_until - now) * LONGEST_LEASE;
        let ran_out = Condition::any()
            .add(Expr::col(LEASE).lt(Expr::val(self.time(now))))
            .add(Expr::col(LEASE).gt(Expr::val(self.time(longest))));
        let left = Condition::all()
            .add(Expr::col(STATUS).eq(RunState::Running.as_str()))
            .add(ran_out);
        Condition::any()
            .add(Expr::col(STATUS).eq(RunState::Due.as_str()))
            .add(left)
    }

    /// Reads [`RUN`] behind [`OPERATION`].
    fn run_from(&self, row: &QueryResult) -> Result<ScheduledRun, DbError> {
        let row = Row::new(row, self.backend(), "scheduled_runs", OPERATION);
        let at = OPERATION.len();
        Ok(ScheduledRun {
            id: row.parse(at)?,
            operation_id: row.parse(at + 1)?,
            due_at: row.time(at + 2)?,
            run_before: row.time(at + 3)?,
            triggered_at: row.time(at + 4)?,
            started_at: row.time_opt(at + 5)?,
            checkpoint_id: row.parse_opt(at + 6)?,
        })
    }
}

/// "The run is `owner`'s."
fn is_run_by(owner: &str) -> Condition {
    Condition::all()
        .add(Expr::col("status").eq(RunState::Running.as_str()))
        .add(Expr::col("owner").eq(owner))
}

fn release() -> UpdateStatement {
    Query::update()
        .table(Alias::new("scheduled_runs"))
        .value("status", RunState::Due.as_str())
        .value("owner", Option::<String>::None)
        .and_where(Expr::col("status").eq(RunState::Running.as_str()))
        .take()
}

fn lost(id: OperationId) -> DbError {
    DbError::Conflict {
        what: "Run",
        id: id.to_string(),
        present: None,
        message: format!("The run {id} is not this engine's any more."),
    }
}
