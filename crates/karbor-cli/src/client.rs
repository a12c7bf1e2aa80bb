//! A client of the REST API: JSON in, JSON out, errors that say what to do.

use std::{error::Error, fs, path::Path, time::Duration};

use reqwest::{
    Certificate, Method, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde_json::Value;

use crate::{
    Globals,
    endpoint::{Destination, is_loopback},
    error::{CliError, Exit},
};

/// One page of a listing is never larger than this; more pages are asked for.
const PAGE: usize = 500;

/// Asks the service.
pub(crate) struct Client {
    http: reqwest::Client,
    place: Destination,
}

/// `name=value` pairs of a query.
pub(crate) type Query<'a> = &'a [(&'static str, String)];

impl Client {
    pub(crate) fn new(place: Destination, globals: &Globals) -> Result<Self, CliError> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("application/json"));
        if let Some(token) = &place.token {
            let mut value = HeaderValue::from_str(&token.text).map_err(|_| {
                CliError::usage(format!("the token from {} is no token", token.source))
            })?;
            value.set_sensitive(true);
            headers.insert("x-auth-token", value);
        }
        let http = http(place.endpoint.place(), globals.ca_file.as_deref(), headers)?;
        Ok(Self { http, place })
    }

    /// The token would cross the network in clear.
    pub(crate) fn exposes_token(&self) -> bool {
        let endpoint = &self.place.endpoint;
        self.place.token.is_some() && !endpoint.is_tls() && !endpoint.is_loopback()
    }

    /// The project that is acted in.
    pub(crate) fn project(&self) -> &str {
        self.place.endpoint.project()
    }

    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value, CliError> {
        self.ask(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, CliError> {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Value, CliError> {
        self.ask(Method::PUT, path, &[], Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, CliError> {
        self.ask(Method::PATCH, path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, CliError> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    /// Every entry of a listing, or `limit` of them, over as many pages as it takes. Of a next link
    /// only the marker is used: its path and host are the service's view of itself.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        key: &str,
        query: Query<'_>,
        limit: Option<usize>,
    ) -> Result<Vec<Value>, CliError> {
        let mut query = query.to_vec();
        let mut entries = Vec::new();
        let mut seen = None;
        loop {
            if let Some(limit) = limit {
                query.retain(|(name, _)| *name != "limit");
                query.push(("limit", (limit - entries.len()).min(PAGE).to_string()));
            }
            let page = self.ask(Method::GET, path, &query, None).await?;
            let next = next_marker(&page, key);
            match page.get(key) {
                Some(Value::Array(page)) => entries.extend(page.iter().cloned()),
                _ => return Err(self.not_karbor(&format!("no list of {key}"))),
            }
            if let Some(limit) = limit {
                entries.truncate(limit);
            }
            // A marker that comes again would go round for ever.
            let full = limit.is_some_and(|limit| entries.len() >= limit);
            match next {
                Some(marker) if !full && seen.as_ref() != Some(&marker) => {
                    query.retain(|(name, _)| *name != "marker");
                    query.push(("marker", marker.clone()));
                    seen = Some(marker);
                }
                _ => return Ok(entries),
            }
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: Query<'_>,
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let mut url = self.place.endpoint.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let request_id = response
            .headers()
            .get("x-openstack-request-id")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let bytes = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let answer = serde_json::from_slice::<Value>(&bytes);
        if status.is_success() {
            return match answer {
                Ok(answer) => Ok(answer),
                Err(_) if bytes.trim_ascii().is_empty() => Ok(Value::Null),
                Err(_) => Err(self.not_karbor("its answer is not JSON")),
            };
        }
        Err(self.refused(status, &answer.unwrap_or_default(), request_id))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let base = self.place.endpoint.base();
        let why = causes(error);
        let what = if error.is_timeout() {
            format!("the service at {base} did not answer in time")
        } else {
            format!("no service answers at {base}: {why}")
        };
        let hint = if self.place.endpoint.is_tls() && why.to_lowercase().contains("certificate") {
            "trust its authority with --ca-file or KARBOR_CA_FILE"
        } else {
            "start one with `karbor serve`, or say where it is with --endpoint or KARBOR_ENDPOINT"
        };
        CliError::new(Exit::Unreachable, what).hint(hint)
    }

    fn not_karbor(&self, why: &str) -> CliError {
        let base = self.place.endpoint.base();
        CliError::new(
            Exit::Unreachable,
            format!("what answers at {base} is no Karbor API: {why}"),
        )
        .hint("say where it is with --endpoint or KARBOR_ENDPOINT")
    }

    /// An answer that is not a success, told with what to do.
    fn refused(&self, status: StatusCode, answer: &Value, request_id: Option<String>) -> CliError {
        let told = answer
            .as_object()
            .and_then(|envelope| envelope.values().next())
            .and_then(|fault| fault.get("message"))
            .or_else(|| answer.get("message"))
            .and_then(Value::as_str)
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given"))
            .trim_end()
            .to_owned();
        let exit = match status.as_u16() {
            401 | 403 | 405 | 409 | 413 | 424 | 429 => Exit::Refused,
            404 => Exit::NotFound,
            503 | 504 => Exit::Unreachable,
            400..=499 => Exit::Usage,
            300..=399 => return self.not_karbor(&format!("it answered {status}")),
            _ => Exit::Failed,
        };
        // The original's words for a token of one project and a path of another.
        if status == StatusCode::BAD_REQUEST && told == "Malformed request url" {
            return CliError::new(
                Exit::Refused,
                format!("the token is not one of the project '{}'", self.project()),
            )
            .hint(
                "--project or KARBOR_PROJECT takes the id of the project that the token is of; to act in \
                 another one, use a token of that one",
            );
        }
        // Where the service says what to do, a hint of ours would say something else.
        let says_what_to_do = told.contains('`') || told.contains("try again");
        let error = CliError::new(exit, told);
        match status.as_u16() {
            503 if says_what_to_do => error,
            401 => error.hint(self.token_hint()),
            403 => error.hint(
                "it belongs to another project, or wants an administrator: --project or \
                 KARBOR_PROJECT names the project, the token says who you are",
            ),
            503 | 504 => {
                error.hint("try again in a moment; `karbor service list` shows what is up")
            }
            500.. => error.hint(match request_id {
                Some(id) => format!("the service's log says more under {id}"),
                None => "the service's log says more".to_owned(),
            }),
            _ => error,
        }
    }

    fn token_hint(&self) -> String {
        match &self.place.token {
            Some(token) => format!(
                "the token from {} was not accepted; ask the service's operator for a new one, \
                 or restart `karbor serve` if it is your own",
                token.source
            ),
            None => format!(
                "no token was found in {}; put one into KARBOR_TOKEN or name its file with \
                 --token-file",
                self.place.looked
            ),
        }
    }
}

/// What asks at `place`.
pub(crate) fn http(
    place: &Url,
    ca_file: Option<&Path>,
    headers: HeaderMap,
) -> Result<reqwest::Client, CliError> {
    // The binary has installed it already; tests have not.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .user_agent(concat!("karbor/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(120))
        // A redirect would carry the token to wherever it points.
        .redirect(Policy::none());
    if is_loopback(place) {
        builder = builder.no_proxy();
    }
    if place.scheme() != "https" {
        // The system's certificates take longer to read than most answers to come.
        builder = builder.tls_certs_only([]);
    }
    if let Some(file) = ca_file {
        let bad = |why: String| CliError::usage(format!("--ca-file {}: {why}", file.display()));
        let pem = fs::read(file).map_err(|error| bad(error.to_string()))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| bad(causes(&error)))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|error| CliError::new(Exit::Failed, format!("no HTTP client: {}", causes(&error))))
}

/// The marker in `<key>_links`.
fn next_marker(page: &Value, key: &str) -> Option<String> {
    let links = page.get(format!("{key}_links"))?.as_array()?;
    let next = links.iter().find(|link| link["rel"] == "next")?;
    let base = reqwest::Url::parse("http://relative").ok()?;
    let url = base.join(next["href"].as_str()?).ok()?;
    url.query_pairs()
        .find(|(name, _)| name == "marker")
        .map(|(_, marker)| marker.into_owned())
}

/// An error with what caused it, without the URL, which may hold names.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
