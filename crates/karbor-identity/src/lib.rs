//! Identity: who a token of keystone belongs to, and acting as somebody who is not there.
//!
//! * [`Keystone::identify`] tells whose a token is. Good answers are remembered for
//!   `token_cache_time`, by the hash of the token, and never beyond the token's own expiry: so long may
//!   a revoked token still pass. Bad answers are not remembered.
//! * **The service's own user** asks on behalf of everybody. Its token is made anew with its credentials
//!   before it expires and whenever keystone refuses it; never from the old token, because keystone
//!   keeps the first expiry then.
//! * **Trusts**: a scheduled operation runs as its owner, who is not there when it does. When the
//!   owner makes the operation, the owner's token makes a trust ([`Keystone::create_trust`]) for the
//!   roles it has in its project; a run takes it ([`Keystone::by_trust`]) and finds
//!   [`TrustError::Gone`] once the owner, an administrator or the loss of a role has ended it.
//! * **Whose fault it is** is told apart: a bad token is the client's (401), keystone away or our own
//!   credentials refused is ours (503), with what to do in the log.
//!
//! Tokens and passwords are [`Secret`](karbor_model::Secret)s. None is in a
//! [`RequestContext`](karbor_model::RequestContext), which is written into records.

mod account;
mod cache;
mod catalog;
mod error;
mod keystone;
mod options;
mod settings;
mod token;
mod wire;

pub use catalog::{Catalog, Endpoint, Interface};
pub use error::{IdentityError, TrustError};
pub use keystone::{Keystone, Known};
pub use options::OPTIONS;
pub use settings::{Settings, SettingsError};
pub use token::{Named, Token};
