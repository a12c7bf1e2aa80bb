//! What we add: tokens, journals of flows, reports of periodic tasks, and the indexes that the
//! lists want.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, IndexSpec, TableSpec, add_column, make_index, opt, req};

pub(super) struct OurTables;

impl MigrationName for OurTables {
    fn name(&self) -> &'static str {
        "m0002_our_tables"
    }
}

#[async_trait]
impl MigrationTrait for OurTables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            table.make(manager).await?;
        }
        let verification = opt("verification_id", ColumnType::Text(36));
        add_column(manager, "operation_logs", &verification).await?;
        for index in INDEXES {
            make_index(manager, index).await?;
        }
        Ok(())
    }
}

const TABLES: &[TableSpec] = &[
    TableSpec {
        name: "api_tokens",
        columns: &[
            req("hash", ColumnType::Text(128)),
            req("user_id", ColumnType::Text(255)),
            req("project_id", ColumnType::Text(255)),
            req("roles", ColumnType::LongText),
            req("is_admin", ColumnType::Bool),
            req("created_at", ColumnType::Time),
        ],
        primary: &["hash"],
        references: &[],
    },
    TableSpec {
        name: "flows",
        columns: &[
            req("operation_id", ColumnType::Text(36)),
            req("operation_type", ColumnType::Text(64)),
            req("host", ColumnType::Text(255)),
            req("status", ColumnType::Text(64)),
            req("payload", ColumnType::HugeText),
            req("created_at", ColumnType::Time),
            opt("updated_at", ColumnType::Time),
        ],
        primary: &["operation_id"],
        references: &[],
    },
    TableSpec {
        name: "flow_events",
        columns: &[
            req("operation_id", ColumnType::Text(36)),
            req("seq", ColumnType::BigInt),
            req("task", ColumnType::LongText),
            req("kind", ColumnType::Text(16)),
            req("at", ColumnType::Time),
            opt("detail", ColumnType::HugeText),
        ],
        primary: &["operation_id", "seq"],
        references: &[("operation_id", "flows", "operation_id", true)],
    },
    TableSpec {
        name: "task_reports",
        columns: &[
            req("service_id", ColumnType::Int),
            req("name", ColumnType::Text(255)),
            req("report", ColumnType::HugeText),
            req("updated_at", ColumnType::Time),
        ],
        primary: &["service_id", "name"],
        references: &[],
    },
];

const INDEXES: &[IndexSpec] = &[
    ("ix_flows_host_status", "flows", &["host", "status"], false),
    ("ix_resources_plan_id", "resources", &["plan_id"], false),
    (
        "ix_plans_project_id_created_at",
        "plans",
        &["project_id", "created_at", "id"],
        false,
    ),
    (
        "ix_restores_project_id_created_at",
        "restores",
        &["project_id", "created_at", "id"],
        false,
    ),
    (
        "ix_verifications_project_id_created_at",
        "verifications",
        &["project_id", "created_at", "id"],
        false,
    ),
    (
        "ix_operation_logs_project_id_created_at",
        "operation_logs",
        &["project_id", "created_at", "id"],
        false,
    ),
];
