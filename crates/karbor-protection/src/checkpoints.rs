//! The checkpoints of one bank, in the original's layout (reference: "Bank keys"), so that the bank
//! describes itself without any database:
//!
//! ```text
//! checkpoints/<checkpoint>/index.json
//! checkpoints/<checkpoint>/resource-data/<resource id>/<key>
//! indices/by-provider/<provider>/<project>/<timestamp>@<checkpoint>
//! indices/by-date/<YYYY-MM-DD>/<project>/<timestamp>@<checkpoint>
//! indices/by-plan/<plan>/<project>/<YYYY-MM-DD>/<timestamp>@<checkpoint>
//! ```
//!
//! `index.json` is written first and the indices after it; a delete removes the indices and keeps
//! `index.json` as the record that there was a checkpoint.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointPlan, CheckpointStatus, INDEX_VERSION, PlanId, ProviderId,
    State,
};
use karbor_plugin::{Bank, BankError, BankKey, BankSection, list_all};

use crate::{
    copies::{self, Origin},
    error::CheckpointError,
};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct CheckpointQuery {
    /// One project, or all.
    pub project_id: Option<String>,
    /// Only those of this plan.
    pub plan_id: Option<PlanId>,
    /// Made on this day or later, UTC; a copy counts as made when its data were protected.
    pub start_date: Option<NaiveDate>,
    /// Made on this day or earlier, UTC.
    pub end_date: Option<NaiveDate>,
    /// Only those in this state.
    pub status: Option<CheckpointStatus>,
    /// Only those after this one in the chosen order.
    pub marker: Option<CheckpointId>,
    /// At most this many.
    pub limit: Option<usize>,
    /// Oldest first; newest first otherwise.
    pub ascending: bool,
}

/// The checkpoints of one provider's bank.
#[derive(Debug, Clone)]
pub struct CheckpointCollection {
    bank: Arc<dyn Bank>,
    provider_id: ProviderId,
}

/// How many index files are read at once for a listing.
const READ_AHEAD: usize = 16;

impl CheckpointCollection {
    /// The checkpoints of `provider_id` in `bank`.
    #[must_use]
    pub fn new(bank: Arc<dyn Bank>, provider_id: ProviderId) -> Self {
        Self { bank, provider_id }
    }

    /// Writes a new checkpoint: its index file, then the three indices. Safe to repeat.
    ///
    /// # Errors
    /// Whatever the bank fails with.
    pub async fn create(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.write(checkpoint).await?;
        let id = Bytes::from(checkpoint.id.to_string());
        for key in index_keys(checkpoint)? {
            self.bank.put(&key, id.clone()).await?;
        }
        Ok(())
    }

    /// Reads a checkpoint of this provider.
    ///
    /// # Errors
    /// [`CheckpointError::NotFound`], [`CheckpointError::Corrupt`], or the bank's.
    pub async fn get(&self, id: CheckpointId) -> Result<Checkpoint, CheckpointError> {
        let bytes = match self.bank.get(&index_file(id)?).await {
            Err(BankError::NotFound(_)) => return Err(CheckpointError::NotFound(id)),
            other => other?,
        };
        let corrupt = |reason: String| CheckpointError::Corrupt { id, reason };
        let checkpoint: Checkpoint =
            serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if checkpoint.version != INDEX_VERSION {
            return Err(corrupt(format!(
                "its version is '{}', not '{INDEX_VERSION}'",
                checkpoint.version
            )));
        }
        if checkpoint.id != id {
            return Err(corrupt(format!(
                "it says that it is checkpoint {}",
                checkpoint.id
            )));
        }
        if checkpoint.provider_id != self.provider_id {
            return Err(CheckpointError::NotFound(id));
        }
        Ok(checkpoint)
    }

    /// Puts a checkpoint into another state, if it is in a state that may become it. The caller
    /// holds the checkpoint's lease, which makes read and write one step.
    ///
    /// # Errors
    /// [`CheckpointError::Transition`], or as [`get`](Self::get).
    pub async fn transition(
        &self,
        id: CheckpointId,
        to: CheckpointStatus,
    ) -> Result<Checkpoint, CheckpointError> {
        let mut checkpoint = self.get(id).await?;
        if checkpoint.status != to {
            checkpoint.status = checkpoint.status.becoming(to)?;
            self.write(&checkpoint).await?;
        }
        Ok(checkpoint)
    }

    /// Calls a copy available: everything of it is in the bank. Safe to repeat.
    ///
    /// # Errors
    /// As [`transition`](Self::transition).
    pub async fn finish_copy(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        let mut copy = self.get(id).await?;
        if copy.status != CheckpointStatus::Available {
            copy.status = copy.status.becoming(CheckpointStatus::Available)?;
            copy.extra_info = copy.extra_info.as_ref().map(copies::finished);
            self.write(&copy).await?;
        }
        Ok(())
    }

