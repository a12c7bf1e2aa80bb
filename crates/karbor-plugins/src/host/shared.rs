//! What the plugins of this host share: the declarations, the vaults that are open, the places in use.

use std::{path::PathBuf, sync::Arc};

use karbor_model::Resource;
use karbor_plugin::{OperationContext, PluginError};

use super::{
    applications::{Application, ApplicationStore, Applications, Component, Source},
    occupied::Occupied,
    vaults::Vaults,
};

/// What the plugins for this host need to know.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The operator's declarations: `applications.d`.
    pub applications_dir: PathBuf,
    /// For temporary copies (as large as the largest SQLite database) and notes on restores under
    /// way. Private to the service; made when needed.
    pub scratch_dir: PathBuf,
    /// The program that becomes a process for SQLite when it is run with [`SQLITE_WORKER`](crate::SQLITE_WORKER).
    pub sqlite_worker: PathBuf,
    /// The service's own places (state, banks): never protected as part of a directory, since a
    /// bank that holds itself grows for ever, and never restored into.
    pub off_limits: Vec<PathBuf>,
}

/// What the plugins share.
pub(crate) struct Host {
    pub(super) store: Arc<ApplicationStore>,
    pub(super) vaults: Vaults,
    pub(super) scratch: PathBuf,
    pub(super) sqlite_worker: PathBuf,
    pub(super) off_limits: Vec<PathBuf>,
    pub(super) occupied: Occupied,
}

/// A component and the application it belongs to, as declared now.
pub(crate) struct Declared {
    pub(crate) application: Application,
    pub(crate) component: Component,
}

impl Declared {
    /// What the declaration says of a component of one kind.
    pub(crate) fn source<S: Source>(&self) -> Result<&S, PluginError> {
        self.component.source().ok_or_else(|| {
            let key = self.component.key();
            PluginError::new(format!("the component {key} is of another kind"))
        })
    }
}

impl Host {
    /// As [`HostOptions`] say; nothing is read yet.
    pub(super) fn new(options: HostOptions) -> Self {
        Self {
            store: Arc::new(ApplicationStore::new(
                options.applications_dir,
                Applications::load,
            )),
            vaults: Vaults::default(),
            scratch: options.scratch_dir,
            sqlite_worker: options.sqlite_worker,
            off_limits: options.off_limits,
            occupied: Occupied::default(),
        }
    }

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
