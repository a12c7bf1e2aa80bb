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
//! others. A name that does not fit a record which can be believed is nothing but a wrong name: it is left out of
//! the listing. One without a seal stays without: nothing that is done to it later vouches for it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointInfo, CheckpointPlan, CheckpointStatus, INDEX_VERSION,
    PlanId, ProviderId, State,
};
use karbor_plugin::{Bank, BankError, BankKey, ListRequest, ObjectInfo, SortDirection, list_all};
use serde::Deserialize;
use serde_json::Value;

use crate::{copies, error::CheckpointError, flaws::Findings, keys::MasterKey, seal::SealKey};

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
    known: Known,
}

/// Where sealed checkpoints come in a listing: that never changes, so their records need not be read again for it.
#[derive(Debug, Clone, Default)]
struct Known(Arc<Mutex<HashMap<CheckpointId, KnownPosition>>>);

#[derive(Debug, Clone)]
struct KnownPosition {
    place: ListPosition,
    project_id: String,
    plan_id: PlanId,
}

/// So many places are remembered, at most; then it is begun anew.
const MOST_KNOWN: usize = 100_000;

impl Known {
    /// Nothing can be said of what has no seal: somebody may change it.
    fn remember(&self, checkpoint: &Checkpoint) {
        let place = ListPosition::of(checkpoint);
        if checkpoint.seal.is_none() || place.rank != 0 {
            return;
        }
        let mut known = self.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        let place = KnownPosition {
            place,
            project_id: checkpoint.project_id.clone(),
            plan_id: checkpoint.protection_plan.id,
        };
        known.insert(checkpoint.id, place);
    }

