//! Smart managers, dumb data: managers, the services that wrap them, periodic tasks, RPC and
//! configuration.
//!
//! A *manager* is responsible for one aspect of a system; everybody else changes that aspect only
//! through it. Data has no behaviour that touches the world: managers act on data. A manager's
//! method that can run here is called directly; one that must run on another host goes by RPC to
//! the *service* that wraps the manager there. Callers hold an `Arc<dyn SomeApi>` and never know
//! which of the two it is: [`rpc_interface!`] makes trait, client and endpoint from one
//! declaration.
//!
//! This crate knows nothing of backups. `examples/two_managers.rs` is the whole of it in under a
//! hundred lines.
//!
//! # Where to look
//! * [`Manager`], [`ManagerBase`]: what a manager is, and what is injected into it.
//! * [`Service`], [`RunningService`], [`run_until_signal`]: the life of a service.
//! * [`PeriodicTasks`], [`PeriodicTask`], [`TaskReport`]: what is done again and again.
//! * [`rpc`]: targets, versions, transports.
//! * [`Config`], [`OptionDef`]: options, where their values came from.
//! * [`TaskSet`], [`Clock`]: the only ways to start a task and to learn the time.
//!
//! # Beside oslo
//! The rules of periodic tasks are oslo.service's, those of targets and versions oslo.messaging's.
//! A test (`tests/it/against_oslo.rs`) runs both libraries beside this crate on the same random
//! timelines. Two differences are wanted, and it tolerates no third:
//! * *A late look shifts the phase.* oslo counts a run from the last multiple of the spacing, however
//!   long ago that was, so the run after a late one may follow almost at once. Here the boundary that a
//!   run counts from is never older than 5 % of the spacing: two starts are never closer than the
//!   spacing less 5 %.
//! * *The idle time is worked out after the runs.* oslo works it out as it goes, with the whole
//!   spacing for what it runs; so what the runs took comes on top, and the next look is late by that.
//!   Here it is the time from the end of the runs until the next task is due.
//!
//! # The original's members and their counterparts
//! | `karbor.manager` | here |
//! |---|---|
//! | `PeriodicTasks(periodic_task.PeriodicTasks)` | [`PeriodicTasks`] |
//! | `PeriodicTasks.__init__(CONF)` | [`PeriodicTasks::new`]; the one option it reads, `run_external_periodic_tasks`, is [`PeriodicTasks::set_run_external`] |
//! | `@periodic_task(spacing, run_immediately, enabled, name, external_process_ok)` | [`PeriodicTask::new`] and its setters |
//! | `add_periodic_task(task)` | [`PeriodicTasks::add`] |
//! | `run_periodic_tasks(context, raise_on_error)` | [`PeriodicTasks::periodic_tasks`] |
//! | `Manager(base.Base, PeriodicTasks)` | [`Manager`], with its data in a [`ManagerBase`] |
//! | `Manager.RPC_API_VERSION` | [`Manager::RPC_API_VERSION`], 1.0; that of its endpoint |
//! | `Manager.target` | [`Manager::target`], displayed `<Target version=1.0>` |
//! | `Manager.__init__(host=None, db_driver=None)` | [`ManagerBase::new`] |
//! | `Manager.host`, default `CONF.host` (`socket.gethostname()`) | [`ManagerBase::host`], default [`this_host`] |
//! | `Manager.db` (of `base.Base`) | [`ManagerBase::db`] |
//! | `CONF` (a global there) | [`ManagerBase::config`], injected |
//! | the wall clock (a global there) | [`ManagerBase::clock`], injected |
//! | `Manager.additional_endpoints` | [`ManagerBase::add_endpoint`], [`Manager::additional_endpoints`] |
//! | `Manager.periodic_tasks(context, raise_on_error=False)` | [`Manager::periodic_tasks`] names the tasks, [`PeriodicTasks::periodic_tasks`] runs what is due |
//! | `Manager.init_host(**kwargs)` | [`Manager::init_host`], given the service's record |
//! | `Manager.init_host_with_rpc()` | [`Manager::init_host_with_rpc`] |
//! | `Manager.cleanup_host()` (never called there) | [`Manager::cleanup_host`], called by [`RunningService::shutdown`] |
//! | `Manager.service_version()` (never called there) | [`Manager::service_version`], the application's, asked by [`ServiceApi::service_version`] |
//! | `Manager.service_config()` (never called there) | [`Manager::service_config`], asked by [`ServiceApi::service_config`] |
//! | `Manager.is_working()` | [`Manager::is_working`] |

mod clock;
pub mod config;
mod manager;
mod outbox;
mod periodic;
pub mod rpc;
pub mod service;
mod store;
mod tasks;

pub use clock::{Clock, Elapsed, SystemClock, timeout};
pub use config::{Config, ConfigBuilder, ConfigError, OptionDef, OptionKind};
pub use manager::{Health, Manager, ManagerBase, this_host};
pub use outbox::NotificationOutbox;
pub use periodic::{
    DEFAULT_INTERVAL, DEFAULT_LIMIT, PeriodicTask, PeriodicTasks, TaskOutcome, TaskReport,
};
pub use rpc::{
    InProcess, RpcEndpoint, RpcError, RpcMethod, RpcServer, RpcTransport, RpcVersion, Target,
};
pub use service::{
    OPTIONS, RunningService, Service, ServiceApi, ServiceClient, ServiceEndpoint, ServiceHealth,
    ServiceOptions, ShutdownReport, Signal, Signals, Started, Stopped, drain_unless_signal,
    run_until_signal, start_unless_signal,
};
pub use store::ServiceStore;
pub use tasks::{TaskSet, caught};

/// What the code made by [`rpc_interface!`] needs; not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use async_trait::async_trait;
    pub use karbor_model::{ApiError, RequestContext};
    pub use serde_json::{Map, Value};

    pub use crate::rpc::wire::{argument, argument_or, encode, no_more_arguments, result};
}
