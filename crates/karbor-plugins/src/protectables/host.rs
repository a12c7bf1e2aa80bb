//! What the operator declared, as resources: applications and their components. A project sees the
//! applications that name it, also when it asks as administrator.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_model::{RequestContext, Resource};
use karbor_plugin::{Protectable, ProtectableError};

use crate::applications::{
    APPLICATION, ApplicationStore, Applications, DIRECTORY, POSTGRESQL, SQLITE,
};

/// Finds the resources of one type among the declarations.
pub struct HostProtectable {
    resource_type: &'static str,
    store: Arc<ApplicationStore>,
}

impl HostProtectable {
    /// One for each type.
    #[must_use]
    pub fn all(store: &Arc<ApplicationStore>) -> Vec<Arc<dyn Protectable>> {
        [APPLICATION, DIRECTORY, SQLITE, POSTGRESQL]
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
        self.store.current().await.map_err(|problems| {
            for problem in problems.iter() {
                tracing::error!(%problem, "a declaration of what may be protected is wrong");
            }
            let first = problems.first().map(|problem| problem.brief()).unwrap_or_default();
            self.error(format!(
                "the operator's declarations are wrong ({first}); `karbor config validate` lists every problem"
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
            return Ok(applications
                .map(|application| application.resource())
                .collect());
        }
        Ok(applications
            .flat_map(|application| application.components.iter().map(move |c| (application, c)))
            .filter(|(_, component)| component.source.resource_type() == self.resource_type)
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
        if self.resource_type == APPLICATION {
            return Ok(declared
                .application(project, id)
                .map(|found| found.resource()));
        }
        Ok(declared
            .component(project, self.resource_type, id)
            .map(|(application, component)| application.component_resource(component)))
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
                self.error(format!(
                    "the application '{}' ({}) is not declared for this project",
                    parent.name, parent.id
                ))
            })?;
        Ok(application
            .components
            .iter()
            .filter(|component| component.source.resource_type() == self.resource_type)
            .map(|component| application.component_resource(component))
            .collect())
    }
}
