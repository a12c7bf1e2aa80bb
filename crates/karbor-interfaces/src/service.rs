//! What every service answers, whatever its manager: health, version, configuration, reports of
//! periodic tasks. Declared beside the service that answers it, in `karbor-manager`.

pub use karbor_manager::service::{ServiceApi, ServiceClient, ServiceEndpoint, ServiceHealth};
