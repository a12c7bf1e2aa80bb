//! The operation log.

use chrono::{DateTime, Utc};
use karbor_model::{
    CheckpointId, OperationLog, OperationLogId, OperationLogStatus, OperationType, ReadbackId,
    RunReport, State,
};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Expr, ExprTrait, Query},
};
use serde_json::Value;

use crate::{
    Db, DbError, ListQuery, Record, RunStore, RunViews, Write,
    insert::insert_row,
    row::{Row, json_text},
    transition::{read_state, select_row, update_row},
};

pub(crate) const LOG: &[&str] = &[
    "id",
    "project_id",
    "operation_type",
    "checkpoint_id",
    "plan_id",
    "provider_id",
    "restore_id",
    "verification_id",
    "scheduled_operation_id",
    "status",
    "started_at",
    "ended_at",
    "error_info",
    "extra_info",
    "created_at",
];

/// What to change of an operation log; `None` leaves a column as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperationLogUpdate {
    /// The checkpoint, once it has an id.
    pub checkpoint_id: Option<CheckpointId>,
    /// Progress, or the reports at the end.
    pub report: Option<RunReport>,
    /// Every failing resource with its reason.
    pub error_info: Option<String>,
    /// When the operation ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl RunViews {
    /// One operation log.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn operation_log_get(&self, id: OperationLogId) -> Result<OperationLog, DbError> {
        let select = select_row::<OperationLog>(id, LOG);
        let row = self.db.read().query_one(&select).await?;
        self.db
            .log_from(&row.ok_or_else(|| DbError::not_found("OperationLog", id))?)
    }

    /// A page of operation logs.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn operation_log_list(
        &self,
        query: &ListQuery,
    ) -> Result<Vec<OperationLog>, DbError> {
        let rows = self.db.page::<OperationLog>(query, LOG, None).await?;
        rows.iter().map(|row| self.db.log_from(row)).collect()
    }
}

impl RunStore {
    /// Stores a new operation log.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn operation_log_create(&self, log: &OperationLog) -> Result<(), DbError> {
        let insert = insert_row("operation_logs", LOG, self.db.log_values(log)?)?;
        let write = self.db.write().await?;
        write.execute(&insert).await?;
        self.db.announce_operation(&write, log).await?;
        write.commit().await
    }

    /// Stores progress or outcome. The status is set by [`RunStore::operation_log_set_status`], after this, so that an
    /// ended operation always has its outcome.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn operation_log_update(
        &self,
        id: OperationLogId,
        update: &OperationLogUpdate,
    ) -> Result<(), DbError> {
        let mut statement = update_row::<OperationLog>(&self.db, id);
        if let Some(checkpoint_id) = update.checkpoint_id {
            statement.value("checkpoint_id", checkpoint_id.to_string());
        }
        if let Some(report) = &update.report {
            // A run that tells nothing has no report.
            let told = (*report != RunReport::default()).then_some(report);
            statement.value("extra_info", json_text(&told)?);
        }
        if let Some(error_info) = &update.error_info {
            statement.value("error_info", error_info.as_str());
        }
        if let Some(ended_at) = update.ended_at {
            statement.value("ended_at", self.db.time(ended_at));
        }
        if self.db.execute(&statement).await? == 0 {
            return Err(DbError::not_found("OperationLog", id));
        }
        Ok(())
    }

    /// Takes an operation log from one status to another. Of several that try at once, one succeeds.
    ///
    /// # Errors
    /// [`DbError::Conflict`] names the present status when it is not `from`, and when the rules
    /// ([`State::can_become`]) forbid the change; [`DbError::NotFound`].
    ///
    /// [`State::can_become`]: karbor_model::State::can_become
    pub async fn operation_log_set_status(
        &self,
        id: OperationLogId,
        from: OperationLogStatus,
        to: OperationLogStatus,
    ) -> Result<(), DbError> {
        self.db.transition::<OperationLog>(id, from, to).await
    }
}

impl Db {
    /// Announces what the log with this id says now.
    pub(crate) async fn announce_change(&self, write: &Write<'_>, id: &str) -> Result<(), DbError> {
        let select = Query::select()
            .columns(LOG.iter().copied())
            .from(OperationLog::TABLE)
            .and_where(Expr::col("id").eq(id))
            .take();
        let row = write.query_one(&select).await?;
        let row = row.ok_or_else(|| DbError::not_found("OperationLog", id))?;
        self.announce_operation(write, &self.log_from(&row)?).await
    }

    /// The values of [`LOG`].
    pub(crate) fn log_values(&self, log: &OperationLog) -> Result<[Expr; LOG.len()], DbError> {
        // The original has a column for each.
        let readback = |operation| log.readback_of(operation).map(|id| id.to_string());
        Ok([
            log.id.to_string().into(),
            log.project_id.as_str().into(),
            log.operation_type.as_str().into(),
            log.checkpoint_id.map(|id| id.to_string()).into(),
            log.plan_id.map(|id| id.to_string()).into(),
            log.provider_id.map(|id| id.to_string()).into(),
            readback(OperationType::Restore).into(),
            readback(OperationType::Verify).into(),
            log.scheduled_operation_id.clone().into(),
            log.status.as_str().into(),
            self.time(log.started_at).into(),
            self.time_opt(log.ended_at).into(),
            log.error_info.clone().into(),
            log.extra_info.as_ref().map(json_text).transpose()?.into(),
            self.time(self.now()).into(),
        ])
    }

    fn log_from(&self, row: &QueryResult) -> Result<OperationLog, DbError> {
        let row = Row::new(row, self.backend(), "operation_logs", LOG);
        let created_at = row.time(14)?;
        let (id, operation_type): (OperationLogId, _) = (row.parse(0)?, row.parse(2)?);
        Ok(OperationLog {
            id,
            project_id: row.text(1)?,
            operation_type,
            checkpoint_id: row.parse_opt(3)?,
            plan_id: row.parse_opt(4)?,
            provider_id: row.parse_opt(5)?,
            readback_id: match has_column(operation_type) {
                true => row.parse_opt(6)?.or(row.parse_opt(7)?),
                // It has the id of its record.
                false => operation_type.readback().map(|_| ReadbackId(id.0)),
            },
            scheduled_operation_id: row.get(8)?,
            status: read_state::<OperationLog>(&row.text(9)?),
            started_at: row.time_opt(10)?.unwrap_or(created_at),
            ended_at: row.time_opt(11)?,
            error_info: row.get(12)?,
            // The original kept free text here.
            extra_info: row
                .get::<Option<String>>(13)?
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
        })
    }
}

/// Has the table a column for the readbacks of this operation?
fn has_column(operation: OperationType) -> bool {
    matches!(operation, OperationType::Restore | OperationType::Verify)
}
