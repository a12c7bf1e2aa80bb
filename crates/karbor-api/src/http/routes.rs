//! The routes: every endpoint, and what the original's mapper made of paths that lead nowhere.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    http::{HeaderMap, Method},
    middleware,
    response::Response,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    call::host_url,
    guard::{Guarded, guard},
    handlers::{
        checkpoints, operation_logs, plans, protectables, quotas, readbacks, scheduled_operations,
        services, triggers,
    },
};
use crate::{
    ApiManager,
    compat::envelope::{json_body, no_action, no_method, no_route},
    openapi::{self, Operation},
};

/// Every endpoint of v1.
fn operations() -> Vec<Operation> {
    [
        plans::operations(),
        checkpoints::operations(),
        protectables::operations(),
        readbacks::operations(),
        operation_logs::operations(),
        services::operations(),
        triggers::operations(),
        scheduled_operations::operations(),
        quotas::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The words that paths of the API are made of.
pub(super) fn words() -> BTreeSet<&'static str> {
    let operations = operations();
    let parts = operations
        .iter()
        .flat_map(|operation| operation.path.split('/'));
    let words = parts.filter(|part| !part.starts_with('{'));
    words
        .chain(["v1", "new", "edit", "action", "data-protect", "openapi"])
        .collect()
}

/// The OpenAPI 3.1 document of the API.
pub(crate) fn document() -> Value {
    openapi::document(&operations())
}

/// Routes of the API, whole: with tokens, time limits and request ids.
pub fn router(manager: Arc<ApiManager>) -> Router {
    let resources: BTreeSet<_> = operations().iter().map(Operation::resource).collect();
    let v1 = resources.into_iter().fold(Router::new(), places);
    let v1 = operations()
        .into_iter()
        .fold(v1, |routes, operation| operation.route(routes));
    let served = Bytes::from(document().to_string());
    v1.route("/", get(versions))
        .route(VERSION_LINK, get(versions))
        .route(
            "/openapi.json",
            get(move || async move { json_body(200, served.to_vec()) }),
        )
        .fallback(|| async { no_route() })
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::new(Guarded::new(manager.clone(), words())),
            guard,
        ))
        .with_state(manager)
}

type Routes = Router<Arc<ApiManager>>;

/// The places that the original's mapper made of every resource, whether or not anything can be
/// done there.
fn places(routes: Routes, name: &str) -> Routes {
    let place = || axum::routing::any(|| async { no_action() });
    let at = format!("/v1/{{project_id}}/{name}");
    routes
        .route(&at, MethodRouter::new())
        .route(&format!("{at}.json"), MethodRouter::new())
        .route(&format!("{at}/new"), place())
        .route(&format!("{at}/{{id}}"), MethodRouter::new())
        .route(&format!("{at}/{{id}}/edit"), place())
        .route(&format!("{at}/{{id}}/action"), place())
}

/// A method that there is nothing for at this place. The router adds what there is, as `Allow`. Those
/// that the original's API had it answered with a 404, as recorded; others nobody can have expected.
async fn not_allowed(method: Method) -> Response {
    match method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE => no_action(),
        _ => no_method(),
    }
}

/// Where the versions document says that version 1 is. The original answered with the same document
/// there; the resources are below `/v1`.
const VERSION_LINK: &str = "/data-protect/v1/";

/// `GET /`: which versions there are.
async fn versions(headers: HeaderMap) -> Response {
    let host = host_url(&headers);
    let body = json!({"versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": format!("{host}{VERSION_LINK}")}],
    }]});
    json_body(300, body.to_string().into_bytes())
}
