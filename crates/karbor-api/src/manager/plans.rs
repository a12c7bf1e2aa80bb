//! Plans.

use karbor_db::DbError;
use karbor_model::{
    ErrorKind, KnownType, OPENSTACK_TYPES, ParameterRules, Parameters, Plan, PlanId, PlanStatus,
    Provider, ProviderId, RequestContext, Resource, check_parameters,
};
use serde_json::Value;

use super::{
    ApiManager, UPDATE_ATTEMPTS,
    tenancy::{UnknownFilters, scoped},
};
use crate::{
    page::Page,
    policy::{Caller, Permit},
    refusal::{RecordKind, Refusal},
};

/// What a list of plans can be narrowed down by.
pub(crate) const PLAN_FILTERS: [&str; 5] = ["id", "name", "description", "status", "provider_id"];

/// A plan as a client wants it.
pub(crate) struct NewPlan {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) provider_id: ProviderId,
    pub(crate) parameters: Parameters,
    pub(crate) resources: Vec<Resource>,
}

/// What a client wants changed; `None` stays as it is.
#[derive(Clone)]
pub(crate) struct PlanChange {
    pub(crate) name: Option<String>,
    pub(crate) status: Option<PlanStatus>,
    pub(crate) description: Option<Option<String>>,
    pub(crate) resources: Option<Vec<Resource>>,
}

