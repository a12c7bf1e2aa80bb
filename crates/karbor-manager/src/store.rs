//! The services table, as services see it. The database crate implements it.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::{ApiError, ServiceRecord};

use crate::TaskReport;

/// Where services register, beat their heart and leave the reports of their periodic tasks.
#[async_trait]
pub trait ServiceStore: Send + Sync + 'static {
    /// The record of `binary` on `host`; made if there is none.
    async fn register(
        &self,
        host: &str,
        binary: &str,
        topic: &str,
    ) -> Result<ServiceRecord, ApiError>;

    /// A heartbeat: one more report, made `at`. `NotFound` when the row is gone.
    async fn report(&self, id: i64, at: DateTime<Utc>) -> Result<(), ApiError>;

    /// Keeps the latest report of a task, in place of the one before.
    async fn save_task_report(&self, service_id: i64, report: &TaskReport) -> Result<(), ApiError>;

    /// The latest report of every task of a service, by name.
    async fn task_reports(&self, service_id: i64) -> Result<Vec<TaskReport>, ApiError>;
}
