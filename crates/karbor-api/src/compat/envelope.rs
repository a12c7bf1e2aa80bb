//! Answers: JSON bodies and the error envelopes, as recorded from the original.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use karbor_model::{ApiError, ErrorKind};
use serde::Serialize;
use serde_json::json;

use crate::refusal::Refusal;

/// What a handler returns.
pub(crate) type Answer = Result<Response, Fault>;

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) ApiError);

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

/// What a fault was inside. It travels beside the answer as far as the request log.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let error = self.0;
        let mut response = match error.kind {
            ErrorKind::OverLimit => over_limit(&error.message),
            kind => fault(kind.status(), &error.message),
        };
        if error.kind == ErrorKind::Internal || error.cause.is_some() {
            response
                .extensions_mut()
                .insert(Cause(format!("{error:?}")));
        }
        response
    }
}

/// Over a quota: waiting does not help, and the original said so with a zero.
fn over_limit(message: &str) -> Response {
    let body = json!({
        "overLimit": { "code": 413, "message": message, "retryAfter": "0" }
    });
    let mut response = json_body(413, body.to_string().into_bytes());
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("0"));
    response
}

/// The envelope `{"<name>": {"code": .., "message": ..}}`.
pub(crate) fn fault(status: u16, message: &str) -> Response {
    let name = fault_name(status);
    let body = json!({ name: { "code": status, "message": message } });
    json_body(status, body.to_string().into_bytes())
}

/// The name in the envelope of an error.
pub(crate) fn fault_name(status: u16) -> &'static str {
    match status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

/// A resource that exists, asked for something that it cannot do.
pub(crate) fn no_action() -> Response {
    fault(404, "The resource could not be found.")
}

/// A method that no resource here has.
pub(crate) fn no_method() -> Response {
    fault(
        405,
        "The method is not one of this API: the Allow header names those of this resource.",
    )
}

/// A path that leads nowhere: the page that the original's web library made.
pub(crate) fn no_route() -> Response {
    let body = json!({
        "message": "The resource could not be found.<br /><br />\n\n\n",
        "code": "404 Not Found",
        "title": "Not Found",
    });
    json_body(404, body.to_string().into_bytes())
}

/// Nobody was authenticated: the answer of the original's token middleware.
pub(crate) fn unauthorized(uri: &str) -> Response {
    let body = json!({"error": {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }});
    let mut response = json_body(401, body.to_string().into_bytes());
    let challenge = HeaderValue::try_from(format!("Keystone uri=\"{uri}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("Keystone uri=\"\""));
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// 200 with a body of our own making.
pub(crate) fn ok(body: Vec<u8>) -> Response {
    json_body(200, body)
}

/// 200 with `{"<key>": <value>}`.
pub(crate) fn one(key: &str, value: &impl Serialize) -> Answer {
    let mut body = Vec::with_capacity(1024);
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(b"\": ");
    write(&mut body, value)?;
    body.push(b'}');
    Ok(ok(body))
}

/// 200 with `{"<key>": [<values>], "<key>_links": [next]}`; no links without a next page.
pub(crate) fn many<T: Serialize>(
    key: &str,
    values: impl IntoIterator<Item = T>,
    next: Option<String>,
) -> Answer {
    let mut body = Vec::with_capacity(16 * 1024);
    body.extend_from_slice(format!("{{\"{key}\": [").as_bytes());
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            body.extend_from_slice(b", ");
        }
        write(&mut body, &value)?;
    }
    body.push(b']');
    if let Some(href) = next {
        let links = json!([{ "rel": "next", "href": href }]);
        body.extend_from_slice(format!(", \"{key}_links\": {links}").as_bytes());
    }
    body.push(b'}');
    Ok(ok(body))
}

fn write(body: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Fault> {
    serde_json::to_writer(body, value)
        .map_err(|e| Fault(ApiError::internal(format!("the answer is not JSON: {e}"))))
}

pub(crate) fn json_body(status: u16, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
