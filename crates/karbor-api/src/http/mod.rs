//! HTTP: routes, and the way in and out of them.

mod checkpoints;
mod envelope;
mod extract;
mod guard;
mod plans;
mod protectables;
pub(crate) mod python;
pub(crate) mod query;
mod quotas;
mod runs;
mod scheduled_operations;
pub(crate) mod schema;
mod server;
mod services;
mod triggers;
mod views;

use std::sync::Arc;

use axum::{
    Router,
    http::HeaderMap,
    middleware,
    response::Response,
    routing::{MethodRouter, get},
};
use serde_json::json;

use self::envelope::{json_body, no_action, no_route};
pub(crate) use self::extract::host_url;
pub use self::server::{ServeError, serve};
use crate::ApiManager;

/// Routes of the API, whole: with tokens, time limits and request ids.
pub fn router(manager: Arc<ApiManager>) -> Router {
    let v1 = Router::new();
    let v1 = resource(
        v1,
        "plans",
        get(plans::list).post(plans::create),
        get(plans::show).put(plans::update).delete(plans::delete),
    );
    let v1 = resource(
        v1,
        "providers",
        get(checkpoints::list_providers),
        get(checkpoints::show_provider),
    )
    .route(
        "/v1/{project_id}/providers/{id}/checkpoints",
        get(checkpoints::list).post(checkpoints::create),
    )
    .route(
        "/v1/{project_id}/providers/{id}/checkpoints/{checkpoint_id}",
        get(checkpoints::show)
            .put(checkpoints::update)
            .delete(checkpoints::delete),
    );
    let v1 = resource(
        v1,
        "protectables",
        get(protectables::list_types),
        get(protectables::show_type),
    )
    .route(
        "/v1/{project_id}/protectables/{id}/instances",
        get(protectables::list),
    )
    .route(
        "/v1/{project_id}/protectables/{id}/instances/{instance_id}",
        get(protectables::show),
    );
    let v1 = resource(
        v1,
        "restores",
        get(runs::list_restores).post(runs::create_restore),
        get(runs::show_restore),
    );
    let v1 = resource(
        v1,
        "verifications",
        get(runs::list_verifications).post(runs::create_verification),
        get(runs::show_verification),
    );
    let v1 = resource(
        v1,
        "operation_logs",
        get(runs::list_operation_logs),
        get(runs::show_operation_log),
    );
    let v1 = resource(
        v1,
        "os-services",
        get(services::list),
        get(services::show).put(services::update),
    );
    let v1 = resource(
        v1,
        "triggers",
        get(triggers::list).post(triggers::create),
        get(triggers::show)
            .put(triggers::update)
            .delete(triggers::delete),
    );
    let v1 = resource(
        v1,
        "scheduled_operations",
        get(scheduled_operations::list).post(scheduled_operations::create),
        get(scheduled_operations::show).delete(scheduled_operations::delete),
    );
    let nothing = || axum::routing::any(|| async { no_action() });
    let v1 = resource(
        v1,
        "quotas",
        nothing(),
        get(quotas::show).put(quotas::update).delete(quotas::delete),
    )
    .route("/v1/{project_id}/quotas/{id}/detail", get(quotas::detail))
    .route(
        "/v1/{project_id}/quotas/{id}/defaults",
        get(quotas::defaults),
    );
    let v1 = resource(
        v1,
        "quota_classes",
        nothing(),
        get(quotas::show_class_limits).put(quotas::update_class),
    );
    v1.route("/", get(versions))
        .fallback(|| async { no_route() })
        .method_not_allowed_fallback(|| async { no_action() })
        .layer(middleware::from_fn_with_state(
            manager.clone(),
            guard::guard,
        ))
        .with_state(manager)
}

type Routes = Router<Arc<ApiManager>>;

/// The routes that the original's mapper made of every resource: the collection (also with
/// `.json`), its members, and places that exist but can do nothing.
fn resource(
    routes: Routes,
    name: &str,
    collection: MethodRouter<Arc<ApiManager>>,
    member: MethodRouter<Arc<ApiManager>>,
) -> Routes {
    let place = || axum::routing::any(|| async { no_action() });
    let at = format!("/v1/{{project_id}}/{name}");
    routes
        .route(&at, collection.clone())
        .route(&format!("{at}.json"), collection)
        .route(&format!("{at}/new"), place())
        .route(&format!("{at}/{{id}}"), member)
        .route(&format!("{at}/{{id}}/edit"), place())
        .route(&format!("{at}/{{id}}/action"), place())
}

/// `GET /`: which versions there are.
async fn versions(headers: HeaderMap) -> Response {
    let host = extract::host_url(&headers);
    let body = json!({"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": format!("{host}/data-protect/v1/")}],
    }]});
    json_body(300, body.to_string().into_bytes())
}
