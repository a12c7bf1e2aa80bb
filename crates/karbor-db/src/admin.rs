//! What an administrator does with the database: look at its schema, purge what was deleted.

use std::str::FromStr;

use chrono::TimeDelta;
use sea_orm::{
    ConnectionTrait,
    sea_query::{Alias, Condition, Expr, ExprTrait, Query},
    sqlx::sqlite::SqliteConnectOptions,
};

use crate::{
    Db, DbError,
    migrations::{self, SchemaState},
};

/// The tables that keep deleted rows, dependents first; each with the columns of other tables that may
/// still refer to a row of it, which then stays.
const TABLES: &[(&str, &[(&str, &str)])] = &[
    ("resources", &[]),
    ("scheduled_operation_states", &[]),
    ("scheduled_operation_logs", &[]),
    ("trigger_executions", &[]),
    ("scheduled_operations", &[]),
    ("triggers", &[("scheduled_operations", "trigger_id")]),
    ("reservations", &[]),
    ("quota_usages", &[("reservations", "usage_id")]),
    ("quotas", &[]),
    ("quota_classes", &[]),
    ("checkpoint_records", &[]),
    ("verifications", &[]),
    ("restores", &[]),
    ("operation_logs", &[]),
    ("plans", &[]),
    ("services", &[("scheduled_operation_states", "service_id")]),
];

/// Rows that go with the row that they belong to, marked as deleted or not.
const BELONGINGS: &[(&str, &str, &str)] = &[
    ("resources", "plan_id", "plans"),
    (
        "scheduled_operation_states",
        "operation_id",
        "scheduled_operations",
    ),
    (
        "scheduled_operation_logs",
        "operation_id",
        "scheduled_operations",
    ),
    ("trigger_executions", "trigger_id", "triggers"),
];

impl Db {
    /// Looks at the schema of the database at `url` without changing anything; nothing when there is
    /// no database yet.
    ///
    /// # Errors
    /// As [`Db::connect`]; [`DbError::Schema`] when a newer version wrote it.
    pub async fn inspect(url: &str) -> Result<Option<SchemaState>, DbError> {
        if let Ok(options) = SqliteConnectOptions::from_str(url)
            && !url.contains(":memory:")
            && !options.get_filename().exists()
        {
            return Ok(None);
        }
        let read_only = match url.contains("mode=") {
            true => url.to_owned(),
            false => format!("{url}{}mode=ro", if url.contains('?') { '&' } else { '?' }),
        };
        let db = Self::connect(&read_only).await?;
        let state = db.schema().await;
        db.close().await;
        state.map(Some)
    }

    /// How the schema stands.
    ///
    /// # Errors
    /// [`DbError::Schema`] when a newer version wrote the database.
    pub async fn schema(&self) -> Result<SchemaState, DbError> {
        migrations::state(self.read()).await
    }

    /// Removes rows that were deleted more than `age` ago, dependents first, and answers how many of
    /// each table. All in one transaction; a `dry_run` takes it back.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn purge(
        &self,
        age: TimeDelta,
        dry_run: bool,
    ) -> Result<Vec<(&'static str, u64)>, DbError> {
        let before = self.now().checked_sub_signed(age);
        let before = before.ok_or_else(|| DbError::BadRequest {
            field: "age",
            message: "The age reaches back before all time. Give fewer days.".to_owned(),
        })?;
        let write = self.write().await?;
        let mut purged = Vec::new();
        for (table, dependents) in TABLES {
            let old = || Expr::col("deleted_at").lt(self.time(before));
            let mut gone = Condition::any().add(old());
            for (_, column, owner) in BELONGINGS.iter().filter(|(of, ..)| of == table) {
                let owners = Query::select()
                    .column("id")
                    .from(*owner)
                    .and_where(old())
                    .take();
                gone = gone.add(Expr::col(*column).in_subquery(owners));
            }
            let mut condition = Condition::all().add(gone);
            for (dependent, column) in *dependents {
                let used = Query::select().column(*column).from(*dependent).take();
                condition = condition.add(Expr::col("id").not_in_subquery(used));
            }
            let delete = Query::delete()
                .from_table(Alias::new(*table))
                .cond_where(condition)
                .take();
            purged.push((*table, write.execute(&delete).await?.rows_affected()));
        }
        if !dry_run {
            write.commit().await?;
        }
        Ok(purged)
    }
}
