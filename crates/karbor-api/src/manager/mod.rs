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
//! What a record of another project answers is one rule, whatever is asked of it: it does not exist
//! (404), unless it is of a kind that the original was recorded to admit (403): [`require_own`] for
//! what the database has, `ProtectionManager::checkpoint` for what the banks have. Policies come after it:
//! they can narrow what a project may do with its own, and open nothing of another's (`docs/adr/0026`).

mod checkpoints;
mod plans;
mod protectables;
mod quotas;
mod runs;
mod scheduled_operations;
mod services;
mod triggers;

use std::sync::Arc;

use karbor_db::Db;
use karbor_interfaces::{OperationEngineApi, ProtectionApi};
use karbor_manager::{Clock, Manager, ManagerBase, RpcEndpoint, ServiceClient, TaskSet};
use karbor_model::{
    ApiError, ErrorKind, OperationLog, OperationLogId, OperationLogStatus, OperationType,
    RequestContext,
};

pub(crate) use self::checkpoints::CHECKPOINT_FILTERS;
pub(crate) use self::plans::{NewPlan, PlanChange};
pub(crate) use self::runs::{NewRestore, NewVerification};
pub(crate) use self::scheduled_operations::NewScheduledOperation;
pub(crate) use self::triggers::{NewTrigger, TriggerChange};
use crate::{
    auth::Authenticator,
    policy::{Policy, refused},
    settings::{Settings, SettingsError},
};
use serde::Serialize;

/// How often an update is tried anew when somebody else changed the record in between.
const UPDATE_ATTEMPTS: usize = 5;

/// The manager behind the REST API.
pub struct ApiManager {
    base: ManagerBase<Db>,
    protection: Arc<dyn ProtectionApi>,
    engine: Arc<dyn OperationEngineApi>,
    services: ServiceClient,
    policy: Policy,
    settings: Settings,
    authenticator: Authenticator,
}

impl ApiManager {
    /// `base` brings host, database, configuration (see [`OPTIONS`](crate::OPTIONS)) and clock;
    /// `protection` and `engine` are the managers themselves or clients of them; `services` asks any service about itself.
    ///
    /// # Errors
    /// [`SettingsError`] names the option that is wrong.
    pub fn new(
        base: ManagerBase<Db>,
        protection: Arc<dyn ProtectionApi>,
        engine: Arc<dyn OperationEngineApi>,
        services: ServiceClient,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::read(base.config())?;
        let policy = Policy::defaults(base.clock().clone());
        let authenticator = Authenticator::new(&settings, base.db().clone(), base.clock().clone())?;
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

    /// Announces that an operation did not begin; the caller gets the error anyway. `about`
    /// fills in what it was to be about.
    async fn tell_refused(
        &self,
        context: &RequestContext,
        operation_type: OperationType,
        error: &ApiError,
        about: impl FnOnce(&mut OperationLog),
    ) {
        // After a timeout it may run.
        if error.is_logged || error.kind == ErrorKind::Timeout {
            return;
        }
        let log = self.refused(context, operation_type, error, about);
        if let Err(error) = self.db().asked_by(context).tell_refused(&log).await {
            tracing::error!(%error, "a refused operation could not be told");
        }
    }

    /// The record of an operation that was refused now.
    fn refused(
        &self,
        context: &RequestContext,
        operation_type: OperationType,
        error: &ApiError,
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
            restore_id: None,
            verification_id: None,
            scheduled_operation_id: None,
            status: OperationLogStatus::Failed,
            started_at: now,
            ended_at: Some(now),
            error_info: Some(error.message.clone()),
            extra_info: None,
        };
        about(&mut log);
        log
    }

    fn db(&self) -> &Db {
        self.base.db()
    }

    /// May `context` do what `rule` names in its own project?
    fn may(&self, context: &RequestContext, rule: &str) -> Result<(), ApiError> {
        self.policy.enforce(context, rule, &context.project_id)
    }

    /// May `context` do what `rule` names to a record?
    fn may_use(
        &self,
        context: &RequestContext,
        rule: &str,
        used: &Seen<'_, impl Serialize>,
    ) -> Result<(), ApiError> {
        require_own(context, rule, used.project, used.what, used.id)?;
        self.policy
            .enforce_on(context, rule, used.project, used.record)
    }

    /// May `context` see a record? One that `rule` forbids it to see does not exist for it: so it was
    /// with plans, restores, verifications and the operation log.
    fn may_see(
        &self,
        context: &RequestContext,
        rule: &str,
        seen: &Seen<'_, impl Serialize>,
    ) -> Result<(), ApiError> {
        require_own(context, rule, seen.project, seen.what, seen.id)?;
        self.policy
            .enforce_on(context, rule, seen.project, seen.record)
            .map_err(|_| ApiError::not_found(seen.what, seen.id))
    }
}

impl Manager for ApiManager {
    type Db = Db;

    const BINARY: &'static str = "karbor-api";
    const TOPIC: &'static str = "karbor-api";

    fn base(&self) -> &ManagerBase<Db> {
        &self.base
    }

    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        Vec::new()
    }
}

/// A record that somebody wants to see or change.
struct Seen<'a, R> {
    what: &'a str,
    id: &'a dyn std::fmt::Display,
    project: &'a str,
    record: &'a R,
}

/// The kinds of which the original was recorded to admit that another project has one.
const ADMITTED: [&str; 1] = ["Trigger"];

/// Is the record, for which `rule` is asked, one that `context` may know of?
///
/// # Errors
/// A 404 as for an id that nobody has; of the [`ADMITTED`] a 403 that names the rule.
fn require_own(
    context: &RequestContext,
    rule: &str,
    project: &str,
    what: &str,
    id: impl std::fmt::Display,
) -> Result<(), ApiError> {
    if context.may_access(project) {
        Ok(())
    } else if ADMITTED.contains(&what) {
        Err(refused(rule))
    } else {
        Err(ApiError::not_found(what, id))
    }
}

/// An id in a path, or the original's `Invalid <what> id provided.`
pub(crate) fn id<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(
            ErrorKind::BadRequest,
            "Invalid",
            format!("Invalid {what} id provided."),
        )
    })
}
