//! The outbox: what happened, written with what it tells of.
//!
//! A notification is a row in the transaction of the change, so none is lost and none announces
//! what never was. Operations are told from their operation log: its first form, and the change
//! that ends it, are made here in the database and nowhere else, so no operation that fails, and no
//! run that was missed, can be silent. Names are the original's (`common/notification.py`):
//! `karbor.<plan_create, checkpoint_delete, ..>.<start, end, error>`; what is written in one step has an
//! end only.

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use karbor_manager::NotificationOutbox;
use karbor_model::{
    ApiError, INCOMPLETE, Notification, OperationLog, OperationLogStatus, OperationType, Outgoing,
    Priority, SUSPICIOUS,
};
use sea_orm::{
    ConnectionTrait,
    sea_query::{Alias, Expr, ExprTrait, InsertStatement, Order, Query},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Announcements, Db, DbError, Outbox, Write,
    row::{Row, json_text},
};

const NOTIFICATION: &[&str] = &[
    "id",
    "event_type",
    "priority",
    "payload",
    "created_at",
    "attempts",
    "sink",
    "next_at",
];

/// No notification is put off for longer than this.
const LONGEST_DELAY: TimeDelta = TimeDelta::hours(1);

/// What an operation is called in event types. Those of protect, delete and restore are the original's.
fn operation_name(operation: OperationType) -> String {
    let (what, done) = match (operation, operation.readback()) {
        (_, Some(names)) => (names.one, "create"),
        (OperationType::Delete, None) => ("checkpoint", "delete"),
        (OperationType::Copy, None) => ("checkpoint", "copy"),
        (_, None) => ("checkpoint", "create"),
    };
    format!("{what}_{done}")
}

/// Event, priority and payload of what an operation log says.
fn told_of(log: &OperationLog) -> (String, Priority, Value) {
    let name = operation_name(log.operation_type);
    let (event_type, mut priority) = match log.status {
        OperationLogStatus::InProgress => (format!("karbor.{name}.start"), Priority::Info),
        OperationLogStatus::Success => (ended(&name), Priority::Info),
        OperationLogStatus::Failed => (format!("karbor.{name}.error"), Priority::Error),
        OperationLogStatus::Missed => (format!("karbor.{name}.missed"), Priority::Error),
    };
    let mut payload = json!({
        "tenant_id": log.project_id,
        "operation_log_id": log.id,
        "operation_type": log.operation_type,
        "status": log.status,
        "checkpoint_id": log.checkpoint_id,
        "plan_id": log.plan_id,
        "provider_id": log.provider_id,
        "scheduled_operation_id": log.scheduled_operation_id,
        "started_at": log.started_at,
        "ended_at": log.ended_at,
    });
    for (name, id) in log.readback_ids() {
        payload[name] = id;
    }
    let report = log.report();
    let flaws = [
        (INCOMPLETE, report.incomplete.map(|flaw| json!(flaw))),
        (SUSPICIOUS, report.suspicious.map(|flaw| json!(flaw))),
    ];
    for (flaw, found) in flaws {
        if priority != Priority::Error
            && let Some(found) = found
        {
            payload[flaw] = found;
            // It went well, and somebody has to look at it all the same.
            priority = Priority::Warn;
        }
    }
    if priority == Priority::Error {
        // The original's names for what went wrong.
        let message = log
            .error_info
            .as_deref()
            .unwrap_or("no reason was recorded");
        payload["message"] = json!(message);
        payload["exception"] = json!([message]);
    }
    (event_type, priority, payload)
}

/// `karbor.<what>.end`.
pub(crate) fn ended(what: &str) -> String {
    format!("karbor.{what}.end")
}

