//! `/os-services`.

use std::sync::Arc;

use axum::extract::State;
use serde_json::Value;

use super::{
    envelope::{Answer, many, one},
    extract::{Call, Json},
    schema::SERVICE_UPDATE,
    views::ServiceView,
};
use crate::ApiManager;

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let pairs = call.pairs()?;
    let wanted = |name: &str| {
        let mut pairs = pairs.iter();
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    let services = manager
        .service_list(&call.context, wanted("host"), wanted("binary"))
        .await?;
    let views = services
        .iter()
        .map(|service| ServiceView::new(service, manager.service_is_up(service)));
    many("services", views, None)
}

pub(crate) async fn update(
    State(manager): State<Arc<ApiManager>>,
    call: Call,
    body: Json,
) -> Answer {
    manager.may_update_services(&call.context)?;
    let body = body.checked(&SERVICE_UPDATE)?;
    let disabled = body.get("status").and_then(Value::as_str) == Some("disabled");
    let reason = body.get("disabled_reason").and_then(Value::as_str);
    let service = manager
        .service_update(&call.context, call.member(), disabled, reason)
        .await?;
    let is_up = manager.service_is_up(&service);
    one("service", &ServiceView::new(&service, is_up))
}
