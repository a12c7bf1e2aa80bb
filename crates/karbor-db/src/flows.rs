//! The journal of flows.
//!
//! A flow is entered before its first hook runs, with all that is needed to run it again; each
//! batch of events is one transaction that is on the disk when [`RunStore::flow_append`] returns. Two
//! executors of the same flow cannot both write: an event's number is taken once.

use chrono::{DateTime, Utc};
use karbor_model::{EventKind, FlowStatus, JournalEvent, OperationId, OperationType, State};
use sea_orm::{
    ConnectionTrait, QueryResult, SqlErr,
    sea_query::{Alias, Expr, ExprTrait, InsertStatement, Order, Query},
};
use serde_json::Value;

use crate::{
    Db, DbError, RunStore, RunViews,
    row::{Row, json_text},
    transition::{read_state, select_row},
};

const FLOW: &[&str] = &[
    "operation_id",
    "operation_type",
    "host",
    "payload",
    "status",
];

const EVENT: &[&str] = &["operation_id", "seq", "task", "kind", "at", "detail"];

/// Rows of one insert: 3,000 parameters, of which SQLite takes 32,766.
const CHUNK: usize = 500;

/// One flow: a run of an operation on one host.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowRecord {
    /// Id of the run.
    pub operation_id: OperationId,
    /// Which operation.
    pub operation_type: OperationType,
    /// The host that runs it.
    pub host: String,
    /// All that is needed to run it again after a restart.
    pub payload: Value,
    /// Where it is.
    pub status: FlowStatus,
}

impl RunViews {
    /// One flow.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn flow_get(&self, id: OperationId) -> Result<FlowRecord, DbError> {
        let select = select_row::<FlowRecord>(id, FLOW);
        let row = self.db.read().query_one(&select).await?;
        self.db
            .flow_from(&row.ok_or_else(|| DbError::not_found("Flow", id))?)
    }

    /// The journal of a flow in order.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flow_events(&self, id: OperationId) -> Result<Vec<JournalEvent>, DbError> {
        let select = Query::select()
            .columns(EVENT.iter().copied())
            .from("flow_events")
            .and_where(Expr::col("operation_id").eq(id.to_string()))
            .order_by("seq", Order::Asc)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        rows.iter().map(|row| self.db.event_from(row)).collect()
    }
}

impl RunStore {
    /// Enters a flow.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when there is one with this id.
    pub async fn flow_create(&self, flow: &FlowRecord) -> Result<(), DbError> {
        self.db.execute(&self.db.flow_insert(flow)?).await?;
        Ok(())
    }

    /// Writes a batch of events, all or none; they are durable when this returns. The larger the
    /// batch, the cheaper each event: a batch costs one sync of the disk.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when a `seq` is taken: somebody else runs the same flow;
    /// [`DbError::NotFound`] when there is no such flow.
    pub async fn flow_append(
        &self,
        id: OperationId,
        events: &[JournalEvent],
    ) -> Result<(), DbError> {
        let operation_id = id.to_string();
        let write = self.db.write().await?;
        for events in events.chunks(CHUNK) {
            let mut insert = Query::insert()
                .into_table(Alias::new("flow_events"))
                .columns(EVENT.iter().copied())
                .take();
            for event in events {
                let seq = i64::try_from(event.seq).map_err(|e| DbError::Internal(e.to_string()))?;
                insert
                    .values([
                        operation_id.as_str().into(),
                        seq.into(),
                        event.task.as_str().into(),
                        event.kind.name().into(),
                        self.db.time(event.at).into(),
                        event
                            .kind
                            .detail()
                            .as_ref()
                            .map(json_text)
                            .transpose()?
                            .into(),
                    ])
                    .map_err(|error| DbError::Internal(error.to_string()))?;
            }
            write
                .execute(&insert)
                .await
                .map_err(|error| match error.sql_err() {
                    Some(SqlErr::UniqueConstraintViolation(_)) => taken(&operation_id),
                    Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
                        DbError::not_found("Flow", &operation_id)
                    }
                    _ => error.into(),
                })?;
        }
        write.commit().await
    }

    /// Flows of `host` that have not ended, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flows_unfinished(&self, host: &str) -> Result<Vec<FlowRecord>, DbError> {
        let select = Query::select()
            .columns(FLOW.iter().copied())
            .from("flows")
            .and_where(Expr::col("host").eq(host))
            .and_where(Expr::col("status").is_in(unfinished()))
            .order_by("created_at", Order::Asc)
            .order_by("operation_id", Order::Asc)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        rows.iter().map(|row| self.db.flow_from(row)).collect()
    }

    /// Compare-and-set of a flow's status.
    ///
    /// # Errors
    /// As [`RunStore::operation_log_set_status`].
    pub async fn flow_set_status(
        &self,
        id: OperationId,
        from: FlowStatus,
        to: FlowStatus,
    ) -> Result<(), DbError> {
        self.db.transition::<FlowRecord>(id, from, to).await
    }

    /// Removes flows that ended before `before`, with their journals; returns how many.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn flow_delete_finished(&self, before: DateTime<Utc>) -> Result<u64, DbError> {
        let delete = Query::delete()
            .from_table(Alias::new("flows"))
            .and_where(Expr::col("status").is_not_in(unfinished()))
            .and_where(Expr::col("updated_at").lt(Expr::val(self.db.time(before))))
            .take();
        // The journals go with them: the foreign key cascades.
        self.db.execute(&delete).await
    }
}

impl Db {
    pub(crate) fn flow_insert(&self, flow: &FlowRecord) -> Result<InsertStatement, DbError> {
        Ok(Query::insert()
            .into_table(Alias::new("flows"))
            .columns(FLOW.iter().copied().chain(["created_at"]))
            .values([
                flow.operation_id.to_string().into(),
                flow.operation_type.as_str().into(),
                flow.host.as_str().into(),
                json_text(&flow.payload)?.into(),
                flow.status.as_str().into(),
                self.time(self.now()).into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take())
    }

    fn flow_from(&self, row: &QueryResult) -> Result<FlowRecord, DbError> {
        let row = Row::new(row, self.backend(), "flows", FLOW);
        Ok(FlowRecord {
            operation_id: row.parse(0)?,
            operation_type: row.parse(1)?,
            host: row.text(2)?,
            payload: row.json(3)?,
            status: read_state::<FlowRecord>(&row.text(4)?),
        })
    }

    fn event_from(&self, row: &QueryResult) -> Result<JournalEvent, DbError> {
        let row = Row::new(row, self.backend(), "flow_events", EVENT);
        Ok(JournalEvent {
            seq: u64::try_from(row.get::<i64>(1)?).unwrap_or_default(),
            task: row.text(2)?,
            kind: EventKind::read(&row.text(3)?, row.json_opt(5)?)
                .map_err(|error| DbError::Internal(error.to_string()))?,
            at: row.time(4)?,
        })
    }
}

fn unfinished() -> [&'static str; 1] {
    [FlowStatus::Running.as_str()]
}

fn taken(operation_id: &str) -> DbError {
    DbError::Conflict {
        what: "Flow",
        id: operation_id.to_owned(),
        present: None,
        message: format!("Another executor writes the journal of flow {operation_id}."),
    }
}
