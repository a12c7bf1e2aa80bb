//! `/plans`.

use karbor_model::ApiError;
use serde_json::Value;

use crate::{
    compat::{
        bodies::{parameters, parsed, plan_status, resources, take, text},
        body_schemas::{PLAN_CREATE, PLAN_UPDATE},
        envelope::{Answer, many, ok, one},
        schema::check_name,
        views::PlanView,
    },
    http::call::{Call, Json},
    manager::{NewPlan, PLAN_FILTERS, PlanChange},
    openapi::{Operation, delete_at, get, post, put},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/plans", list, "plan:get_all", "List plans")
            .lists::<PlanView<'_>>("plans", &PLAN_FILTERS),
        post("/plans", create, "plan:create", "Create a plan")
            .takes(&PLAN_CREATE)
            .gives::<PlanView<'_>>("plan"),
        get("/plans/{id}", show, "plan:get", "Show a plan").gives::<PlanView<'_>>("plan"),
        put(
            "/plans/{id}",
            update,
            "plan:update",
            "Change, start or suspend a plan",
        )
        .takes(&PLAN_UPDATE)
        .gives::<PlanView<'_>>("plan"),
        delete_at("/plans/{id}", delete, "plan:delete", "Delete a plan"),
    ]
}

pub(crate) async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    let plans = call.manager.plan_list(call.permit()?, &query.page).await?;
    let next = call.next(&query, "plans", plans.len(), plans.last().map(|p| p.id));
    many("plans", plans.iter().map(PlanView::from), next)
}

pub(crate) async fn create(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&PLAN_CREATE)?;
    let mut plan = take(&mut body, "plan");
    check_name(plan.get("name").and_then(Value::as_str))?;
    let new = NewPlan {
        name: text(&mut plan, "name"),
        description: text(&mut plan, "description"),
        resources: resources(plan.remove("resources").unwrap_or_default())?,
        provider_id: parsed(&plan, "provider_id")?,
        parameters: parameters(plan.remove("parameters")),
    };
    let plan = call.manager.plan_create(call.permit()?, new).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn show(call: Call) -> Answer {
    let id = call.member_id("plan")?;
    let plan = call.manager.plan_get(call.caller(), id).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn update(call: Call, body: Json) -> Answer {
    let mut body = body.checked(&PLAN_UPDATE)?;
    let mut plan = take(&mut body, "plan");
    if plan.is_empty() {
        return Err(ApiError::bad_request("Missing updated parameters in request body.").into());
    }
    let change = PlanChange {
        status: plan.get("status").map(plan_status).transpose()?,
        description: plan
            .contains_key("description")
            .then(|| text(&mut plan, "description")),
        resources: plan.remove("resources").map(resources).transpose()?,
        name: text(&mut plan, "name"),
    };
    let id = call.member_id("plan")?;
    let plan = call.manager.plan_update(call.caller(), id, change).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn delete(call: Call) -> Answer {
    let id = call.member_id("plan")?;
    call.manager.plan_delete(call.caller(), id).await?;
    Ok(ok(Vec::new()))
}
