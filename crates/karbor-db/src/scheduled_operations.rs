//! Scheduled operations, and what an engine knows of each: whether it was taken on, and by which
//! trust it runs as its owner.

use karbor_model::{Priority, ScheduledOperation, ScheduledOperationId};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Expr, ExprTrait, Order, Query},
};

use crate::{
    Db, DbError, ListQuery, Record, ScheduleDefinitions, ScheduleStore, Write,
    notifications::ended,
    row::{Row, json_text, readable},
    transition::{is_row, not_deleted, select_row, update_row},
};

pub(crate) const OPERATION: &[&str] = &[
    "id",
    "name",
    "description",
    "operation_type",
    "user_id",
    "project_id",
    "trigger_id",
    "operation_definition",
    "enabled",
    "created_at",
    "updated_at",
];

/// The state of an operation that an engine took on (the original's text).
pub(crate) const REGISTERED: &str = "registered";

impl ScheduleDefinitions {
    /// Stores a new scheduled operation with the trust that its owner gave for it, if any. It does not
    /// run before an engine has taken it on ([`ScheduleStore::operation_register`]).
    ///
    /// # Errors
    /// [`DbError::NotFound`] when there is no such trigger; [`DbError::Conflict`] when the id is
    /// taken.
    pub async fn operation_create(
        &self,
        operation: &ScheduledOperation,
        trust_id: Option<&str>,
    ) -> Result<(), DbError> {
        let insert = Query::insert()
            .into_table(Alias::new(ScheduledOperation::TABLE))
            .columns(OPERATION.iter().copied().chain(["trust_id", "deleted"]))
            .values([
                operation.id.to_string().into(),
                operation.name.as_str().into(),
                operation.description.clone().into(),
                operation.operation_type.as_str().into(),
                operation.user_id.as_str().into(),
                operation.project_id.as_str().into(),
                operation.trigger_id.to_string().into(),
                json_text(&operation.operation_definition)?.into(),
                operation.enabled.into(),
                self.db.time(operation.created_at).into(),
                self.db.time_opt(operation.updated_at).into(),
                trust_id.map(str::to_owned).into(),
                false.into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take();
        let write = self.db.write().await?;
        self.db
            .trigger_for_update(&write, operation.trigger_id)
            .await?;
        write.execute(&insert).await?;
        self.db
            .announce_scheduled(&write, "scheduled_operation_create", operation)
            .await?;
        write.commit().await
    }

    /// One scheduled operation.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn operation_get(
        &self,
        id: ScheduledOperationId,
    ) -> Result<ScheduledOperation, DbError> {
        self.db.scheduled_operation_get_in(self.db.read(), id).await
    }

    /// A page of scheduled operations. Filters: `name` and `operation_definition` (substrings),
    /// `operation_type`, `trigger_id`, `project_id`.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn operation_list(
        &self,
        query: &ListQuery,
    ) -> Result<Vec<ScheduledOperation>, DbError> {
        let rows = self
            .db
            .page::<ScheduledOperation>(query, OPERATION, None)
            .await?;
        rows.iter().map(|row| self.db.operation_from(row)).collect()
    }

    /// Removes a scheduled operation with what engines noted of it, as the original does.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn operation_delete(&self, id: ScheduledOperationId) -> Result<(), DbError> {
        let delete = Query::delete()
            .from_table(Alias::new(ScheduledOperation::TABLE))
            .cond_where(is_row::<ScheduledOperation>(id))
            .take();
        let write = self.db.write().await?;
        let operation = self.db.scheduled_operation_get_in(&*write, id).await?;
        write.execute(&delete).await?;
        self.db
            .announce_scheduled(&write, "scheduled_operation_delete", &operation)
            .await?;
        write.commit().await
    }

    /// The trust that an operation runs by, if any.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when no engine has taken the operation on.
    pub async fn operation_trust(
        &self,
        id: ScheduledOperationId,
    ) -> Result<Option<String>, DbError> {
        let select = Query::select()
            .column("trust_id")
            .from("scheduled_operation_states")
            .and_where(Expr::col("operation_id").eq(id.to_string()))
            .take();
        let row = self.db.read().query_one(&select).await?;
        let row = row.ok_or_else(|| DbError::not_found("ScheduledOperationState", id))?;
        let trust: String = row.try_get_by_index(0)?;
        Ok((!trust.is_empty()).then_some(trust))
    }
}

