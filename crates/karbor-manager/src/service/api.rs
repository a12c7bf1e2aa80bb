//! What every service answers, whatever its manager.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use karbor_model::{ApiError, RequestContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shared::Shared;
use crate::{Health, Manager, TaskReport, tasks::lock};

/// How a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Host it runs on.
    pub host: String,
    /// Binary.
    pub binary: String,
    /// RPC topic.
    pub topic: String,
    /// Id in the services table.
    pub service_id: i64,
    /// Version that runs.
    pub version: String,
    /// What the manager says, or what keeps the service from its work.
    pub health: Health,
    /// Could the database be reached when it was last needed?
    pub store_reachable: bool,
    /// Last heartbeat of this run, UTC.
    pub last_heartbeat: Option<DateTime<Utc>>,
    /// When it was started, UTC.
    pub started_at: DateTime<Utc>,
    /// The manager's tasks that are running.
    pub running_tasks: Vec<String>,
}

crate::rpc_interface! {
    /// What every service answers, in the namespace `service`. A client must be told the topic
    /// ([`ServiceClient::on_topic`]), and the host if one host is meant.
    pub trait ServiceApi {
        namespace: "service", version: (1, 0), client: ServiceClient, endpoint: ServiceEndpoint
    }
    /// How the service is.
    since (1, 0) call fn health() -> ServiceHealth;
    /// The effective configuration, secrets redacted.
    since (1, 0) call fn service_config() -> Value;
    /// The version that runs.
    since (1, 0) call fn service_version() -> String;
    /// The report of the last run of each periodic task.
    since (1, 0) call fn task_reports() -> Vec<TaskReport>;
}

#[async_trait]
impl<M: Manager> ServiceApi for Shared<M> {
    async fn health(&self, _: &RequestContext) -> Result<ServiceHealth, ApiError> {
        let record = self.record();
        let beat = lock(&self.beat).clone();
        Ok(ServiceHealth {
            host: record.host,
            binary: record.binary,
            topic: record.topic,
            service_id: record.id,
            version: self.manager.service_version().to_owned(),
            health: self.health(),
            store_reachable: beat.store_reachable,
            last_heartbeat: beat.last,
            started_at: self.started_at,
            running_tasks: self.manager.base().tasks().running(),
        })
    }

    async fn service_config(&self, _: &RequestContext) -> Result<Value, ApiError> {
        Ok(self.manager.service_config())
    }

    async fn service_version(&self, _: &RequestContext) -> Result<String, ApiError> {
        Ok(self.manager.service_version().to_owned())
    }

    async fn task_reports(&self, _: &RequestContext) -> Result<Vec<TaskReport>, ApiError> {
        Ok(self.periodic.reports())
    }
}
