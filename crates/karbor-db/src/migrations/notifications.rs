//! The outbox of notifications.

use async_trait::async_trait;
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

use super::table::{Kind, TableSpec, make_index, opt, req};

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

const OUTBOX: TableSpec = TableSpec {
    name: "notifications",
    columns: &[
        // Counts by itself, so that what happened first goes first.
        req("seq", Kind::Serial),
        req("id", Kind::Text(36)),
        req("event_type", Kind::Text(255)),
        req("priority", Kind::Text(16)),
        req("payload", Kind::HugeText),
        req("created_at", Kind::Time),
        req("attempts", Kind::Int),
        req("taken_by", Kind::LongText),
        req("next_at", Kind::Time),
        opt("claim", Kind::Text(36)),
    ],
    primary: &["seq"],
    references: &[],
};
