//! What the operation engine adds: its runs, and what it remembers of triggers and plans.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, IndexSpec, TableSpec, add_column, make_index, opt, req};

pub(super) struct Scheduling;

impl MigrationName for Scheduling {
    fn name(&self) -> &'static str {
        "m0003_scheduling"
    }
}

#[async_trait]
impl MigrationTrait for Scheduling {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        RUNS.make(manager).await?;
        // A trigger that fires no more, and a plan that was suspended after it had been started.
        add_column(manager, "triggers", &opt("exhausted_at", ColumnType::Time)).await?;
        add_column(manager, "plans", &opt("held_at", ColumnType::Time)).await?;
        for index in INDEXES {
            make_index(manager, index).await?;
        }
        Ok(())
    }
}

const RUNS: TableSpec = TableSpec {
    name: "scheduled_runs",
    columns: &[
        req("id", ColumnType::Text(36)),
        req("operation_id", ColumnType::Text(36)),
        req("due_at", ColumnType::Time),
        req("run_before", ColumnType::Time),
        req("triggered_at", ColumnType::Time),
        req("status", ColumnType::Text(16)),
        opt("owner", ColumnType::Text(255)),
        opt("lease_until", ColumnType::Time),
        opt("started_at", ColumnType::Time),
        opt("ended_at", ColumnType::Time),
        opt("checkpoint_id", ColumnType::Text(36)),
        req("deleted", ColumnType::Bool),
    ],
    primary: &["id"],
    references: &[("operation_id", "scheduled_operations", "id", true)],
};

const INDEXES: &[IndexSpec] = &[
    (
        "ix_scheduled_runs_operation_id_due_at",
        "scheduled_runs",
        &["operation_id", "due_at"],
        true,
    ),
    (
        "ix_scheduled_runs_status_due_at",
        "scheduled_runs",
        &["status", "due_at"],
        false,
    ),
    (
        "ix_triggers_project_id_created_at",
        "triggers",
        &["project_id", "created_at", "id"],
        false,
    ),
    (
        "ix_scheduled_operations_project_id_created_at",
        "scheduled_operations",
        &["project_id", "created_at", "id"],
        false,
    ),
    (
        "ix_operation_logs_scheduled_operation_id",
        "operation_logs",
        &["scheduled_operation_id"],
        false,
    ),
];
