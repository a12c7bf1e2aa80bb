//! Readbacks: runs over a checkpoint with an outcome for each resource. The original kept those of each operation in a
//! table of its own, and so do we: a kind of readback is a [`Table`] and a line in [`in_table`].

use std::collections::BTreeMap;

use karbor_model::{OperationType, Readback, ReadbackId, ReadbackStatus, State};
use sea_orm::{ConnectionTrait, QueryResult, sea_query::Condition};

use crate::{
    Db, DbError, ListQuery, Record, Stateful,
    list::{Kind, Listed, status_of},
    row::{Row, json_text},
    transition::{in_state, read_state, select_row, update_row},
};

/// Where the readbacks of one operation are kept.
trait Table: Listed + Stateful<Id = ReadbackId, State = ReadbackStatus> {
    /// The operation.
    const OPERATION: OperationType;
    /// Its columns: [`COMMON`], and `restore_target` if it has one.
    const SELECT: &'static [&'static str];
}

/// What every table has; the names of `SELECT` in this order.
const COMMON: [&str; 9] = [
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

/// [`COMMON`], and where to.
const WITH_TARGET: [&str; 10] = {
    let mut columns = ["restore_target"; 10];
    let mut at = 0;
    while at < COMMON.len() {
        columns[at] = COMMON[at];
        at += 1;
    }
    columns
};

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident: $operation:ident, $what:literal, $name:literal, $many:literal, $select:expr;)+) => {
        $(
            $(#[$doc])*
            struct $table;

            impl Record for $table {
                type Id = ReadbackId;
                const WHAT: &'static str = $what;
                const TABLE: &'static str = $name;
            }

            impl Stateful for $table {
                type State = ReadbackStatus;
                const STATES: &'static [ReadbackStatus] = ReadbackStatus::ALL;
                const ALIASES: &'static [(&'static str, ReadbackStatus)] =
                    &[("started", ReadbackStatus::InProgress)];
                const OTHER: ReadbackStatus = ReadbackStatus::Fail;
            }

            impl Listed for $table {
                const MANY: &'static str = $many;
                const COLUMNS: &'static [(&'static str, Kind)] = &[
                    ("id", Kind::Text),
                    ("project_id", Kind::OptionalText),
                    ("provider_id", Kind::OptionalText),
                    ("checkpoint_id", Kind::OptionalText),
                    ("status", Kind::Status),
                    ("created_at", Kind::Time),
                    ("updated_at", Kind::OptionalTime),
                    ("restore_target", Kind::OptionalText),
                ]
                .split_at(7 + $select.len() - COMMON.len())
                .0;

                fn status(text: &str) -> Condition {
                    status_of::<Self>(text)
                }
            }

            impl Table for $table {
                const OPERATION: OperationType = OperationType::$operation;
                const SELECT: &'static [&'static str] = &$select;
            }
        )+

        /// Does something with the table of an operation's readbacks.
        macro_rules! in_table {
            ($of:expr, $in:ident => $do:expr) => {
                match $of {
                    $(OperationType::$operation => {
                        type $in = $table;
                        $do
                    })+
                    other => Err(DbError::Internal(format!("a {other} is no readback"))),
                }
            };
        }
    };
}

tables! {
    /// Restores.
    Restores: Restore, "Restore", "restores", "restores", WITH_TARGET;
    /// Verifications.
    Verifications: Verify, "Verification", "verifications", "verifications", COMMON;
}

/// JSON text, NULL where there is nothing to say, as the original left it.
fn json_unless_empty<K, V>(map: &BTreeMap<K, V>) -> Result<Option<String>, DbError>
where
    BTreeMap<K, V>: serde::Serialize,
{
    match map.is_empty() {
        true => Ok(None),
        false => json_text(map).map(Some),
    }
}

impl Db {
    /// Stores a new readback.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the id is taken.
    pub async fn readback_create(&self, new: &Readback) -> Result<(), DbError> {
        in_table!(new.operation, T => self.readback_create_in::<T>(new).await)
    }

