//! The database: a store for each owner of tables, migrations. The only crate that sees the SQL library.
//!
//! **Stores.** [`Db`] is opened, migrated and closed, and hands out the stores. A manager is given those of its own tables,
//! and what it may read of others': the head of `stores` has the list.
//!
//! **Whose tables.** The original's tables, names and forms of values are kept (naive UTC with six
//! digits of a second, JSON as Python writes it, soft deletes), so that a database of the original
//! is taken over in place and stays readable for it. What we need beside is ours and new:
//! `flows`, `flow_events`, `api_tokens`, `task_reports`, `scheduled_runs`, `quota_projects`,
//! `quota_holdings`, `notifications`, and columns that may be NULL.
//!
//! **States.** A state changes only in `Db::transition`: one UPDATE that names the state it
//! expects. The one that comes second gets [`DbError::Conflict`] with the present state in it.
//!
//! **Durability.** On SQLite: write-ahead log, `synchronous=FULL`; what a method wrote is on the disk
//! when it returns. Writers of one process queue in a fair lock; other processes are waited for.
//! Readers never wait. Every write first makes sure that the open file is still the one at its path.
//!
//! **Other databases.** Statements are built with sea-query and use nothing that PostgreSQL and
//! MariaDB do not have; where the three differ (times, substrings, types), the difference is in
//! [`Db`]'s `time`, in `list::contains` and in `migrations::table`. Only SQLite is built in yet.

mod admin;
mod db;
mod error;
mod executions;
mod flows;
mod holdings;
mod insert;
mod list;
mod migrations;
mod notifications;
mod operation_logs;
mod plans;
mod quotas;
mod readbacks;
mod row;
mod scheduled_operations;
mod scheduled_runs;
mod services;
mod stores;
mod tokens;
mod transition;
mod triggers;

pub use db::Db;
pub(crate) use db::Write;
pub use error::DbError;
pub use executions::{Fired, Firing, Planned, Replanned};
pub use flows::FlowRecord;
pub use holdings::{QuotaSettlement, Recounted};
pub use list::{Direction, ListQuery};
pub use migrations::SchemaState;
pub use operation_logs::OperationLogUpdate;
pub use quotas::{
    QUOTA_BYTES, QUOTA_CHECKPOINTS, QUOTA_PLANS, QuotaDefaults, USE_DEFAULT_QUOTA_CLASS,
};
pub use readbacks::Entered;
pub use scheduled_runs::{RunOutcome, ScheduledRun};
pub use stores::{
    Announcements, Outbox, PlanStore, PlanViews, QuotaStore, RunStore, RunViews,
    ScheduleDefinitions, ScheduleStore, ServiceAdmin, ServiceRegistry, ServiceViews, TokenStore,
};
pub use tokens::TokenRecord;
pub(crate) use transition::{Record, Stateful};
