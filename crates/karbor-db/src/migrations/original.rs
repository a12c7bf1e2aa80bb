//! The original's tables, as its third and last schema version had them.

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DbErr,
    sea_query::{Alias, Query},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::{
    ORIGINAL_VERSION,
    table::{IndexSpec, Kind, TableSpec, make_index, opt, req},
};

pub(super) struct OriginalTables;

impl MigrationName for OriginalTables {
    fn name(&self) -> &'static str {
        "m0001_original_tables"
    }
}

#[async_trait]
impl MigrationTrait for OriginalTables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let fresh = !manager.has_table("migrate_version").await?;
        for table in TABLES {
            table.make(manager).await?;
        }
        for index in INDEXES {
            make_index(manager, index).await?;
        }
        if fresh {
            // So that the original, pointed at this database, takes it for its own.
            let version = Query::insert()
                .into_table(Alias::new("migrate_version"))
                .columns(["repository_id", "repository_path", "version"])
                .values(["karbor".into(), "".into(), ORIGINAL_VERSION.into()])
                .map_err(|error| DbErr::Custom(error.to_string()))?
                .take();
            manager.get_connection().execute(&version).await?;
        }
        Ok(())
    }
}

const ID: Kind = Kind::Text(36);
const NAME: Kind = Kind::Text(255);

/// The columns that every table begins with, then its own. Newer tables do not let `deleted` be NULL.
macro_rules! columns {
    ($deleted:ident, $($column:expr),+ $(,)?) => {
        &[
            opt("created_at", Kind::Time),
            opt("updated_at", Kind::Time),
            opt("deleted_at", Kind::Time),
            $deleted("deleted", Kind::Bool),
            $($column),+
        ]
    };
}

macro_rules! table {
    ($name:literal, $columns:expr $(, $reference:expr)*) => {
        TableSpec {
            name: $name,
            columns: $columns,
            primary: &["id"],
            references: &[$($reference),*],
        }
    };
}

