//! `/plans`.

use std::sync::Arc;

use axum::extract::State;
use karbor_model::{ApiError, Parameters, PlanStatus, Resource};
use serde_json::{Map, Value};

use super::{
    envelope::{Answer, many, ok, one},
    extract::{Call, Json},
    openapi::{Operation, delete_at, get, post, put},
    python,
    schema::{self, PLAN_CREATE, PLAN_UPDATE},
    views::PlanView,
};
use crate::{
    ApiManager,
    manager::{NewPlan, PlanChange},
};

const FILTERS: [&str; 5] = ["id", "name", "description", "status", "provider_id"];
/// What fits the database's columns.
const LONGEST: usize = 255;

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/plans", list, "plan:get_all", "List plans").lists::<PlanView<'_>>("plans", &FILTERS),
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

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let wanted = query.for_db(&call.context, &FILTERS, true);
    let plans = manager.plan_list(&call.context, wanted.as_ref()).await?;
    let next = call.next(&query, "plans", plans.len(), plans.last().map(|p| p.id));
    many("plans", plans.iter().map(PlanView::from), next)
}

pub(crate) async fn create(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&PLAN_CREATE)?;
    let mut plan = take(&mut body, "plan");
    schema::check_name(plan.get("name").and_then(Value::as_str))?;
    let new = NewPlan {
        name: text(&mut plan, "name"),
        description: text(&mut plan, "description"),
        resources: resources(plan.remove("resources").unwrap_or_default())?,
        provider_id: parsed(&plan, "provider_id")?,
        parameters: parameters(plan.remove("parameters")),
    };
    let plan = manager.plan_create(&call.context, new).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("plan")?;
    let plan = manager.plan_get(&call.context, id).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let mut body = body.checked(&PLAN_UPDATE)?;
    let mut plan = take(&mut body, "plan");
    if plan.is_empty() {
        return Err(ApiError::bad_request("Missing updated parameters in request body.").into());
    }
    let change = PlanChange {
        status: plan.get("status").map(status).transpose()?,
        description: plan
            .contains_key("description")
            .then(|| text(&mut plan, "description")),
        resources: plan.remove("resources").map(resources).transpose()?,
        name: text(&mut plan, "name"),
    };
    let id = call.member_id("plan")?;
    let plan = manager.plan_update(&call.context, id, change).await?;
    one("plan", &PlanView::from(&plan))
}

pub(crate) async fn delete(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let id = call.member_id("plan")?;
    manager.plan_delete(&call.context, id).await?;
    Ok(ok(Vec::new()))
}

/// The object under `key`; the schema has seen to it that there is one.
pub(super) fn take(body: &mut Value, key: &str) -> Map<String, Value> {
    match body.get_mut(key).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

pub(super) fn text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    match map.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// An id whose form the schema has checked.
pub(super) fn parsed<T: std::str::FromStr>(
    map: &Map<String, Value>,
    key: &str,
) -> Result<T, ApiError> {
    let given = map.get(key).and_then(Value::as_str).unwrap_or_default();
    given.parse().map_err(|_| {
        let shown = python::repr_str(given);
        ApiError::invalid_field(key, given, format!("{shown} is not a 'uuid'"))
    })
}

/// Parameters, every value as the text that Python makes of it. A type given as null has none (Q07).
pub(super) fn parameters(given: Option<Value>) -> Parameters {
    let Some(Value::Object(given)) = given else {
        return Parameters::new();
    };
    let of_type = |values: Value| match values {
        Value::Object(values) => values
            .into_iter()
            .map(|(name, value)| (name, python::parameter(value)))
            .collect(),
        _ => Map::new(),
    };
    given
        .into_iter()
        .map(|(key, values)| (key, of_type(values)))
        .collect()
}

fn status(given: &Value) -> Result<PlanStatus, ApiError> {
    let parsed = given.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let reason = format!(
            "{} is not one of ['suspended', 'started']",
            python::repr(given)
        );
        ApiError::invalid_field("status", python::text(given), reason)
    })
}

fn resources(given: Value) -> Result<Vec<Resource>, ApiError> {
    let items = match given {
        Value::Array(items) if !items.is_empty() => items,
        _ => {
            return Err(ApiError::invalid_input(
                "list resources must be provided when creating a plan.",
            ));
        }
    };
    items.into_iter().map(resource).collect()
}

fn resource(given: Value) -> Result<Resource, ApiError> {
    let Value::Object(mut map) = given else {
        return Err(incomplete());
    };
    let mut part = |key: &str, may_be_empty: bool| match map.remove(key) {
        None => Err(incomplete()),
        Some(Value::String(text)) if text.chars().count() > LONGEST => {
            let reason = format!("{} is too long", python::repr_str(&text));
            Err(ApiError::invalid_field(
                key,
                python::text(&Value::String(text)),
                reason,
            ))
        }
        Some(Value::String(text)) if may_be_empty || !text.is_empty() => Ok(text),
        Some(other) => {
            let reason = match &other {
                Value::String(_) => "It must not be empty.".to_owned(),
                _ => format!("{} is not of type 'string'", python::repr(&other)),
            };
            Err(ApiError::invalid_field(key, python::text(&other), reason))
        }
    };
    let id = part("id", false)?;
    let resource_type = part("type", false)?;
    let name = part("name", true)?;
    Ok(Resource {
        id,
        resource_type,
        name,
        extra_info: map.remove("extra_info").filter(|info| !info.is_null()),
    })
}

fn incomplete() -> ApiError {
    ApiError::invalid_input(
        "Resource in list must be a dict when creating a plan.The keys of resource are id,type \
         and name.",
    )
}