    /// The place of what an entry stands for, if it is known and the entry is where it belongs.
    fn place(&self, entry: &Entry) -> Option<ListPosition> {
        let known = self.lock();
        let known = known.get(&entry.id)?;
        entry
            .belongs(&known.project_id, known.plan_id)
            .then_some(known.place)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CheckpointId, KnownPosition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does it stand for a checkpoint whose record could not be believed? What a user says in `extra_info` does not decide
/// that: a checkpoint that was made has an owner.
pub(crate) fn is_unreadable(checkpoint: &Checkpoint) -> bool {
    checkpoint.owner_id.is_empty() && checkpoint.info().unreadable().is_some()
}

/// Notes for what projects a checkpoint that is deleted unread is listed.
pub(crate) fn note_listed_for(checkpoint: &mut Checkpoint, projects: &BTreeSet<&str>) {
    let mut info = checkpoint.info();
    info.set_listed_for(projects.iter().copied());
    checkpoint.extra_info = info.to_extra_info();
}

/// The projects that [`note_listed_for`] noted, without the one that the checkpoint was taken for.
pub(crate) fn other_projects(checkpoint: &Checkpoint) -> Vec<String> {
    let mut others = checkpoint.info().listed_for();
    others.retain(|project| *project != checkpoint.project_id);
    others
}

/// What is known of a checkpoint without its record: it tells where in the index its names can be.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Does our own database know that it was made?
    pub(crate) is_known: bool,
    /// Its project, or that of the one who asks.
    pub(crate) project: String,
    /// Its plan.
    pub(crate) plan: Option<PlanId>,
    /// When it was made, UTC.
    pub(crate) made_at: Option<DateTime<Utc>>,
    /// Is it a copy? Its names have the time of what it is a copy of.
    pub(crate) is_copy: bool,
}

impl Trace {
    /// When it can have been made: what the log says, and what its id says (UUID version 7).
    fn times(&self, id: CheckpointId) -> impl Iterator<Item = DateTime<Utc>> + use<> {
        let of_id = id.0.get_timestamp().map(|time| time.to_unix().0);
        let of_id = of_id.and_then(|seconds| i64::try_from(seconds).ok());
        let of_id = of_id.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        self.made_at.into_iter().chain(of_id)
    }
}

/// What is left to go by of a checkpoint whose record cannot be believed: names that nobody vouches for.
#[derive(Debug)]
pub(crate) struct Damaged {
    /// Why its record cannot be believed.
    pub(crate) error: CheckpointError,
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

/// How many names of the index are looked at at once.
const NAMES_AT_ONCE: usize = 10_000;

/// By how much the clock that gave a checkpoint its id and the one that gave it its time may differ.
const AROUND: TimeDelta = TimeDelta::days(1);

/// An index file may not be larger, in bytes: 10,000 resources with all that is known of them.
const MAX_INDEX: u64 = 16 << 20;

/// How long a list waits for what it can do without.
const LIST_PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a bank as long as `patience`: what another bank can answer is not to wait until a file server is up again.
///
/// # Errors
/// [`BankError::TimedOut`] then; otherwise what `asked` fails with.
pub(crate) async fn in_time<T>(
    patience: Duration,
    request: &str,
    asked: impl Future<Output = Result<T, CheckpointError>>,
) -> Result<T, CheckpointError> {
    let late = |_| BankError::TimedOut {
        request: request.to_owned(),
        seconds: patience.as_secs(),
    };
    let answer = tokio::time::timeout(patience, asked).await;
    answer.map_err(late)?
}

impl CheckpointCollection {
    /// The checkpoints of `provider_id` in `bank`. Without a key, those that are sealed can be neither read
    /// nor written.
    #[must_use]
    pub fn new(bank: Arc<dyn Bank>, provider_id: ProviderId) -> Self {
        Self {
            bank,
            provider_id,
            key: None,
            known: Known::default(),
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
        let (record, checkpoint) = self.record(id, &index_file(id)?).await?;
        match checkpoint.provider_id == self.provider_id {
            true => self.sealed(&record, checkpoint),
            false => Err(CheckpointError::NotFound(id)),
        }
    }

    /// Reads the record under `key`, without a look at its seal.
    async fn record(
        &self,
        id: CheckpointId,
        key: &BankKey,
    ) -> Result<(Value, Checkpoint), CheckpointError> {
        let corrupt = |reason: String| CheckpointError::Corrupt { id, reason };
        let bytes = match self.bank.get_at_most(key, MAX_INDEX).await {
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
        Ok((record, checkpoint))
    }

    /// The checkpoint, if its seal fits or it has none.
    fn sealed(
        &self,
        record: &Value,
        checkpoint: Checkpoint,
    ) -> Result<Checkpoint, CheckpointError> {
        if let Some(seal) = &checkpoint.seal
            && !self.seal_key(&checkpoint)?.fits(record, seal)
        {
            return Err(CheckpointError::Tampered(checkpoint.id));
        }
        Ok(checkpoint)
    }

    /// Is there a record of another provider, which can be believed?
    async fn is_of_another(&self, id: CheckpointId) -> Result<bool, CheckpointError> {
        let (record, checkpoint) = self.record(id, &index_file(id)?).await?;
        let is_another = checkpoint.provider_id != self.provider_id;
        Ok(is_another && self.sealed(&record, checkpoint).is_ok())
    }

    /// Does the record of a checkpoint, of whatever provider, say that it is deleted? `None`: it has none that can be
    /// believed now.
    pub(crate) async fn says_deleted(&self, id: CheckpointId) -> Option<bool> {
        let (record, checkpoint) = self.record(id, &index_file(id).ok()?).await.ok()?;
        let checkpoint = self.sealed(&record, checkpoint).ok()?;
        Some(checkpoint.status == CheckpointStatus::Deleted)
    }

    /// A checkpoint whose record cannot be believed because of `error`, with its names in the index; `None` when
    /// there is nothing of that id. Without a record only the names where `trace` leads to are looked at: an
    /// unknown id costs little.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn damaged(
        &self,
        id: CheckpointId,
        error: CheckpointError,
        trace: &Trace,
    ) -> Result<Option<Damaged>, CheckpointError> {
        let is_missing = matches!(error, CheckpointError::NotFound(_));
        // A record that is not found is another provider's.
        let has_record = !is_missing || self.has(id).await?;
        if is_missing && has_record && !trace.is_known {
            return Ok(None);
        }
        let entries = match has_record {
            true => self.names(id, "indices", None).await?,
            false => self.traced(id, trace).await?,
        };
        let is_there = has_record || !entries.is_empty();
        Ok(is_there.then_some(Damaged { error, entries }))
    }

    /// The names of a checkpoint in the index, where they can be.
    async fn traced(&self, id: CheckpointId, trace: &Trace) -> Result<Vec<Entry>, CheckpointError> {
        let around: Vec<_> = trace
            .times(id)
            .map(|time| (time - AROUND, time + AROUND))
            .collect();
        let mut entries = Vec::new();
        // Who asks may be of a project that no bank has a name for.
        if let Ok(project) = BankKey::parse(&trace.project) {
            let own = format!("indices/by-provider/{}/{project}", self.provider_id);
            for (from, to) in &around {
                let between = Some((from.timestamp(), to.timestamp()));
                entries.extend(self.names(id, &own, between).await?);
            }
            if entries.is_empty() && trace.is_copy {
                entries = self.names(id, &own, None).await?;
            }
            if let Some(plan) = trace.plan {
                let own = format!("indices/by-plan/{plan}/{project}");
                entries.extend(self.names(id, &own, None).await?);
            }
        }
        let days = around.iter().flat_map(|(from, to)| {
            let (from, to) = (from.date_naive(), to.date_naive());
            from.iter_days().take_while(move |day| *day <= to)
        });
        for day in days.collect::<BTreeSet<_>>() {
            let on_the_day = format!("indices/by-date/{day}");
            entries.extend(self.names(id, &on_the_day, None).await?);
        }
        Ok(entries)
    }

    /// The names of a checkpoint below `prefix` of the index, those that this provider's listing goes by first,
    /// newest first; of the times (Unix) `between` only, if the names there begin with theirs.
    async fn names(
        &self,
        id: CheckpointId,
        prefix: &str,
        between: Option<(i64, i64)>,
    ) -> Result<Vec<Entry>, CheckpointError> {
        let providers = "indices/by-provider/";
        let own = format!("{providers}{}/", self.provider_id);
        let mut entries = Vec::new();
        let is_over = |key: &BankKey| {
            let time = key
                .name()
                .split('@')
                .next()
                .unwrap_or_default()
                .parse::<i64>();
            between.is_some_and(|(_, to)| time.is_ok_and(|time| time > to))
        };
        let from = between.map(|(from, _)| BankKey::parse(&format!("{prefix}/{from}")));
        self.walk(prefix, from.transpose()?, |key| {
            let is_own = key.as_str().starts_with(&own);
            if is_own || !key.as_str().starts_with(providers) {
                let entry = Entry::parse(key, None).filter(|entry| entry.id == id);
                entries.extend(entry.map(|entry| (is_own, entry)));
            }
            !is_over(key)
        })
        .await?;
        entries.sort_by_key(|(is_own, entry)| Reverse((*is_own, entry.timestamp)));
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Looks at the keys below `prefix` that come after `marker`, in their order, while `look` wants more.
    async fn walk(
        &self,
        prefix: &str,
        mut marker: Option<BankKey>,
        mut look: impl FnMut(&BankKey) -> bool,
    ) -> Result<(), CheckpointError> {
        let prefix = BankKey::parse(prefix)?;
        loop {
            let request = ListRequest {
                prefix: Some(prefix.clone()),
                marker: marker.take(),
                limit: Some(NAMES_AT_ONCE),
                ..ListRequest::default()
            };
            let page = self.bank.list(&request).await?;
            let goes_on = page.iter().all(|object| look(&object.key));
            match page.last() {
                Some(last) if goes_on && page.len() == NAMES_AT_ONCE => {
                    marker = Some(last.key.clone());
                }
                _ => return Ok(()),
            }
        }
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
    /// `checkpoint` says, and is listed as that and no more. Nothing is touched that is not named by its id, and
    /// no name in the index goes before the checkpoint is deleted. A record whose seal does not fit may be whole under
    /// another master key: it is kept beside until the checkpoint is deleted, for [`put_back`](Self::put_back). Safe to repeat.
    ///
    /// # Errors
    /// Whatever the bank fails with.
    pub(crate) async fn replace(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let id = checkpoint.id;
        let (record, kept) = (index_file(id)?, kept_file(id)?);
        let folder = BankKey::parse(&format!("checkpoints/{id}"))?;
        let objects = list_all(self.bank.as_ref(), &folder).await?;
        // Somebody moved them there: perhaps the record itself is among them.
        let in_place_of_record = format!("{record}/");
        let in_the_way =
            |object: &&ObjectInfo| object.key.as_str().starts_with(&in_place_of_record);
        if let Some(other) = objects.iter().find(in_the_way) {
            return Err(CheckpointError::Bank(BankError::Other {
                message: format!(
                    "'{}' lies where the record of checkpoint {id} belongs; look at it, and move it away or back to its place",
                    other.key
                ),
                at: None,
                retryable: false,
            }));
        }
        if matches!(self.get(id).await, Err(CheckpointError::Tampered(_))) {
            let bytes = self.bank.get_at_most(&record, MAX_INDEX).await?;
            match self.bank.put_new(&kept, bytes).await {
                // Of an earlier try: what is there now is not what was there at first.
                Err(BankError::AlreadyExists(_)) => {}
                other => other?,
            }
        }
        self.create(checkpoint).await
    }

    /// Is the record that [`replace`](Self::replace) kept one that can be believed?
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn kept_is_good(&self, id: CheckpointId) -> Result<bool, CheckpointError> {
        match self.record(id, &kept_file(id)?).await {
            Ok((record, kept)) => {
                let is_own = kept.provider_id == self.provider_id;
                Ok(is_own && self.sealed(&record, kept).is_ok())
            }
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts the record back that [`replace`](Self::replace) kept, byte by byte; `false` if it kept none. Safe to
    /// repeat.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn put_back(&self, id: CheckpointId) -> Result<bool, CheckpointError> {
        let kept = kept_file(id)?;
        let bytes = match self.bank.get_at_most(&kept, MAX_INDEX).await {
            Err(BankError::NotFound(_)) => return Ok(false),
            other => other?,
        };
        self.bank.put(&index_file(id)?, bytes).await?;
        self.forget_kept(id).await?;
        Ok(true)
    }

    /// Removes the record that [`replace`](Self::replace) kept.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn forget_kept(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        Ok(self.bank.delete(&kept_file(id)?).await?)
    }

    /// Takes every name of a checkpoint out of the index that its record does not account for.
    ///
    /// # Errors
    /// Whatever the bank fails with.
    async fn unlist_others(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (own, end) = (index_keys(checkpoint)?, format!("@{}", checkpoint.id));
        let mut others = Vec::new();
        self.walk("indices", None, |key| {
            if key.name().ends_with(&end) && !own.contains(key) {
                others.push(key.clone());
            }
            true
        })
        .await?;
        for key in others {
            self.bank.delete(&key).await?;
        }
        Ok(())
    }

    fn seal_key(&self, checkpoint: &Checkpoint) -> Result<SealKey, CheckpointError> {
        let key = self.key.as_ref();
        let key = key.ok_or(CheckpointError::NoKey(checkpoint.id))?;
        Ok(key.seal_key(checkpoint.provider_id, &checkpoint.project_id))
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
        self.set_status(self.get(id).await?, to).await
    }

    /// As [`transition`](Self::transition), of a checkpoint that was read under the lease which the caller holds.
    ///
    /// # Errors
    /// [`CheckpointError::Transition`], or the bank's.
    pub(crate) async fn set_status(
        &self,
        mut checkpoint: Checkpoint,
        to: CheckpointStatus,
    ) -> Result<Checkpoint, CheckpointError> {
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
    pub(crate) async fn accept(
        &self,
        id: CheckpointId,
        at: DateTime<Utc>,
    ) -> Result<bool, CheckpointError> {
        let mut checkpoint = self.get(id).await?;
        let mut info = checkpoint.info();
        if !info.accept(at) {
            return Ok(false);
        }
        checkpoint.extra_info = info.to_extra_info();
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
        let (said, mut info) = (made.info(), made.info());
        if info.origin().is_some() {
            info.set_copied();
        }
        if let Some(findings) = findings {
            findings.write(&mut info);
        }
        if info != said {
            made.extra_info = info.to_extra_info();
        }
        if let Some(seal) = &mut made.seal {
            seal.objects.clone_from(objects);
        }
        self.write(&made).await
    }

    /// Removes everything of a checkpoint but its index file, which says `deleted` from then on. What was deleted unread
    /// has an index file of ours: all names that the index has for it go, which are all looked at. Any other has the
    /// names that its index file accounts for. Safe to repeat: the index file is changed last.
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
        if is_unreadable(&checkpoint) {
            self.unlist_others(&checkpoint).await?;
        }
        self.forget_kept(id).await?;
        self.set_status(checkpoint, CheckpointStatus::Deleted)
            .await?;
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
        let entries = self.entries(query).await?;
        let entries = entries.into_iter().map(|entry| (entry, 0)).collect();
        Self::pick(query, [self.clone()].into(), entries).await
    }

    /// The other checkpoints of the same plan that are not newer than `one` by the index, newest first; read one after the
    /// other, as they are asked for. What is not where its record belongs, or has none that can be believed, is left out.
    pub(crate) fn back_from(
        &self,
        one: &Checkpoint,
    ) -> impl Stream<Item = Result<Checkpoint, CheckpointError>> + use<> {
        let from = Backwards {
            checkpoints: self.clone(),
            from: one.id,
            plan: format!(
                "indices/by-plan/{}/{}",
                one.protection_plan.id, one.project_id
            ),
            // Of the same second are those whose names begin with it.
            marker: format!(
                "{}/{}",
                one.created_at.unwrap_or_default(),
                one.timestamp.saturating_add(1)
            ),
            names: VecDeque::new(),
            is_last_page: false,
        };
        stream::try_unfold(from, |mut from| async move {
            Ok(from.next().await?.map(|checkpoint| (checkpoint, from)))
        })
    }

    /// As [`list`](Self::list), of two banks in one order. A second bank that cannot be listed now (a
    /// disk that is only plugged in to copy to, a file server that does not answer) is left out.
    ///
    /// # Errors
    /// As [`list`](Self::list), of the first.
    pub async fn list_both(
        &self,
        second: &Self,
        query: &CheckpointQuery,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let entries = self.entries(query).await?;
        let mut entries: Vec<_> = entries.into_iter().map(|entry| (entry, 0)).collect();
        match in_time(
            LIST_PATIENCE,
            "list of a second bank",
            second.entries(query),
        )
        .await
        {
            Ok(more) => entries.extend(more.into_iter().map(|entry| (entry, 1))),
            Err(error) => {
                tracing::warn!(provider = %self.provider_id, %error, "the copy bank cannot be listed");
            }
        }
        let banks = [self.clone(), second.clone()].into();
        Self::pick(query, banks, entries).await
    }

    /// The checkpoints that `entries` stand for, in order, a page of them. With every entry comes which of `banks` it is of.
    /// The records say what the order is: those of sealed checkpoints are read for that once, and remembered; a page reads
    /// what it shows.
    async fn pick(
        query: &CheckpointQuery,
        banks: Arc<[Self]>,
        entries: Vec<(Entry, usize)>,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let mut names: HashMap<CheckpointId, usize> = HashMap::new();
        for (entry, _) in &entries {
            *names.entry(entry.id).or_default() += 1;
        }
        let names = Arc::new(names);
        // What will be shown in any case is not read again.
        let keeps = query.limit.is_none();
        let read: Vec<_> = stream::iter(entries)
            .map(|(entry, at)| {
                let (banks, names) = (banks.clone(), names.clone());
                async move {
                    // Of several records of one checkpoint, all are looked at.
                    let is_one = names.get(&entry.id) == Some(&1);
                    if is_one && let Some(place) = banks[at].known.place(&entry) {
                        return Ok((Some(place), None, entry, at));
                    }
                    let read = Self::read_entry(&banks, &entry, at).await?;
                    let place = read.as_ref().map(ListPosition::of);
                    if let Some(read) = &read {
                        banks[at].known.remember(read);
                    }
                    Ok::<_, CheckpointError>((place, read.filter(|_| keeps), entry, at))
                }
            })
            .buffered(READ_AHEAD)
            .try_collect()
            .await?;
        let of = read.len();
        let mut wrong = read.iter().filter(|(place, ..)| place.is_none());
        if let Some((_, _, entry, _)) = wrong.next() {
            let (checkpoint, names) = (entry.id, 1 + wrong.count());
            tracing::warn!(
                %checkpoint, names, of,
                "names in the index that do not fit the checkpoints that they name are left out of a list, this \
                 checkpoint's first"
            );
        }
        let mut places: Vec<_> = read
            .into_iter()
            .filter_map(|(place, read, entry, at)| Some((place?, read, entry, at)))
            .collect();
        // Of one that is in the index more than once, what can be believed is it, and what is there.
        let mut best: HashMap<CheckpointId, u8> = HashMap::new();
        for (place, ..) in &places {
            let best = best.entry(place.id).or_insert(place.rank);
            *best = place.rank.min(*best);
        }
        places.retain(|(place, ..)| best.get(&place.id) == Some(&place.rank));
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
        let mut seen = HashSet::new();
        places.retain(|(place, ..)| seen.insert(place.id));
        if let Some(marker) = query.marker {
            let at = places.iter().position(|(place, ..)| place.id == marker);
            let at = at.ok_or(CheckpointError::UnknownMarker(marker))?;
            places.drain(..=at);
        }
        let is_wanted = |checkpoint: &Checkpoint| {
            let status = checkpoint.status;
            status != CheckpointStatus::Deleted && query.status.is_none_or(|asked| asked == status)
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let (mut shown, mut left) = (Vec::new(), places.into_iter().peekable());
        while shown.len() < limit && left.peek().is_some() {
            let next: Vec<_> = left.by_ref().take(limit - shown.len()).collect();
            let read: Vec<_> = stream::iter(next)
                .map(|(_, read, entry, at)| {
                    let banks = banks.clone();
                    async move {
                        match read {
                            Some(read) => Ok(Some(read)),
                            None => Self::read_entry(&banks, &entry, at).await,
                        }
                    }
                })
                .buffered(READ_AHEAD)
                .try_collect()
                .await?;
            shown.extend(read.into_iter().flatten().filter(is_wanted));
        }
        Ok(shown)
    }

    /// The checkpoints of the same plan whose data were protected in the same second: every copy of `one` among them.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn of_same_time(
        &self,
        one: &Checkpoint,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let protected_at = copies::origin(one).protected_at;
        let (plan, project) = (one.protection_plan.id, &one.project_id);
        let day = protected_at.date_naive();
        let prefix = format!("indices/by-plan/{plan}/{project}/{day}");
        let start = format!("{}@", protected_at.timestamp());
        let marker = BankKey::parse(&format!("{prefix}/{}", protected_at.timestamp()))?;
        let mut entries = Vec::new();
        self.walk(&prefix, Some(marker), |key| {
            let is_same = key.name().starts_with(&start);
            if is_same {
                entries.extend(Entry::parse(key, Some(plan)));
            }
            is_same
        })
        .await?;
        let mut found = Vec::new();
        for entry in entries {
            found.extend(Self::read_entry(std::slice::from_ref(self), &entry, 0).await?);
        }
        found.retain(|found| found.status != CheckpointStatus::Deleted);
        Ok(found)
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

    /// What an entry of the index of one of `banks` stands for; `None` when it is a wrong name for a checkpoint that
    /// there is, or of garbage beside that.
    async fn read_entry(
        banks: &[Self],
        entry: &Entry,
        at: usize,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let (own, id) = (&banks[at], entry.id);
        let error = match own.get(id).await {
            Ok(read) => return Ok(entry.fits(&read).then_some(read)),
            Err(error) if error.is_of_the_checkpoint() => error,
            Err(error) => return Err(error),
        };
        let is_missing = matches!(error, CheckpointError::NotFound(_));
        if is_missing && own.is_of_another(id).await.unwrap_or_default() {
            return Ok(None);
        }
        let others = banks.iter().enumerate().filter(|(other, _)| *other != at);
        for (_, other) in others {
            // One that cannot be asked says nothing.
            if in_time(LIST_PATIENCE, "read of another bank", other.get(id))
                .await
                .is_ok()
            {
                tracing::warn!(
                    checkpoint = %id, %error,
                    "what cannot be read in a bank has the name of a checkpoint in the provider's other bank"
                );
                return Ok(None);
            }
        }
        tracing::error!(checkpoint = %id, %error, "an indexed checkpoint cannot be read");
        Ok(Some(entry.unreadable(own.provider_id, &error)))
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

/// How many names a walk back asks for at once.
const NAMES_BACK: usize = 64;

/// A walk back through the index of a plan.
struct Backwards {
    checkpoints: CheckpointCollection,
    from: CheckpointId,
    /// The part of the index.
    plan: String,
    /// The names below it that come before this are still to be asked for.
    marker: String,
    names: VecDeque<BankKey>,
    is_last_page: bool,
}

impl Backwards {
    async fn next(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        loop {
            let Some(name) = self.names.pop_front() else {
                match self.is_last_page {
                    true => return Ok(None),
                    false => self.more().await?,
                }
                continue;
            };
            let id = Entry::parse(&name, None).map(|entry| entry.id);
            let Some(id) = id.filter(|id| *id != self.from) else {
                continue;
            };
            match self.checkpoints.get(id).await {
                Ok(read) if index_keys(&read)?.contains(&name) => return Ok(Some(read)),
                Ok(_) => {}
                Err(error) if error.is_of_the_checkpoint() => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn more(&mut self) -> Result<(), CheckpointError> {
        let plan = BankKey::parse(&self.plan)?;
        let request = ListRequest {
            marker: Some(plan.join(&self.marker)?),
            prefix: Some(plan),
            limit: Some(NAMES_BACK),
            sort: SortDirection::Descending,
        };
        let page = self.checkpoints.bank.list(&request).await?;
        self.is_last_page = page.len() < NAMES_BACK;
        if let Some(last) = page.last() {
            let below = last.key.as_str().strip_prefix(self.plan.as_str());
            let below = below.and_then(|below| below.strip_prefix('/'));
            self.marker = below.unwrap_or_default().to_owned();
        }
        self.names = page.into_iter().map(|object| object.key).collect();
        Ok(())
    }
}

/// Where a checkpoint comes in a listing: by time; of one second, a copy after what it is a copy of.
#[derive(Debug, Clone, Copy)]
struct ListPosition {
    timestamp: i64,
    is_copy: bool,
    id: CheckpointId,
    /// Of several records of one checkpoint, the least counts.
    rank: u8,
}

impl ListPosition {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            timestamp: checkpoint.timestamp,
            is_copy: checkpoint.info().origin().is_some(),
            id: checkpoint.id,
            rank: match checkpoint.status {
                _ if is_unreadable(checkpoint) => 2,
                CheckpointStatus::Deleted => 1,
                _ => 0,
            },
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

    /// Is a checkpoint listed where it belongs? Elsewhere it is not shown.
    fn fits(&self, checkpoint: &Checkpoint) -> bool {
        self.belongs(&checkpoint.project_id, checkpoint.protection_plan.id)
    }

    fn belongs(&self, project_id: &str, plan_id: PlanId) -> bool {
        project_id == self.project_id && self.plan_id.is_none_or(|of| of == plan_id)
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
            extra_info: CheckpointInfo::of_unreadable(&error.to_string()).to_extra_info(),
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

/// Where the record is kept that [`CheckpointCollection::replace`] took the place of.
fn kept_file(id: CheckpointId) -> Result<BankKey, BankError> {
    Ok(BankKey::parse(&format!(
        "checkpoints/{id}/index.json.kept"
    ))?)
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
