//! What we add: tokens, journals of flows, reports of periodic tasks, and the indexes that the
//! lists want.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{IndexSpec, Kind, TableSpec, add_column, make_index, opt, req};

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
        let verification = opt("verification_id", Kind::Text(36));
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
            req("hash", Kind::Text(128)),
            req("user_id", Kind::Text(255)),
            req("project_id", Kind::Text(255)),
            req("roles", Kind::LongText),
            req("is_admin", Kind::Bool),
            req("created_at", Kind::Time),
        ],
        primary: &["hash"],
        references: &[],
    },
    TableSpec {
        name: "flows",
        columns: &[
            req("operation_id", Kind::Text(36)),
            req("operation_type", Kind::Text(64)),
            req("host", Kind::Text(255)),
            req("status", Kind::Text(64)),
            req("payload", Kind::HugeText),
            req("created_at", Kind::Time),
            opt("updated_at", Kind::Time),
        ],
        primary: &["operation_id"],
        references: &[],
    },
    TableSpec {
        name: "flow_events",
        columns: &[
            req("operation_id", Kind::Text(36)),
            req("seq", Kind::BigInt),
            req("task", Kind::LongText),
            req("kind", Kind::Text(16)),
            req("at", Kind::Time),
            opt("detail", Kind::HugeText),
        ],
        primary: &["operation_id", "seq"],
        references: &[("operation_id", "flows", "operation_id", true)],
    },
    TableSpec {
        name: "task_reports",
        columns: &[
            req("service_id", Kind::Int),
            req("name", Kind::Text(255)),
            req("report", Kind::HugeText),
            req("updated_at", Kind::Time),
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