    /// Removes everything of a checkpoint but its index file, which says `deleted` from then on.
    /// Safe to repeat: the index file is changed last.
    ///
    /// # Errors
    /// As [`transition`](Self::transition).
    pub async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        let checkpoint = self.get(id).await?;
        let data = BankKey::parse(&format!("checkpoints/{id}/resource-data"))?;
        for object in list_all(self.bank.as_ref(), &data).await? {
            self.bank.delete(&object.key).await?;
        }
        for key in index_keys(&checkpoint)? {
            self.bank.delete(&key).await?;
        }
        self.transition(id, CheckpointStatus::Deleted).await?;
        Ok(())
    }

    /// The section of a resource's data in a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Bank`] when the resource id cannot be part of a key.
    pub fn resource_data(
        &self,
        id: CheckpointId,
        resource_id: &str,
    ) -> Result<BankSection, CheckpointError> {
        if resource_id.contains('/') {
            return Err(CheckpointError::ResourceId(resource_id.to_owned()));
        }
        let key = BankKey::parse(&format!("checkpoints/{id}/resource-data/{resource_id}"))
            .map_err(|_| CheckpointError::ResourceId(resource_id.to_owned()))?;
        Ok(BankSection::new(self.bank.clone(), key))
    }

    /// The checkpoints that a query asks for, newest first unless it says otherwise. An index file
    /// that cannot be read is listed as a checkpoint in error: hiding it would hide a loss.
    ///
    /// # Errors
    /// [`CheckpointError::UnknownMarker`], or the bank's.
    pub async fn list(&self, query: &CheckpointQuery) -> Result<Vec<Checkpoint>, CheckpointError> {
        let entries = self.entries(query).await?;
        let of = |entry| (entry, self.clone());
        Self::pick(query, entries.into_iter().map(of).collect()).await
    }

    /// As [`list`](Self::list), of two banks in one order. A second bank that cannot be listed now (a
    /// disk that is only plugged in to copy to) is left out.
    ///
    /// # Errors
    /// As [`list`](Self::list), of the first.
    pub async fn list_both(
        &self,
        second: &Self,
        query: &CheckpointQuery,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let entries = self.entries(query).await?;
        let of = |entry| (entry, self.clone());
        let mut entries: Vec<_> = entries.into_iter().map(of).collect();
        match second.entries(query).await {
            Ok(more) => entries.extend(more.into_iter().map(|entry| (entry, second.clone()))),
            Err(error) => {
                tracing::warn!(provider = %self.provider_id, %error, "the copy bank cannot be listed");
            }
        }
        Self::pick(query, entries).await
    }

    async fn pick(
        query: &CheckpointQuery,
        mut entries: Vec<(Entry, Self)>,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        entries.retain(|(entry, _)| {
            let day = entry.day();
            query.start_date.is_none_or(|start| day >= start)
                && query.end_date.is_none_or(|end| day <= end)
        });
        entries.sort_by(|(a, _), (b, _)| match query.ascending {
            true => a.cmp(b),
            false => b.cmp(a),
        });
        if let Some(marker) = query.marker {
            let at = entries.iter().find(|(entry, _)| entry.id == marker);
            let (at, _) = at.ok_or(CheckpointError::UnknownMarker(marker))?;
            let second = at.timestamp;
            let before = entries
                .iter()
                .position(|(entry, _)| entry.timestamp == second);
            entries.drain(..before.unwrap_or_default());
        }
        let (limit, mut marker) = (query.limit.unwrap_or(usize::MAX), query.marker);
        let seconds = entries.chunk_by(|(a, _), (b, _)| a.timestamp == b.timestamp);
        let seconds: Vec<_> = seconds.map(<[_]>::to_vec).collect();
        stream::iter(seconds)
            .map(Self::originals_first)
            .buffered(READ_AHEAD)
            .map_ok(|second| stream::iter(second.into_iter().map(Ok)))
            .try_flatten()
            .try_filter(move |checkpoint| {
                // All before the marker is left out, and the marker itself.
                let is_before = marker.is_some();
                marker = marker.filter(|marker| checkpoint.id != *marker);
                let wanted = !is_before
                    && query
                        .status
                        .is_none_or(|status| checkpoint.status == status);
                std::future::ready(wanted && checkpoint.status != CheckpointStatus::Deleted)
            })
            .take(limit)
            .try_collect()
            .await
    }

    /// Reads what was made in the same second: a copy is as old as what it is a copy of, and comes
    /// after it.
    async fn originals_first(
        entries: Vec<(Entry, Self)>,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let mut checkpoints: Vec<_> = stream::iter(entries)
            .map(|(entry, of)| async move { of.read_entry(entry).await })
            .buffered(READ_AHEAD)
            .try_collect()
            .await?;
        checkpoints.sort_by_key(|checkpoint| Origin::read(checkpoint).is_some());
        Ok(checkpoints)
    }

    /// Every checkpoint that is not deleted, with its project, by the index alone.
    ///
    /// # Errors
    /// The bank's.
    pub async fn owners(&self) -> Result<Vec<(CheckpointId, String)>, CheckpointError> {
        let entries = self.entries(&CheckpointQuery::default()).await?;
        let owners = entries
            .into_iter()
            .map(|entry| (entry.id, entry.project_id));
        Ok(owners.collect())
    }

    async fn entries(&self, query: &CheckpointQuery) -> Result<Vec<Entry>, CheckpointError> {
        let mut prefix = match query.plan_id {
            Some(plan) => format!("indices/by-plan/{plan}"),
            None => format!("indices/by-provider/{}", self.provider_id),
        };
        if let Some(project) = &query.project_id {
            prefix = format!("{prefix}/{project}");
        }
        let objects = list_all(self.bank.as_ref(), &BankKey::parse(&prefix)?).await?;
        Ok(objects
            .iter()
            .filter_map(|object| Entry::parse(&object.key, query.plan_id))
            .collect())
    }

    async fn read_entry(&self, entry: Entry) -> Result<Checkpoint, CheckpointError> {
        match self.get(entry.id).await {
            Err(error @ (CheckpointError::NotFound(_) | CheckpointError::Corrupt { .. })) => {
                tracing::error!(checkpoint = %entry.id, %error, "an indexed checkpoint cannot be read");
                Ok(entry.unreadable(self.provider_id, &error))
            }
            other => other,
        }
    }

    async fn write(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let id = checkpoint.id;
        let bytes = serde_json::to_vec(checkpoint).map_err(|e| CheckpointError::Corrupt {
            id,
            reason: e.to_string(),
        })?;
        Ok(self.bank.put(&index_file(id)?, bytes.into()).await?)
    }
}

