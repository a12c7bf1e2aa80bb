//! Quotas: what counts against them, and limits that are larger than the original's integers.

use async_trait::async_trait;
use sea_orm::{
    DbBackend, DbErr,
    sea_query::{Alias, ColumnDef, Table},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, IndexSpec, TableSpec, make_index, opt, req};

pub(super) struct Quotas;

impl MigrationName for Quotas {
    fn name(&self) -> &'static str {
        "m0004_quotas"
    }
}

#[async_trait]
impl MigrationTrait for Quotas {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in TABLES {
            table.make(manager).await?;
        }
        for index in INDEXES {
            make_index(manager, index).await?;
        }
        // SQLite's integers are large enough as they are.
        if manager.get_database_backend() != DbBackend::Sqlite {
            for table in ["quotas", "quota_classes"] {
                let limit = ColumnDef::new(Alias::new("hard_limit"))
                    .big_integer()
                    .take();
                let alter = Table::alter()
                    .table(Alias::new(table))
                    .modify_column(limit)
                    .take();
                manager.alter_table(alter).await?;
            }
        }
        Ok(())
    }
}

const TABLES: &[TableSpec] = &[
    TableSpec {
        name: "quota_projects",
        columns: &[
            req("project_id", ColumnType::Text(255)),
            opt("class_name", ColumnType::Text(255)),
        ],
        primary: &["project_id"],
        references: &[],
    },
    TableSpec {
        name: "quota_holdings",
        columns: &[
            req("checkpoint_id", ColumnType::Text(36)),
            req("project_id", ColumnType::Text(255)),
            req("provider_id", ColumnType::Text(36)),
            req("bytes", ColumnType::BigInt),
            req("settled", ColumnType::Bool),
            req("created_at", ColumnType::Time),
        ],
        primary: &["checkpoint_id"],
        references: &[],
    },
];

const INDEXES: &[IndexSpec] = &[
    (
        "ix_quota_holdings_project_id",
        "quota_holdings",
        &["project_id", "bytes"],
        false,
    ),
    (
        "ix_quota_holdings_provider_id",
        "quota_holdings",
        &["provider_id"],
        false,
    ),
    ("ix_quotas_project_id", "quotas", &["project_id"], false),
];
