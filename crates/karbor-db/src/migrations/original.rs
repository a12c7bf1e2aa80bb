//! The original's tables, as its third and last schema version had them.

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DbErr,
    sea_query::{Alias, Query},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::{
    ORIGINAL_VERSION,
    table::{ColumnType, IndexSpec, TableSpec, make_index, opt, req},
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

const ID: ColumnType = ColumnType::Text(36);
const NAME: ColumnType = ColumnType::Text(255);

/// The columns that every table begins with, then its own. Newer tables do not let `deleted` be NULL.
macro_rules! columns {
    ($deleted:ident, $($column:expr),+ $(,)?) => {
        &[
            opt("created_at", ColumnType::Time),
            opt("updated_at", ColumnType::Time),
            opt("deleted_at", ColumnType::Time),
            $deleted("deleted", ColumnType::Bool),
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
            req("repository_id", ColumnType::Text(250)),
            opt("repository_path", ColumnType::LongText),
            opt("version", ColumnType::Int),
        ],
        primary: &["repository_id"],
        references: &[],
    },
    table!(
        "services",
        columns![
            opt,
            req("id", ColumnType::Serial),
            opt("host", NAME),
            opt("binary", NAME),
            opt("topic", NAME),
            req("report_count", ColumnType::Int),
            opt("disabled", ColumnType::Bool),
            opt("disabled_reason", NAME),
            opt("modified_at", ColumnType::Time),
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
            opt("status", ColumnType::Text(64)),
            opt("parameters", ColumnType::LongText),
        ]
    ),
    table!(
        "resources",
        columns![
            opt,
            req("id", ColumnType::Serial),
            req("plan_id", ID),
            opt("resource_id", ID),
            opt("resource_type", ColumnType::Text(64)),
            opt("resource_name", NAME),
            opt("resource_extra_info", ColumnType::LongText),
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
            opt("parameters", ColumnType::LongText),
            opt("status", ColumnType::Text(64)),
            opt("resources_status", ColumnType::LongText),
            opt("resources_reason", ColumnType::LongText),
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
            opt("status", ColumnType::Text(64)),
            opt("started_at", ColumnType::Time),
            opt("ended_at", ColumnType::Time),
            opt("error_info", ColumnType::LongText),
            opt("extra_info", ColumnType::LongText),
        ]
    ),
    table!(
        "triggers",
        columns![
            req,
            req("id", ID),
            req("name", NAME),
            req("project_id", NAME),
            req("type", ColumnType::Text(64)),
            req("properties", ColumnType::LongText),
        ]
    ),
    table!(
        "trigger_executions",
        columns![
            req,
            req("id", ID),
            req("trigger_id", ID),
            req("execution_time", ColumnType::Time),
        ]
    ),
    table!(
        "scheduled_operations",
        columns![
            req,
            req("id", ID),
            req("name", NAME),
            opt("description", NAME),
            req("operation_type", ColumnType::Text(64)),
            req("user_id", ColumnType::Text(64)),
            req("project_id", NAME),
            req("trigger_id", ID),
            req("operation_definition", ColumnType::LongText),
            req("enabled", ColumnType::Bool),
        ],
        ("trigger_id", "triggers", "id", false)
    ),
    table!(
        "scheduled_operation_states",
        columns![
            req,
            req("id", ColumnType::Serial),
            req("operation_id", ID),
            req("service_id", ColumnType::Int),
            req("trust_id", ColumnType::Text(64)),
            req("state", ColumnType::Text(32)),
            opt("end_time_for_run", ColumnType::Time),
        ],
        ("operation_id", "scheduled_operations", "id", true),
        ("service_id", "services", "id", false)
    ),
    table!(
        "scheduled_operation_logs",
        columns![
            req,
            req("id", ColumnType::Serial),
            req("operation_id", ID),
            opt("expect_start_time", ColumnType::Time),
            opt("triggered_time", ColumnType::Time),
            opt("actual_start_time", ColumnType::Time),
            opt("end_time", ColumnType::Time),
            req("state", ColumnType::Text(32)),
            opt("extend_info", ColumnType::LongText),
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
            opt("extend_info", ColumnType::LongText),
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
            opt("status", ColumnType::Text(64)),
            opt("parameters", ColumnType::LongText),
            opt("resources_status", ColumnType::LongText),
            opt("resources_reason", ColumnType::LongText),
        ]
    ),
    table!(
        "quotas",
        columns![
            opt,
            req("id", ColumnType::Serial),
            req("project_id", NAME),
            req("resource", NAME),
            opt("hard_limit", ColumnType::Int),
        ]
    ),
    table!(
        "quota_classes",
        columns![
            opt,
            req("id", ColumnType::Serial),
            req("class_name", NAME),
            req("resource", NAME),
            opt("hard_limit", ColumnType::Int),
        ]
    ),
    table!(
        "quota_usages",
        columns![
            opt,
            req("id", ColumnType::Serial),
            req("project_id", NAME),
            req("resource", NAME),
            opt("in_use", ColumnType::Int),
            opt("reserved", ColumnType::Int),
            opt("until_refresh", ColumnType::Int),
        ]
    ),
    table!(
        "reservations",
        columns![
            opt,
            req("id", ColumnType::Serial),
            req("uuid", ID),
            req("usage_id", ColumnType::Int),
            opt("project_id", NAME),
            opt("resource", NAME),
            req("delta", ColumnType::Int),
            opt("expire", ColumnType::Time),
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
