//! The roles that a process of Karbor can have: a file for each, and here what they share.

pub(crate) mod api;
pub(crate) mod notification;
pub(crate) mod operationengine;
pub(crate) mod protection;

use std::{sync::Arc, time::Duration};

use karbor_db::Db;
use karbor_interfaces::{
    OperationEngineApi, OperationEngineClient, ProtectionApi, ProtectionClient,
};
use karbor_manager::{
    Clock, Config, InProcess, Manager, ManagerBase, RpcTransport, RunningService, Service,
    ServiceOptions, ServiceStore, SystemClock,
};
use karbor_operationengine::OperationEngineManager;
use karbor_protection::ProtectionManager;

use crate::{settings, state::StateDir};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The option that makes managers of one process call each other as those of several do.
const LOCAL_RPC: &str = "local_rpc";

/// What every role stands on.
pub(crate) struct Common {
    pub(crate) state: StateDir,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) db: Db,
    pub(crate) transport: Arc<dyn RpcTransport>,
    /// Do the managers of this process call each other as those of several do?
    calls_by_rpc: bool,
    /// How long a call waits for its answer.
    pub(crate) response_timeout: Duration,
}

impl Common {
    /// Opens the database, and brings it up to date.
    ///
    /// # Errors
    /// The database says why not.
    pub(crate) async fn open(state: &StateDir, config: &Config) -> Result<Self, Failure> {
        let db = Db::connect(&settings::database(config, state)?).await?;
        db.migrate().await?;
        let calls_by_rpc = config.bool("DEFAULT", LOCAL_RPC)?;
        if calls_by_rpc {
            tracing::info!("the managers of this process call each other by RPC");
        }
        Ok(Self {
            state: state.clone(),
            config: config.clone(),
            clock: Arc::new(SystemClock::new()),
            db,
            transport: Arc::new(InProcess::new()),
            calls_by_rpc,
            response_timeout: config.seconds("DEFAULT", "rpc_response_timeout")?,
        })
    }

    /// The base of a manager that works with `store`.
    pub(crate) fn base<D>(&self, store: D) -> ManagerBase<D> {
        ManagerBase::new(None, store, self.config.clone(), self.clock.clone())
    }

    /// Wraps a manager in a service and starts it.
    pub(crate) async fn serve<M: Manager>(&self, manager: M) -> Result<RunningService<M>, Failure> {
        let options = ServiceOptions::from_config(&self.config)?;
        let store: Arc<dyn ServiceStore> = Arc::new(self.db.services());
        let service = Service::new(Arc::new(manager), options, store, self.transport.clone());
        Ok(service.start().await?)
    }

    /// The protection manager for those who call it: itself, or a client that reaches it by RPC.
    pub(crate) fn protection(
        &self,
        service: &RunningService<ProtectionManager>,
    ) -> Arc<dyn ProtectionApi> {
        match self.calls_by_rpc {
            false => service.manager().clone(),
            true => Arc::new(ProtectionClient::new(
                self.transport.clone(),
                self.response_timeout,
            )),
        }
    }

    /// The operation engine, as [`Common::protection`] the protection manager.
    pub(crate) fn engine(
        &self,
        service: &RunningService<OperationEngineManager>,
    ) -> Arc<dyn OperationEngineApi> {
        match self.calls_by_rpc {
            false => service.manager().clone(),
            true => Arc::new(OperationEngineClient::new(
                self.transport.clone(),
                self.response_timeout,
            )),
        }
    }
}
