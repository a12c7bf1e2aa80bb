//! The services table, for administrators.

use karbor_manager::{ServiceApi, ServiceHealth, TaskOutcome, TaskReport};
use karbor_model::{ApiError, ServiceRecord};
use serde_json::Value;

use super::ApiManager;
use crate::{
    policy::Permit,
    refusal::{RecordKind, Refusal},
};

/// The only service whose work can be stopped this way; the original allowed no other.
const CAN_BE_UPDATED: &str = "karbor-operationengine";

/// The services of the original. Its clients take a list for all that there is, so one of ours is listed when it is asked
/// for by its name.
const LISTED: [&str; 2] = ["karbor-operationengine", "karbor-protection"];

/// What a service says of itself.
pub(crate) struct ServiceAccount {
    pub(crate) health: ServiceHealth,
    pub(crate) task_reports: Vec<TaskReport>,
    pub(crate) config: Value,
}

impl ApiManager {
    /// A service's record, and what it says of itself over RPC, or why it does not.
    pub(crate) async fn service_show(
        &self,
        permit: Permit<'_>,
        id: &str,
    ) -> Result<(ServiceRecord, Result<ServiceAccount, ApiError>), Refusal> {
        let context = permit.context();
        let service = self.stores().services.get(service_id(id)?).await?;
        let client = self.services.clone();
        let client = client.on_topic(&service.topic).on_server(&service.host);
        let asked = async {
            Ok(ServiceAccount {
                health: client.health(context).await?,
                task_reports: client.task_reports(context).await?,
                config: client.service_config(context).await?,
            })
        };
        let account = asked.await;
        Ok((service, account))
    }

    pub(crate) async fn service_list(
        &self,
        _: Permit<'_>,
        host: Option<&str>,
        binary: Option<&str>,
    ) -> Result<Vec<ServiceRecord>, Refusal> {
        let mut services = self.stores().services.list().await?;
        services.retain(|service| {
            host.is_none_or(|host| service.host == host)
                && match binary {
                    Some(binary) => service.binary == binary,
                    None => LISTED.contains(&service.binary.as_str()),
                }
        });
        Ok(services)
    }

    /// What a service wants to be known of, as its last reports tell: a clock that jumped.
    pub(crate) async fn service_notice(
        &self,
        service: &ServiceRecord,
    ) -> Result<Option<String>, Refusal> {
        let reports = self.stores().services.task_reports(service.id).await?;
        let notice = reports.iter().find_map(|report| match &report.outcome {
            TaskOutcome::Ok { details } => details["notice"].as_str(),
            _ => None,
        });
        Ok(notice.map(str::to_owned))
    }

    pub(crate) async fn service_update(
        &self,
        _: Permit<'_>,
        id: &str,
        disabled: bool,
        reason: Option<&str>,
    ) -> Result<ServiceRecord, Refusal> {
        let id = service_id(id)?;
        let service = self.stores().services.get(id).await?;
        if service.binary != CAN_BE_UPDATED {
            return Err(Refusal::ServiceIsFixed {
                binary: service.binary,
                changeable: CAN_BE_UPDATED,
            });
        }
        if !disabled && reason.is_some_and(|reason| !reason.is_empty()) {
            return Err(Refusal::ReasonWithoutStop);
        }
        let reason = reason.filter(|_| disabled);
        Ok(self
            .stores()
            .services
            .set_disabled(id, disabled, reason)
            .await?)
    }

    /// Did the service beat its heart lately?
    pub(crate) fn service_is_up(&self, service: &ServiceRecord) -> bool {
        self.settings
            .services
            .is_up(service, self.base.clock().now())
    }
}

/// What can be no service's id is no service.
fn service_id(text: &str) -> Result<i64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::not_found(RecordKind::Service, text))
}
