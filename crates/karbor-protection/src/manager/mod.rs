//! The protection manager: it is responsible for checkpoints and for every operation that runs over
//! one.

mod api;
mod reset;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use karbor_db::RunStore;
use karbor_flow::{Executor, ExecutorOptions};
use karbor_manager::{Clock, Config, Manager, ManagerBase};
use karbor_model::{ApiError, ErrorKind, ProtectableInstance, RequestContext, Resource};
use karbor_plugin::{Protectable, Registry};

use crate::{
    graph,
    ground::Ground,
    keys::MasterKey,
    options::Settings,
    providers::Providers,
    worker::{Slots, Worker},
};

/// The protection manager.
pub struct ProtectionManager {
    pub(crate) base: ManagerBase<RunStore>,
    pub(crate) ground: Arc<Ground>,
    pub(crate) worker: Arc<Worker>,
}

/// What a protection manager is made of.
pub struct ProtectionParts {
    /// Every plugin there is.
    pub registry: Arc<Registry>,
    /// The providers in use.
    pub providers: Providers,
    /// The key from which repository passwords are derived.
    pub master_key: MasterKey,
}

impl ProtectionManager {
    /// A manager on `host` (default: this host's name).
    ///
    /// # Errors
    /// A 500 when the configuration lacks an option of [`OPTIONS`](crate::OPTIONS).
    pub fn new(
        host: Option<String>,
        runs: RunStore,
        config: Config,
        clock: Arc<dyn Clock>,
        parts: ProtectionParts,
    ) -> Result<Self, ApiError> {
        let base = ManagerBase::new(host, runs.clone(), config, clock.clone());
        let settings = Settings::read(base.config()).map_err(ApiError::internal)?;
        let options = ExecutorOptions {
            limit: settings.tasks,
            task_timeout: settings.task_timeout,
            ..ExecutorOptions::default()
        };
        let providers = Arc::new(parts.providers.with_key(&parts.master_key));
        let ground = Arc::new(Ground {
            runs,
            clock,
            registry: parts.registry,
            providers,
            owner: format!("{}@{}", Self::BINARY, base.host()),
            suspicious_share: settings.suspicious_share,
        });
        let worker = Arc::new(Worker {
            ground: ground.clone(),
            executor: Executor::new(options, ground.clock.clone()),
            tasks: base.tasks().clone(),
            key: parts.master_key,
            host: base.host().to_owned(),
            quotas: settings.quotas,
            slots: Slots::new(settings.operations, settings.copies),
            running: Mutex::new(HashMap::new()),
            stuck: Mutex::new(HashMap::new()),
        });
        Ok(Self {
            base,
            ground,
            worker,
        })
    }

    /// A resource with what it depends on directly. Nobody knows that of one that cannot be used; it must not hide
    /// the others.
    async fn with_dependents(
        &self,
        context: &RequestContext,
        resource: Resource,
    ) -> ProtectableInstance {
        let dependents = match resource.broken() {
            Some(_) => Ok(Vec::new()),
            None => graph::dependents(&self.ground.registry, context, &resource).await,
        };
        ProtectableInstance {
            resource,
            // Who shows it asks for them, and hears why they cannot be looked up.
            dependent_resources: dependents.ok(),
        }
    }

    fn protectable(&self, resource_type: &str) -> Result<&Arc<dyn Protectable>, ApiError> {
        self.ground
            .registry
            .protectables()
            .get(resource_type)
            .ok_or_else(|| {
                let message = format!("Protectable type {resource_type} could not be found.");
                ApiError::new(ErrorKind::NotFound, "ProtectableTypeNotFound", message)
            })
    }

    /// The protectable of a type, to look resources up with.
    fn lookup(&self, resource_type: &str) -> Result<&Arc<dyn Protectable>, ApiError> {
        let protectable = self.protectable(resource_type)?;
        if protectable.can_look_up() {
            return Ok(protectable);
        }
        Err(ApiError::new(
            ErrorKind::BadRequest,
            "ListProtectableResourceFailed",
            format!(
                "This service is not connected to where resources of type {resource_type} are: it \
                 cannot say which there are. Name them in the plan."
            ),
        ))
    }
}