/// One line of an index: sorts by time, then id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    timestamp: i64,
    id: CheckpointId,
    project_id: String,
    plan_id: Option<PlanId>,
}

impl Entry {
    fn parse(key: &BankKey, plan_id: Option<PlanId>) -> Option<Self> {
        let (timestamp, id) = key.name().split_once('@')?;
        let project_id = key.as_str().split('/').nth(3)?.to_owned();
        Some(Self {
            timestamp: timestamp.parse().ok()?,
            id: id.parse().ok()?,
            project_id,
            plan_id,
        })
    }

    fn day(&self) -> NaiveDate {
        DateTime::<Utc>::from_timestamp(self.timestamp, 0)
            .unwrap_or_default()
            .date_naive()
    }

    fn unreadable(&self, provider_id: ProviderId, error: &CheckpointError) -> Checkpoint {
        Checkpoint {
            version: INDEX_VERSION.to_owned(),
            id: self.id,
            status: CheckpointStatus::Error,
            owner_id: String::new(),
            provider_id,
            project_id: self.project_id.clone(),
            protection_plan: CheckpointPlan {
                id: self.plan_id.unwrap_or(PlanId(uuid::Uuid::nil())),
                name: String::new(),
                provider_id,
                resources: Vec::new(),
            },
            extra_info: Some(
                serde_json::json!({ "unreadable": error.to_string() })
                    .to_string()
                    .into(),
            ),
            created_at: Some(self.day()),
            timestamp: self.timestamp,
            resource_graph: None,
        }
    }
}

fn index_file(id: CheckpointId) -> Result<BankKey, BankError> {
    Ok(BankKey::parse(&format!("checkpoints/{id}/index.json"))?)
}

fn index_keys(checkpoint: &Checkpoint) -> Result<[BankKey; 3], BankError> {
    let Checkpoint {
        id,
        timestamp,
        provider_id,
        project_id,
        ..
    } = checkpoint;
    let plan = checkpoint.protection_plan.id;
    let day = checkpoint.created_at.unwrap_or_default();
    Ok([
        BankKey::parse(&format!(
            "indices/by-provider/{provider_id}/{project_id}/{timestamp}@{id}"
        ))?,
        BankKey::parse(&format!(
            "indices/by-date/{day}/{project_id}/{timestamp}@{id}"
        ))?,
        BankKey::parse(&format!(
            "indices/by-plan/{plan}/{project_id}/{day}/{timestamp}@{id}"
        ))?,
    ])
}
