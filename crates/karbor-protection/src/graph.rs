//! Builds the resource graph of a plan from the protectables.
//!
//! A lookup that fails fails the whole: a backup never shrinks in silence.

use std::collections::VecDeque;

use futures::future::try_join_all;
use karbor_model::{ApiError, ErrorKind, RequestContext, Resource, ResourceGraph};
use karbor_plugin::{ProtectableError, Registry};

/// The graph of `resources` with all they depend on, as it is now.
///
/// # Errors
/// A 404 for a resource that is not there (or not for this project), a 400 for resources that
/// depend on each other in a loop, a 503 for a lookup that failed, also for a resource that cannot be used as it is
/// declared: a run that has time is tried again, for the declaration may be mended.
pub(crate) async fn build(
    registry: &Registry,
    context: &RequestContext,
    resources: &[Resource],
) -> Result<ResourceGraph, ApiError> {
    let mut graph = ResourceGraph::new();
    let mut queue = VecDeque::new();
    for resource in resources {
        let before = graph.nodes().len();
        let at = graph.add(confirm(registry, context, resource).await?);
        if at == before {
            queue.push_back(at);
        }
    }
    while let Some(parent) = queue.pop_front() {
        let resource = graph.nodes()[parent].clone();
        for child in dependents(registry, context, &resource).await? {
            let before = graph.nodes().len();
            let at = graph.add(child);
            graph.depend(parent, at);
            graph.check_size().map_err(ApiError::invalid_input)?;
            if at == before {
                queue.push_back(at);
            }
        }
    }
    graph.post_order().map_err(ApiError::invalid_input)?;
    Ok(graph)
}

/// What `parent` depends on directly, of every type.
///
/// # Errors
/// A 503 when a lookup failed.
pub(crate) async fn dependents(
    registry: &Registry,
    context: &RequestContext,
    parent: &Resource,
) -> Result<Vec<Resource>, ApiError> {
    let lookups = registry
        .protectables()
        .values()
        .filter(|protectable| {
            let of_parent = protectable
                .parent_types()
                .contains(&parent.resource_type.as_str());
            of_parent && protectable.can_look_up()
        })
        .map(|protectable| protectable.dependents(context, parent));
    let found = try_join_all(lookups)
        .await
        .map_err(|error| lookup_failed(&error))?;
    Ok(found.into_iter().flatten().collect())
}

/// The resource as its protectable knows it now. One of a type that no protectable can look up is
/// taken as the plan has it: its plugin alone knows it.
async fn confirm(
    registry: &Registry,
    context: &RequestContext,
    resource: &Resource,
) -> Result<Resource, ApiError> {
    let known = registry.protectables().get(&resource.resource_type);
    let Some(protectable) = known.filter(|protectable| protectable.can_look_up()) else {
        return Ok(resource.clone());
    };
    let found = protectable
        .show(context, &resource.id)
        .await
        .map_err(|error| lookup_failed(&error))?;
    if let Some(reason) = found.as_ref().and_then(Resource::broken) {
        let failed = ProtectableError {
            resource_type: resource.resource_type.clone(),
            message: format!("'{}': {reason}", resource.name),
            retryable: false,
        };
        let message = format!(
            "{failed}. The operator has to mend its declaration; `karbor config validate` names what is wrong."
        );
        let mut refused =
            ApiError::new(ErrorKind::Unavailable, "ProtectableResourceBroken", message);
        refused.needs_mending = true;
        return Err(refused);
    }
    found.ok_or_else(|| {
        ApiError::new(
            ErrorKind::NotFound,
            "ProtectableResourceNotFound",
            format!(
                "The resource {} of type {} could not be found.",
                resource.id, resource.resource_type
            ),
        )
    })
}

/// A failed lookup as the API tells it.
#[must_use]
pub(crate) fn lookup_failed(error: &ProtectableError) -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "ListProtectableResourceFailed",
        error.to_string(),
    )
}