impl ApiManager {
    pub(crate) async fn plan_create(
        &self,
        permit: Permit<'_>,
        new: NewPlan,
    ) -> Result<Plan, Refusal> {
        let context = permit.context();
        let provider = match self
            .protection
            .show_provider(context, new.provider_id)
            .await
        {
            Ok(provider) => provider,
            // Only "not found" means that: a service that is away is told as such (Q72).
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(Refusal::NoProviderForPlan);
            }
            Err(error) => return Err(error.into()),
        };
        check_parameters(&OfProvider(&provider), &new.parameters)?;
        let plan = Plan {
            id: PlanId::new(),
            name: new.name.unwrap_or_default(),
            description: new.description,
            provider_id: new.provider_id,
            project_id: context.project_id.clone(),
            status: PlanStatus::Suspended,
            parameters: new.parameters,
            resources: new.resources,
            created_at: self.base.clock().now(),
            updated_at: None,
        };
        let quotas = &self.settings.quotas;
        self.stores()
            .plans
            .asked_by(context)
            .create_within(&plan, quotas)
            .await?;
        Ok(plan)
    }

    pub(crate) async fn plan_get(&self, caller: Caller<'_>, id: PlanId) -> Result<Plan, Refusal> {
        let plan = self.stores().plans.get(id).await?;
        self.may_see(caller, &plan)?;
        Ok(plan)
    }

    /// A plan to act on, for a request that is permitted.
    pub(super) async fn plan_own(&self, permit: Permit<'_>, id: PlanId) -> Result<Plan, Refusal> {
        let plan = self.stores().plans.get(id).await?;
        match permit.context().may_access(&plan.project_id) {
            true => Ok(plan),
            false => Err(Refusal::not_found(RecordKind::Plan, id)),
        }
    }

    /// A plan, if the caller may do what its rule names to it.
    async fn plan_for(&self, caller: Caller<'_>, id: PlanId) -> Result<Plan, Refusal> {
        let plan = self.stores().plans.get(id).await?;
        self.may_use(caller, &plan)?;
        Ok(plan)
    }

    pub(crate) async fn plan_list(
        &self,
        permit: Permit<'_>,
        page: &Page,
    ) -> Result<Vec<Plan>, Refusal> {
        let unknown = UnknownFilters::Ignored;
        match scoped(permit.context(), page, &PLAN_FILTERS, unknown) {
            Some(query) => Ok(self.stores().plans.list(&query).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn plan_update(
        &self,
        caller: Caller<'_>,
        id: PlanId,
        change: PlanChange,
    ) -> Result<Plan, Refusal> {
        let mut attempt = 1;
        loop {
            let mut plan = self.plan_for(caller, id).await?;
            // A started plan may be suspended again, nothing else (Q09).
            let will_be = change.status.unwrap_or(plan.status);
            if plan.status != PlanStatus::Suspended && will_be != PlanStatus::Suspended {
                return Err(Refusal::PlanIsStarted);
            }
            let wanted = change.clone();
            plan.name = wanted.name.unwrap_or(plan.name);
            plan.description = wanted.description.unwrap_or(plan.description);
            plan.resources = wanted.resources.unwrap_or(plan.resources);
            let fields =
                change.name.is_some() || change.description.is_some() || change.resources.is_some();
            let context = caller.context();
            let outcome = self.plan_write(context, plan, fields, will_be).await;
            match outcome {
                Err(DbError::Conflict { .. }) if attempt < UPDATE_ATTEMPTS => attempt += 1,
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Fields and status change by compare-and-set, against what was read.
    async fn plan_write(
        &self,
        context: &RequestContext,
        mut plan: Plan,
        fields: bool,
        will_be: PlanStatus,
    ) -> Result<Plan, DbError> {
        let plans = self.stores().plans.asked_by(context);
        if fields {
            plan = plans.update(&plan).await?;
        }
        if plan.status != will_be {
            plans.set_status(plan.id, plan.status, will_be).await?;
            plan.status = will_be;
        }
        Ok(plan)
    }

    pub(crate) async fn plan_delete(&self, caller: Caller<'_>, id: PlanId) -> Result<(), Refusal> {
        self.plan_for(caller, id).await?;
        let plans = self.stores().plans.asked_by(caller.context());
        Ok(plans.delete(id).await?)
    }
}

/// What parameters of a plan may be, by what its provider's plugins tell of their options. Values are the plugin's
/// business when it runs, as in the original, and types of OpenStack may have parameters although the provider has
/// no plugin for them; only a choice among given words is checked here already, for types that the original did not
/// have.
pub(super) struct OfProvider<'a>(pub(super) &'a Provider);

impl ParameterRules for OfProvider<'_> {
    type Error = Refusal;

    fn known_type(&self, resource_type: &str) -> KnownType<'_> {
        let schemas = self.0.extended_info_schema.get("options_schema");
        match schemas.and_then(|schemas| schemas.get(resource_type)) {
            Some(schema) => KnownType::Described(schema),
            None if OPENSTACK_TYPES.contains(&resource_type) => KnownType::Open,
            None => KnownType::Unknown,
        }
    }

    fn check_value(
        &self,
        resource_type: &str,
        name: &str,
        value: &Value,
        schema: &Value,
    ) -> Result<(), Refusal> {
        let choices = schema.get("enum").and_then(Value::as_array);
        let is_theirs = OPENSTACK_TYPES.contains(&resource_type);
        match choices.filter(|_| !is_theirs) {
            Some(choices) if !choices.iter().any(|choice| is_chosen(choice, value)) => {
                Err(Refusal::NotAChoice {
                    name: name.to_owned(),
                    given: value.clone(),
                    choices: choices.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Does `given` choose `choice`? Parameters are kept as texts, in which `true` became `True`.
fn is_chosen(choice: &Value, given: &Value) -> bool {
    match (choice, given) {
        (Value::Bool(true), Value::String(text)) => text == "True",
        (Value::Bool(false), Value::String(text)) => text == "False",
        (Value::Null, Value::String(text)) => text == "None",
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        (choice, given) => choice == given,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_chooses_the_value_that_it_was_made_of() {
        for (choice, text) in [
            (json!("never"), "never"),
            (json!(true), "True"),
            (json!(false), "False"),
            (json!(null), "None"),
            (json!(-3), "-3"),
            (json!(0.5), "0.5"),
        ] {
            assert!(is_chosen(&choice, &json!(text)), "{choice}");
            assert!(!is_chosen(&choice, &json!("other")), "{choice}");
        }
    }
}
