//! Scheduled operations: what triggers fire.
//!
//! An operation is recorded with its trust, then an engine is asked to take it on; until it has, nothing
//! runs it. What the engine refuses is removed again. What no engine was told of, because we died
//! before, engines find by themselves.
//!
//! Where users come from keystone, an operation runs as its owner by a trust: it is made here, where
//! the owner's token is, before the operation, and ended before the operation goes. So a trust that
//! nobody uses is left only by a crash in between.

use std::collections::BTreeMap;

use karbor_db::DbError;
use karbor_identity::TrustError;
use karbor_model::{
    PlanId, RequestContext, ScheduledOperation, ScheduledOperationId, ScheduledOperationType,
    TriggerId,
};

use super::{
    ApiManager,
    tenancy::{UnknownFilters, scoped},
};
use crate::{
    auth::UserToken,
    page::Page,
    policy::{Caller, Permit},
    refusal::{DefinitionFault, RecordKind, Refusal},
};

/// What a list of scheduled operations can be narrowed down by.
pub(crate) const SCHEDULED_OPERATION_FILTERS: [&str; 6] = [
    "id",
    "name",
    "description",
    "operation_type",
    "trigger_id",
    "operation_definition",
];

/// What the caller who schedules an operation must be allowed to do with its plan: to see it.
const SEE_PLAN: &str = "plan:get";

/// A scheduled operation as a client wants it.
pub(crate) struct NewScheduledOperation {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) operation_type: String,
    pub(crate) trigger_id: TriggerId,
    pub(crate) operation_definition: BTreeMap<String, String>,
}

impl ApiManager {
    pub(crate) async fn scheduled_operation_create(
        &self,
        permit: Permit<'_>,
        token: Option<&UserToken>,
        new: NewScheduledOperation,
    ) -> Result<ScheduledOperation, Refusal> {
        let context = permit.context();
        let trigger = self.stores().schedules.trigger_get(new.trigger_id).await?;
        if trigger.project_id != context.project_id {
            return Err(Refusal::ForeignTrigger);
        }
        let operation_type: Result<ScheduledOperationType, _> = new.operation_type.parse();
        let operation_type = operation_type.map_err(|_| Refusal::NoOperationType {
            given: new.operation_type,
        })?;
        let operation_definition = self
            .check_plan(context, &context.project_id, new.operation_definition)
            .await?;
        let operation = ScheduledOperation {
            id: ScheduledOperationId::new(),
            name: new.name,
            description: new.description,
            operation_type,
            user_id: context.user_id.clone().unwrap_or_default(),
            project_id: context.project_id.clone(),
            trigger_id: new.trigger_id,
            operation_definition,
            enabled: true,
            created_at: self.base.clock().now(),
            updated_at: None,
        };
        let trust = self.give_trust(context, token).await?;
        if let Err(refusal) = self.record(context, &operation, trust.clone()).await {
            if let Some(trust) = &trust
                && let Err(error) = self.end_trust(trust).await
            {
                tracing::warn!(trust, "the trust of a refused operation stays: {error:?}");
            }
            return Err(refusal);
        }
        Ok(operation)
    }

    /// Writes the operation down and has an engine take it on, or neither.
    async fn record(
        &self,
        context: &RequestContext,
        operation: &ScheduledOperation,
        trust: Option<String>,
    ) -> Result<(), Refusal> {
        let schedules = self.stores().schedules.asked_by(context);
        schedules
            .operation_create(operation, trust.as_deref())
            .await?;
        let taken = self
            .engine
            .create_scheduled_operation(context, operation.clone(), trust)
            .await;
        let Err(error) = taken else {
            return Ok(());
        };
        let refusal = Refusal::from(error);
        // Also after a timeout: what is not in the database does not run, even if an engine took it on.
        match schedules.operation_delete(operation.id).await {
            Ok(()) | Err(DbError::NotFound { .. }) => Err(refusal),
            Err(error) => {
                tracing::error!(operation = %operation.id, "a refused operation stays: {error:?}");
                Err(refusal)
            }
        }
    }

    async fn give_trust(
        &self,
        context: &RequestContext,
        token: Option<&UserToken>,
    ) -> Result<Option<String>, Refusal> {
        match (self.authenticator.keystone(), token) {
            (Some(keystone), Some(token)) => {
                Ok(Some(keystone.create_trust(&token.0, context).await?))
            }
            _ => Ok(None),
        }
    }

