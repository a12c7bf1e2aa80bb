//! Around every request: its id, who asks, a limit on its time, a catch for panics, a line in the
//! log.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use karbor_manager::timeout;
use karbor_model::{ApiError, RequestId};
use tokio::sync::oneshot;

use super::call::host_url;
use crate::{
    ApiManager,
    auth::{AuthStrategy, Identity},
    compat::{
        envelope::{Cause, Fault, fault, unauthorized},
        schema::is_uuid,
    },
};

/// What is guarded.
pub(super) struct Guarded {
    manager: Arc<ApiManager>,
    /// The words that paths of the API are made of.
    words: BTreeSet<&'static str>,
}

impl Guarded {
    pub(super) fn new(manager: Arc<ApiManager>, words: BTreeSet<&'static str>) -> Self {
        Self { manager, words }
    }
}

pub(super) async fn guard(
    State(guarded): State<Arc<Guarded>>,
    request: Request,
    next: Next,
) -> Response {
    let manager = &guarded.manager;
    let begun = Instant::now();
    let id = RequestId::new();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let project = OnceLock::new();
    let limit = manager.settings().request_timeout;
    let answered = answer(manager, request, next, &id, &project);
    let answered = timeout(
        manager.clock(),
        limit,
        AssertUnwindSafe(answered).catch_unwind(),
    );
    let mut response = match answered.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => broken(&id),
        Err(_) => fault(
            504,
            "The request took too long. It may have been carried out all the same: look before \
             asking again.",
        ),
    };
    stamp(&mut response, &id);
    let path = loggable(&path, &guarded.words, project.get().map(String::as_str));
    let (status, ms) = (
        response.status().as_u16(),
        begun.elapsed().as_secs_f64() * 1e3,
    );
    match response.extensions_mut().remove::<Cause>() {
        Some(Cause(cause)) if status >= 500 => {
            tracing::error!(%method, path, status, ms, request_id = %id, cause, "request");
        }
        Some(Cause(cause)) => {
            tracing::info!(%method, path, status, ms, request_id = %id, cause, "request");
        }
        None => tracing::info!(%method, path, status, ms, request_id = %id, "request"),
    }
    response
}

