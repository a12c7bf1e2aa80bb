//! Protection of what runs on this host: the operator's applications and their components.
//!
//! **Bytes** go through the vault of the provider and project: one snapshot for each component and
//! checkpoint, tagged `karbor:checkpoint=<id>`, `karbor:resource=<type>#<id>` and
//! `karbor:operation=<id>`. The section of the checkpoint in the bank gets one object, `metadata`
//! ([`metadata::Metadata`]): which snapshot, what of it, and where it came from. It is written after the
//! snapshot is durable, so a checkpoint never points at nothing.
//!
//! **Repeats.** A hook that is run again finds its snapshot by the operation's tag and uses it. A
//! restore notes in the scratch directory, before it writes, that it found its place free
//! ([`notes`]); so its repeat does not take its own half for somebody's data. Two restores into the
//! same place at once exclude each other ([`occupied`]).
//!
//! **Where a restore may write** is decided by what the operator declares *now*, in [`places`]:
//! the component's own place if it is declared as it was when it was protected, or a place under a
//! declared restore root. The checkpoint's memory alone permits nothing: a bank that somebody
//! tampered with must not turn the service into a tool that writes anywhere. PostgreSQL connections
//! and hook commands come from the declaration alone.
//!
//! **Quiescing** is the application's ([`application`]): its `prepare_begin` runs before those of
//! its components, its `complete` after theirs, and its `undo` after a failure or a cancel. How to
//! resume is noted before quiescing: a declaration that is changed or broken meanwhile must not keep
//! the application stopped.

pub(crate) mod application;
pub mod applications;
mod command;
mod component;
mod copy;
mod directory;
mod metadata;
mod notes;
mod occupied;
mod parameters;
mod places;
mod postgresql;
pub mod protectable;
mod schemas;
mod sqlite;
mod vaults;

use std::{path::PathBuf, sync::Arc};

use karbor_model::Resource;
use karbor_plugin::{OperationContext, PluginError, ProtectionPlugin, Registry};

use self::{
    application::ApplicationPlugin,
    applications::{
        Application, ApplicationStore, Applications, Component, DIRECTORY, POSTGRESQL, SQLITE,
    },
    component::ComponentPlugin,
    directory::DirectoryKind,
    occupied::Occupied,
    postgresql::PostgresqlKind,
    protectable::HostProtectable,
    sqlite::SqliteKind,
    vaults::Vaults,
};

pub(crate) use places::resolve;
pub(crate) use postgresql::{
    client::Client as PostgresqlClient, rights::shortcomings as postgresql_shortcomings,
};
pub use sqlite::{SQLITE_WORKER, worker::run as sqlite_worker};
pub(crate) use sqlite::{Workers, look as look_at_database};

/// Name of the plugin for applications.
pub const APPLICATION_PLUGIN: &str = "karbor-host-application-plugin";
/// Name of the plugin for directories.
pub const DIRECTORY_PLUGIN: &str = "karbor-host-directory-plugin";
/// Name of the plugin for SQLite databases.
pub const SQLITE_PLUGIN: &str = "karbor-host-sqlite-plugin";
/// Name of the plugin for PostgreSQL databases.
pub const POSTGRESQL_PLUGIN: &str = "karbor-host-postgresql-plugin";

/// The name of the plugin that protects one of [`TYPES`](crate::host::applications::TYPES).
pub(crate) fn plugin_for(resource_type: &str) -> &'static str {
    match resource_type {
        DIRECTORY => DIRECTORY_PLUGIN,
        SQLITE => SQLITE_PLUGIN,
        POSTGRESQL => POSTGRESQL_PLUGIN,
        _ => APPLICATION_PLUGIN,
    }
}

/// What the plugins for this host need to know.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The operator's declarations: `applications.d`.
    pub applications_dir: PathBuf,
    /// For temporary copies (as large as the largest SQLite database) and notes on restores under
    /// way. Private to the service; made when needed.
    pub scratch_dir: PathBuf,
    /// The program that becomes a process for SQLite when it is run with [`SQLITE_WORKER`].
    pub sqlite_worker: PathBuf,
    /// The service's own places (state, banks): never protected as part of a directory, since a
    /// bank that holds itself grows for ever, and never restored into.
    pub off_limits: Vec<PathBuf>,
}