    /// A trust that nobody here can take any more cannot be ended here either: that keeps nothing else.
    async fn end_trust(&self, trust: &str) -> Result<(), Refusal> {
        let Some(keystone) = self.authenticator.keystone() else {
            return Ok(());
        };
        match keystone.delete_trust(trust).await {
            Ok(()) => Ok(()),
            Err(error @ TrustError::NoTrustee) => {
                tracing::warn!(trust, %error, "a trust is not ended; its owner can end it in keystone");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The plan is `project`'s own (Q65), there (Q43), and protected by the provider named.
    /// Returns the definition with ids in their one notation: the plan's deletion looks for it.
    async fn check_plan(
        &self,
        context: &RequestContext,
        project: &str,
        mut definition: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Refusal> {
        let text = |key: &str| definition.get(key).map_or("", String::as_str);
        let plan_id: PlanId = text("plan_id")
            .parse()
            .map_err(|_| Refusal::Definition(DefinitionFault::PlanId))?;
        let plan = self
            .plan_get(Caller::new(context, SEE_PLAN), plan_id)
            .await?;
        if plan.project_id != project {
            return Err(Refusal::Definition(DefinitionFault::ForeignPlan));
        }
        if text("provider_id").parse() != Ok(plan.provider_id) {
            return Err(Refusal::Definition(DefinitionFault::Provider));
        }
        definition.insert("plan_id".to_owned(), plan.id.to_string());
        definition.insert("provider_id".to_owned(), plan.provider_id.to_string());
        Ok(definition)
    }

    pub(crate) async fn scheduled_operation_get(
        &self,
        caller: Caller<'_>,
        id: ScheduledOperationId,
    ) -> Result<ScheduledOperation, Refusal> {
        self.operation_for(caller, id).await
    }

    pub(crate) async fn scheduled_operation_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<ScheduledOperation>, Refusal> {
        let unknown = UnknownFilters::Ignored;
        match scoped(
            permit.context(),
            page,
            &SCHEDULED_OPERATION_FILTERS,
            unknown,
        ) {
            Some(query) => Ok(self.stores().schedules.operation_list(&query).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Lets an operation run when its trigger fires, or leaves it out.
    pub(crate) async fn scheduled_operation_enable(
        &self,
        caller: Caller<'_>,
        id: ScheduledOperationId,
        enabled: bool,
    ) -> Result<ScheduledOperation, Refusal> {
        let context = caller.context();
        let operation = self.operation_for(caller, id).await?;
        let trigger_id = operation.trigger_id;
        if enabled {
            // Its plan may have been deleted since.
            let definition = operation.operation_definition;
            let project = &operation.project_id;
            self.check_plan(context, project, definition).await?;
            self.engine
                .resume_scheduled_operation(context, id, trigger_id)
                .await?;
        } else {
            self.engine
                .suspend_scheduled_operation(context, id, trigger_id)
                .await?;
        }
        self.operation_for(caller, id).await
    }

    /// The engine lets go of the operation before its record goes: a caller who is interrupted in
    /// between asks again.
    pub(crate) async fn scheduled_operation_delete(
        &self,
        caller: Caller<'_>,
        id: ScheduledOperationId,
    ) -> Result<(), Refusal> {
        let context = caller.context();
        let operation = self.operation_for(caller, id).await?;
        match self.stores().schedules.operation_trust(id).await {
            Ok(Some(trust)) => self.end_trust(&trust).await?,
            // No engine has taken it on.
            Ok(None) | Err(DbError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.engine
            .delete_scheduled_operation(context, id, operation.trigger_id)
            .await?;
        match self
            .stores()
            .schedules
            .asked_by(context)
            .operation_delete(id)
            .await
        {
            // Somebody else asked for the same.
            Ok(()) | Err(DbError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A scheduled operation, if the caller may do what its rule names to it.
    async fn operation_for(
        &self,
        caller: Caller<'_>,
        id: ScheduledOperationId,
    ) -> Result<ScheduledOperation, Refusal> {
        let found = self.stores().schedules.operation_get(id).await;
        let operation = found.map_err(|error| match error {
            DbError::NotFound { .. } => Refusal::not_found(RecordKind::ScheduledOperation, id),
            other => other.into(),
        })?;
        self.may_use(caller, &operation)?;
        Ok(operation)
    }
}
