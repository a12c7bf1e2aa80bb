//! What is to be said against a checkpoint that was made: that something of its resources could not be read
//! (*incomplete*), or that a resource holds so much less than before that its source may be lost
//! (*suspicious*). Both are kept with the checkpoint, in `extra_info`, for restores and for
//! retention; as is what it *holds*, the measure of those that come after it.
//!
//! A checkpoint is measured against the last one of its plan before it that is not suspicious itself in this
//! resource: so a source that stays away is a warning each time, and not only the first. What that one could not
//! read counts, for it was there. Who accepts a suspicious checkpoint makes it the measure. One that a wrong
//! clock dated later is none.
//!
//! The newest good one is what is needed, and mostly one record is read. No more than [`LOOKS_BACK`] good or suspicious
//! ones are: a suspicious checkpoint keeps what it was measured against, and behind so many of them that stays the
//! measure. What is in none of them is new to the plan, or was out of it for long: then what the plugin knows counts.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointInfo, CheckpointStatus, Holds, Incomplete, Measure,
    Missing, RunReport, Suspicious,
};

use crate::{checkpoints::CheckpointCollection, error::CheckpointError};

/// What is said of a resource of which nothing was stored.
const NOTHING: &str = "0 files were protected: is it empty, is its file system not mounted, or is all of it excluded?";
/// So many checkpoints are looked at for a measure.
const LOOKS_BACK: usize = 64;
/// Of fewer bytes nothing is concluded: a few lines more or less are no loss.
const FEW_BYTES: u64 = 1 << 20;

/// What was found out about a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    holds: BTreeMap<String, Holds>,
    incomplete: BTreeMap<String, Missing>,
    suspicious: BTreeMap<String, String>,
    /// What those that are suspicious were measured against.
    measured: BTreeMap<String, Measure>,
}

