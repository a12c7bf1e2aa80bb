//! Keystone's API v3 over HTTP: the few requests that we make.

use std::fs;

use karbor_model::Secret;
use reqwest::{
    Certificate, Method, RequestBuilder, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    error::{IdentityError, away, unexpected},
    settings::{Credentials, Settings, SettingsError},
    token::{Envelope, Token},
};

const SUBJECT: &str = "x-subject-token";

/// Keystone.
pub(crate) struct Wire {
    http: reqwest::Client,
    place: Url,
}

/// A token that we have, and what keystone says of it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) secret: Secret,
    pub(crate) token: Token,
}

/// What a token is for.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// As the credentials say.
    Own,
    /// What the trust with this id gives.
    Trust(&'a str),
}

/// What keystone said no to, if it did.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) told: String,
}

/// An answer: what was asked for, or a no.
type Answer<T> = Result<Result<T, Refusal>, IdentityError>;

#[derive(Deserialize)]
struct TrustBody {
    trust: TrustId,
}

#[derive(Deserialize)]
struct TrustId {
    id: String,
}

impl Wire {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let place = settings.auth_url.clone();
        let loopback = is_loopback(&place);
        if place.scheme() == "http" && !loopback {
            tracing::warn!(%place, "passwords and tokens travel to keystone in the clear: use https");
        }
        // The binary has installed it already; tests have not.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("karbor/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.timeout)
            // A redirect would carry tokens to wherever it points.
            .redirect(Policy::none());
        if loopback {
            builder = builder.no_proxy();
        }
        if place.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        } else if let Some(file) = &settings.cafile {
            let bad = |why: String| SettingsError::Tls(format!("{}: {why}", file.display()));
            let pem = fs::read(file).map_err(|error| bad(error.to_string()))?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if settings.insecure && place.scheme() == "https" {
            tracing::warn!("[keystone_authtoken] insecure: keystone's certificate is not checked");
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let http = builder.build();
        let http = http.map_err(|error| SettingsError::Tls(error.to_string()))?;
        Ok(Self { http, place })
    }

    /// A new token, from credentials.
    pub(crate) async fn authenticate(
        &self,
        credentials: &Credentials,
        scope: Scope<'_>,
    ) -> Answer<Issued> {
        let request = self.request(Method::POST, &["auth", "tokens"])?;
        let request = request.json(&auth_body(credentials, scope));
        let (status, headers, body) = send(request).await?;
        if status != StatusCode::CREATED {
            return refusal("give a token", status, &body);
        }
        let secret = headers
            .get(SUBJECT)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| IdentityError::Strange("a token without X-Subject-Token".to_owned()))?;
        Ok(Ok(Issued {
            secret: Secret::new(secret.to_owned()),
            token: parsed::<Envelope>(&body)?.token,
        }))
    }

    /// Whose `subject` is, asked by the bearer of `own`. A refusal is 404 for a subject that is no token
    /// (any more), 401 for such an `own`.
    pub(crate) async fn show_token(&self, own: &Secret, subject: &Secret) -> Answer<Token> {
        let request = self.request(Method::GET, &["auth", "tokens"])?;
        let request = request
            .header("x-auth-token", sensitive(own)?)
            .header(SUBJECT, sensitive(subject)?);
        let (status, _, body) = send(request).await?;
        if status != StatusCode::OK {
            return refusal("validate a token", status, &body);
        }
        Ok(Ok(parsed::<Envelope>(&body)?.token))
    }

    /// A trust of the bearer of `own`, as `trust` says; its id.
    pub(crate) async fn create_trust(&self, own: &Secret, trust: &Value) -> Answer<String> {
        let request = self.request(Method::POST, &["OS-TRUST", "trusts"])?;
        let request = request
            .header("x-auth-token", sensitive(own)?)
            .json(&json!({ "trust": trust }));
        let (status, _, body) = send(request).await?;
        if status != StatusCode::CREATED {
            return refusal("make a trust", status, &body);
        }
        Ok(Ok(parsed::<TrustBody>(&body)?.trust.id))
    }

    /// Ends a trust, as the bearer of `own`.
    pub(crate) async fn delete_trust(&self, own: &Secret, trust_id: &str) -> Answer<()> {
        let request = self.request(Method::DELETE, &["OS-TRUST", "trusts", trust_id])?;
        let request = request.header("x-auth-token", sensitive(own)?);
        let (status, _, body) = send(request).await?;
        if !status.is_success() {
            return refusal("end a trust", status, &body);
        }
        Ok(Ok(()))
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, IdentityError> {
        let mut url = self.place.clone();
        url.path_segments_mut()
            .map_err(|()| IdentityError::Strange("its URL has no path".to_owned()))?
            .extend(path);
        Ok(self
            .http
            .request(method, url)
            .header("accept", "application/json"))
    }
}

async fn send(request: RequestBuilder) -> Result<(StatusCode, HeaderMap, Vec<u8>), IdentityError> {
    let response = request.send().await.map_err(|error| away(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(|error| away(&error))?;
    Ok((status, headers, body.to_vec()))
}

/// A no that the caller can make something of; anything else is an error.
fn refusal<T>(what: &'static str, status: StatusCode, body: &[u8]) -> Answer<T> {
    let told = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| Some(body.get("error")?.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| status.to_string());
    match status.as_u16() {
        401 | 403 | 404 => Ok(Err(Refusal { status, told })),
        _ => Err(unexpected(what, status, told)),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, IdentityError> {
    // The parser's words name fields and places, not contents.
    serde_json::from_slice(body).map_err(|error| IdentityError::Strange(error.to_string()))
}

fn sensitive(secret: &Secret) -> Result<HeaderValue, IdentityError> {
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| IdentityError::Strange("a token that is no text".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn auth_body(credentials: &Credentials, scope: Scope<'_>) -> Value {
    let (identity, own) = match credentials {
        Credentials::Password {
            user,
            password,
            scope,
        } => {
            let mut user = user.clone();
            user["password"] = json!(password.expose());
            let identity = json!({"methods": ["password"], "password": {"user": user}});
            (identity, scope.clone())
        }
        Credentials::ApplicationCredential { id, secret } => {
            let credential = json!({"id": id, "secret": secret.expose()});
            let identity = json!({
                "methods": ["application_credential"],
                "application_credential": credential,
            });
            (identity, None)
        }
    };
    let scope = match scope {
        Scope::Own => own,
        Scope::Trust(id) => Some(json!({"OS-TRUST:trust": {"id": id}})),
    };
    let mut auth = json!({ "identity": identity });
    if let Some(scope) = scope {
        auth["scope"] = scope;
    }
    json!({ "auth": auth })
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}
