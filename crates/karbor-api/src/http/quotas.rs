//! `/quotas` and `/quota_classes`.
//!
//! The original knew `plans` and `checkpoints`, and shows exactly those. `bytes`, and the class of a
//! project, are ours: they are shown where there is something to show, so that an operator who did not set
//! them sees the original's answers.

use std::sync::Arc;

use axum::extract::State;
use karbor_model::{ApiError, QuotaChange, QuotaLimits, QuotaResource, UNLIMITED};
use serde_json::{Map, Value, json};

use super::{
    envelope::{Answer, ok, one},
    extract::{Call, Json},
    openapi::{Operation, QuotaDetails, Quotas, delete_at, get, put},
    plans::take,
    python,
    schema::{QUOTA_CLASS_UPDATE, QUOTA_UPDATE, is_uuid},
};
use crate::ApiManager;

/// What a body may name beside resources, without effect.
const IDENTIFIERS: [&str; 2] = ["tenant_id", "id"];

/// What fits the database's columns.
const LONGEST: usize = 255;

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/quotas/{id}", show, "quota:get", "Show a project's quotas").gives::<Quotas>("quota"),
        put(
            "/quotas/{id}",
            update,
            "quota:update",
            "Set a project's quotas",
        )
        .takes(&QUOTA_UPDATE)
        .gives::<Quotas>("quota"),
        delete_at(
            "/quotas/{id}",
            delete,
            "quota:delete",
            "Take a project's quotas back",
        ),
        get(
            "/quotas/{id}/detail",
            detail,
            "quota:get",
            "Show a project's quotas and what it uses of them",
        )
        .gives::<QuotaDetails>("quota"),
        get(
            "/quotas/{id}/defaults",
            defaults,
            "quota:get_default",
            "Show the quotas of projects that have none of their own",
        )
        .gives::<Quotas>("quota"),
        get(
            "/quota_classes/{id}",
            show_class_limits,
            "quota_class:get",
            "Show the quotas of a class",
        )
        .gives::<Quotas>("quota_class"),
        put(
            "/quota_classes/{id}",
            update_class,
            "quota_class:update",
            "Set the quotas of a class",
        )
        .takes(&QUOTA_CLASS_UPDATE)
        .gives::<Quotas>("quota_class"),
    ]
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let project = project(&call)?;
    let (limits, class) = manager.quota_show(&call.context, project).await?;
    let mut view = limits_view(&limits);
    show_class(&mut view, class);
    view.insert("id".to_owned(), json!(project));
    one("quota", &view)
}

pub(crate) async fn detail(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let project = project(&call)?;
    let (limits, class) = manager.quota_show(&call.context, project).await?;
    let usage = manager.quota_usage(&call.context, project).await?;
    let mut view = limits_view(&limits);
    for (name, limit) in &mut view {
        let resource: Result<QuotaResource, _> = name.parse();
        let used = resource.ok().and_then(|resource| usage.get(&resource));
        let in_use = used.copied().unwrap_or_default();
        // What is being made is in use from the moment that it is admitted: nothing else is reserved.
        *limit = json!({"limit": limit, "in_use": in_use, "reserved": 0});
    }
    show_class(&mut view, class);
    view.insert("id".to_owned(), json!(project));
    one("quota", &view)
}

pub(crate) async fn defaults(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let project = project(&call)?;
    let limits = manager.quota_defaults(&call.context, project).await?;
    let mut view = limits_view(&limits);
    view.insert("id".to_owned(), json!(project));
    one("quota", &view)
}

pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    let project = project(&call)?;
    manager.may_update_quota(&call.context, project)?;
    let mut body = body.checked(&QUOTA_UPDATE)?;
    let mut given = take(&mut body, "quota");
    let change = QuotaChange {
        class: given.remove("class").map(class).transpose()?,
        limits: limits(given)?,
    };
    let (limits, class) = manager
        .quota_update(&call.context, project, &change)
        .await?;
    let mut view = limits_view(&limits);
    show_class(&mut view, class);
    one("quota", &view)
}

