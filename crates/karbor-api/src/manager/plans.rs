//! Plans.

use karbor_db::{DbError, ListQuery};
use karbor_model::{
    ApiError, ErrorKind, Parameters, Plan, PlanId, PlanStatus, Provider, ProviderId,
    RequestContext, Resource,
};
use serde_json::{Map, Value};

use super::{ApiManager, Seen, UPDATE_ATTEMPTS, require_own};
use crate::http::{python, schema};

/// Types that parameters may be given for although the provider has no plugin for them: the
/// original's own.
const OPENSTACK_TYPES: [&str; 8] = [
    "OS::Keystone::Project",
    "OS::Nova::Server",
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Manila::Share",
    "OS::Neutron::Network",
    "OS::Trove::Instance",
    "OS::Kubernetes::Pod",
];

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
        context: &RequestContext,
        new: NewPlan,
    ) -> Result<Plan, ApiError> {
        self.may(context, "plan:create")?;
        let provider = match self
            .protection
            .show_provider(context, new.provider_id)
            .await
        {
            Ok(provider) => provider,
            // Only "not found" means that: a service that is away is told as such (Q72).
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Err(ApiError::bad_request("The provider could not be found."));
            }
            Err(error) => return Err(error),
        };
        check_parameters(&new.parameters, &provider)?;
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
        self.db()
            .asked_by(context)
            .plan_create_within(&plan, quotas)
            .await?;
        Ok(plan)
    }

    pub(crate) async fn plan_get(
        &self,
        context: &RequestContext,
        id: PlanId,
    ) -> Result<Plan, ApiError> {
        let plan = self.db().plan_get(id).await?;
        let seen = Seen {
            what: "Plan",
            id: &id,
            project: &plan.project_id,
            record: &plan,
        };
        self.may_see(context, "plan:get", &seen)?;
        Ok(plan)
    }

    /// A plan to act on, for a request whose `rule` was asked.
    pub(super) async fn plan_own(
        &self,
        context: &RequestContext,
        rule: &str,
        id: PlanId,
    ) -> Result<Plan, ApiError> {
        let plan = self.db().plan_get(id).await?;
        require_own(context, rule, &plan.project_id, "Plan", id)?;
        Ok(plan)
    }

    /// A plan, if `context` may do what `rule` names to it.
    async fn plan_for(
        &self,
        context: &RequestContext,
        rule: &str,
        id: PlanId,
    ) -> Result<Plan, ApiError> {
        let plan = self.db().plan_get(id).await?;
        let used = Seen {
            what: "Plan",
            id: &id,
            project: &plan.project_id,
            record: &plan,
        };
        self.may_use(context, rule, &used)?;
        Ok(plan)
    }

    pub(crate) async fn plan_list(
        &self,
        context: &RequestContext,
        query: Option<&ListQuery>,
    ) -> Result<Vec<Plan>, ApiError> {
        self.may(context, "plan:get_all")?;
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        Ok(self.db().plan_list(query).await?)
    }

    pub(crate) async fn plan_update(
        &self,
        context: &RequestContext,
        id: PlanId,
        change: PlanChange,
    ) -> Result<Plan, ApiError> {
        let mut attempt = 1;
        loop {
            let mut plan = self.plan_for(context, "plan:update", id).await?;
            // A started plan may be suspended again, nothing else (Q09).
            let will_be = change.status.unwrap_or(plan.status);
            if plan.status != PlanStatus::Suspended && will_be != PlanStatus::Suspended {
                return Err(invalid_plan(
                    "The plan can be only updated in suspended status.",
                ));
            }
            let wanted = change.clone();
            plan.name = wanted.name.unwrap_or(plan.name);
            plan.description = wanted.description.unwrap_or(plan.description);
            plan.resources = wanted.resources.unwrap_or(plan.resources);
            let fields =
                change.name.is_some() || change.description.is_some() || change.resources.is_some();
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
        let db = self.db().asked_by(context);
        if fields {
            plan = db.plan_update(&plan).await?;
        }
        if plan.status != will_be {
            db.transition::<Plan>(plan.id, plan.status, will_be).await?;
            plan.status = will_be;
        }
        Ok(plan)
    }

    pub(crate) async fn plan_delete(
        &self,
        context: &RequestContext,
        id: PlanId,
    ) -> Result<(), ApiError> {
        self.plan_for(context, "plan:delete", id).await?;
        Ok(self.db().asked_by(context).plan_delete(id).await?)
    }
}

/// `Invalid plan: <reason>`.
pub(crate) fn invalid_plan(reason: &str) -> ApiError {
    ApiError::new(
        ErrorKind::BadRequest,
        "InvalidPlan",
        format!("Invalid plan: {reason}"),
    )
}

/// Are the parameters for resources that exist, and does the provider know their names? Values are
/// the plugin's business when it runs, as in the original; only a choice among given words is
/// checked here already, for types that the original did not have.
pub(super) fn check_parameters(
    parameters: &Parameters,
    provider: &Provider,
) -> Result<(), ApiError> {
    let schemas = provider.extended_info_schema.get("options_schema");
    for (key, values) in parameters {
        let (resource_type, resource_id) = match key.split_once('#') {
            Some((resource_type, id)) => (resource_type, Some(id)),
            None => (key.as_str(), None),
        };
        if resource_id.is_some_and(|id| !schema::is_uuid(id)) {
            return Err(ApiError::bad_request("The resource_id must be a uuid."));
        }
        let known = schemas.and_then(|schemas| schemas.get(resource_type));
        let ours = !OPENSTACK_TYPES.contains(&resource_type);
        let Some(known) = known else {
            if ours {
                return Err(ApiError::bad_request(
                    "The key of plan parameters is invalid.",
                ));
            }
            continue;
        };
        check_values(values, known.get("properties"), ours)?;
    }
    Ok(())
}

fn check_values(
    values: &Map<String, Value>,
    properties: Option<&Value>,
    with_choices: bool,
) -> Result<(), ApiError> {
    for (name, value) in values {
        let property = properties.and_then(|properties| properties.get(name));
        let property = property.ok_or_else(|| {
            ApiError::bad_request("The protect property of plan parameters is invalid.")
        })?;
        let choices = property.get("enum").and_then(Value::as_array);
        let Some(choices) = choices.filter(|_| with_choices) else {
            continue;
        };
        let given = python::text(value);
        if !choices.iter().any(|choice| python::text(choice) == given) {
            return Err(ApiError::invalid_field(
                name,
                &given,
                format!(
                    "{} is not one of {}",
                    python::repr(value),
                    python::repr(&Value::Array(choices.clone()))
                ),
            ));
        }
    }
    Ok(())
}
