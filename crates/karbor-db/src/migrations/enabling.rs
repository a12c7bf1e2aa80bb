//! Due times from before a scheduled operation was enabled are not its own.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, add_column, opt};

pub(super) struct Enabling;

impl MigrationName for Enabling {
    fn name(&self) -> &'static str {
        "m0008_enabling"
    }
}

#[async_trait]
impl MigrationTrait for Enabling {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_column(
            manager,
            "scheduled_operations",
            &opt("enabled_at", ColumnType::Time),
        )
        .await
    }
}