async fn answer(
    manager: &Arc<ApiManager>,
    mut request: Request,
    next: Next,
    id: &RequestId,
    project: &OnceLock<String>,
) -> Response {
    let headers = request.headers();
    if manager.settings().only_this_machine() && !is_local_host(headers) {
        return Fault(ApiError::forbidden(
            "Forbidden",
            "Without authentication the API answers on this machine only: use 127.0.0.1 or \
             localhost in the URL.",
        ))
        .into_response();
    }
    let path = request.uri().path();
    if path == "/v1" || path.starts_with("/v1/") {
        match manager.authenticator().identify(headers, id.clone()).await {
            Ok(Identity::Known { mut context, token }) => {
                if manager.settings().auth_strategy != AuthStrategy::Noauth {
                    context.is_admin = manager.policy().is_admin(&context);
                }
                let _ = project.set(context.project_id.clone());
                request.extensions_mut().insert(context);
                request.extensions_mut().insert(token);
            }
            Ok(Identity::Unknown) => {
                let elsewhere = manager.authenticator().challenge();
                return unauthorized(&elsewhere.map_or_else(|| host_url(headers), str::to_owned));
            }
            Ok(Identity::Offered { token, project }) => {
                let url = format!("{}{path}/{project}", host_url(headers));
                return offered(&token, &url);
            }
            Err(error) => return Fault(error).into_response(),
        }
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    // What changes something goes on to its end, even if the client hangs up.
    let (tell, told) = oneshot::channel();
    let work = async move {
        let _ = tell.send(next.run(request).await);
    };
    manager.tasks().spawn(format!("request {id}"), work);
    told.await.unwrap_or_else(|_| broken(id))
}

/// The most parts of a path that the log has.
const LOGGED_PARTS: usize = 12;

/// The path as the log may have it: the API's words, what has the form of an id, and the project of who
/// asks. Anything else is `*`: people write tokens where ids belong.
fn loggable(path: &str, words: &BTreeSet<&str>, project: Option<&str>) -> String {
    let is_known = |part: &str| {
        let part = part.strip_suffix(".json").unwrap_or(part);
        words.contains(part) || Some(part) == project || is_id(part)
    };
    let mut parts = path.split('/');
    let mut shown: Vec<&str> = parts
        .by_ref()
        .take(LOGGED_PARTS)
        .map(|part| if is_known(part) { part } else { "*" })
        .collect();
    shown.extend(parts.next().map(|_| "..."));
    shown.join("/")
}

/// A UUID with its dashes, the number of a service or the name of a resource type. Not the 32 digits that
/// a project has, for tokens of keystone had that form, too.
fn is_id(part: &str) -> bool {
    let is_type = || {
        let mut words = part.split("::");
        let is_word = |word: &str| {
            (1..=32).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        part.contains("::") && part.split("::").count() <= 4 && words.all(is_word)
    };
    let is_number = || part.len() <= 10 && part.bytes().all(|b| b.is_ascii_digit());
    part.len() == 36 && is_uuid(part) || is_number() || is_type()
}

/// A handler panicked: the log has the reason, the client a number to ask for it.
fn broken(id: &RequestId) -> Response {
    fault(
        500,
        &format!(
            "The server has either erred or is incapable of performing the requested operation. \
             Its log says more under {id}."
        ),
    )
}

fn offered(token: &str, url: &str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in [
        ("x-auth-token", token),
        ("x-server-management-url", url),
        ("content-type", "text/plain"),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn stamp(response: &mut Response, id: &RequestId) {
    if let Ok(value) = HeaderValue::try_from(id.as_str()) {
        let headers = response.headers_mut();
        headers.insert("x-compute-request-id", value.clone());
        headers.insert("x-openstack-request-id", value);
    }
}

/// Is this machine addressed by a name of its own? A web page elsewhere can give a name of its own
/// our address (DNS rebinding); its requests carry that name.
fn is_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address = name.parse::<std::net::IpAddr>();
    address.map_or_else(
        |_| name.eq_ignore_ascii_case("localhost"),
        |a| a.is_loopback(),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::routes::words, *};

    #[test]
    fn the_log_has_no_path_with_a_token_in_it() {
        let id = "5f5c5d7e-0000-4000-8000-000000000001";
        let token = format!("kbr_{}", "a1".repeat(32));
        let project = "a0000000000000000000000000000001";
        let digits = "d".repeat(32);
        for (path, expected) in [
            (
                format!("/v1/{project}/plans"),
                format!("/v1/{project}/plans"),
            ),
            (
                format!("/v1/{project}/plans.json"),
                format!("/v1/{project}/plans.json"),
            ),
            (
                format!("/v1/{project}/providers/{id}/checkpoints/{id}"),
                format!("/v1/{project}/providers/{id}/checkpoints/{id}"),
            ),
            (
                format!("/v1/{project}/protectables/OS::Nova::Server/instances"),
                format!("/v1/{project}/protectables/OS::Nova::Server/instances"),
            ),
            (
                format!("/v1/{project}/os-services/3"),
                format!("/v1/{project}/os-services/3"),
            ),
            (
                format!("/v1/{project}/restores/{token}"),
                format!("/v1/{project}/restores/*"),
            ),
            (format!("/v1/{token}/plans"), "/v1/*/plans".to_owned()),
            (format!("/v1/{digits}/plans"), "/v1/*/plans".to_owned()),
            (format!("/{token}"), "/*".to_owned()),
            (
                "/v1/%67%41/plans\u{1b}[31m".to_owned(),
                "/v1/*/*".to_owned(),
            ),
            (
                "/x".repeat(100),
                format!("{}/...", "/*".repeat(LOGGED_PARTS - 1)),
            ),
            ("/".to_owned(), "/".to_owned()),
        ] {
            assert_eq!(loggable(&path, &words(), Some(project)), expected, "{path}");
        }
        assert_eq!(
            loggable(&format!("/v1/{project}/plans"), &words(), None),
            "/v1/*/plans"
        );
    }
}