const TABLES: &[TableSpec] = &[
    TableSpec {
        name: "migrate_version",
        columns: &[
            req("repository_id", Kind::Text(250)),
            opt("repository_path", Kind::LongText),
            opt("version", Kind::Int),
        ],
        primary: &["repository_id"],
        references: &[],
    },
    table!(
        "services",
        columns![
            opt,
            req("id", Kind::Serial),
            opt("host", NAME),
            opt("binary", NAME),
            opt("topic", NAME),
            req("report_count", Kind::Int),
            opt("disabled", Kind::Bool),
            opt("disabled_reason", NAME),
            opt("modified_at", Kind::Time),
            opt("rpc_current_version", ID),
            opt("rpc_available_version", ID),
        ]
    ),
    table!(
        "plans",
        columns![
            opt,
            req("id", ID),
            opt("name", NAME),
            opt("description", NAME),
            opt("provider_id", ID),
            opt("project_id", NAME),
            opt("status", Kind::Text(64)),
            opt("parameters", Kind::LongText),
        ]
    ),
    table!(
        "resources",
        columns![
            opt,
            req("id", Kind::Serial),
            req("plan_id", ID),
            opt("resource_id", ID),
            opt("resource_type", Kind::Text(64)),
            opt("resource_name", NAME),
            opt("resource_extra_info", Kind::LongText),
        ],
        ("plan_id", "plans", "id", false)
    ),
    table!(
        "restores",
        columns![
            opt,
            req("id", ID),
            opt("project_id", NAME),
            opt("provider_id", ID),
            opt("checkpoint_id", ID),
            opt("restore_target", NAME),
            opt("parameters", Kind::LongText),
            opt("status", Kind::Text(64)),
            opt("resources_status", Kind::LongText),
            opt("resources_reason", Kind::LongText),
        ]
    ),
    table!(
        "operation_logs",
        columns![
            req,
            req("id", ID),
            req("project_id", NAME),
            req("operation_type", NAME),
            opt("checkpoint_id", ID),
            opt("plan_id", ID),
            opt("provider_id", ID),
            opt("restore_id", ID),
            opt("scheduled_operation_id", ID),
            opt("status", Kind::Text(64)),
            opt("started_at", Kind::Time),
            opt("ended_at", Kind::Time),
            opt("error_info", Kind::LongText),
            opt("extra_info", Kind::LongText),
        ]
    ),
    table!(
        "triggers",
        columns![
            req,
            req("id", ID),
            req("name", NAME),
            req("project_id", NAME),
            req("type", Kind::Text(64)),
            req("properties", Kind::LongText),
        ]
    ),
    table!(
        "trigger_executions",
        columns![
            req,
            req("id", ID),
            req("trigger_id", ID),
            req("execution_time", Kind::Time),
        ]
    ),
    table!(
        "scheduled_operations",
        columns![
            req,
            req("id", ID),
            req("name", NAME),
            opt("description", NAME),
            req("operation_type", Kind::Text(64)),
            req("user_id", Kind::Text(64)),
            req("project_id", NAME),
            req("trigger_id", ID),
            req("operation_definition", Kind::LongText),
            req("enabled", Kind::Bool),
        ],
        ("trigger_id", "triggers", "id", false)
    ),
    table!(
        "scheduled_operation_states",
        columns![
            req,
            req("id", Kind::Serial),
            req("operation_id", ID),
            req("service_id", Kind::Int),
            req("trust_id", Kind::Text(64)),
            req("state", Kind::Text(32)),
            opt("end_time_for_run", Kind::Time),
        ],
        ("operation_id", "scheduled_operations", "id", true),
        ("service_id", "services", "id", false)
    ),
    table!(
        "scheduled_operation_logs",
        columns![
            req,
            req("id", Kind::Serial),
            req("operation_id", ID),
            opt("expect_start_time", Kind::Time),
            opt("triggered_time", Kind::Time),
            opt("actual_start_time", Kind::Time),
            opt("end_time", Kind::Time),
            req("state", Kind::Text(32)),
            opt("extend_info", Kind::LongText),
        ],
        ("operation_id", "scheduled_operations", "id", true)
    ),
    table!(
        "checkpoint_records",
        columns![
            req,
            req("id", ID),
            req("project_id", ID),
            req("checkpoint_id", ID),
            req("checkpoint_status", ID),
            req("provider_id", ID),
            req("plan_id", ID),
            opt("operation_id", ID),
            opt("create_by", ID),
            opt("extend_info", Kind::LongText),
        ]
    ),
    table!(
        "verifications",
        columns![
            opt,
            req("id", ID),
            req("project_id", NAME),
            req("provider_id", ID),
            req("checkpoint_id", ID),
            opt("status", Kind::Text(64)),
            opt("parameters", Kind::LongText),
            opt("resources_status", Kind::LongText),
            opt("resources_reason", Kind::LongText),
        ]
    ),
    table!(
        "quotas",
        columns![
            opt,
            req("id", Kind::Serial),
            req("project_id", NAME),
            req("resource", NAME),
            opt("hard_limit", Kind::Int),
        ]
    ),
    table!(
        "quota_classes",
        columns![
            opt,
            req("id", Kind::Serial),
            req("class_name", NAME),
            req("resource", NAME),
            opt("hard_limit", Kind::Int),
        ]
    ),
    table!(
        "quota_usages",
        columns![
            opt,
            req("id", Kind::Serial),
            req("project_id", NAME),
            req("resource", NAME),
            opt("in_use", Kind::Int),
            opt("reserved", Kind::Int),
            opt("until_refresh", Kind::Int),
        ]
    ),
    table!(
        "reservations",
        columns![
            opt,
            req("id", Kind::Serial),
            req("uuid", ID),
            req("usage_id", Kind::Int),
            opt("project_id", NAME),
            opt("resource", NAME),
            req("delta", Kind::Int),
            opt("expire", Kind::Time),
        ],
        ("usage_id", "quota_usages", "id", false)
    ),
];

const INDEXES: &[IndexSpec] = &[
    (
        "ix_trigger_executions_trigger_id",
        "trigger_executions",
        &["trigger_id"],
        true,
    ),
    (
        "ix_trigger_executions_execution_time",
        "trigger_executions",
        &["execution_time"],
        false,
    ),
    (
        "ix_scheduled_operations_trigger_id",
        "scheduled_operations",
        &["trigger_id"],
        false,
    ),
    (
        "ix_scheduled_operation_states_operation_id",
        "scheduled_operation_states",
        &["operation_id"],
        true,
    ),
    (
        "ix_scheduled_operation_logs_operation_id",
        "scheduled_operation_logs",
        &["operation_id"],
        false,
    ),
    (
        "ix_reservations_project_id",
        "reservations",
        &["project_id"],
        false,
    ),
];
