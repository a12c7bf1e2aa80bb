//! Triggers. When one fires next is kept beside it: see `executions`.

use chrono::TimeDelta;
use karbor_model::{ScheduledOperation, Trigger, TriggerId};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement},
};

use crate::{
    Db, DbError, ListQuery, Record, ScheduleDefinitions, Write,
    insert::insert_row,
    row::{Row, json_text},
    transition::{is_row, not_deleted, select_row},
};

pub(crate) const TRIGGER: &[&str] = &[
    "id",
    "name",
    "project_id",
    "type",
    "properties",
    "created_at",
    "updated_at",
];

/// One operation of a trigger, if it has any.
fn an_operation_of(id: TriggerId) -> SelectStatement {
    Query::select()
        .column("id")
        .from(ScheduledOperation::TABLE)
        .and_where(Expr::col("trigger_id").eq(id.to_string()))
        .and_where(not_deleted("deleted"))
        .limit(1)
        .take()
}

/// Statement that forgets when a trigger fires next.
pub(crate) fn forget_execution(id: TriggerId) -> sea_orm::sea_query::DeleteStatement {
    Query::delete()
        .from_table(Alias::new("trigger_executions"))
        .and_where(Expr::col("trigger_id").eq(id.to_string()))
        .take()
}

impl ScheduleDefinitions {
    /// Stores a new trigger. Engines find out by themselves when it is to fire.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn trigger_create(&self, trigger: &Trigger) -> Result<(), DbError> {
        let values = [
            trigger.id.to_string().into(),
            trigger.name.as_str().into(),
            trigger.project_id.as_str().into(),
            trigger.trigger_type.as_str().into(),
            json_text(&trigger.properties)?.into(),
            self.db
                .time(trigger.created_at.unwrap_or_else(|| self.db.now()))
                .into(),
            self.db.time_opt(trigger.updated_at).into(),
        ];
        let insert = insert_row(Trigger::TABLE, TRIGGER, values)?;
        let write = self.db.write().await?;
        write.execute(&insert).await?;
        self.db
            .announce_trigger(&write, "trigger_create", trigger)
            .await?;
        write.commit().await
    }

    /// One trigger.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn trigger_get(&self, id: TriggerId) -> Result<Trigger, DbError> {
        let select = select_row::<Trigger>(id, TRIGGER);
        let row = self.db.read().query_one(&select).await?;
        self.db
            .trigger_from(&row.ok_or_else(|| DbError::not_found(Trigger::WHAT, id))?)
    }

    /// A page of triggers. Filters: `name` and `properties` (substrings), `type`, `project_id`.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn trigger_list(&self, query: &ListQuery) -> Result<Vec<Trigger>, DbError> {
        let rows = self.db.page::<Trigger>(query, TRIGGER, None).await?;
        rows.iter().map(|row| self.db.trigger_from(row)).collect()
    }

    /// Stores the name and properties of a trigger that was read before, if nobody changed it since
    /// (`updated_at` is compared). With other properties, when it fires next is forgotten, to be
    /// worked out anew, and what was due already is recorded as missed. Returns the trigger as it is
    /// stored now.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it was changed; [`DbError::NotFound`].
    pub async fn trigger_update(&self, trigger: &Trigger) -> Result<Trigger, DbError> {
        let write = self.db.write().await?;
        let stored = self.db.trigger_for_update(&write, trigger.id).await?;
        if stored.updated_at != trigger.updated_at {
            return Err(DbError::Conflict {
                what: Trigger::WHAT,
                id: trigger.id.to_string(),
                present: None,
                message: format!(
                    "Trigger {} was changed by somebody else. Read it again.",
                    trigger.id
                ),
            });
        }
        // A clock that stands still or goes back must not make two versions look the same.
        let last = stored.updated_at.or(stored.created_at).unwrap_or_default();
        let now = std::cmp::max(self.db.now(), last + TimeDelta::microseconds(1));
        let update = Query::update()
            .table(Alias::new(Trigger::TABLE))
            .value("name", trigger.name.as_str())
            .value("properties", json_text(&trigger.properties)?)
            .value("updated_at", self.db.time(now))
            .value("exhausted_at", self.db.time_opt(None))
            .cond_where(is_row::<Trigger>(trigger.id))
            .take();
        write.execute(&update).await?;
        if stored.properties != trigger.properties {
            self.db.overtake_execution(&write, trigger.id).await?;
        }
        self.db
            .announce_trigger(&write, "trigger_update", trigger)
            .await?;
        write.commit().await?;
        Ok(Trigger {
            name: trigger.name.clone(),
            properties: trigger.properties.clone(),
            updated_at: Some(now),
            ..stored
        })
    }

    /// Is there an operation that the trigger fires?
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn trigger_in_use(&self, id: TriggerId) -> Result<bool, DbError> {
        let found = self.db.read().query_one(&an_operation_of(id)).await?;
        Ok(found.is_some())
    }

    /// Marks a trigger deleted; it fires no more.
    ///
    /// # Errors
    /// [`DbError::Conflict`] while an operation uses it; [`DbError::NotFound`].
    pub async fn trigger_delete(&self, id: TriggerId) -> Result<(), DbError> {
        let write = self.db.write().await?;
        let trigger = self.db.trigger_for_update(&write, id).await?;
        if write.query_one(&an_operation_of(id)).await?.is_some() {
            return Err(DbError::Conflict {
                what: Trigger::WHAT,
                id: id.to_string(),
                present: None,
                message: "Trigger is being used by one or more operations".to_owned(),
            });
        }
        let mark = Query::update()
            .table(Alias::new(Trigger::TABLE))
            .value("deleted", true)
            .value("deleted_at", self.db.time(self.db.now()))
            .cond_where(is_row::<Trigger>(id))
            .take();
        write.execute(&mark).await?;
        write.execute(&forget_execution(id)).await?;
        self.db
            .announce_trigger(&write, "trigger_delete", &trigger)
            .await?;
        write.commit().await
    }
}

impl Db {
    async fn announce_trigger(
        &self,
        write: &Write<'_>,
        what: &str,
        trigger: &Trigger,
    ) -> Result<(), DbError> {
        let (project, name) = (&trigger.project_id, &trigger.name);
        self.announce_record(write, what, project, trigger.id.to_string(), name)
            .await
    }

    /// A trigger that nobody changes or deletes before the transaction ends.
    pub(crate) async fn trigger_for_update(
        &self,
        write: &Write<'_>,
        id: TriggerId,
    ) -> Result<Trigger, DbError> {
        let select = select_row::<Trigger>(id, TRIGGER).lock_exclusive().take();
        let row = write.query_one(&select).await?;
        self.trigger_from(&row.ok_or_else(|| DbError::not_found(Trigger::WHAT, id))?)
    }

    pub(crate) fn trigger_from(&self, row: &QueryResult) -> Result<Trigger, DbError> {
        let row = Row::new(row, self.backend(), Trigger::TABLE, TRIGGER);
        Ok(Trigger {
            id: row.parse(0)?,
            name: row.text(1)?,
            project_id: row.text(2)?,
            trigger_type: row.text(3)?,
            properties: row.json(4)?,
            created_at: row.time_opt(5)?,
            updated_at: row.time_opt(6)?,
        })
    }
}
