//! Runs of scheduled operations: one for each operation and due time.
//!
//! A run is `due` until an engine claims it, `running` while the engine that has it renews its
//! lease, `ended` after. One whose lease ran out can be claimed anew. Everything that its engine
//! writes of it names the engine: what a slow one writes after its runs were adopted is refused.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use karbor_model::{CheckpointId, OperationId, ScheduledOperation, ScheduledOperationId};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{
        Alias, Condition, Expr, ExprTrait, Func, Order, Query, UpdateStatement, WindowStatement,
    },
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

/// The original's log of runs.
const LOGS: &str = "scheduled_operation_logs";

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
        let is_free = self.db.is_free(now, lease_until);
        let mut claimed = self.db.claimable(&write, &is_free, limit).await?;
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let ids = ids_of(claimed.iter().map(|(run, _)| run));
        let update = Query::update()
            .table(Alias::new("scheduled_runs"))
            .value("status", RunState::Running.as_str())
            .value("owner", owner)
            .value("lease_until", self.db.time(lease_until))
            .value(
                "started_at",
                Func::coalesce([Expr::col("started_at"), Expr::val(self.db.time(now))]),
            )
            .and_where(Expr::col("id").is_in(ids.iter().cloned()))
            .cond_where(is_free)
            .take();
        // Another engine took some meanwhile: its name is on them.
        if write.execute(&update).await?.rows_affected() != ids.len() as u64 {
            let ours = self.db.held(&write, &ids, owner).await?;
            claimed.retain(|(run, _)| ours.contains_key(&run.id));
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

    /// Ends runs, in one transaction: each of many would wait for the disk. `keep`: how many ended runs of an operation
    /// are remembered. Returns the ids of those that ended: another is not `owner`'s any more.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: none ended.
    pub async fn runs_end(
        &self,
        ended: &[(ScheduledRun, RunOutcome)],
        owner: &str,
        keep: u64,
    ) -> Result<BTreeSet<OperationId>, DbError> {
        let write = self.db.write().await?;
        let now = self.db.now();
        let ids = ids_of(ended.iter().map(|(run, _)| run));
        let began = self.db.held(&write, &ids, owner).await?;
        let ended: Vec<_> = ended
            .iter()
            .filter(|(run, _)| began.contains_key(&run.id))
            .collect();
        if ended.is_empty() {
            return Ok(BTreeSet::new());
        }
        let update = Query::update()
            .table(Alias::new("scheduled_runs"))
            .value("status", RunState::Ended.as_str())
            .value("ended_at", self.db.time(now))
            .and_where(Expr::col("id").is_in(ids_of(ended.iter().map(|(run, _)| run))))
            .cond_where(is_run_by(owner))
            .take();
        write.execute(&update).await?;
        let mut logs = Query::insert()
            .into_table(Alias::new(LOGS))
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
            .take();
        for (run, outcome) in &ended {
            logs.values([
                run.operation_id.to_string().into(),
                self.db.time(run.due_at).into(),
                self.db.time(run.triggered_at).into(),
                self.db.time_opt(began[&run.id]).into(),
                self.db.time(now).into(),
                outcome.as_str().into(),
                self.db.time(now).into(),
                false.into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?;
        }
        write.execute(&logs).await?;
        let ended: Vec<_> = ended.into_iter().map(|(run, _)| run).collect();
        self.db.forget_old(&write, &ended, keep).await?;
        write.commit().await?;
        Ok(ended.into_iter().map(|run| run.id).collect())
    }
}

impl Db {
    /// Which of the runs `owner` has, and since when; nobody takes one of them before the transaction ends.
    async fn held(
        &self,
        write: &Write<'_>,
        ids: &[String],
        owner: &str,
    ) -> Result<BTreeMap<OperationId, Option<DateTime<Utc>>>, DbError> {
        const HELD: &[&str] = &["id", "started_at"];
        let select = Query::select()
            .columns(HELD.iter().copied())
            .from("scheduled_runs")
            .and_where(Expr::col("id").is_in(ids.iter().cloned()))
            .cond_where(is_run_by(owner))
            .lock_exclusive()
            .take();
        let rows = write.query_all(&select).await?;
        let held = rows.iter().map(|row| {
            let row = Row::new(row, self.backend(), "scheduled_runs", HELD);
            Ok((row.parse(0)?, row.time_opt(1)?))
        });
        held.collect()
    }

    /// Forgets the runs of the same operations before these, those that a clock that ran ahead made for times to come,
    /// and all but the last `keep` of the original's logs.
    async fn forget_old(
        &self,
        write: &Write<'_>,
        ended: &[&ScheduledRun],
        keep: u64,
    ) -> Result<(), DbError> {
        let mut due = BTreeMap::<_, Vec<_>>::new();
        for run in ended {
            let operations = due.entry(run.due_at).or_default();
            operations.push(run.operation_id.to_string());
        }
        let of = |operations: Vec<String>| Expr::col("operation_id").is_in(operations);
        let all: Vec<_> = due.values().flatten().cloned().collect();
        let to_come = Condition::all()
            .add(of(all.clone()))
            .add(Expr::col("due_at").gt(Expr::val(self.time(self.now()))))
            .add(Expr::col("id").is_not_in(ids_of(ended.iter().copied())));
        let old = due.into_iter().map(|(at, operations)| {
            let before = Expr::col("due_at").lt(Expr::val(self.time(at)));
            Condition::all().add(of(operations)).add(before)
        });
        let runs = Query::delete()
            .from_table(Alias::new("scheduled_runs"))
            .and_where(Expr::col("status").eq(RunState::Ended.as_str()))
            .cond_where(old.fold(Condition::any().add(to_come), Condition::add))
            .take();
        write.execute(&runs).await?;
        let newest_first = WindowStatement::partition_by("operation_id")
            .order_by("id", Order::Desc)
            .take();
        let numbered = Query::select()
            .column("id")
            .expr_window_as(Func::cust("ROW_NUMBER"), newest_first, "place")
            .from(LOGS)
            .and_where(of(all))
            .take();
        let too_many = Query::select()
            .column("id")
            .from_subquery(numbered, "numbered")
            .and_where(Expr::col("place").gt(Expr::val(i64::try_from(keep).unwrap_or(i64::MAX))))
            .take();
        let logs = Query::delete()
            .from_table(Alias::new(LOGS))
            .and_where(Expr::col("id").in_subquery(too_many))
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

fn ids_of<'a>(runs: impl Iterator<Item = &'a ScheduledRun>) -> Vec<String> {
    runs.map(|run| run.id.to_string()).collect()
}

fn lost(id: OperationId) -> DbError {
    DbError::Conflict {
        what: "Run",
        id: id.to_string(),
        present: None,
        message: format!("The run {id} is not this engine's any more."),
    }
}
