//! `/quotas` and `/quota_classes`.
//!
//! The original knew `plans` and `checkpoints`, and shows exactly those. `bytes`, and the class of a
//! project, are ours: they are shown where there is something to show, so that an operator who did not set
//! them sees the original's answers.

use karbor_model::{ApiError, QuotaChange, QuotaLimits, QuotaResource, UNLIMITED};
use serde_json::{Map, Value, json};

use crate::{
    compat::{
        bodies::{is_project_name, quota_class, quota_class_name, quota_limits, take},
        body_schemas::{QUOTA_CLASS_UPDATE, QUOTA_UPDATE},
        envelope::{Answer, ok, one},
        error_words::invalid_id,
        schema::is_uuid,
        shapes::{QuotaDetails, Quotas},
    },
    http::call::{Call, Json},
    openapi::{Operation, delete_at, get, put},
    policy::Permit,
    refusal::Refusal,
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
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

pub(crate) async fn show(call: Call) -> Answer {
    let project = project(&call)?;
    let permit = permit_to_see(&call, project)?;
    let (limits, class) = call.manager.quota_show(permit).await?;
    let mut view = limits_view(&limits);
    show_class(&mut view, class);
    view.insert("id".to_owned(), json!(project));
    one("quota", &view)
}

pub(crate) async fn detail(call: Call) -> Answer {
    let project = project(&call)?;
    let permit = permit_to_see(&call, project)?;
    let (limits, class) = call.manager.quota_show(permit).await?;
    let usage = call.manager.quota_usage(permit).await?;
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

pub(crate) async fn defaults(call: Call) -> Answer {
    let project = project(&call)?;
    let limits = call.manager.quota_defaults(call.permit()?, project).await?;
    let mut view = limits_view(&limits);
    view.insert("id".to_owned(), json!(project));
    one("quota", &view)
}

pub(crate) async fn update(call: Call, body: Json) -> Answer {
    let project = project(&call)?;
    // Asked before anything is said about the body.
    let permit = call.permit_in(project)?;
    let mut body = body.checked(&QUOTA_UPDATE)?;
    let mut given = take(&mut body, "quota");
    let change = QuotaChange {
        class: given.remove("class").map(quota_class).transpose()?,
        limits: quota_limits(given)?,
    };
    let (limits, class) = call.manager.quota_update(permit, &change).await?;
    let mut view = limits_view(&limits);
    show_class(&mut view, class);
    one("quota", &view)
}

pub(crate) async fn delete(call: Call) -> Answer {
    let project = project(&call)?;
    call.manager.quota_delete(call.permit_in(project)?).await?;
    Ok(ok(Vec::new()))
}

pub(crate) async fn show_class_limits(call: Call) -> Answer {
    let name = quota_class_name(call.member())?;
    let limits = call.manager.quota_class_show(call.permit()?, name).await?;
    let mut view = limits_view(&limits);
    view.insert("id".to_owned(), json!(name));
    one("quota_class", &view)
}

pub(crate) async fn update_class(call: Call, body: Json) -> Answer {
    // Asked before anything is said about the body.
    let permit = call.permit()?;
    let mut body = body.checked(&QUOTA_CLASS_UPDATE)?;
    let limits = quota_limits(take(&mut body, "quota_class"))?;
    let name = quota_class_name(call.member())?;
    let limits = call
        .manager
        .quota_class_update(permit, name, &limits)
        .await?;
    one("quota_class", &limits_view(&limits))
}

fn project(call: &Call) -> Result<&str, ApiError> {
    let project = call.member();
    // Keystone's projects are UUIDs; where the caller's own is a name, others are names too.
    let named = !is_uuid(&call.context.project_id) && is_project_name(project);
    match is_uuid(project) || named {
        true => Ok(project),
        false => Err(invalid_id("project")),
    }
}

/// A caller that asks for another project's is refused in the original's words.
fn permit_to_see<'a>(call: &'a Call, project: &'a str) -> Result<Permit<'a>, Refusal> {
    let asked = call.permit_in(project);
    asked.map_err(|refused| match project == call.context.project_id {
        true => refused,
        false => Refusal::ForeignQuota,
    })
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