impl Findings {
    /// What the reports of a protect say, measured against the checkpoints of its plan.
    /// `share` of a resource may be gone before that is suspicious.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn of(
        told: &RunReport,
        checkpoints: &CheckpointCollection,
        made: &Checkpoint,
        share: f64,
    ) -> Result<Self, CheckpointError> {
        let mut found = Self::default();
        let mut measures = BTreeMap::new();
        for (key, report) in told.each() {
            if let Some(missing) = report.incomplete() {
                found.incomplete.insert(key.clone(), missing);
            }
            if let Some(holds) = report.holds() {
                found.holds.insert(key.clone(), holds);
                if let Some(holds) = report.held_before() {
                    measures.insert(key.clone(), Measure { holds, of: None });
                }
            }
        }
        found.measure(&mut measures, checkpoints, made).await?;
        for (key, holds) in &found.holds {
            let missing = found.incomplete.get(key).map_or(0, |missing| missing.total);
            if let Some(measure) = measures.get(key)
                && let Some(reason) = suspicion(holds, missing, measure, share)
            {
                found.suspicious.insert(key.clone(), reason);
                found.measured.insert(key.clone(), *measure);
            }
        }
        Ok(found)
    }

    /// The newest measure of each resource: the bank's own come before what plugins know.
    async fn measure(
        &self,
        measures: &mut BTreeMap<String, Measure>,
        checkpoints: &CheckpointCollection,
        made: &Checkpoint,
    ) -> Result<(), CheckpointError> {
        let mut wanted: Vec<_> = self.holds.keys().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let counts = |one: &Checkpoint| {
            let is_before = one.id != made.id && one.timestamp <= made.timestamp;
            is_before && one.status == CheckpointStatus::Available
        };
        let mut earlier = checkpoints
            .back_from(made)
            .try_filter(|one| std::future::ready(counts(one)))
            .boxed();
        let (mut looks, mut handed_on) = (0, BTreeMap::new());
        // Suspicious ones of versions before hand nothing on: there the search goes on.
        let mut unmeasured = BTreeSet::new();
        while let Some(checkpoint) = earlier.try_next().await? {
            let earlier = Said::by(&checkpoint);
            wanted.retain(|key| match earlier.measure_of(key) {
                Some(measure) => {
                    measures.insert((*key).clone(), measure);
                    false
                }
                None => true,
            });
            for key in &wanted {
                if let Some(measure) = earlier.suspicious.measured.get(*key) {
                    handed_on.entry((*key).clone()).or_insert(*measure);
                } else if earlier.suspicious.resources.contains_key(*key) {
                    unmeasured.insert((*key).clone());
                }
            }
            looks += 1;
            if looks >= LOOKS_BACK {
                wanted.retain(|key| match handed_on.remove(*key) {
                    Some(measure) => {
                        measures.insert((*key).clone(), measure);
                        false
                    }
                    None => unmeasured.contains(*key),
                });
            }
            if wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Is there something to be said against the checkpoint?
    pub(crate) fn are_bad(&self) -> bool {
        !(self.incomplete.is_empty() && self.suspicious.is_empty())
    }

    /// What the checkpoint keeps, beside what the caller put into `info`.
    pub(crate) fn write(&self, info: &mut CheckpointInfo) {
        let (incomplete, suspicious) = self.flaws();
        info.set_findings(&self.holds, incomplete.as_ref(), suspicious.as_ref());
    }

    /// What the operation log and notifications tell.
    pub(crate) fn tell(&self, told: &mut RunReport) {
        (told.incomplete, told.suspicious) = self.flaws();
        for (key, reason) in &self.suspicious {
            told.of(key).warn(reason);
        }
        // What was always empty may be new: it is said, and held against nothing.
        let empty = self
            .holds
            .iter()
            .filter(|(_, holds)| holds.files == Some(0));
        for (key, _) in empty {
            if !(self.suspicious.contains_key(key) || self.incomplete.contains_key(key)) {
                told.of(key).warn(NOTHING);
            }
        }
    }

    fn flaws(&self) -> (Option<Incomplete>, Option<Suspicious>) {
        let incomplete = || Incomplete {
            total: self.incomplete.values().map(|missing| missing.total).sum(),
            resources: self.incomplete.clone(),
        };
        let suspicious = || Suspicious {
            resources: self.suspicious.clone(),
            measured: self.measured.clone(),
        };
        (
            (!self.incomplete.is_empty()).then(incomplete),
            (!self.suspicious.is_empty()).then(suspicious),
        )
    }
}

/// What a checkpoint says of itself, read once for all resources: they may be many.
struct Said {
    of: CheckpointId,
    info: CheckpointInfo,
    incomplete: Incomplete,
    suspicious: Suspicious,
}

impl Said {
    fn by(checkpoint: &Checkpoint) -> Self {
        let info = checkpoint.info();
        Self {
            of: checkpoint.id,
            incomplete: info.incomplete().unwrap_or_default(),
            suspicious: info.suspicious().unwrap_or_default(),
            info,
        }
    }

    /// What it held of a resource, if that is not in doubt.
    fn measure_of(&self, key: &str) -> Option<Measure> {
        if self.suspicious.resources.contains_key(key) {
            return None;
        }
        let mut holds = self.info.holds(key)?;
        let missing = self.incomplete.resources.get(key);
        let missing = missing.map_or(0, |missing| missing.total);
        holds.files = holds.files.map(|files| files.saturating_add(missing));
        let of = Some(self.of);
        Some(Measure { holds, of })
    }
}

/// Why a resource may be the shadow of what it was.
fn suspicion(holds: &Holds, missing: u64, measure: &Measure, share: f64) -> Option<String> {
    let before = measure.holds;
    let of = match measure.of {
        Some(id) => format!("in checkpoint {id}"),
        None => "the last time".to_owned(),
    };
    let advice = "it never takes the place of an earlier one in retention; if all is as it should be, \
                  accept it with `karbor checkpoint accept`";
    if let (Some(files), Some(then)) = (holds.files, before.files) {
        // What could not be read is there, at least.
        let now = files.saturating_add(missing);
        if now == 0 && then > 0 {
            return Some(format!(
                "suspicious: it is empty, and held {then} files {of}: is its file system mounted? {advice}"
            ));
        }
        if shrank(now, then, share) {
            return Some(format!(
                "suspicious: it holds {files} files, and held {then} {of}: is something lost? {advice}"
            ));
        }
    }
    match (holds.bytes, before.bytes) {
        (Some(now), Some(then))
            if then >= FEW_BYTES && missing == 0 && shrank(now, then, share) =>
        {
            Some(format!(
                "suspicious: it holds {now} bytes, and held {then} {of}: is something lost? {advice}"
            ))
        }
        _ => None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share need not be exact to the file"
)]
fn shrank(now: u64, then: u64, share: f64) -> bool {
    now < then && (then - now) as f64 > then as f64 * share
}

#[cfg(test)]
mod tests {
    use karbor_model::SUSPICIOUS;
    use serde_json::json;

    use super::*;

    fn holds(files: u64, bytes: u64) -> Holds {
        Holds {
            files: Some(files),
            bytes: Some(bytes),
        }
    }

    fn told(now: Holds, missing: u64, before: Holds) -> Option<String> {
        let measure = Measure {
            holds: before,
            of: None,
        };
        suspicion(&now, missing, &measure, 0.5)
    }

    #[test]
    fn more_than_the_share_is_suspicious_and_so_is_nothing_at_all() {
        assert!(told(holds(5, 10), 0, holds(10, 10)).is_none());
        assert!(
            told(holds(4, 10), 0, holds(10, 10))
                .unwrap()
                .contains("10 the last time")
        );
        // Not read, but there.
        assert!(told(holds(4, 10), 1, holds(10, 10)).is_none());
        let empty = told(holds(0, 0), 0, holds(1, 1)).unwrap();
        assert!(empty.contains("file system mounted"), "{empty}");
        assert!(told(holds(0, 0), 0, holds(0, 0)).is_none());
        assert!(told(holds(9, 9), 0, Holds::default()).is_none());
    }

    #[test]
    fn what_could_not_be_read_then_was_there() {
        let info = json!({
            "holds": {"a": {"files": 400, "bytes": 1}, "b": {"files": 3}},
            "incomplete": {"total": 600, "resources": {"a": {"total": 600}}},
            "suspicious": {"resources": {"b": "it shrank"}},
        });
        let info = CheckpointInfo::read(Some(&info));
        let said = Said {
            of: CheckpointId::new(),
            incomplete: info.incomplete().unwrap(),
            suspicious: info.suspicious().unwrap(),
            info,
        };
        let measure = said.measure_of("a").unwrap();
        assert_eq!(measure.holds.files, Some(1000));
        let lost = suspicion(&holds(400, 1), 0, &measure, 0.5).unwrap();
        assert!(lost.contains("held 1000"), "{lost}");
        assert_eq!(said.measure_of("b"), None);
        assert_eq!(said.measure_of("c"), None);
    }

    /// What was empty from the first may be new: it is said, and held against nothing.
    #[test]
    fn nothing_protected_is_said_at_the_first_time() {
        let found = Findings {
            holds: [("a", holds(0, 0)), ("b", holds(1, 0)), ("c", holds(0, 0))]
                .map(|(key, holds)| (key.to_owned(), holds))
                .into(),
            suspicious: [("c".to_owned(), "suspicious: it is empty".to_owned())].into(),
            ..Findings::default()
        };
        let told = json!({"resources": {"a": {"files": 0, "warnings": ["first"]}, "b": {"files": 1}, "c": {}}});
        let mut told = RunReport::read(Some(&told));
        found.tell(&mut told);
        let told = json!(told);
        let warnings = |key: &str| told["resources"][key]["warnings"].to_string();
        assert!(
            warnings("a").contains("first") && warnings("a").contains("0 files were protected")
        );
        assert_eq!(warnings("b"), "null");
        assert_eq!(warnings("c"), r#"["suspicious: it is empty"]"#);
        assert!(told.get(SUSPICIOUS).is_some());
    }

    #[test]
    fn few_bytes_say_nothing() {
        let large = 3 * FEW_BYTES;
        assert!(told(holds(1, FEW_BYTES), 0, holds(1, large)).is_some());
        assert!(told(holds(1, large), 0, holds(1, FEW_BYTES)).is_none());
        assert!(told(holds(1, 1), 0, holds(1, FEW_BYTES - 1)).is_none());
    }
}
