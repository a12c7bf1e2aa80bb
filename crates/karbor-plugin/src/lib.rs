//! What a plugin is.
//!
//! A *bank* holds objects under keys. A *protectable* finds resources and what they depend on. A
//! *protection plugin* knows how resources of some types are protected, restored, verified and
//! deleted; for each it hands out an [`Operation`] whose hooks the flow executor runs. A plugin
//! sees its section of the bank, its resource and its parameters: never the database, never
//! another resource's data.
//!
//! Each plugin describes itself in a [`PluginSpec`]: its name, its options, how it is opened. The [`Registry`] opens
//! those that a provider names, and puts the [`layers`] around its banks.
//!
//! `contract` (behind the feature of that name) holds a suite per trait that every plugin of the kind must pass.

mod bank;
#[cfg(feature = "contract")]
pub mod contract;
mod key;
mod late;
pub mod layers;
mod protectable;
mod protection;
mod registry;
mod section;
mod spec;

pub use bank::{
    Bank, BankCapabilities, BankError, Lease, ListRequest, MAX_OBJECT, ObjectInfo, SortDirection,
    list_all, too_large,
};
pub use karbor_model::{OptionDef, OptionKind, Options, Secret, one_line};
pub use key::{BankKey, KeyError};
pub use protectable::{Protectable, ProtectableError};
pub use protection::{
    CopyTarget, HookReport, HookSet, NoProgress, Operation, OperationContext, PluginError,
    Progress, ProtectionPlugin, SchemaKind, VaultAccess,
};
pub use registry::{OpenedBank, ProviderConfig, Registry, RegistryError};
pub use section::{BankSection, DataSection, ReadSection};
pub use spec::{Open, OpenError, Opening, PluginKind, PluginSpec};