impl ScheduleStore {
    /// Lets an operation run when its trigger fires, or leaves it out. Enabled, it runs for due times
    /// from now on.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn operation_set_enabled(
        &self,
        id: ScheduledOperationId,
        enabled: bool,
    ) -> Result<(), DbError> {
        let mut update = update_row::<ScheduledOperation>(&self.db, id);
        update.value("enabled", enabled);
        if enabled {
            let since = Expr::case(Expr::col("enabled"), Expr::col("enabled_at"))
                .finally(Expr::val(self.db.time(self.db.now())));
            update.value("enabled_at", since);
        }
        let write = self.db.write().await?;
        if write.execute(&update).await?.rows_affected() == 0 {
            return Err(DbError::not_found(ScheduledOperation::WHAT, id));
        }
        let operation = self.db.scheduled_operation_get_in(&*write, id).await?;
        let payload = serde_json::json!({
            "tenant_id": operation.project_id,
            "id": id,
            "name": operation.name,
            "enabled": enabled,
        });
        let event = ended("scheduled_operation_update");
        write
            .execute(&self.db.notification(&event, Priority::Info, payload)?)
            .await?;
        write.commit().await
    }

    /// An engine, the service `service_id`, has checked the operation and takes it on. `trust_id`:
    /// the trust by which it runs as its owner, where there are trusts.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it was taken on before.
    pub async fn operation_register(
        &self,
        id: ScheduledOperationId,
        service_id: i64,
        trust_id: Option<&str>,
    ) -> Result<(), DbError> {
        const STATE: &[&str] = &[
            "operation_id",
            "service_id",
            "trust_id",
            "state",
            "created_at",
        ];
        let values = [
            id.to_string().into(),
            service_id.into(),
            // The original's column may not be NULL.
            trust_id.unwrap_or_default().into(),
            REGISTERED.into(),
            self.db.time(self.db.now()).into(),
        ];
        self.db
            .insert("scheduled_operation_states", STATE, values)
            .await
    }

    /// Operations that no engine has taken on, with their trusts, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn operations_unregistered(
        &self,
        limit: u64,
    ) -> Result<Vec<(ScheduledOperation, Option<String>)>, DbError> {
        const STATES: &str = "scheduled_operation_states";
        let operations = ScheduledOperation::TABLE;
        let registered = Query::select()
            .column("id")
            .from(STATES)
            .and_where(Expr::col((STATES, "operation_id")).equals((operations, "id")))
            .take();
        let select = Query::select()
            .columns(OPERATION.iter().copied().chain(["trust_id"]))
            .from(operations)
            .and_where(not_deleted("deleted"))
            .and_where(Expr::exists(registered).not())
            .order_by("created_at", Order::Asc)
            .limit(limit)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        Ok(readable(&rows, |row| {
            let trust = row.try_get_by_index(OPERATION.len())?;
            Ok((self.db.operation_from(row)?, trust))
        }))
    }
}

impl Db {
    async fn announce_scheduled(
        &self,
        write: &Write<'_>,
        what: &str,
        operation: &ScheduledOperation,
    ) -> Result<(), DbError> {
        let (project, name) = (&operation.project_id, &operation.name);
        self.announce_record(write, what, project, operation.id.to_string(), name)
            .await
    }

    async fn scheduled_operation_get_in(
        &self,
        on: &impl ConnectionTrait,
        id: ScheduledOperationId,
    ) -> Result<ScheduledOperation, DbError> {
        let select = select_row::<ScheduledOperation>(id, OPERATION);
        let row = on.query_one(&select).await?;
        let row = row.ok_or_else(|| DbError::not_found(ScheduledOperation::WHAT, id))?;
        self.operation_from(&row)
    }

    pub(crate) fn operation_from(&self, row: &QueryResult) -> Result<ScheduledOperation, DbError> {
        let row = Row::new(row, self.backend(), ScheduledOperation::TABLE, OPERATION);
        Ok(ScheduledOperation {
            id: row.parse(0)?,
            name: row.text(1)?,
            description: row.get(2)?,
            operation_type: row.parse(3)?,
            user_id: row.text(4)?,
            project_id: row.text(5)?,
            trigger_id: row.parse(6)?,
            operation_definition: row.json(7)?,
            enabled: row.flag(8)?,
            created_at: row.time(9)?,
            updated_at: row.time_opt(10)?,
        })
    }
}
