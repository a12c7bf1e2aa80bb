//! What a handler is given: who asks in which project, and the body.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
    response::Response,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use karbor_manager::timeout;
use karbor_model::{ApiError, ErrorKind, RequestContext};
use serde_json::Value;

use super::{
    envelope::{Fault, fault},
    query::Query,
    schema::Schema,
};
use crate::{ApiManager, auth::UserToken, manager::id};

/// A request whose project was checked. The only way to a context: no handler can forget the check.
pub(crate) struct Call {
    pub(crate) context: RequestContext,
    /// What it came with, where users come from keystone.
    pub(crate) token: Option<UserToken>,
    path: Vec<(String, String)>,
    query: Option<String>,
    base: String,
    max_limit: u64,
}

impl FromRequestParts<Arc<ApiManager>> for Call {
    type Rejection = Fault;

    async fn from_request_parts(
        parts: &mut Parts,
        manager: &Arc<ApiManager>,
    ) -> Result<Self, Fault> {
        let malformed = || ApiError::bad_request("Malformed request url");
        let params = RawPathParams::from_request_parts(parts, manager)
            .await
            .map_err(|_| malformed())?;
        let path: Vec<_> = params
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let context = parts
            .extensions
            .remove::<RequestContext>()
            .ok_or_else(|| ApiError::internal("a route outside of the guard"))?;
        let token = parts.extensions.remove::<Option<UserToken>>().flatten();
        let project = path.iter().find(|(key, _)| key == "project_id");
        if project.is_none_or(|(_, project)| *project != context.project_id) {
            return Err(malformed().into());
        }
        let settings = manager.settings();
        let base = match &settings.base_url {
            Some(url) => url.clone(),
            None => host_url(&parts.headers),
        };
        Ok(Self {
            context,
            token,
            path,
            query: parts.uri.query().map(str::to_owned),
            base,
            max_limit: settings.max_limit,
        })
    }
}

impl Call {
    /// A part of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        let mut parts = self.path.iter();
        let found = parts.find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// The member that the path names; like the collection, it may end in `.json`.
    pub(crate) fn member(&self) -> &str {
        let part = self.part("id");
        part.strip_suffix(".json").unwrap_or(part)
    }

    /// The id of the member that the path names.
    pub(crate) fn member_id<T: std::str::FromStr>(&self, what: &str) -> Result<T, ApiError> {
        id(self.member(), what)
    }

    /// The query of a list.
    pub(crate) fn list_query(&self) -> Result<Query, ApiError> {
        Query::list(self.query.as_deref(), self.max_limit, &self.context)
    }

    /// The query, of what is not a list.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, String)>, ApiError> {
        Query::pairs(self.query.as_deref())
    }

    /// The link to the next page, if the page is full: there may be more then.
    pub(crate) fn next(
        &self,
        query: &Query,
        collection: &str,
        count: usize,
        last: Option<impl std::fmt::Display>,
    ) -> Option<String> {
        let last = last.filter(|_| u64::try_from(count).is_ok_and(|n| n >= query.limit))?;
        let next = query.next(&last.to_string());
        let project = &self.context.project_id;
        Some(format!("{}/v1/{project}/{collection}?{next}", self.base))
    }
}

/// Scheme and host as the client sees them.
pub(crate) fn host_url(headers: &HeaderMap) -> String {
    let host = headers
        .get("x-forwarded-host")
        .or_else(|| headers.get(header::HOST))
        .and_then(|host| host.to_str().ok())
        .and_then(|hosts| hosts.rsplit(',').next())
        .map_or("localhost", str::trim);
    format!("http://{host}")
}

/// A JSON body, not yet checked against a schema.
pub(crate) struct Json(Value);

impl Json {
    /// Has the body this key?
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    /// The body, once `schema` has nothing to say against it.
    pub(crate) fn checked(self, schema: &Schema) -> Result<Value, ApiError> {
        schema.check(&self.0)?;
        Ok(self.0)
    }
}

impl FromRequest<Arc<ApiManager>> for Json {
    type Rejection = Response;

    async fn from_request(request: Request, manager: &Arc<ApiManager>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let foreign = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| !kind.to_str().is_ok_and(is_json));
        let bytes = read(body, manager).await?;
        let refuse = |error: ApiError| Fault(error).into_response();
        if foreign {
            return Err(refuse(ApiError::new(
                ErrorKind::UnsupportedMediaType,
                "InvalidContentType",
                "Unsupported Content-Type: send the body as application/json.",
            )));
        }
        if bytes.is_empty() {
            return Err(refuse(ApiError::bad_request(
                "Missing request body: this request needs one, as application/json.",
            )));
        }
        let body: Value = serde_json::from_slice(&bytes)
            .map_err(|_| refuse(ApiError::bad_request("Malformed request body")))?;
        // A NUL cannot be stored by every database; nothing that people name contains one.
        if bytes.windows(6).any(|part| part == b"\\u0000") && has_nul(&body) {
            return Err(refuse(ApiError::bad_request(
                "Malformed request body: a text contains the character U+0000.",
            )));
        }
        Ok(Self(body))
    }
}

async fn read(body: Body, manager: &ApiManager) -> Result<bytes::Bytes, Response> {
    let settings = manager.settings();
    let limited = Limited::new(body, settings.max_body).collect();
    let collected = timeout(manager.clock(), settings.client_timeout, limited)
        .await
        .map_err(|_| fault(408, "The body of the request did not arrive in time."))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(fault(
            413,
            &format!(
                "The body of the request is larger than {} bytes.",
                settings.max_body
            ),
        )),
        Err(_) => Err(fault(400, "Malformed request body")),
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.is_empty() || kind == "application/json" || kind.ends_with("+json")
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}
