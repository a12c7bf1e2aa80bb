//! `/os-services`.

use serde_json::{Value, json};

use crate::{
    compat::{
        body_schemas::SERVICE_UPDATE,
        envelope::{Answer, many, one},
        views::ServiceView,
    },
    http::call::{Call, Json},
    openapi::{Operation, get, put},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
    vec![
        get("/os-services", list, "service:get_all", "List services")
            .gives_all::<ServiceView<'_>>("services")
            .asks(&["host", "binary"]),
        get(
            "/os-services/{id}/detail",
            show,
            "service:get_all",
            "Ask a service about itself",
        )
        .gives::<ServiceView<'_>>("service"),
        put(
            "/os-services/{id}",
            update,
            "service:update",
            "Enable or disable a service",
        )
        .takes(&SERVICE_UPDATE)
        .gives::<ServiceView<'_>>("service"),
    ]
}

pub(crate) async fn list(call: Call) -> Answer {
    let pairs = call.pairs()?;
    let wanted = |name: &str| {
        let mut pairs = pairs.iter();
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    let manager = &call.manager;
    let services = manager
        .service_list(call.permit()?, wanted("host"), wanted("binary"))
        .await?;
    let mut views = Vec::with_capacity(services.len());
    for service in &services {
        let mut view = ServiceView::new(service, manager.service_is_up(service));
        view.notice = manager.service_notice(service).await?;
        views.push(view);
    }
    many("services", views, None)
}

/// Ours: the original could list services, not ask them, and had no single service to show.
pub(crate) async fn show(call: Call) -> Answer {
    let (service, account) = call
        .manager
        .service_show(call.permit()?, call.member())
        .await?;
    let is_up = call.manager.service_is_up(&service);
    let mut shown = json!(ServiceView::new(&service, is_up));
    match account {
        Ok(account) => {
            shown["health"] = json!(account.health);
            shown["task_reports"] = json!(account.task_reports);
            shown["config"] = account.config;
        }
        Err(error) => {
            let health = json!({ "state": "unreachable", "reason": error.message });
            shown["health"] = json!({ "health": health });
        }
    }
    one("service", &shown)
}

pub(crate) async fn update(call: Call, body: Json) -> Answer {
    // Asked before anything is said about the body.
    let permit = call.permit()?;
    let body = body.checked(&SERVICE_UPDATE)?;
    let disabled = body.get("status").and_then(Value::as_str) == Some("disabled");
    let reason = body.get("disabled_reason").and_then(Value::as_str);
    let service = call
        .manager
        .service_update(permit, call.member(), disabled, reason)
        .await?;
    let is_up = call.manager.service_is_up(&service);
    one("service", &ServiceView::new(&service, is_up))
}
