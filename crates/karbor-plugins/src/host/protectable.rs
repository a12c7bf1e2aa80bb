//! What the operator declared, as resources: applications and their components. A project sees the
//! applications that name it, also when it asks as administrator.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_model::{RequestContext, Resource};
use karbor_plugin::{Protectable, ProtectableError};

use super::{
    applications::{APPLICATION, ApplicationStore, Applications},
    kinds::TYPES,
};

/// Finds the resources of one type among the declarations.
pub(crate) struct HostProtectable {
    resource_type: &'static str,
    store: Arc<ApplicationStore>,
}

impl HostProtectable {
    /// One for each type.
    pub(crate) fn all(store: &Arc<ApplicationStore>) -> Vec<Arc<dyn Protectable>> {
        TYPES
            .into_iter()
            .map(|resource_type| {
                let store = Arc::clone(store);
                Arc::new(Self {
                    resource_type,
                    store,
                }) as Arc<dyn Protectable>
            })
            .collect()
    }

    async fn declared(&self) -> Result<Arc<Applications>, ProtectableError> {
        self.store.current().await.map_err(|problem| {
            tracing::error!(%problem, "what may be protected cannot be read");
            self.error(format!(
                "the operator's declarations cannot be read ({})",
                problem.brief()
            ))
        })
    }

    fn error(&self, message: String) -> ProtectableError {
        ProtectableError {
            resource_type: self.resource_type.to_owned(),
            message,
            retryable: false,
        }
    }
}

#[async_trait]
impl Protectable for HostProtectable {
    fn resource_type(&self) -> &str {
        self.resource_type
    }

    fn parent_types(&self) -> &[&str] {
        match self.resource_type {
            APPLICATION => &[],
            _ => &[APPLICATION],
        }
    }

    async fn list(&self, context: &RequestContext) -> Result<Vec<Resource>, ProtectableError> {
        let declared = self.declared().await?;
        let applications = declared.visible(&context.project_id);
        if self.resource_type == APPLICATION {
            let broken = declared.visible_broken(&context.project_id, context.is_admin);
            let broken = broken.map(|broken| broken.resource());
            return Ok(applications
                .map(|application| application.resource())
                .chain(broken)
                .collect());
        }
        Ok(applications
            .flat_map(|application| application.components.iter().map(move |c| (application, c)))
            .filter(|(_, component)| component.kind.resource_type == self.resource_type)
            .map(|(application, component)| application.component_resource(component))
            .collect())
    }

    async fn show(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> Result<Option<Resource>, ProtectableError> {
        let declared = self.declared().await?;
        let project = &context.project_id;
        let found = match self.resource_type {
            APPLICATION => {
                let usable = declared.application(project, id);
                let mut broken = declared.visible_broken(project, context.is_admin);
                usable.map(|found| found.resource()).or_else(|| {
                    let broken = broken.find(|broken| broken.id.to_string() == id);
                    broken.map(|broken| broken.resource())
                })
            }
            _ => declared
                .component(project, self.resource_type, id)
                .map(|(application, component)| application.component_resource(component)),
        };
        // "Not there" would be said of what a file declares that is broken.
        match (found, declared.why_not_found(project, id)) {
            (None, Some(reason)) => Err(self.error(reason)),
            (found, _) => Ok(found),
        }
    }

    async fn dependents(
        &self,
        context: &RequestContext,
        parent: &Resource,
    ) -> Result<Vec<Resource>, ProtectableError> {
        if self.resource_type == APPLICATION || parent.resource_type != APPLICATION {
            return Ok(Vec::new());
        }
        let declared = self.declared().await?;
        // "None" would shrink the backup of an application whose file is gone.
        let application = declared
            .application(&context.project_id, &parent.id)
            .ok_or_else(|| {
                let why = declared.why_not_found(&context.project_id, &parent.id);
                self.error(format!(
                    "the application '{}' ({}): {}",
                    parent.name,
                    parent.id,
                    why.unwrap_or_else(|| "it is not declared for this project".to_owned())
                ))
            })?;
        Ok(application
            .components
            .iter()
            .filter(|component| component.kind.resource_type == self.resource_type)
            .map(|component| application.component_resource(component))
            .collect())
    }
}