/// What the plugins share.
pub(crate) struct Host {
    store: Arc<ApplicationStore>,
    vaults: Vaults,
    scratch: PathBuf,
    workers: Workers,
    off_limits: Vec<PathBuf>,
    occupied: Occupied,
}

/// Adds the protectables and protection plugins of this host. Nothing is read until they are used.
pub fn register(registry: &mut Registry, options: HostOptions) {
    let host = Arc::new(Host {
        store: Arc::new(ApplicationStore::new(options.applications_dir)),
        vaults: Vaults::default(),
        scratch: options.scratch_dir,
        workers: Workers::new(options.sqlite_worker),
        off_limits: options.off_limits,
        occupied: Occupied::default(),
    });
    for protectable in HostProtectable::all(&host.store) {
        registry.protectable(protectable);
    }
    let plugins: [(&'static str, Arc<dyn ProtectionPlugin>); 4] = [
        (
            APPLICATION_PLUGIN,
            Arc::new(ApplicationPlugin::new(host.clone())),
        ),
        (
            DIRECTORY_PLUGIN,
            Arc::new(ComponentPlugin::<DirectoryKind>::new(host.clone())),
        ),
        (
            SQLITE_PLUGIN,
            Arc::new(ComponentPlugin::<SqliteKind>::new(host.clone())),
        ),
        (
            POSTGRESQL_PLUGIN,
            Arc::new(ComponentPlugin::<PostgresqlKind>::new(host)),
        ),
    ];
    for (name, plugin) in plugins {
        registry.protection(name, move |_| Ok(plugin.clone()));
    }
}

/// A component and the application it belongs to, as declared now.
pub(crate) struct Declared {
    pub(crate) application: Application,
    pub(crate) component: Component,
}

impl Host {
    pub(crate) async fn applications(&self) -> Result<Arc<Applications>, PluginError> {
        self.store.current().await.map_err(|problem| {
            PluginError::new(format!(
                "the operator's declarations cannot be read ({})",
                problem.brief()
            ))
            .with_cause(problem)
        })
    }

    /// The component of the context's resource, if it is declared for the checkpoint's project.
    pub(crate) async fn component(
        &self,
        context: &OperationContext,
    ) -> Result<Option<Declared>, PluginError> {
        let applications = self.applications().await?;
        let Resource {
            resource_type, id, ..
        } = &context.resource;
        let found = applications.component(&context.project_id, resource_type, id);
        let Some((application, component)) = found else {
            refuse_broken(&applications, context)?;
            return Ok(None);
        };
        component
            .obeyed()
            .map_err(|(_, reason)| PluginError::new(reason))?;
        Ok(Some(Declared {
            application: application.clone(),
            component: component.clone(),
        }))
    }

    /// As [`component`](Self::component), but it has to be there.
    pub(crate) async fn declared_component(
        &self,
        context: &OperationContext,
    ) -> Result<Declared, PluginError> {
        match self.component(context).await? {
            Some(declared) => Ok(declared),
            None => Err(self.undeclared(context).await),
        }
    }

    /// That the context's resource is not declared, and why it may not be.
    pub(crate) async fn undeclared(&self, context: &OperationContext) -> PluginError {
        let Resource { id, .. } = &context.resource;
        let applications = match self.applications().await {
            Ok(applications) => applications,
            Err(error) => return error,
        };
        let why = applications.why_not_found(&context.project_id, id);
        let why = why.unwrap_or_else(|| {
            "it is not declared for this project: the operator has to declare it again in applications.d"
                .to_owned()
        });
        PluginError::new(format!("{}: {why}", context.resource))
    }
}

/// Fails when the declaration of the context's resource is broken: nothing is known of it until it is mended.
pub(crate) fn refuse_broken(
    applications: &Applications,
    context: &OperationContext,
) -> Result<(), PluginError> {
    let resource = &context.resource;
    match applications.broken_of(&context.project_id, &resource.id) {
        Some(broken) => Err(PluginError::new(format!("{resource}: {}", broken.reason()))),
        None => Ok(()),
    }
}

/// Runs something that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(PluginError::new("an internal task failed").with_cause(error)),
    }
}
