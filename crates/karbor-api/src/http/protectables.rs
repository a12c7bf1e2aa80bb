//! `/protectables`.

use std::sync::Arc;

use axum::extract::State;
use karbor_model::ApiError;
use serde_json::{Map, Value};

use super::{
    envelope::{Answer, many, one},
    extract::Call,
    openapi::{Operation, get},
    views::{InstanceView, TypeView},
};
use crate::ApiManager;

/// The endpoints of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        get(
            "/protectables",
            list_types,
            "protectable:get_all",
            "List protectable types",
        )
        .gives::<Vec<String>>("protectable_type"),
        get(
            "/protectables/{id}",
            show_type,
            "protectable:get",
            "Show a protectable type",
        )
        .gives::<TypeView<'_>>("protectable_type"),
        get(
            "/protectables/{id}/instances",
            list,
            "protectable:instance_get_all",
            "List what of a type can be protected",
        )
        .lists::<InstanceView<'_>>("instances", &["id", "name", "status", "parameters"]),
        get(
            "/protectables/{id}/instances/{instance_id}",
            show,
            "protectable:instance_get",
            "Show what can be protected",
        )
        .asks(&["parameters"])
        .gives::<InstanceView<'_>>("instance"),
    ]
}

pub(crate) async fn list_types(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let types = manager.list_protectable_types(&call.context).await?;
    one("protectable_type", &types)
}

pub(crate) async fn show_type(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let name = call.member().to_owned();
    let shown = manager.show_protectable_type(&call.context, name).await?;
    one("protectable_type", &TypeView::from(&shown))
}

pub(crate) async fn list(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let query = call.list_query()?;
    let parameters = parameters(&query.filters)?;
    let name = call.part("id").to_owned();
    let instances = manager
        .list_protectable_instances(&call.context, name, &query, parameters)
        .await?;
    let collection = format!("protectables/{}/instances", call.part("id"));
    let last = instances.last().map(|instance| &instance.resource.id);
    let next = call.next(&query, &collection, instances.len(), last);
    many("instances", instances.iter().map(InstanceView::from), next)
}

pub(crate) async fn show(State(manager): State<Arc<ApiManager>>, call: Call) -> Answer {
    let parameters = parameters(&call.pairs()?)?;
    let instance = manager
        .show_protectable_instance(
            &call.context,
            call.part("id").to_owned(),
            call.part("instance_id").to_owned(),
            parameters,
        )
        .await?;
    one("instance", &InstanceView::from(&instance))
}

/// The `parameters` of a query: a dictionary, as JSON or as Python prints it, which is how
/// python-karborclient sends it.
fn parameters(pairs: &[(String, String)]) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some((_, text)) = pairs.iter().find(|(key, _)| key == "parameters") else {
        return Ok(None);
    };
    let parsed = serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&text.replace('\'', "\"").replace("None", "null")));
    match parsed {
        Ok(Value::Object(map)) => Ok(Some(map)),
        _ => Err(ApiError::invalid_input("The parameters must be a dict.")),
    }
}
