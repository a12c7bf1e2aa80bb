//! The REST API v1: who asks, what they may ask, and what the answer looks like.
//!
//! The wire is the original's, byte for byte where clients could tell: paths, envelopes, field
//! names, the words of its errors. Three layers keep that apart from what it means:
//!
//! * `http`: bodies, queries, envelopes and views; it knows JSON and nothing of Karbor.
//! * [`ApiManager`]: what a request means; it knows Karbor and nothing of JSON.
//! * `karbor_interfaces::ProtectionApi` and `karbor_db::Db`, which it calls.
//!
//! # The way of a request
//! Connection (with time limits, `http::server`) → guard (request id, token, time limit, panics,
//! the log line; `http::guard`) → route → project check, body and query (`http::extract`) → handler →
//! `ApiManager` → view → answer. A request that changes something runs as a task of the service, so
//! that a client that hangs up cannot stop it half-way.
//!
//! # Not of the original
//! Local tokens in place of keystone ([`create_token`]), bodies checked against schemas that say
//! what the code does, filters and pages that work, and a 4xx with the field named for everything
//! that was a 500.

mod auth;
pub(crate) mod http;
mod manager;
mod options;
pub mod policy;
mod settings;
mod tokens;

pub use auth::{AuthStrategy, REVOCATION_LAG};
pub use http::{ServeError, openapi, router, serve};
pub use manager::ApiManager;
pub use options::OPTIONS;
pub use settings::{Settings, SettingsError};
pub use tokens::{
    NewToken, create_token, ensure_admin_token, list_tokens, revoke_token, token_hash,
};
