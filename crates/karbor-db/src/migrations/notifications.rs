//! The outbox of notifications.

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DbErr,
    sea_query::{Alias, Query, Table},
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{ColumnType, TableSpec, make_index, opt, req};

pub(super) struct Notifications;

impl MigrationName for Notifications {
    fn name(&self) -> &'static str {
        "m0005_notifications"
    }
}

#[async_trait]
impl MigrationTrait for Notifications {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        OUTBOX.make(manager).await?;
        let due = (
            "ix_notifications_next_at",
            "notifications",
            &["next_at"] as &[_],
            false,
        );
        make_index(manager, &due).await
    }
}

/// Each sink has rows of its own; what no sink has yet is for nobody.
pub(super) struct Sinks;

impl MigrationName for Sinks {
    fn name(&self) -> &'static str {
        "m0006_sinks"
    }
}

#[async_trait]
impl MigrationTrait for Sinks {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rename = Table::alter()
            .table(Alias::new("notifications"))
            .rename_column(Alias::new("taken_by"), Alias::new("sink"))
            .take();
        manager.alter_table(rename).await?;
        let clear = Query::update()
            .table(Alias::new("notifications"))
            .value("sink", "")
            .take();
        manager.get_connection().execute(&clear).await?;
        Ok(())
    }
}

const OUTBOX: TableSpec = TableSpec {
    name: "notifications",
    columns: &[
        // Counts by itself, so that what happened first goes first.
        req("seq", ColumnType::Serial),
        req("id", ColumnType::Text(36)),
        req("event_type", ColumnType::Text(255)),
        req("priority", ColumnType::Text(16)),
        req("payload", ColumnType::HugeText),
        req("created_at", ColumnType::Time),
        req("attempts", ColumnType::Int),
        req("taken_by", ColumnType::LongText),
        req("next_at", ColumnType::Time),
        opt("claim", ColumnType::Text(36)),
    ],
    primary: &["seq"],
    references: &[],
};