pub(crate) async fn delete(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let project = project(&call)?;
    manager.quota_delete(&call.context, project).await?;
    Ok(ok(Vec::new()))
}

pub(crate) async fn show_class_limits(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
) -> Answer {
    let name = class_name(call.member())?;
    let limits = manager.quota_class_show(&call.context, name).await?;
    let mut view = limits_view(&limits);
    view.insert("id".to_owned(), json!(name));
    one("quota_class", &view)
}

pub(crate) async fn update_class(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    manager.may_update_quota_class(&call.context)?;
    let mut body = body.checked(&QUOTA_CLASS_UPDATE)?;
    let limits = limits(take(&mut body, "quota_class"))?;
    let name = class_name(call.member())?;
    let limits = manager
        .quota_class_update(&call.context, name, &limits)
        .await?;
    one("quota_class", &limits_view(&limits))
}

fn project(call: &Call) -> Result<&str, ApiError> {
    let project = call.member();
    // Keystone's projects are UUIDs; where the caller's own is a name, others are names too.
    let named = !is_uuid(&call.context.project_id) && project.chars().count() <= LONGEST;
    match is_uuid(project) || named {
        true => Ok(project),
        false => Err(ApiError::bad_request("Invalid project id provided.")),
    }
}

fn class_name(name: &str) -> Result<&str, ApiError> {
    match name.trim().is_empty() || name.chars().count() > LONGEST {
        true => Err(ApiError::bad_request(format!(
            "The name of a quota class has 1 to {LONGEST} characters."
        ))),
        false => Ok(name),
    }
}

fn limits_view(limits: &QuotaLimits) -> Map<String, Value> {
    let shown = QuotaResource::ALL.iter().filter_map(|resource| {
        let limit = limits.get(resource).copied().unwrap_or(UNLIMITED);
        let ours = *resource == QuotaResource::Bytes;
        (!ours || limit >= 0).then(|| (resource.to_string(), json!(limit)))
    });
    shown.collect()
}

fn show_class(view: &mut Map<String, Value>, class: Option<String>) {
    if let Some(class) = class {
        view.insert("class".to_owned(), json!(class));
    }
}

/// The class to put a project in; null or an empty text takes it out.
fn class(given: Value) -> Result<Option<String>, ApiError> {
    match given {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) => class_name(&name).map(|name| Some(name.to_owned())),
        other => Err(ApiError::invalid_field(
            "class",
            python::text(&other),
            format!("{} is not of type 'string', 'null'", python::repr(&other)),
        )),
    }
}

/// The limits that a body names. A name that is nothing that can be limited is refused: the
/// original took it and did nothing (Q60).
fn limits(given: Map<String, Value>) -> Result<QuotaLimits, ApiError> {
    let mut limits = QuotaLimits::new();
    for (key, value) in given {
        if IDENTIFIERS.contains(&key.as_str()) {
            continue;
        }
        let resource: QuotaResource = key.parse().map_err(|_| {
            let known: Vec<_> = QuotaResource::ALL.iter().map(|r| r.as_str()).collect();
            ApiError::bad_request(format!(
                "There is no quota of '{key}': give one of {}.",
                known.join(", ")
            ))
        })?;
        limits.insert(resource, limit(&key, &value)?);
    }
    Ok(limits)
}

/// A whole number, also as text, as the original's client may send it. Neither `true` (Q57) nor an
/// empty text (Q58) is one.
fn limit(key: &str, value: &Value) -> Result<i64, ApiError> {
    let is_scalar = value.is_boolean() || value.is_string() || value.is_i64() || value.is_u64();
    if !is_scalar {
        // In the words of the original's schema, which knew no class.
        let shown = python::repr(value);
        return Err(ApiError::invalid_field(
            key,
            python::text(value),
            format!("{shown} is not of type 'boolean', 'string', 'integer'"),
        ));
    }
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(limit) if limit < UNLIMITED => {
            Err(ApiError::bad_request("Quota limit must be -1 or greater."))
        }
        Some(limit) => Ok(limit),
        None => Err(ApiError::bad_request(format!(
            "Quota '{}' for {key} should be integer.",
            python::text(value)
        ))),
    }
}
