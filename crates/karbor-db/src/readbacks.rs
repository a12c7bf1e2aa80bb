//! Readbacks: runs over a checkpoint with an outcome for each resource. The original kept those of each operation in a
//! table of its own, and so do we: a kind of readback is a [`Table`] and a line in [`in_table`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use karbor_model::{
    OperationId, OperationLog, OperationType, Readback, ReadbackId, ReadbackStatus, State,
};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Condition, Expr, ExprTrait, Query, UpdateStatement},
};

use crate::{
    Db, DbError, FlowRecord, ListQuery, Record, RunStore, RunViews, Stateful, Write,
    insert::insert_row,
    list::{Comparison, Listed, status_of},
    operation_logs::LOG,
    row::{Row, json_text},
    transition::{in_state, not_deleted, read_state, select_row, update_row},
};

/// What came of entering the run of a readback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It is entered, and recorded.
    Now,
    /// It was entered before.
    Before,
    /// Its record says that it has ended: it is not entered.
    Ended(ReadbackStatus),
    /// The record with its id is about something else: it is not entered.
    OfAnother,
}

/// Where the readbacks of one operation are kept.
trait Table: Listed + Stateful<Id = ReadbackId, State = ReadbackStatus> {
    /// The operation.
    const OPERATION: OperationType;
    /// The column of the operation log that names one.
    const LOGGED_AS: &'static str;
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
    ($($(#[$doc:meta])* $table:ident: $operation:ident, $what:literal, $name:literal, $many:literal, $logged:literal, $select:expr;)+) => {
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
                const COLUMNS: &'static [(&'static str, Comparison)] = &[
                    ("id", Comparison::Text),
                    ("project_id", Comparison::OptionalText),
                    ("provider_id", Comparison::OptionalText),
                    ("checkpoint_id", Comparison::OptionalText),
                    ("status", Comparison::Status),
                    ("created_at", Comparison::Time),
                    ("updated_at", Comparison::OptionalTime),
                    ("restore_target", Comparison::OptionalText),
                ]
                .split_at(7 + $select.len() - COMMON.len())
                .0;

                fn status(text: &str) -> Condition {
                    status_of::<Self>(text)
                }
            }

            impl Table for $table {
                const OPERATION: OperationType = OperationType::$operation;
                const LOGGED_AS: &'static str = $logged;
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
    Restores: Restore, "Restore", "restores", "restores", "restore_id", WITH_TARGET;
    /// Verifications.
    Verifications: Verify, "Verification", "verifications", "verifications", "verification_id", COMMON;
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

impl RunViews {
    /// One readback of an operation.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn readback_get(
        &self,
        operation: OperationType,
        id: ReadbackId,
    ) -> Result<Readback, DbError> {
        in_table!(operation, T => self.db.readback_get_in::<T>(id).await)
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
        in_table!(operation, T => self.db.readback_list_in::<T>(query).await)
    }
}

impl RunStore {
    /// Enters the run of a readback with its record, both or neither: what is in progress is carried out. A record that
    /// is there, because the original's API service made it, is kept.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn readback_begin(
        &self,
        new: &Readback,
        flow: &FlowRecord,
    ) -> Result<Entered, DbError> {
        in_table!(new.operation, T => self.db.readback_begin_in::<T>(new, flow).await)
    }

    /// Records that a readback was refused, in its record and in the operation log, both or neither: `refused` as it is
    /// to be, unless it is recorded as ended. Says whether it is refused: one whose run was entered goes on.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn readback_refuse(
        &self,
        refused: &Readback,
        log: &OperationLog,
    ) -> Result<bool, DbError> {
        in_table!(refused.operation, T => self.db.readback_refuse_in::<T>(refused, log).await)
    }

    /// The readbacks in progress from before `before` that nobody carries out: there is no flow of theirs, and the
    /// operation log has none in progress.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn readbacks_abandoned(
        &self,
        operation: OperationType,
        before: DateTime<Utc>,
    ) -> Result<Vec<Readback>, DbError> {
        in_table!(operation, T => self.db.readbacks_abandoned_in::<T>(before).await)
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
        in_table!(operation, T => self.db
            .readback_end_in::<T>(id, status, resources_status, resources_reason)
            .await)
    }
}

impl Db {
    async fn readback_begin_in<T: Table>(
        &self,
        new: &Readback,
        flow: &FlowRecord,
    ) -> Result<Entered, DbError> {
        let write = self.write().await?;
        match self.readback_in::<T>(&write, new.id).await? {
            None => self.readback_insert::<T>(&write, new).await?,
            Some(there) if !there.is_the_same_as(new) => return Ok(Entered::OfAnother),
            Some(there) if there.status != ReadbackStatus::InProgress => {
                return Ok(Entered::Ended(there.status));
            }
            Some(_) if has_flow(&write, new.id).await? => return Ok(Entered::Before),
            Some(_) => {}
        }
        write.execute(&self.flow_insert(flow)?).await?;
        write.commit().await?;
        Ok(Entered::Now)
    }

