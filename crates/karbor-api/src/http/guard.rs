//! Around every request: its id, who asks, a limit on its time, a catch for panics, a line in the
//! log.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

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

use super::{
    envelope::{Cause, Fault, fault, unauthorized},
    extract::host_url,
};
use crate::{
    ApiManager,
    auth::{AuthStrategy, Identity},
};

pub(crate) async fn guard(
    State(manager): State<Arc<ApiManager>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = RequestId::new();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let limit = manager.settings().request_timeout;
    let answered = answer(&manager, request, next, &id);
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
                request.extensions_mut().insert(context);
                request.extensions_mut().insert(token);
            }
            Ok(Identity::Unknown) => {
                return unauthorized(&manager.authenticator().challenge(headers));
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
