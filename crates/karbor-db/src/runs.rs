//! Restores and verifications: runs over a checkpoint with an outcome per resource.

use std::collections::BTreeMap;

use karbor_model::{Restore, RestoreId, State, Verification, VerificationId};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Expr, InsertStatement, Query},
};

use crate::{
    Db, DbError, ListQuery, Stateful, Write,
    row::{Row, json_text},
    transition::{read_state, select_row, update_row},
};

const RESTORE: &[&str] = &[
    "id",
    "project_id",
    "provider_id",
    "checkpoint_id",
    "parameters",
    "status",
    "resources_status",
    "resources_reason",
    "created_at",
    "restore_target",
];

const VERIFICATION: &[&str] = &[
    "id",
    "project_id",
    "provider_id",
    "checkpoint_id",
    "parameters",
    "status",
    "resources_status",
    "resources_reason",
    "created_at",
];

/// JSON text, NULL where there is nothing to say, as the original left it.
fn json_unless_empty<K, V>(map: &BTreeMap<K, V>) -> Result<Option<String>, DbError>
where
    BTreeMap<K, V>: serde::Serialize,
{
    if map.is_empty() {
        return Ok(None);
    }
    json_text(map).map(Some)
}

impl Db {
    /// Stores a new restore.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn restore_create(&self, restore: &Restore) -> Result<(), DbError> {
        let values = [
            restore.id.to_string().into(),
            restore.project_id.as_str().into(),
            restore.provider_id.to_string().into(),
            restore.checkpoint_id.to_string().into(),
            json_unless_empty(&restore.parameters)?.into(),
            restore.status.as_str().into(),
            json_unless_empty(&restore.resources_status)?.into(),
            json_unless_empty(&restore.resources_reason)?.into(),
            self.time(restore.created_at).into(),
            restore.restore_target.clone().into(),
        ];
        self.insert("restores", RESTORE, values).await
    }

    /// One restore.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn restore_get(&self, id: RestoreId) -> Result<Restore, DbError> {
        let select = select_row::<Restore>(id, RESTORE);
        let row = self.read().query_one(&select).await?;
        self.restore_from(&row.ok_or_else(|| DbError::not_found("Restore", id))?)
    }

    /// A page of restores.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn restore_list(&self, query: &ListQuery) -> Result<Vec<Restore>, DbError> {
        let rows = self.page::<Restore>(query, RESTORE, None).await?;
        rows.iter().map(|row| self.restore_from(row)).collect()
    }

    /// Stores the outcome per resource (`type#id`) of a restore.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn restore_update_resources(
        &self,
        id: RestoreId,
        status: &BTreeMap<String, String>,
        reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        self.update_resources::<Restore>(id, status, reason).await
    }

    fn restore_from(&self, row: &QueryResult) -> Result<Restore, DbError> {
        let row = Row::new(row, self.backend(), "restores", RESTORE);
        Ok(Restore {
            id: row.parse(0)?,
            project_id: row.text(1)?,
            provider_id: row.parse(2)?,
            checkpoint_id: row.parse(3)?,
            parameters: row.json(4)?,
            accept_unsealed: false,
            status: read_state::<Restore>(&row.text(5)?),
            resources_status: row.json(6)?,
            resources_reason: row.json(7)?,
            created_at: row.time(8)?,
            restore_target: row.get(9)?,
        })
    }

    /// Stores a new verification.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn verification_create(&self, verification: &Verification) -> Result<(), DbError> {
        let values = [
            verification.id.to_string().into(),
            verification.project_id.as_str().into(),
            verification.provider_id.to_string().into(),
            verification.checkpoint_id.to_string().into(),
            json_unless_empty(&verification.parameters)?.into(),
            verification.status.as_str().into(),
            json_unless_empty(&verification.resources_status)?.into(),
            json_unless_empty(&verification.resources_reason)?.into(),
            self.time(verification.created_at).into(),
        ];
        self.insert("verifications", VERIFICATION, values).await
    }

    /// One verification.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn verification_get(&self, id: VerificationId) -> Result<Verification, DbError> {
        let select = select_row::<Verification>(id, VERIFICATION);
        let row = self.read().query_one(&select).await?;
        self.verification_from(&row.ok_or_else(|| DbError::not_found("Verification", id))?)
    }

    /// A page of verifications.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn verification_list(&self, query: &ListQuery) -> Result<Vec<Verification>, DbError> {
        let rows = self.page::<Verification>(query, VERIFICATION, None).await?;
        rows.iter().map(|row| self.verification_from(row)).collect()
    }

    /// Stores the outcome per resource (`type#id`) of a verification.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn verification_update_resources(
        &self,
        id: VerificationId,
        status: &BTreeMap<String, String>,
        reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        self.update_resources::<Verification>(id, status, reason)
            .await
    }

    fn verification_from(&self, row: &QueryResult) -> Result<Verification, DbError> {
        let row = Row::new(row, self.backend(), "verifications", VERIFICATION);
        Ok(Verification {
            id: row.parse(0)?,
            project_id: row.text(1)?,
            provider_id: row.parse(2)?,
            checkpoint_id: row.parse(3)?,
            parameters: row.json(4)?,
            accept_unsealed: false,
            status: read_state::<Verification>(&row.text(5)?),
            resources_status: row.json(6)?,
            resources_reason: row.json(7)?,
            created_at: row.time(8)?,
        })
    }

    async fn update_resources<R: Stateful>(
        &self,
        id: R::Id,
        status: &BTreeMap<String, String>,
        reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        let update = update_row::<R>(self, id)
            .value("resources_status", json_unless_empty(status)?)
            .value("resources_reason", json_unless_empty(reason)?)
            .take();
        if self.execute(&update).await? == 0 {
            return Err(DbError::not_found(R::WHAT, id));
        }
        Ok(())
    }

    /// Inserts one row that is not deleted.
    pub(crate) async fn insert<const N: usize>(
        &self,
        table: &'static str,
        columns: &'static [&'static str],
        values: [Expr; N],
    ) -> Result<(), DbError> {
        self.execute(&insert_row(table, columns, values)?).await?;
        Ok(())
    }
}

/// Rows of one insert: far from every database's limit on parameters.
pub(crate) const CHUNK: usize = 500;

/// Inserts rows that are not deleted.
pub(crate) async fn insert_rows(
    write: &Write<'_>,
    table: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<Expr>>,
) -> Result<(), DbError> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut insert = Query::insert()
            .into_table(Alias::new(table))
            .columns(columns.iter().copied().chain(["deleted"]))
            .take();
        for row in rows.by_ref().take(CHUNK) {
            insert
                .values(row.into_iter().chain([false.into()]))
                .map_err(|error| DbError::Internal(error.to_string()))?;
        }
        write.execute(&insert).await?;
    }
    Ok(())
}

/// Statement that inserts one row that is not deleted.
pub(crate) fn insert_row<const N: usize>(
    table: &'static str,
    columns: &'static [&'static str],
    values: [Expr; N],
) -> Result<InsertStatement, DbError> {
    Ok(Query::insert()
        .into_table(Alias::new(table))
        .columns(columns.iter().copied().chain(["deleted"]))
        .values(values.into_iter().chain([false.into()]))
        .map_err(|error| DbError::Internal(error.to_string()))?
        .take())
}
