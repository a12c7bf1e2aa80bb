//! Which checkpoints count against quotas (see [`crate::quotas`]), from the begin to the end of the
//! runs that make and delete them.

use std::collections::BTreeSet;

use karbor_model::{CheckpointId, FlowStatus, OperationId, ProviderId, QuotaHolding, State};
use sea_orm::{
    ConnectionTrait,
    sea_query::{Alias, Expr, ExprTrait, InsertStatement, OnConflict, Query},
};

use crate::{
    Db, DbError, FlowRecord, QuotaDefaults, RunStore, RunViews, Write,
    row::Row,
    transition::{in_state, update_row},
};

const HOLDING: &[&str] = &[
    "checkpoint_id",
    "project_id",
    "provider_id",
    "bytes",
    "settled",
];

/// Rows of one statement.
const CHUNK: usize = 500;

/// What the end of a run means for the quota of its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaSettlement {
    /// Nothing.
    Unchanged,
    /// The checkpoint is there, and added so many bytes.
    Holds(CheckpointId, i64),
    /// The checkpoint is not there, or not any more.
    Released(CheckpointId),
}

/// What a recount changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recounted {
    /// Checkpoints that were there and did not count.
    pub added: usize,
    /// Checkpoints that counted and were not there.
    pub removed: usize,
}

impl RunViews {
    /// The checkpoints of a provider that count.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn holdings(&self, provider: ProviderId) -> Result<Vec<QuotaHolding>, DbError> {
        self.db.holdings_in(self.db.read(), provider).await
    }
}

impl RunStore {
    /// Enters a flow that makes a checkpoint, and the checkpoint as reserved, if the quota of its
    /// project allows one more.
    ///
    /// # Errors
    /// [`DbError::OverQuota`]; [`DbError::Conflict`] when there is a flow with this id.
    pub async fn flow_create_holding(
        &self,
        flow: &FlowRecord,
        holding: &QuotaHolding,
        defaults: &QuotaDefaults,
    ) -> Result<(), DbError> {
        let write = self.db.write().await?;
        self.db.take_quota(&write, &holding.project_id).await?;
        self.db
            .admit_checkpoint(&write, &holding.project_id, defaults)
            .await?;
        write.execute(&self.db.holdings_insert([holding])?).await?;
        write.execute(&self.db.flow_insert(flow)?).await?;
        write.commit().await
    }

    /// Ends a flow and settles what it means for its project's quota, in one step: the settlement
    /// happens once, however often the end is told.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the flow has ended already; [`DbError::NotFound`].
    pub async fn flow_end(
        &self,
        id: OperationId,
        to: FlowStatus,
        settlement: &QuotaSettlement,
    ) -> Result<(), DbError> {
        let end = update_row::<FlowRecord>(&self.db, id)
            .value("status", to.as_str())
            .cond_where(in_state::<FlowRecord>(FlowStatus::Running))
            .take();
        let write = self.db.write().await?;
        if write.execute(&end).await?.rows_affected() != 1 {
            return Err(self
                .db
                .not_in_state::<FlowRecord>(&*write, id, FlowStatus::Running)
                .await?);
        }
        self.db.settle(&write, settlement).await?;
        write.commit().await
    }

