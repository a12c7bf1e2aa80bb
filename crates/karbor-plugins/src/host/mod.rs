//! Protection of what runs on this host: the operator's applications and their components.
//!
//! **Kinds.** What an application can be made of is one list ([`kinds`]); each kind is a folder here, and all else treats
//! them alike.
//!
//! **Bytes** go through the vault of the provider and project: one snapshot for each component and
//! checkpoint, tagged `karbor:checkpoint=<id>`, `karbor:resource=<type>#<id>` and
//! `karbor:operation=<id>`. The section of the checkpoint in the bank gets one object, `metadata`
//! ([`metadata::Metadata`]): the snapshot, the part of the snapshot that is the component, and the place it came from. The
//! plugin writes it after the snapshot is durable, so a checkpoint never points at nothing.
//!
//! **Repeats.** A hook that is run again finds its snapshot by the operation's tag and uses it. A
//! restore notes in the scratch directory, before it writes, that it found its place free
//! ([`notes`]); so its repeat does not take its own half for somebody's data. Two restores into the
//! same place at once exclude each other ([`occupied`]).
//!
//! **Where a restore may write** is decided by what the operator declares *now*, in [`places`]:
//! the component's own place if it is declared as it was when it was protected, or a place under a
//! declared restore root. The checkpoint's memory alone permits nothing: a bank that somebody
//! tampered with must not turn the service into a tool that writes anywhere. Connections to servers
//! and hook commands come from the declaration alone.
//!
//! **Quiescing** is the application's ([`application`]): its `prepare_begin` runs before those of
//! its components, its `complete` after theirs, and its `undo` after a failure or a cancel. How to
//! resume is noted before quiescing: a declaration that is changed or broken meanwhile must not keep
//! the application stopped.

mod application;
pub mod applications;
mod command;
mod component;
mod copy;
mod directory;
mod kinds;
mod mariadb;
mod metadata;
mod notes;
mod occupied;
mod parameters;
mod places;
mod postgresql;
mod protectable;
mod schemas;
mod shared;
mod sqlite;
mod vaults;

use std::sync::Arc;

use karbor_plugin::{PluginSpec, ProtectionPlugin, Registry, RegistryError};

use self::{
    application::ApplicationPlugin, kinds::KINDS, protectable::HostProtectable, shared::Host,
};

pub use kinds::{PLUGINS, TYPES};
pub use shared::HostOptions;
pub use sqlite::{SQLITE_WORKER, worker::run as sqlite_worker};

/// Adds the protectables and protection plugins of this host. Nothing is read until they are used.
///
/// # Errors
/// [`RegistryError::DeclaredTwice`].
pub fn register(registry: &mut Registry, options: HostOptions) -> Result<(), RegistryError> {
    let host = Arc::new(Host::new(options));
    for protectable in HostProtectable::all(&host.store) {
        registry.add_protectable(protectable)?;
    }
    let application: Arc<dyn ProtectionPlugin> = Arc::new(ApplicationPlugin::new(host.clone()));
    let kinds = KINDS.iter().map(|kind| (kind.plugin)(host.clone()));
    for (name, plugin) in PLUGINS
        .into_iter()
        .zip(std::iter::once(application).chain(kinds))
    {
        registry.add(PluginSpec::protection(name, plugin))?;
    }
    Ok(())
}
