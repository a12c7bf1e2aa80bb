//! What each service answers over RPC, one file a service.
//!
//! A caller that wants something of a manager holds an `Arc` of its trait: the manager itself when it
//! runs in the same process, the client when it runs elsewhere. Names of methods and arguments are
//! the original's, so that speaking to an original service needs no translation.

pub mod operationengine;
pub mod protection;
pub mod service;

pub use operationengine::{OperationEngineApi, OperationEngineClient, OperationEngineEndpoint};
pub use protection::{ProtectionApi, ProtectionClient, ProtectionEndpoint};
pub use service::{ServiceApi, ServiceClient, ServiceEndpoint};
