//! What a manager is.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use karbor_model::{ApiError, ServiceRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Config, PeriodicTasks, TaskSet,
    rpc::{RpcEndpoint, RpcVersion, Target},
    tasks::lock,
};

/// Does the manager work?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// It does.
    Working,
    /// It does not: the service sends no heartbeat and shows as down.
    NotWorking {
        /// What is wrong and what to do.
        reason: String,
    },
}

impl Health {
    /// Does it work?
    #[must_use]
    pub fn is_working(&self) -> bool {
        matches!(self, Self::Working)
    }
}

/// A manager: it is responsible for one aspect of the system (see the crate's head).
///
/// The order in which a [`Service`](crate::Service) calls it: [`init_host`](Manager::init_host) →
/// RPC answers → [`init_host_with_rpc`](Manager::init_host_with_rpc) → heartbeats while
/// [`is_working`](Manager::is_working), periodic tasks → intake closed, calls in flight finished,
/// tasks joined → [`cleanup_host`](Manager::cleanup_host).
pub trait Manager: Send + Sync + Sized + 'static {
    /// The db driver: what is injected for database access; `()` for a manager that has none.
    type Db: Send + Sync + 'static;

    /// The binary's name in the services table, e.g. `karbor-protection`.
    const BINARY: &'static str;

    /// The RPC topic.
    const TOPIC: &'static str;

    /// The version of the RPC interface; of its endpoint, `SomeEndpoint::VERSION`, which has the last
    /// word: a service whose manager and endpoint disagree does not start.
    const RPC_API_VERSION: RpcVersion = RpcVersion::new(1, 0);

    /// What was injected.
    fn base(&self) -> &ManagerBase<Self::Db>;

    /// What the manager answers over RPC; nothing by default.
    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        Vec::new()
    }

    /// What else this service answers over RPC; by default what was given to
    /// [`ManagerBase::add_endpoint`].
    fn additional_endpoints(&self) -> Vec<Arc<dyn RpcEndpoint>> {
        self.base().additional_endpoints()
    }

    /// The periodic tasks. Asked for once, when the service starts; keep a clone to add tasks
    /// later.
    fn periodic_tasks(self: &Arc<Self>) -> PeriodicTasks<Self> {
        PeriodicTasks::new(self.base().clock().clone())
    }

    /// Before RPC answers: claims and resumes what a crash left behind.
    fn init_host(
        self: &Arc<Self>,
        _service: &ServiceRecord,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// The service's record was gone and has been made anew, under another id as a rule: what the
    /// manager knew of the one before does not hold any more.
    fn registered_again(self: &Arc<Self>, _service: &ServiceRecord) {}

    /// After RPC has begun to answer: what needs RPC.
    fn init_host_with_rpc(self: &Arc<Self>) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }

    /// On the way out: intake is closed, no call is in flight, every task has ended.
    fn cleanup_host(self: &Arc<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Does the manager work? If not, no heartbeat is sent and the service shows as down.
    fn is_working(&self) -> Health {
        Health::Working
    }

    /// The version of the application that runs, as its configuration says
    /// ([`ConfigBuilder::version`](crate::ConfigBuilder::version)).
    fn service_version(&self) -> &str {
        self.base().config().version()
    }

    /// The effective configuration: each option's value and where it came from, secrets redacted.
    fn service_config(&self) -> Value {
        self.base().config().effective()
    }

    /// The interface's target, displayed `<Target version=1.0>`.
    fn target(&self) -> Target {
        Target::new().with_version(Self::RPC_API_VERSION)
    }
}

/// What is injected into every manager, held in one way. A manager embeds one.
pub struct ManagerBase<D> {
    host: String,
    db: D,
    config: Config,
    clock: Arc<dyn Clock>,
    tasks: TaskSet,
    closing: CancellationToken,
    additional: Mutex<Vec<Arc<dyn RpcEndpoint>>>,
}

impl<D> ManagerBase<D> {
    /// `host`: this manager's host; by default the option `[DEFAULT] host`, if it is declared and
    /// set, else [`this_host`]. `db`: the db driver.
    #[must_use]
    pub fn new(host: Option<String>, db: D, config: Config, clock: Arc<dyn Clock>) -> Self {
        let configured = || config.str("DEFAULT", "host").ok().map(str::to_owned);
        let host = host
            .or_else(configured)
            .filter(|host| !host.is_empty())
            .unwrap_or_else(this_host);
        Self {
            host,
            db,
            config,
            clock,
            tasks: TaskSet::new(),
            closing: CancellationToken::new(),
            additional: Mutex::default(),
        }
    }

    /// The host that this manager runs on: an opaque name, unique among services of its kind.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The db driver.
    #[must_use]
    pub fn db(&self) -> &D {
        &self.db
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The service's task set: the only place where a manager starts tasks. Its token is
    /// cancelled at shutdown, once no call is in flight.
    #[must_use]
    pub fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    /// Is cancelled when the service takes no calls any more. A call that only waits for news answers then, so that the
    /// calls in flight are soon finished.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Adds to what the service answers over RPC. To be called before the service starts.
    pub fn add_endpoint(&self, endpoint: Arc<dyn RpcEndpoint>) {
        lock(&self.additional).push(endpoint);
    }

    /// What was added.
    #[must_use]
    pub fn additional_endpoints(&self) -> Vec<Arc<dyn RpcEndpoint>> {
        lock(&self.additional).clone()
    }
}

/// This host's name, as `uname -n` says it.
#[must_use]
pub fn this_host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
