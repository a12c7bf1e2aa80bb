//! The protection manager: providers, checkpoints and the operations that run over them.
//!
//! The way of a protect is drawn in `docs/architecture.md`. In short: [`manager`] answers the API and has a room of
//! `operations` make a run of what is asked; the worker writes the flow record, claims the checkpoint, has
//! karbor-flow run the plugins' hooks with a journal in the database, and writes down how it ended; after a crash it
//! goes on where the journal stops. What is particular to an operation is in its room.

mod begin_error;
mod checkpoint_lookup;
pub mod checkpoints;
mod conclusion;
mod copies;
pub mod error;
mod flaws;
mod graph;
mod ground;
mod hooks;
mod host;
mod journal;
pub mod keys;
mod leases;
mod listing;
pub mod manager;
mod operations;
mod options;
mod parameters;
pub mod providers;
mod quota;
mod run;
mod seal;
mod worker;

pub use keys::{KeyFileError, MasterKey};
pub use manager::{ProtectionManager, ProtectionParts};
pub use options::{OPTIONS, out_of_range};
pub use providers::{
    BankRole, Home, PROVIDER_OPTIONS, Provider, ProviderError, Providers, Unusable,
    load_provider_configs,
};
pub use quota::{QuotaRecount, recount_quotas};