    async fn readback_refuse_in<T: Table>(
        &self,
        refused: &Readback,
        log: &OperationLog,
    ) -> Result<bool, DbError> {
        let write = self.write().await?;
        if has_flow(&write, refused.id).await? {
            return Ok(false);
        }
        match self.readback_in::<T>(&write, refused.id).await? {
            None => self.readback_insert::<T>(&write, refused).await?,
            Some(there) if !there.is_the_same_as(refused) => return Ok(true),
            Some(there) if there.status == ReadbackStatus::InProgress => {
                let end = self.readback_ends::<T>(
                    refused.id,
                    refused.status,
                    &refused.resources_status,
                    &refused.resources_reason,
                )?;
                write.execute(&end).await?;
            }
            Some(_) => return Ok(true),
        }
        let logged = select_row::<OperationLog>(log.id, &["id"]);
        if write.query_one(&logged).await?.is_none() {
            let insert = insert_row(OperationLog::TABLE, LOG, self.log_values(log)?)?;
            write.execute(&insert).await?;
            self.announce_operation(&write, log).await?;
        }
        write.commit().await?;
        Ok(true)
    }

    async fn readbacks_abandoned_in<T: Table>(
        &self,
        before: DateTime<Utc>,
    ) -> Result<Vec<Readback>, DbError> {
        let of_it = |column: &'static str| {
            Expr::col((Alias::new("other"), Alias::new(column)))
                .equals((Alias::new(T::TABLE), Alias::new("id")))
        };
        let flows = Query::select()
            .expr(Expr::val(1))
            .from_as("flows", "other")
            .and_where(of_it("operation_id"))
            .take();
        let logs = Query::select()
            .expr(Expr::val(1))
            .from_as(OperationLog::TABLE, "other")
            .and_where(of_it(T::LOGGED_AS))
            .and_where(Expr::col((Alias::new("other"), Alias::new("ended_at"))).is_null())
            .take();
        let select = Query::select()
            .columns(T::SELECT.iter().copied())
            .from(T::TABLE)
            .cond_where(in_state::<T>(ReadbackStatus::InProgress))
            .and_where(not_deleted("deleted"))
            .and_where(Expr::col("created_at").lt(Expr::val(self.time(before))))
            .and_where(Expr::exists(flows).not())
            .and_where(Expr::exists(logs).not())
            .take();
        let rows = self.read().query_all(&select).await?;
        rows.iter()
            .map(|row| self.readback_from::<T>(row))
            .collect()
    }

    async fn readback_insert<T: Table>(
        &self,
        write: &Write<'_>,
        new: &Readback,
    ) -> Result<(), DbError> {
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
        write
            .execute(&insert_row(T::TABLE, T::SELECT, values)?)
            .await?;
        Ok(())
    }

    async fn readback_in<T: Table>(
        &self,
        on: &Write<'_>,
        id: ReadbackId,
    ) -> Result<Option<Readback>, DbError> {
        let row = on.query_one(&select_row::<T>(id, T::SELECT)).await?;
        row.map(|row| self.readback_from::<T>(&row)).transpose()
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
        resources_status: &BTreeMap<String, String>,
        resources_reason: &BTreeMap<String, String>,
    ) -> Result<(), DbError> {
        let end = self.readback_ends::<T>(id, status, resources_status, resources_reason)?;
        let write = self.write().await?;
        if write.execute(&end).await?.rows_affected() != 1 {
            let running = ReadbackStatus::InProgress;
            return Err(self.not_in_state::<T>(&*write, id, running).await?);
        }
        write.commit().await
    }

    /// Ends one that is in progress.
    fn readback_ends<T: Table>(
        &self,
        id: ReadbackId,
        status: ReadbackStatus,
        resources_status: &BTreeMap<String, String>,
        resources_reason: &BTreeMap<String, String>,
    ) -> Result<UpdateStatement, DbError> {
        let running = ReadbackStatus::InProgress;
        let to = running
            .becoming(status)
            .map_err(|illegal| DbError::illegal(T::WHAT, id, &illegal))?;
        Ok(update_row::<T>(self, id)
            .value("status", to.as_str())
            .value("resources_status", json_unless_empty(resources_status)?)
            .value("resources_reason", json_unless_empty(resources_reason)?)
            .cond_where(in_state::<T>(running))
            .take())
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

/// Was the run of a readback entered?
async fn has_flow(write: &Write<'_>, id: ReadbackId) -> Result<bool, DbError> {
    let flow = select_row::<FlowRecord>(OperationId(id.0), &["operation_id"]);
    Ok(write.query_one(&flow).await?.is_some())
}
