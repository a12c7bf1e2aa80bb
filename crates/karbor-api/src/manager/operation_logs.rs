//! The operation log.

use karbor_model::{OperationLog, OperationLogId};

use super::{
    ApiManager,
    tenancy::{UnknownFilters, scoped},
};
use crate::{
    page::Page,
    policy::{Caller, Permit},
    refusal::Refusal,
};

/// What a list of the operation log can be narrowed down by.
pub(crate) const OPERATION_LOG_FILTERS: [&str; 8] = [
    "id",
    "status",
    "operation_type",
    "checkpoint_id",
    "plan_id",
    "provider_id",
    "restore_id",
    "scheduled_operation_id",
];

impl ApiManager {
    pub(crate) async fn operation_log_get(
        &self,
        caller: Caller<'_>,
        id: OperationLogId,
    ) -> Result<OperationLog, Refusal> {
        let log = self.stores().runs.operation_log_get(id).await?;
        self.may_see(caller, &log)?;
        Ok(log)
    }

    pub(crate) async fn operation_log_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<OperationLog>, Refusal> {
        let unknown = UnknownFilters::FindNothing;
        match scoped(permit.context(), page, &OPERATION_LOG_FILTERS, unknown) {
            Some(query) => Ok(self.stores().runs.operation_log_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }
}