    /// One readback of an operation.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn readback_get(
        &self,
        operation: OperationType,
        id: ReadbackId,
    ) -> Result<Readback, DbError> {
        in_table!(operation, T => self.readback_get_in::<T>(id).await)
    }

    /// A page of an operation's readbacks.
    ///
    /// # Errors
    /// [`DbError::BadRequest`] names an unknown sort key, [`DbError::NotFound`] an unknown marker.
    pub async fn readback_list(
        &self,
        operation: OperationType,
        query: &ListQuery,
    ) -> Result<Vec<Readback>, DbError> {
        in_table!(operation, T => self.readback_list_in::<T>(query).await)
    }

    /// Stores how one ended: its status and the outcome for each resource, if it still is in progress.
    ///
    /// # Errors
    /// [`DbError::Conflict`] names the present status when it has ended; [`DbError::NotFound`].
    pub async fn readback_end(
        &self,
        operation: OperationType,
        id: ReadbackId,
        status: ReadbackStatus,
        resources_status: &BTreeMap<String, String>,
        resources_reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        let resources = [
            json_unless_empty(resources_status)?,
            json_unless_empty(resources_reason)?,
        ];
        in_table!(operation, T => self.readback_end_in::<T>(id, status, resources).await)
    }

    async fn readback_create_in<T: Table>(&self, new: &Readback) -> Result<(), DbError> {
        let common = [
            new.id.to_string().into(),
            new.project_id.as_str().into(),
            new.provider_id.to_string().into(),
            new.checkpoint_id.to_string().into(),
            json_unless_empty(&new.parameters)?.into(),
            new.status.as_str().into(),
            json_unless_empty(&new.resources_status)?.into(),
            json_unless_empty(&new.resources_reason)?.into(),
            self.time(new.created_at).into(),
        ];
        let target = [new.restore_target.clone().into()];
        let values = common.into_iter().chain(target).take(T::SELECT.len());
        self.insert(T::TABLE, T::SELECT, values).await
    }

    async fn readback_get_in<T: Table>(&self, id: ReadbackId) -> Result<Readback, DbError> {
        let row = self
            .read()
            .query_one(&select_row::<T>(id, T::SELECT))
            .await?;
        self.readback_from::<T>(&row.ok_or_else(|| DbError::not_found(T::WHAT, id))?)
    }

    async fn readback_list_in<T: Table>(
        &self,
        query: &ListQuery,
    ) -> Result<Vec<Readback>, DbError> {
        let rows = self.page::<T>(query, T::SELECT, None).await?;
        rows.iter()
            .map(|row| self.readback_from::<T>(row))
            .collect()
    }

    async fn readback_end_in<T: Table>(
        &self,
        id: ReadbackId,
        status: ReadbackStatus,
        [resources_status, resources_reason]: [Option<String>; 2],
    ) -> Result<(), DbError> {
        let running = ReadbackStatus::InProgress;
        let to = running
            .becoming(status)
            .map_err(|illegal| DbError::illegal(T::WHAT, id, &illegal))?;
        let update = update_row::<T>(self, id)
            .value("status", to.as_str())
            .value("resources_status", resources_status)
            .value("resources_reason", resources_reason)
            .cond_where(in_state::<T>(running))
            .take();
        let write = self.write().await?;
        if write.execute(&update).await?.rows_affected() != 1 {
            return Err(self.not_in_state::<T>(&*write, id, running).await?);
        }
        write.commit().await
    }

    fn readback_from<T: Table>(&self, row: &QueryResult) -> Result<Readback, DbError> {
        let row = Row::new(row, self.backend(), T::TABLE, T::SELECT);
        let has_target = T::SELECT.len() > COMMON.len();
        Ok(Readback {
            id: row.parse(0)?,
            operation: T::OPERATION,
            project_id: row.text(1)?,
            provider_id: row.parse(2)?,
            checkpoint_id: row.parse(3)?,
            parameters: row.json(4)?,
            accept_unsealed: false,
            status: read_state::<T>(&row.text(5)?),
            resources_status: row.json(6)?,
            resources_reason: row.json(7)?,
            created_at: row.time(8)?,
            restore_target: if has_target {
                row.get(COMMON.len())?
            } else {
                None
            },
        })
    }
}
