//! The REST API v1: who asks, what they may ask, and what the answer looks like.
//!
//! The wire is the original's, byte for byte where clients could tell: paths, envelopes, field
//! names, the words of its errors. What a request says, what it means and how it comes are three things:
//!
//! * `compat`: the original's words. Bodies, queries, views, envelopes, errors; texts become typed values and the
//!   other way round.
//! * [`ApiManager`]: what a request means. Typed pages, filters and values go in; records or a typed refusal come out.
//!   It calls `karbor_interfaces::ProtectionApi` and its [`ApiStores`].
//! * `http`: how a request comes. Connections, routes, the guard, and a handler for each endpoint, which takes the
//!   request apart with the one and asks the other.
//!
//! `http` imports the other two; neither imports anything of `http`, nor of each other.
//!
//! # The way of a request
//! Connection (with time limits, `http::server`) → guard (request id, token, time limit, panics,
//! the log line; `http::guard`) → route, which adds the operation's rule (`openapi::Operation`) → project check, body
//! and query (`http::call`) → handler → permit (`policy`) → `ApiManager` → view → answer. A request that changes
//! something runs as a task of the service, so that a client that hangs up cannot stop it half-way.
//!
//! # Not of the original
//! Local tokens in place of keystone ([`create_token`]), bodies checked against schemas that say
//! what the code does, filters and pages that work, and a 4xx with the field named for everything
//! that was a 500.

mod auth;
mod compat;
mod http;
mod manager;
mod openapi;
mod options;
mod page;
pub mod policy;
mod refusal;
mod settings;

pub use auth::{
    AuthStrategy, NewToken, REVOCATION_LAG, create_token, ensure_admin_token, list_tokens,
    revoke_token, token_hash,
};
pub use http::{ServeError, router, serve};
pub use manager::{ApiManager, ApiStores};
pub use options::OPTIONS;
pub use settings::{Settings, SettingsError};

/// The OpenAPI 3.1 document of the API, as it is served at `/openapi.json`.
#[must_use]
pub fn openapi() -> serde_json::Value {
    http::document()
}
