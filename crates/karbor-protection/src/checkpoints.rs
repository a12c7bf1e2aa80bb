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
//!
//! The names of the indices say which checkpoints there are, and no more: how old one is, whose it is and of
//! which plan, is what its `index.json` says, and that carries a seal ([`seal`](crate::seal)). One that
//! cannot be read, is no file or has a seal that does not fit is listed as a checkpoint in error, beside the
//! others. One without a seal stays without: nothing that is done to it later vouches for it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointPlan, CheckpointStatus, INDEX_VERSION, PlanId, ProviderId,
    State,
};
use karbor_plugin::{Bank, BankError, BankKey, list_all};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    copies::{self, Origin},
    error::CheckpointError,
    flaws::{self, Findings},
    keys::MasterKey,
    seal::SealKey,
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
    key: Option<MasterKey>,
}

/// Key of `extra_info`: why what the bank said of a checkpoint could not be believed.
const UNREADABLE: &str = "unreadable";

/// Does it stand for a checkpoint whose record could not be believed?
pub(crate) fn is_unreadable(checkpoint: &Checkpoint) -> bool {
    checkpoint.info().contains_key(UNREADABLE)
}

/// What is left to go by of a checkpoint whose record cannot be believed: names that nobody vouches for.
#[derive(Debug)]
pub(crate) struct Damaged {
    /// Why its record cannot be believed.
    pub(crate) error: CheckpointError,
    /// Is there a record, which says that it is of another provider?
    pub(crate) is_foreign: bool,
    /// The names that the index has for it.
    entries: Vec<Entry>,
}

impl Damaged {
    /// The projects that the index lists it for.
    pub(crate) fn projects(&self) -> BTreeSet<&str> {
        let projects = self.entries.iter().map(|entry| entry.project_id.as_str());
        projects.collect()
    }

    /// As a listing shows it, for a project.
    pub(crate) fn shown(
        &self,
        id: CheckpointId,
        provider_id: ProviderId,
        project_id: &str,
    ) -> Checkpoint {
        let entry = Entry {
            timestamp: self.entries.first().map_or(0, |entry| entry.timestamp),
            id,
            project_id: project_id.to_owned(),
            plan_id: None,
        };
        entry.unreadable(provider_id, &self.error)
    }
}

/// How many index files are read at once for a listing.
const READ_AHEAD: usize = 16;

/// An index file may not be larger, in bytes: 10,000 resources with all that is known of them.
const MAX_INDEX: u64 = 16 << 20;

impl CheckpointCollection {
    /// The checkpoints of `provider_id` in `bank`. Without a key, those that are sealed can be neither read
    /// nor written.
    #[must_use]
    pub fn new(bank: Arc<dyn Bank>, provider_id: ProviderId) -> Self {
        Self {
            bank,
            provider_id,
            key: None,
        }
    }

