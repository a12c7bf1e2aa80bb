#![allow(missing_docs)]
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use karbor_model::{
    OperationLog, OperationLogId, Plan, PlanId, Restore, RestoreId, ServiceRecord, State,
    Verification, VerificationId,
};
use serde_json::Value;

use crate::{Db, DbError, ListQuery};

/// A record with a state that changes by compare-and-set.
pub trait Stateful: Send + Sync + 'static {
    type Id: std::fmt::Display + Copy + Send + Sync;
    type State: State;
    const WHAT: &'static str;
    const TABLE: &'static str;
}
macro_rules! stateful { ($($t:ty, $i:ty, $s:ty, $w:literal, $tb:literal);+) => {$(
    impl Stateful for $t { type Id = $i; type State = $s; const WHAT: &'static str = $w; const TABLE: &'static str = $tb; }
)+} }
stateful! {
    Plan, PlanId, karbor_model::PlanStatus, "Plan", "plans";
    Restore, RestoreId, karbor_model::RestoreStatus, "Restore", "restores";
    Verification, VerificationId, karbor_model::VerificationStatus, "Verification", "verifications";
    OperationLog, OperationLogId, karbor_model::OperationLogStatus, "OperationLog", "operation_logs";
    crate::FlowRecord, karbor_model::OperationId, karbor_model::FlowStatus, "Flow", "flows"
}

/// An API token; only the hash of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    pub hash: String,
    pub user_id: String,
    pub project_id: String,
    pub roles: Vec<String>,
    pub is_admin: bool,
    pub created_at: DateTime<Utc>,
}

/// What to change of an operation log; `None` leaves a column as it is.
#[derive(Debug, Clone, Default)]
pub struct OperationLogUpdate {
    pub checkpoint_id: Option<karbor_model::CheckpointId>,
    pub extra_info: Option<Value>,
    pub error_info: Option<String>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Db {
    pub async fn connect(_url: &str) -> Result<Self, DbError> {
        todo!()
    }
    pub async fn migrate(&self) -> Result<(), DbError> {
        todo!()
    }
    /// Compare-and-set of a state: `db.transition::<Plan>(id, from, to)`.
    pub async fn transition<R: Stateful>(
        &self,
        _id: R::Id,
        _from: R::State,
        _to: R::State,
    ) -> Result<(), DbError> {
        todo!()
    }

    pub async fn plan_create(&self, _plan: &Plan) -> Result<(), DbError> {
        todo!()
    }
    pub async fn plan_get(&self, _id: PlanId) -> Result<Plan, DbError> {
        todo!()
    }
    /// Compare-and-set on `status` and `updated_at` as they were read; returns the plan as it is now stored.
    pub async fn plan_update(&self, _plan: &Plan) -> Result<Plan, DbError> {
        todo!()
    }
    pub async fn plan_delete(&self, _id: PlanId) -> Result<(), DbError> {
        todo!()
    }
    pub async fn plan_list(&self, _query: &ListQuery) -> Result<Vec<Plan>, DbError> {
        todo!()
    }

    pub async fn restore_create(&self, _restore: &Restore) -> Result<(), DbError> {
        todo!()
    }
    pub async fn restore_get(&self, _id: RestoreId) -> Result<Restore, DbError> {
        todo!()
    }
    pub async fn restore_list(&self, _query: &ListQuery) -> Result<Vec<Restore>, DbError> {
        todo!()
    }
    pub async fn restore_update_resources(
        &self,
        _id: RestoreId,
        _status: &BTreeMap<String, String>,
        _reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        todo!()
    }

    pub async fn verification_create(&self, _verification: &Verification) -> Result<(), DbError> {
        todo!()
    }
    pub async fn verification_get(&self, _id: VerificationId) -> Result<Verification, DbError> {
        todo!()
    }
    pub async fn verification_list(
        &self,
        _query: &ListQuery,
    ) -> Result<Vec<Verification>, DbError> {
        todo!()
    }
    pub async fn verification_update_resources(
        &self,
        _id: VerificationId,
        _status: &BTreeMap<String, String>,
        _reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        todo!()
    }

    pub async fn operation_log_create(&self, _log: &OperationLog) -> Result<(), DbError> {
        todo!()
    }
    pub async fn operation_log_get(&self, _id: OperationLogId) -> Result<OperationLog, DbError> {
        todo!()
    }
    pub async fn operation_log_list(
        &self,
        _query: &ListQuery,
    ) -> Result<Vec<OperationLog>, DbError> {
        todo!()
    }
    pub async fn operation_log_update(
        &self,
        _id: OperationLogId,
        _update: &OperationLogUpdate,
    ) -> Result<(), DbError> {
        todo!()
    }

    pub async fn service_list(&self) -> Result<Vec<ServiceRecord>, DbError> {
        todo!()
    }
    pub async fn service_get(&self, _id: i64) -> Result<ServiceRecord, DbError> {
        todo!()
    }
    pub async fn service_set_disabled(
        &self,
        _id: i64,
        _disabled: bool,
        _reason: Option<&str>,
    ) -> Result<ServiceRecord, DbError> {
        todo!()
    }
    pub async fn service_register(
        &self,
        _host: &str,
        _binary: &str,
        _topic: &str,
    ) -> Result<ServiceRecord, DbError> {
        todo!()
    }
    pub async fn service_report(&self, _id: i64, _at: DateTime<Utc>) -> Result<(), DbError> {
        todo!()
    }

    pub async fn token_create(
        &self,
        _hash: &str,
        _user: &str,
        _project: &str,
        _roles: &[String],
        _is_admin: bool,
    ) -> Result<TokenRecord, DbError> {
        todo!()
    }
    pub async fn token_find(&self, _hash: &str) -> Result<Option<TokenRecord>, DbError> {
        todo!()
    }
    pub async fn token_list(&self) -> Result<Vec<TokenRecord>, DbError> {
        todo!()
    }
    pub async fn token_delete(&self, _hash: &str) -> Result<(), DbError> {
        todo!()
    }
}
