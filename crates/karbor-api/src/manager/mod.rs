//! `ApiManager`: responsible for what users record — plans, restores, verifications, triggers,
//! scheduled operations — and for asking the protection manager and the operation engine for the rest.
//!
//! Handlers call it and nothing else. It checks what a request may mean (is the plan yours, does
//! the provider know the parameter), keeps the records in the database, and passes on to
//! [`ProtectionApi`], under the same verb, whatever touches banks and resources, and to
//! [`OperationEngineApi`] what runs by itself. It does not know whether that runs here or on
//! another host.
//!
//! It is a [`Manager`] like the others, so a `Service` can wrap it, but it answers nothing over
//! RPC: its clients come by HTTP.
//!
//! Pages, filters and values come to it typed, and a refusal leaves it as a [`Refusal`](crate::refusal::Refusal): it
//! knows nothing of texts that a client reads or writes. Whose records a request gets is `tenancy`'s for what the
//! database has, `ProtectionManager::checkpoint`'s for what the banks have.

mod checkpoints;
mod operation_logs;
mod plans;
mod protectables;
mod quotas;
mod readbacks;
mod scheduled_operations;
mod services;
mod tenancy;
mod triggers;

use std::sync::Arc;

use karbor_db::{
    Announcements, PlanStore, QuotaStore, RunViews, ScheduleDefinitions, ServiceAdmin, TokenStore,
};
use karbor_interfaces::{OperationEngineApi, ProtectionApi};
use karbor_manager::{Clock, Manager, ManagerBase, RpcEndpoint, ServiceClient, TaskSet};
use karbor_model::{
    ApiError, ErrorKind, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    RequestContext,
};

pub(crate) use self::{
    checkpoints::{CHECKPOINT_FILTERS, PROVIDER_FILTERS},
    operation_logs::OPERATION_LOG_FILTERS,
    plans::{NewPlan, PLAN_FILTERS, PlanChange},
    protectables::INSTANCE_FILTERS,
    readbacks::NewReadback,
    scheduled_operations::{NewScheduledOperation, SCHEDULED_OPERATION_FILTERS},
    triggers::{NewTrigger, TRIGGER_FILTERS, TriggerChange},
};
use crate::{
    auth::Authenticator,
    policy::Policy,
    settings::{Settings, SettingsError},
};

/// How often an update is tried anew when somebody else changed the record in between.
const UPDATE_ATTEMPTS: usize = 5;

/// What the API's manager works with in the database.
#[derive(Debug, Clone)]
pub struct ApiStores {
    /// Plans are its own.
    pub plans: PlanStore,
    /// It enters what users define; the operation engine fires it.
    pub schedules: ScheduleDefinitions,
    /// Quotas are its own.
    pub quotas: QuotaStore,
    /// So are the tokens that it gives out.
    pub tokens: TokenStore,
    /// It shows services, and takes them out of service.
    pub services: ServiceAdmin,
    /// It shows what the protection manager runs.
    pub runs: RunViews,
    /// It tells of operations that were refused before the protection manager heard of them.
    pub announcements: Announcements,
}

/// The manager behind the REST API.
pub struct ApiManager {
    base: ManagerBase<ApiStores>,
    protection: Arc<dyn ProtectionApi>,
    engine: Arc<dyn OperationEngineApi>,
    services: ServiceClient,
    policy: Policy,
    settings: Settings,
    authenticator: Authenticator,
}

impl ApiManager {
    /// `base` brings host, stores, configuration (see [`OPTIONS`](crate::OPTIONS)) and clock;
    /// `protection` and `engine` are the managers themselves or clients of them; `services` asks any service about itself.
    ///
    /// # Errors
    /// [`SettingsError`] names the option that is wrong.
    pub fn new(
        base: ManagerBase<ApiStores>,
        protection: Arc<dyn ProtectionApi>,
        engine: Arc<dyn OperationEngineApi>,
        services: ServiceClient,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::read(base.config())?;
        let policy = Policy::defaults(base.clock().clone());
        let authenticator =
            Authenticator::new(&settings, base.db().tokens.clone(), base.clock().clone())?;
        Ok(Self {
            base,
            protection,
            engine,
            services,
            policy,
            settings,
            authenticator,
        })
    }

    /// The same manager under policies of its own; without this the defaults hold.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How the API is set up.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// The policies in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &**self.base.clock()
    }

    /// Requests that change something run in this set: the server joins it at the end.
    pub(crate) fn tasks(&self) -> &TaskSet {
        self.base.tasks()
    }

    /// Announces that an operation did not begin, with the reason; the caller gets the error anyway. `about`
    /// fills in what it was to be about.
    async fn announce_refused(
        &self,
        context: &RequestContext,
        operation_type: OperationType,
        error: &ApiError,
        reason: String,
        about: impl FnOnce(&mut OperationLog),
    ) {
        // After a timeout it may run.
        if error.is_logged || error.kind == ErrorKind::Timeout {
            return;
        }
        let log = self.refused(context, operation_type, reason, about);
        if let Err(error) = self
            .stores()
            .announcements
            .asked_by(context)
            .refused_operation(&log)
            .await
        {
            tracing::error!(%error, "a refused operation could not be told");
        }
    }

    /// The record of an operation that was refused now.
    fn refused(
        &self,
        context: &RequestContext,
        operation_type: OperationType,
        reason: String,
        about: impl FnOnce(&mut OperationLog),
    ) -> OperationLog {
        let now = self.base.clock().now();
        let mut log = OperationLog {
            id: OperationLogId::new(),
            project_id: context.project_id.clone(),
            operation_type,
            checkpoint_id: None,
            plan_id: None,
            provider_id: None,
            readback_id: None,
            scheduled_operation_id: None,
            status: OperationLogStatus::Failed,
            started_at: now,
            ended_at: Some(now),
            error_info: Some(reason),
            extra_info: None,
        };
        about(&mut log);
        log
    }

    fn stores(&self) -> &ApiStores {
        self.base.db()
    }
}

impl Manager for ApiManager {
    type Db = ApiStores;

    const BINARY: &'static str = "karbor-api";
    const TOPIC: &'static str = "karbor-api";

    fn base(&self) -> &ManagerBase<ApiStores> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        Vec::new()
    }
}
