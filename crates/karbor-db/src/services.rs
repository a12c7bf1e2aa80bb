//! The services table: who runs where, and when it last said so.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_manager::{ServiceStore, TaskReport};
use karbor_model::{ApiError, ServiceRecord};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Condition, Expr, ExprTrait, OnConflict, Order, Query, SelectStatement},
};

use crate::{
    Db, DbError, ServiceAdmin, ServiceRegistry, ServiceViews,
    row::{Row, json_text},
    transition::not_deleted,
};

const SERVICE: &[&str] = &[
    "id",
    "host",
    "binary",
    "topic",
    "report_count",
    "disabled",
    "disabled_reason",
    "created_at",
    "updated_at",
];

fn is_service(id: i64) -> Condition {
    Condition::all()
        .add(Expr::col("id").eq(id))
        .add(not_deleted("deleted"))
}

fn is_at(host: &str, binary: &str) -> Condition {
    Condition::all()
        .add(Expr::col("host").eq(host))
        .add(Expr::col("binary").eq(binary))
        .add(not_deleted("deleted"))
}

fn select(condition: Condition) -> SelectStatement {
    Query::select()
        .columns(SERVICE.iter().copied())
        .from("services")
        .cond_where(condition)
        .order_by("id", Order::Asc)
        .take()
}

impl ServiceViews {
    /// Every service, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<ServiceRecord>, DbError> {
        let all = select(Condition::all().add(not_deleted("deleted")));
        let rows = self.db.read().query_all(&all).await?;
        rows.iter().map(|row| self.db.service_from(row)).collect()
    }

    /// One service.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn get(&self, id: i64) -> Result<ServiceRecord, DbError> {
        let row = self.db.read().query_one(&select(is_service(id))).await?;
        self.db
            .service_from(&row.ok_or_else(|| DbError::not_found("Service", id))?)
    }

    /// The latest report of every periodic task of a service, by name.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn task_reports(&self, service_id: i64) -> Result<Vec<TaskReport>, DbError> {
        const REPORT: &[&str] = &["report"];
        let select = Query::select()
            .columns(REPORT.iter().copied())
            .from("task_reports")
            .and_where(Expr::col("service_id").eq(service_id))
            .order_by("name", Order::Asc)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        let reports = rows.iter().map(|row| {
            Row::new(row, self.db.backend(), "task_reports", REPORT).json_opt::<TaskReport>(0)
        });
        // One that an older version wrote in another form is as good as none.
        Ok(reports.filter_map(|report| report.ok().flatten()).collect())
    }
}

impl ServiceAdmin {
    /// Takes a service out of service, with a reason, or puts it back.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn set_disabled(
        &self,
        id: i64,
        disabled: bool,
        reason: Option<&str>,
    ) -> Result<ServiceRecord, DbError> {
        // Not updated_at: that is the heartbeat.
        let update = Query::update()
            .table(Alias::new("services"))
            .value("disabled", disabled)
            .value(
                "disabled_reason",
                reason.filter(|_| disabled).map(str::to_owned),
            )
            .value("modified_at", self.db.time(self.db.now()))
            .cond_where(is_service(id))
            .take();
        if self.db.execute(&update).await? == 0 {
            return Err(DbError::not_found("Service", id));
        }
        self.get(id).await
    }
}

impl ServiceRegistry {
    /// The record of a binary on a host, made if it is not there.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn register(
        &self,
        host: &str,
        binary: &str,
        topic: &str,
    ) -> Result<ServiceRecord, DbError> {
        let write = self.db.write().await?;
        let found = write.query_one(&select(is_at(host, binary))).await?;
        let service = match found.map(|row| self.db.service_from(&row)).transpose()? {
            Some(service) if service.topic == topic => return Ok(service),
            Some(service) => {
                let update = Query::update()
                    .table(Alias::new("services"))
                    .value("topic", topic)
                    .cond_where(is_service(service.id))
                    .take();
                write.execute(&update).await?;
                ServiceRecord {
                    topic: topic.to_owned(),
                    ..service
                }
            }
            None => {
                let insert = Query::insert()
                    .into_table(Alias::new("services"))
                    .columns([
                        "host",
                        "binary",
                        "topic",
                        "report_count",
                        "disabled",
                        "created_at",
                        "deleted",
                    ])
                    .values([
                        host.into(),
                        binary.into(),
                        topic.into(),
                        0.into(),
                        false.into(),
                        self.db.time(self.db.now()).into(),
                        false.into(),
                    ])
                    .map_err(|error| DbError::Internal(error.to_string()))?
                    .take();
                write.execute(&insert).await?;
                let row = write.query_one(&select(is_at(host, binary))).await?;
                self.db
                    .service_from(&row.ok_or_else(|| DbError::not_found("Service", binary))?)?
            }
        };
        write.commit().await?;
        Ok(service)
    }

    /// A heartbeat.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when the record is gone: register again.
    pub async fn report(&self, id: i64, at: DateTime<Utc>) -> Result<(), DbError> {
        let update = Query::update()
            .table(Alias::new("services"))
            .value("report_count", Expr::col("report_count").add(1))
            .value("updated_at", self.db.time(at))
            .cond_where(is_service(id))
            .take();
        if self.db.execute(&update).await? == 0 {
            return Err(DbError::not_found("Service", id));
        }
        Ok(())
    }

    /// Keeps the latest report of a periodic task, in place of the one before.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn save_task_report(
        &self,
        service_id: i64,
        report: &TaskReport,
    ) -> Result<(), DbError> {
        let replace = OnConflict::columns(["service_id", "name"])
            .update_columns(["report", "updated_at"])
            .to_owned();
        let insert = Query::insert()
            .into_table(Alias::new("task_reports"))
            .columns(["service_id", "name", "report", "updated_at"])
            .values([
                service_id.into(),
                report.name.as_str().into(),
                json_text(report)?.into(),
                self.db.time(self.db.now()).into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .on_conflict(replace)
            .take();
        self.db.execute(&insert).await?;
        Ok(())
    }
}

impl Db {
    fn service_from(&self, row: &QueryResult) -> Result<ServiceRecord, DbError> {
        let row = Row::new(row, self.backend(), "services", SERVICE);
        Ok(ServiceRecord {
            id: row.int(0)?,
            host: row.text(1)?,
            binary: row.text(2)?,
            topic: row.text(3)?,
            report_count: row.int(4)?,
            disabled: row.flag(5)?,
            disabled_reason: row.get(6)?,
            created_at: row.time(7)?,
            updated_at: row.time_opt(8)?,
        })
    }
}

#[async_trait]
impl ServiceStore for ServiceRegistry {
    async fn register(
        &self,
        host: &str,
        binary: &str,
        topic: &str,
    ) -> Result<ServiceRecord, ApiError> {
        Ok(self.register(host, binary, topic).await?)
    }

    async fn report(&self, id: i64, at: DateTime<Utc>) -> Result<(), ApiError> {
        Ok(self.report(id, at).await?)
    }

    async fn save_task_report(&self, service_id: i64, report: &TaskReport) -> Result<(), ApiError> {
        Ok(self.save_task_report(service_id, report).await?)
    }

    async fn task_reports(&self, service_id: i64) -> Result<Vec<TaskReport>, ApiError> {
        Ok(ServiceViews::task_reports(self, service_id).await?)
    }
}
