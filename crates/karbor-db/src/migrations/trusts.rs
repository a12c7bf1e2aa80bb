//! The trust of a scheduled operation is known before an engine has taken the operation on.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, add_column, opt};

pub(super) struct Trusts;

impl MigrationName for Trusts {
    fn name(&self) -> &'static str {
        "m0007_trusts"
    }
}

#[async_trait]
impl MigrationTrait for Trusts {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_column(
            manager,
            "scheduled_operations",
            &opt("trust_id", ColumnType::Text(64)),
        )
        .await
    }
}
