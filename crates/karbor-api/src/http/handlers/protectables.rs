//! `/protectables`.

use crate::{
    compat::{
        bodies::query_parameters,
        envelope::{Answer, many, one},
        views::{InstanceView, TypeView},
    },
    http::call::Call,
    manager::INSTANCE_FILTERS,
    openapi::{Operation, get},
};

/// The endpoints of this module.
pub(in crate::http) fn operations() -> Vec<Operation> {
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
        .lists::<InstanceView<'_>>("instances", &INSTANCE_FILTERS)
        .asks(&["parameters"]),
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

pub(crate) async fn list_types(call: Call) -> Answer {
    let types = call.manager.list_protectable_types(call.permit()?).await?;
    one("protectable_type", &types)
}

pub(crate) async fn show_type(call: Call) -> Answer {
    let name = call.member().to_owned();
    let shown = call
        .manager
        .show_protectable_type(call.permit()?, name)
        .await?;
    one("protectable_type", &TypeView::from(&shown))
}

pub(crate) async fn list(call: Call) -> Answer {
    let query = call.list_query()?;
    let mut filters = query.page.filters.iter();
    let parameters = filters.find(|filter| filter.name == "parameters");
    let parameters = query_parameters(parameters.map(|filter| filter.text.as_str()))?;
    let name = call.part("id").to_owned();
    let instances = call
        .manager
        .list_protectable_instances(call.permit()?, name, &query.page, parameters)
        .await?;
    let collection = format!("protectables/{}/instances", call.part("id"));
    let last = instances.last().map(|instance| &instance.resource.id);
    let next = call.next(&query, &collection, instances.len(), last);
    many("instances", instances.iter().map(InstanceView::from), next)
}

pub(crate) async fn show(call: Call) -> Answer {
    let pairs = call.pairs()?;
    let parameters = pairs.iter().find(|(key, _)| key == "parameters");
    let parameters = query_parameters(parameters.map(|(_, text)| text.as_str()))?;
    let instance = call
        .manager
        .show_protectable_instance(
            call.permit()?,
            call.part("id").to_owned(),
            call.part("instance_id").to_owned(),
            parameters,
        )
        .await?;
    one("instance", &InstanceView::from(&instance))
}