    /// Settles what counts against a quota. Safe to repeat.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn holding_settle(&self, settlement: &QuotaSettlement) -> Result<(), DbError> {
        if *settlement == QuotaSettlement::Unchanged {
            return Ok(());
        }
        let write = self.db.write().await?;
        self.db.settle(&write, settlement).await?;
        write.commit().await
    }

    /// Makes what counts agree with what a provider's bank has. `before` is what counted before
    /// the bank was read, `found` what it has: whatever came or went meanwhile is left to those who
    /// made or deleted it, and what is being made is never touched.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn holdings_recount(
        &self,
        provider: ProviderId,
        before: &[QuotaHolding],
        found: &[QuotaHolding],
    ) -> Result<Recounted, DbError> {
        let counted: BTreeSet<_> = before.iter().map(|h| h.checkpoint_id).collect();
        let there: BTreeSet<_> = found.iter().map(|h| h.checkpoint_id).collect();
        let write = self.db.write().await?;
        let now = self.db.holdings_in(&*write, provider).await?;
        let counted_now: BTreeSet<_> = now.iter().map(|h| h.checkpoint_id).collect();
        let settled = |holding: &&QuotaHolding| holding.settled;
        let settled_now: BTreeSet<_> = now
            .iter()
            .filter(settled)
            .map(|h| h.checkpoint_id)
            .collect();
        let added: Vec<_> = found
            .iter()
            .filter(|holding| {
                let id = &holding.checkpoint_id;
                !counted.contains(id) && !counted_now.contains(id)
            })
            .collect();
        let removed: Vec<_> = before
            .iter()
            .filter(settled)
            .map(|holding| holding.checkpoint_id)
            .filter(|id| !there.contains(id) && settled_now.contains(id))
            .collect();
        for chunk in added.chunks(CHUNK) {
            write
                .execute(&self.db.holdings_insert(chunk.iter().copied())?)
                .await?;
        }
        for chunk in removed.chunks(CHUNK) {
            let delete = Query::delete()
                .from_table(Alias::new("quota_holdings"))
                .and_where(Expr::col("checkpoint_id").is_in(chunk.iter().map(ToString::to_string)))
                .take();
            write.execute(&delete).await?;
        }
        write.commit().await?;
        Ok(Recounted {
            added: added.len(),
            removed: removed.len(),
        })
    }
}

impl Db {
    async fn settle(&self, write: &Write<'_>, settlement: &QuotaSettlement) -> Result<(), DbError> {
        let row = |id: &CheckpointId| Expr::col("checkpoint_id").eq(id.to_string());
        match settlement {
            QuotaSettlement::Unchanged => {}
            QuotaSettlement::Holds(id, bytes) => {
                let update = Query::update()
                    .table(Alias::new("quota_holdings"))
                    .value("bytes", Ord::max(*bytes, 0))
                    .value("settled", true)
                    .and_where(row(id))
                    .take();
                write.execute(&update).await?;
            }
            QuotaSettlement::Released(id) => {
                let delete = Query::delete()
                    .from_table(Alias::new("quota_holdings"))
                    .and_where(row(id))
                    .take();
                write.execute(&delete).await?;
            }
        }
        Ok(())
    }

    async fn holdings_in(
        &self,
        on: &impl ConnectionTrait,
        provider: ProviderId,
    ) -> Result<Vec<QuotaHolding>, DbError> {
        let select = Query::select()
            .columns(HOLDING.iter().copied())
            .from("quota_holdings")
            .and_where(Expr::col("provider_id").eq(provider.to_string()))
            .take();
        let rows = on.query_all(&select).await?;
        let holdings = rows.iter().map(|row| {
            let row = Row::new(row, self.backend(), "quota_holdings", HOLDING);
            Ok(QuotaHolding {
                checkpoint_id: row.parse(0)?,
                project_id: row.text(1)?,
                provider_id: row.parse(2)?,
                bytes: row.get(3)?,
                settled: row.flag(4)?,
            })
        });
        holdings.collect()
    }

    fn holdings_insert<'a>(
        &self,
        holdings: impl IntoIterator<Item = &'a QuotaHolding>,
    ) -> Result<InsertStatement, DbError> {
        let mut insert = Query::insert()
            .into_table(Alias::new("quota_holdings"))
            .columns(HOLDING.iter().copied().chain(["created_at"]))
            .on_conflict(
                OnConflict::column("checkpoint_id")
                    .update_column("checkpoint_id")
                    .to_owned(),
            )
            .take();
        for holding in holdings {
            insert
                .values([
                    holding.checkpoint_id.to_string().into(),
                    holding.project_id.as_str().into(),
                    holding.provider_id.to_string().into(),
                    holding.bytes.into(),
                    holding.settled.into(),
                    self.time(self.now()).into(),
                ])
                .map_err(|error| DbError::Internal(error.to_string()))?;
        }
        Ok(insert)
    }
}