    /// With the master key that seals them.
    #[must_use]
    pub fn with_key(mut self, key: MasterKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Writes a new checkpoint: its index file, then the three indices. One that has a seal is sealed. Safe
    /// to repeat.
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

    /// Is there an index file of the checkpoint, whatever it says?
    ///
    /// # Errors
    /// The bank's.
    pub async fn has(&self, id: CheckpointId) -> Result<bool, CheckpointError> {
        match self.bank.stat(&index_file(id)?).await {
            Ok(_) => Ok(true),
            Err(BankError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a checkpoint of this provider. If it has a seal, the seal fits.
    ///
    /// # Errors
    /// [`CheckpointError::NotFound`], [`CheckpointError::Corrupt`], [`CheckpointError::Tampered`], or the
    /// bank's.
    pub async fn get(&self, id: CheckpointId) -> Result<Checkpoint, CheckpointError> {
        let corrupt = |reason: String| CheckpointError::Corrupt { id, reason };
        let bytes = match self.bank.get_at_most(&index_file(id)?, MAX_INDEX).await {
            Err(BankError::NotFound(_)) => return Err(CheckpointError::NotFound(id)),
            Err(BankError::Corrupt { reason, .. }) => return Err(corrupt(reason)),
            other => other?,
        };
        let record: Value = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let checkpoint = Checkpoint::deserialize(&record).map_err(|e| corrupt(e.to_string()))?;
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
        if let Some(seal) = &checkpoint.seal
            && !self.seal_key(&checkpoint)?.fits(&record, seal)
        {
            return Err(CheckpointError::Tampered(id));
        }
        Ok(checkpoint)
    }

    /// A checkpoint that is listed, or has a record, and whose record cannot be believed; `None` when it can be
    /// read, and when there is nothing of that id.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn damaged(
        &self,
        id: CheckpointId,
    ) -> Result<Option<Damaged>, CheckpointError> {
        let error = match self.get(id).await {
            Ok(_) => return Ok(None),
            Err(error) if error.is_of_the_checkpoint() => error,
            Err(error) => return Err(error),
        };
        let mut entries = self.entries(&CheckpointQuery::default()).await?;
        entries.retain(|entry| entry.id == id);
        let is_missing = matches!(error, CheckpointError::NotFound(_));
        if is_missing && entries.is_empty() {
            return Ok(None);
        }
        Ok(Some(Damaged {
            error,
            is_foreign: is_missing && self.has(id).await?,
            entries,
        }))
    }

    /// The ids of the resources that have data in a checkpoint's folder, whatever its record says.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn resources(
        &self,
        id: CheckpointId,
    ) -> Result<BTreeSet<String>, CheckpointError> {
        let data = Self::data(id)?;
        let objects = list_all(self.bank.as_ref(), &data).await?;
        let below = objects.iter().filter_map(|object| {
            let below = object.key.as_str().strip_prefix(data.as_str())?;
            below.strip_prefix('/')?.split('/').next()
        });
        Ok(below.map(str::to_owned).collect())
    }

    /// Puts a record of ours in the place of one that cannot be believed: from then on the checkpoint is what
    /// `checkpoint` says, and the index lists it as that and no more. Nothing is touched that is not named by its
    /// id. Safe to repeat.
    ///
    /// # Errors
    /// Whatever the bank fails with.
    pub(crate) async fn replace(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let id = checkpoint.id;
        let (record, data) = (index_file(id)?, format!("{}/", Self::data(id)?));
        let folder = BankKey::parse(&format!("checkpoints/{id}"))?;
        // A folder in the place of the record would be in its way.
        for object in list_all(self.bank.as_ref(), &folder).await? {
            if object.key != record && !object.key.as_str().starts_with(&data) {
                self.bank.delete(&object.key).await?;
            }
        }
        self.create(checkpoint).await?;
        self.unlist_others(checkpoint).await
    }

    /// Takes every name of a checkpoint out of the index that its record does not account for.
    ///
    /// # Errors
    /// Whatever the bank fails with.
    pub(crate) async fn unlist_others(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<(), CheckpointError> {
        let (own, end) = (index_keys(checkpoint)?, format!("@{}", checkpoint.id));
        for object in list_all(self.bank.as_ref(), &BankKey::parse("indices")?).await? {
            if object.key.name().ends_with(&end) && !own.contains(&object.key) {
                self.bank.delete(&object.key).await?;
            }
        }
        Ok(())
    }

    fn seal_key(&self, checkpoint: &Checkpoint) -> Result<SealKey, CheckpointError> {
        let key = self.key.as_ref();
        let key = key.ok_or(CheckpointError::NoKey(checkpoint.id))?;
        Ok(key.seal_key(self.provider_id, &checkpoint.project_id))
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

    /// Calls a checkpoint that is being made failed, and lists it: a bank that was full may have taken its index
    /// file only. Safe to repeat.
    ///
    /// # Errors
    /// As [`transition`](Self::transition).
    pub async fn fail(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        let mut checkpoint = self.get(id).await?;
        if checkpoint.status != CheckpointStatus::Error {
            checkpoint.status = checkpoint.status.becoming(CheckpointStatus::Error)?;
        }
        self.create(&checkpoint).await
    }

    /// Takes the suspicion off a checkpoint; `false` if there is none. The caller holds its lease.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) async fn accept(&self, id: CheckpointId, at: &str) -> Result<bool, CheckpointError> {
        let mut checkpoint = self.get(id).await?;
        let Some(info) = flaws::accepted(checkpoint.info(), at) else {
            return Ok(false);
        };
        checkpoint.extra_info = Some(Value::Object(info).to_string().into());
        self.write(&checkpoint).await?;
        Ok(true)
    }

    /// Calls a checkpoint or a copy available: everything of it is in the bank, and `objects` are the
    /// hashes of what its plugins keep below `resource-data`. What was found out about what was protected is
    /// kept with it. Safe to repeat.
    ///
    /// # Errors
    /// As [`transition`](Self::transition).
    pub(crate) async fn finish(
        &self,
        id: CheckpointId,
        objects: &BTreeMap<String, String>,
        findings: Option<&Findings>,
    ) -> Result<(), CheckpointError> {
        let mut made = self.get(id).await?;
        if made.status == CheckpointStatus::Available {
            return Ok(());
        }
        made.status = made.status.becoming(CheckpointStatus::Available)?;
        if Origin::read(&made).is_some() {
            made.extra_info = made.extra_info.as_ref().map(copies::finished);
        }
        if let Some(findings) = findings {
            let mut info = made.info();
            findings.write(&mut info);
            if !info.is_empty() {
                made.extra_info = Some(Value::Object(info).to_string().into());
            }
        }
        if let Some(seal) = &mut made.seal {
            seal.objects.clone_from(objects);
        }
        self.write(&made).await
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

    /// Where the plugins' data of a checkpoint are.
    ///
    /// # Errors
    /// The bank's.
    pub fn data(id: CheckpointId) -> Result<BankKey, CheckpointError> {
        Ok(BankKey::parse(&format!("checkpoints/{id}/resource-data"))?)
    }

    /// Where a resource's data are in a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::ResourceId`] when the resource id cannot be part of a key.
    pub fn resource_data(id: CheckpointId, resource_id: &str) -> Result<BankKey, CheckpointError> {
        let refused = || CheckpointError::ResourceId(resource_id.to_owned());
        if resource_id.contains('/') {
            return Err(refused());
        }
        Self::data(id)?.join(resource_id).map_err(|_| refused())
    }

    /// The checkpoints that a query asks for, newest first unless it says otherwise. An index file
    /// that cannot be read is listed as a checkpoint in error: hiding it would hide a loss.
    ///
    /// # Errors
    /// [`CheckpointError::UnknownMarker`], or the bank's.
    pub async fn list(&self, query: &CheckpointQuery) -> Result<Vec<Checkpoint>, CheckpointError> {
        let wanted = query.limit.unwrap_or(usize::MAX);
        self.each(query).await?.take(wanted).try_collect().await
    }

    /// As [`list`](Self::list), read one after the other as they are asked for, without a limit.
    pub(crate) async fn each(
        &self,
        query: &CheckpointQuery,
    ) -> Result<impl Stream<Item = Result<Checkpoint, CheckpointError>> + use<>, CheckpointError>
    {
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
        let wanted = query.limit.unwrap_or(usize::MAX);
        let picked = Self::pick(query, entries).await?;
        picked.take(wanted).try_collect().await
    }

    /// Every record is read for its place in the order; those that are asked for are read again, so that
    /// memory holds no more of them than are asked for.
    async fn pick(
        query: &CheckpointQuery,
        entries: Vec<(Entry, Self)>,
    ) -> Result<impl Stream<Item = Result<Checkpoint, CheckpointError>> + use<>, CheckpointError>
    {
        let mut places: Vec<_> = stream::iter(entries)
            .map(|(entry, of)| async move {
                let read = of.read_entry(&entry).await?;
                Ok::<_, CheckpointError>((Place::of(&read), entry, of))
            })
            .buffered(READ_AHEAD)
            .try_collect()
            .await?;
        places.retain(|(place, ..)| {
            let day = day(place.timestamp);
            query.start_date.is_none_or(|start| day >= start)
                && query.end_date.is_none_or(|end| day <= end)
        });
        match query.ascending {
            true => {
                places.sort_by_key(|(place, ..)| (place.timestamp, place.is_copy, place.id));
            }
            false => places.sort_by_key(|(place, ..)| {
                (Reverse(place.timestamp), place.is_copy, Reverse(place.id))
            }),
        }
        // Of one that is in the index more than once, the first is it.
        let mut seen = HashSet::new();
        places.retain(|(place, ..)| seen.insert(place.id));
        if let Some(marker) = query.marker {
            let at = places.iter().position(|(place, ..)| place.id == marker);
            let at = at.ok_or(CheckpointError::UnknownMarker(marker))?;
            places.drain(..=at);
        }
        let asked = query.status;
        let wanted = move |status| {
            status != CheckpointStatus::Deleted && asked.is_none_or(|asked| asked == status)
        };
        places.retain(|(place, ..)| wanted(place.status));
        Ok(stream::iter(places)
            .map(|(_, entry, of)| async move { of.read_entry(&entry).await })
            .buffered(READ_AHEAD)
            .try_filter(move |checkpoint| std::future::ready(wanted(checkpoint.status))))
    }

    /// Every checkpoint that is not deleted, with its project, by the index alone.
    ///
    /// # Errors
    /// The bank's.
    pub async fn owners(&self) -> Result<Vec<(CheckpointId, String)>, CheckpointError> {
        let entries = self.entries(&CheckpointQuery::default()).await?;
        let mut seen = HashSet::new();
        let owners = entries
            .into_iter()
            .filter(|entry| seen.insert(entry.id))
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

    async fn read_entry(&self, entry: &Entry) -> Result<Checkpoint, CheckpointError> {
        let read = self.get(entry.id).await.and_then(|read| entry.fits(read));
        match read {
            Err(error) if error.is_of_the_checkpoint() => {
                tracing::error!(checkpoint = %entry.id, %error, "an indexed checkpoint cannot be read");
                Ok(entry.unreadable(self.provider_id, &error))
            }
            other => other,
        }
    }

    async fn write(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let id = checkpoint.id;
        let unwritable = |e: serde_json::Error| CheckpointError::Corrupt {
            id,
            reason: e.to_string(),
        };
        let mut record = serde_json::to_value(checkpoint).map_err(unwritable)?;
        if checkpoint.seal.is_some() {
            self.seal_key(checkpoint)?.seal(&mut record);
        }
        let bytes = serde_json::to_vec(&record).map_err(unwritable)?;
        if bytes.len() as u64 > MAX_INDEX {
            let reason = format!(
                "it would have more than {MAX_INDEX} bytes: protect fewer resources at once"
            );
            return Err(CheckpointError::Corrupt { id, reason });
        }
        Ok(self.bank.put(&index_file(id)?, bytes.into()).await?)
    }
}

/// Where a checkpoint comes in a listing: by time; of one second, a copy after what it is a copy of.
#[derive(Debug, Clone, Copy)]
struct Place {
    timestamp: i64,
    is_copy: bool,
    id: CheckpointId,
    status: CheckpointStatus,
}

impl Place {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            timestamp: checkpoint.timestamp,
            is_copy: Origin::read(checkpoint).is_some(),
            id: checkpoint.id,
            status: checkpoint.status,
        }
    }
}

fn day(timestamp: i64) -> NaiveDate {
    DateTime::<Utc>::from_timestamp(timestamp, 0)
        .unwrap_or_default()
        .date_naive()
}

/// One line of an index: what somebody says that there is.
#[derive(Debug, Clone)]
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

    /// A checkpoint that is listed where it does not belong is not shown there.
    fn fits(&self, checkpoint: Checkpoint) -> Result<Checkpoint, CheckpointError> {
        let plan = self.plan_id.unwrap_or(checkpoint.protection_plan.id);
        match checkpoint.project_id == self.project_id && checkpoint.protection_plan.id == plan {
            true => Ok(checkpoint),
            false => Err(CheckpointError::Corrupt {
                id: self.id,
                reason: "it is listed for another project or plan than it says itself".to_owned(),
            }),
        }
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
                serde_json::json!({ UNREADABLE: error.to_string() })
                    .to_string()
                    .into(),
            ),
            created_at: Some(day(self.timestamp)),
            timestamp: self.timestamp,
            resource_graph: None,
            seal: None,
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