impl Announcements {
    /// Tells that an operation was refused before it had a record: `log` is what that would have said.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn refused_operation(&self, log: &OperationLog) -> Result<(), DbError> {
        let (event_type, priority, mut payload) = told_of(log);
        if let Some(fields) = payload.as_object_mut() {
            fields.remove("operation_log_id");
        }
        let write = self.db.write().await?;
        write
            .execute(&self.db.notification(&event_type, priority, payload)?)
            .await?;
        write.commit().await
    }

    /// Tells that a clock is not, or was not, as it should be: `message` says how, `payload` has the details.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn clock(&self, message: &str, mut payload: Value) -> Result<(), DbError> {
        payload["message"] = json!(message);
        let write = self.db.write().await?;
        write
            .execute(
                &self
                    .db
                    .notification("karbor.clock.warning", Priority::Warn, payload)?,
            )
            .await?;
        write.commit().await
    }
}

impl Outbox {
    async fn deal_out_notifications(&self, sinks: &[&str]) -> Result<(), DbError> {
        const COPIED: &[&str] = &[
            "id",
            "event_type",
            "priority",
            "payload",
            "created_at",
            "attempts",
            "next_at",
        ];
        // Asked before anything is locked: mostly there is nothing.
        let stray = Query::select()
            .column("seq")
            .from("notifications")
            .and_where(Expr::col("sink").is_not_in(sinks.iter().copied()))
            .limit(1)
            .take();
        if self.db.read().query_one(&stray).await?.is_none() {
            return Ok(());
        }
        let write = self.db.write().await?;
        let claim = Uuid::new_v4().to_string();
        let update = Query::update()
            .table(Alias::new("notifications"))
            .value("claim", claim.as_str())
            .and_where(Expr::col("sink").eq(""))
            .take();
        write.execute(&update).await?;
        for sink in sinks {
            let dealt = Query::select()
                .columns(COPIED.iter().copied())
                .expr(Expr::val(*sink))
                .from("notifications")
                .and_where(Expr::col("claim").eq(claim.as_str()))
                .order_by("seq", Order::Asc)
                .take();
            let insert = Query::insert()
                .into_table(Alias::new("notifications"))
                .columns(COPIED.iter().copied().chain(["sink"]))
                .select_from(dealt)
                .map_err(|error| DbError::Internal(error.to_string()))?
                .take();
            write.execute(&insert).await?;
        }
        let done = Query::delete()
            .from_table(Alias::new("notifications"))
            .and_where(Expr::col("claim").eq(claim))
            .take();
        write.execute(&done).await?;
        let orphans = Query::delete()
            .from_table(Alias::new("notifications"))
            .and_where(Expr::col("sink").is_not_in([""].iter().chain(sinks).copied()))
            .take();
        write.execute(&orphans).await?;
        write.commit().await
    }

