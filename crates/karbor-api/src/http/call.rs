//! What a handler is given: who asks in which project, and the body.

use std::{str::FromStr, sync::Arc};

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

use crate::{
    ApiManager,
    auth::UserToken,
    compat::{
        envelope::{Fault, fault},
        error_words::{MALFORMED_BODY, invalid_id, malformed_url},
        query_language::{self, Query},
        schema::Schema,
    },
    openapi::Rule,
    policy::{Caller, Permit},
    refusal::Refusal,
};

/// A request whose project was checked. The only way to a context: no handler can forget the check. Nor can it forget
/// the operation's rule: the manager takes a [`Permit`], or a [`Caller`] with the rule to be asked of the record.
pub(crate) struct Call {
    pub(crate) manager: Arc<ApiManager>,
    pub(crate) context: RequestContext,
    /// That of the operation that was routed to.
    rule: &'static str,
    /// What it came with, where users come from keystone.
    pub(crate) token: Option<UserToken>,
    path: Vec<(String, String)>,
    query: Option<String>,
    base: String,
}

impl FromRequestParts<Arc<ApiManager>> for Call {
    type Rejection = Fault;

    async fn from_request_parts(
        parts: &mut Parts,
        manager: &Arc<ApiManager>,
    ) -> Result<Self, Fault> {
        let params = RawPathParams::from_request_parts(parts, manager)
            .await
            .map_err(|_| malformed_url())?;
        let path: Vec<_> = params
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let outside = || ApiError::internal("a route outside of the guard");
        let context = parts.extensions.remove::<RequestContext>();
        let context = context.ok_or_else(outside)?;
        let Rule(rule) = parts.extensions.remove::<Rule>().ok_or_else(outside)?;
        let token = parts.extensions.remove::<Option<UserToken>>().flatten();
        let project = path.iter().find(|(key, _)| key == "project_id");
        if project.is_none_or(|(_, project)| *project != context.project_id) {
            return Err(malformed_url().into());
        }
        let base = match &manager.settings().base_url {
            Some(url) => url.clone(),
            None => host_url(&parts.headers),
        };
        Ok(Self {
            manager: manager.clone(),
            context,
            rule,
            token,
            path,
            query: parts.uri.query().map(str::to_owned),
            base,
        })
    }
}

impl Call {
    /// Who asks, for the operation's rule to be asked of the record that the request names.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller::new(&self.context, self.rule)
    }

    /// Asks the operation's rule of the caller's own project.
    pub(crate) fn permit(&self) -> Result<Permit<'_>, Refusal> {
        self.permit_in(&self.context.project_id)
    }

    /// Asks the operation's rule of a project.
    pub(crate) fn permit_in<'a>(&'a self, project: &'a str) -> Result<Permit<'a>, Refusal> {
        Ok(self.manager.policy().permit(self.caller(), project)?)
    }

    /// A part of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        let mut parts = self.path.iter();
        let found = parts.find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// A part of the path that is the id of `what`.
    pub(crate) fn id<T: FromStr>(&self, name: &str, what: &str) -> Result<T, ApiError> {
        self.part(name).parse().map_err(|_| invalid_id(what))
    }

    /// The member that the path names; like the collection, it may end in `.json`.
    pub(crate) fn member(&self) -> &str {
        let part = self.part("id");
        part.strip_suffix(".json").unwrap_or(part)
    }

    /// The id of the member that the path names.
    pub(crate) fn member_id<T: FromStr>(&self, what: &str) -> Result<T, ApiError> {
        self.member().parse().map_err(|_| invalid_id(what))
    }

    /// The query of a list.
    pub(crate) fn list_query(&self) -> Result<Query, ApiError> {
        Query::read(self.query.as_deref(), self.manager.settings().max_limit)
    }

    /// The query, of what is not a list.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, String)>, ApiError> {
        query_language::pairs(self.query.as_deref())
    }

    /// The link to the next page, if the page is full: there may be more then.
    pub(crate) fn next(
        &self,
        query: &Query,
        collection: &str,
        count: usize,
        last: Option<impl std::fmt::Display>,
    ) -> Option<String> {
        let last = last.filter(|_| u64::try_from(count).is_ok_and(|n| n >= query.page.limit))?;
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
            .map_err(|_| refuse(ApiError::bad_request(MALFORMED_BODY)))?;
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
        Err(_) => Err(fault(400, MALFORMED_BODY)),
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