    async fn claim_notifications(
        &self,
        sink: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<Outgoing>, DbError> {
        const SEQ: &[&str] = &["seq"];
        // None waits that long: the clock was ahead when it was put off.
        let never = now + LONGEST_DELAY;
        let due = || {
            let due = Expr::col("next_at").lte(Expr::val(self.db.time(now)));
            let due = due.or(Expr::col("next_at").gt(Expr::val(self.db.time(never))));
            Expr::col("sink").eq(sink).and(due)
        };
        let select = Query::select()
            .columns(SEQ.iter().copied())
            .from("notifications")
            .and_where(due())
            .order_by("seq", Order::Asc)
            .limit(limit)
            .take();
        // Asked before anything is locked: mostly there is nothing.
        let rows = self.db.read().query_all(&select).await?;
        let numbers: Result<Vec<_>, _> = rows
            .iter()
            .map(|row| Row::new(row, self.db.backend(), "notifications", SEQ).int(0))
            .collect();
        let numbers = numbers?;
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let claim = Uuid::new_v4().to_string();
        let update = Query::update()
            .table(Alias::new("notifications"))
            .value("claim", claim.as_str())
            .value("next_at", self.db.time(until))
            .and_where(Expr::col("seq").is_in(numbers))
            .and_where(due())
            .take();
        self.db.execute(&update).await?;
        let mine = Query::select()
            .columns(NOTIFICATION.iter().copied())
            .from("notifications")
            .and_where(Expr::col("claim").eq(claim))
            .order_by("seq", Order::Asc)
            .take();
        let rows = self.db.read().query_all(&mine).await?;
        let outgoing = rows.iter().map(|row| {
            let row = Row::new(row, self.db.backend(), "notifications", NOTIFICATION);
            Ok(Outgoing {
                notification: Notification {
                    id: row.text(0)?,
                    event_type: row.text(1)?,
                    priority: Priority::from_text(&row.text(2)?),
                    payload: row.json(3)?,
                    created_at: row.time(4)?,
                },
                attempts: u32::try_from(row.int(5)?).unwrap_or_default(),
                next_at: row.time(7)?,
            })
        });
        outgoing.collect()
    }

    async fn settle_notifications(
        &self,
        sink: &str,
        done: &[String],
        back: &[Outgoing],
    ) -> Result<(), DbError> {
        if done.is_empty() && back.is_empty() {
            return Ok(());
        }
        let write = self.db.write().await?;
        if !done.is_empty() {
            let delete = Query::delete()
                .from_table(Alias::new("notifications"))
                .and_where(Expr::col("sink").eq(sink))
                .and_where(Expr::col("id").is_in(done.iter().map(String::as_str)))
                .take();
            write.execute(&delete).await?;
        }
        for outgoing in back {
            let update = Query::update()
                .table(Alias::new("notifications"))
                .value("attempts", i64::from(outgoing.attempts))
                .value("next_at", self.db.time(outgoing.next_at))
                .value("claim", None::<String>)
                .and_where(Expr::col("sink").eq(sink))
                .and_where(Expr::col("id").eq(outgoing.notification.id.as_str()))
                .take();
            write.execute(&update).await?;
        }
        write.commit().await
    }
}

impl Db {
    /// A notification, to be written in the transaction of what it tells of.
    pub(crate) fn notification(
        &self,
        event_type: &str,
        priority: Priority,
        mut payload: Value,
    ) -> Result<InsertStatement, DbError> {
        if let Some(request) = self.request() {
            payload["request_id"] = json!(request);
        }
        let now = self.now();
        let insert = Query::insert()
            .into_table(Alias::new("notifications"))
            .columns(NOTIFICATION.iter().copied())
            .values([
                Uuid::new_v4().to_string().into(),
                event_type.into(),
                priority.as_str().into(),
                json_text(&payload)?.into(),
                self.time(now).into(),
                0.into(),
                "".into(),
                self.time(now).into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take();
        Ok(insert)
    }

    /// Tells what an operation log says now.
    pub(crate) async fn announce_operation(
        &self,
        write: &Write<'_>,
        log: &OperationLog,
    ) -> Result<(), DbError> {
        let (event_type, priority, payload) = told_of(log);
        let insert = self.notification(&event_type, priority, payload)?;
        write.execute(&insert).await?;
        Ok(())
    }

    /// Tells that a record of a project was made, changed or deleted: `what` is e.g. `plan_create`.
    pub(crate) fn record_notification(
        &self,
        what: &str,
        project: &str,
        id: String,
        name: &str,
    ) -> Result<InsertStatement, DbError> {
        let payload = json!({ "tenant_id": project, "id": id, "name": name });
        self.notification(&ended(what), Priority::Info, payload)
    }

    /// Writes [`Db::record_notification`].
    pub(crate) async fn announce_record(
        &self,
        write: &Write<'_>,
        what: &str,
        project: &str,
        id: String,
        name: &str,
    ) -> Result<(), DbError> {
        let insert = self.record_notification(what, project, id, name)?;
        write.execute(&insert).await?;
        Ok(())
    }
}

#[async_trait]
impl NotificationOutbox for Outbox {
    async fn deal_out(&self, sinks: &[&str]) -> Result<(), ApiError> {
        Ok(self.deal_out_notifications(sinks).await?)
    }

    async fn take(
        &self,
        sink: &str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<Outgoing>, ApiError> {
        Ok(self.claim_notifications(sink, now, until, limit).await?)
    }

    async fn settle(&self, sink: &str, done: &[String], back: &[Outgoing]) -> Result<(), ApiError> {
        Ok(self.settle_notifications(sink, done, back).await?)
    }
}
