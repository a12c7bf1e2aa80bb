//! What is to be said against a checkpoint that was made: that something of its resources could not be read
//! (*incomplete*), or that a resource holds so much less than before that its source may be lost
//! (*suspicious*). Both are kept with the checkpoint, in `extra_info`, for restores and for
//! retention; as is what it *holds*, the measure of those that come after it.
//!
//! A checkpoint is measured against the last one of its plan before it that is not suspicious itself in this
//! resource: so a source that stays away is a warning each time, and not only the first. What that one could not
//! read counts, for it was there. Who accepts a suspicious checkpoint makes it the measure. One that a wrong
//! clock dated later is none.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use karbor_model::{Checkpoint, CheckpointId, INCOMPLETE, SUSPICIOUS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    checkpoints::{CheckpointCollection, CheckpointQuery},
    error::CheckpointError,
};

/// Key of `extra_info`: what each resource holds.
const HOLDS: &str = "holds";
/// Key of `extra_info`: when a suspicious checkpoint was accepted, and why it had been suspicious.
const ACCEPTED: &str = "accepted";
/// What is said of a resource of which nothing was stored.
const NOTHING: &str = "0 files were protected: is it empty, is its file system not mounted, or is all of it excluded?";
/// Of fewer bytes nothing is concluded: a few lines more or less are no loss.
const FEW_BYTES: u64 = 1 << 20;

/// How much of a resource there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Holds {
    files: Option<u64>,
    bytes: Option<u64>,
}

/// What a measure was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measure {
    holds: Holds,
    of: Option<CheckpointId>,
}

/// What was found out about a checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    holds: BTreeMap<String, Holds>,
    incomplete: BTreeMap<String, Value>,
    suspicious: BTreeMap<String, String>,
}

/// The reports of a run by resource, as the operation log keeps them.
fn reports(told: &Value) -> impl Iterator<Item = (&String, &Value)> {
    told["resources"].as_object().into_iter().flatten()
}

impl Findings {
    /// What the reports of a protect say, measured against the checkpoints of its plan that `query` lists.
    /// `share` of a resource may be gone before that is suspicious.
    ///
    /// # Errors
    /// The bank's.
    pub(crate) async fn of(
        told: &Value,
        checkpoints: &CheckpointCollection,
        query: &CheckpointQuery,
        made: &Checkpoint,
        share: f64,
    ) -> Result<Self, CheckpointError> {
        let mut found = Self::default();
        let mut measures = BTreeMap::new();
        for (key, report) in reports(told) {
            if let Some(incomplete) = report.get(INCOMPLETE) {
                found.incomplete.insert(key.clone(), incomplete.clone());
            }
            let number = |name: &str| report.get(name).and_then(Value::as_u64);
            let holds = Holds {
                files: number("files"),
                bytes: number("bytes"),
            };
            if holds != Holds::default() {
                found.holds.insert(key.clone(), holds);
                if let Some(before) = report.get("before") {
                    let holds = serde_json::from_value(before.clone()).unwrap_or_default();
                    measures.insert(key.clone(), Measure { holds, of: None });
                }
            }
        }
        found
            .measure(&mut measures, checkpoints, query, made)
            .await?;
        for (key, holds) in &found.holds {
            let missing = found.incomplete.get(key).map_or(0, total);
            if let Some(measure) = measures.get(key)
                && let Some(reason) = suspicion(holds, missing, measure, share)
            {
                found.suspicious.insert(key.clone(), reason);
            }
        }
        Ok(found)
    }

    /// The newest measure of each resource: the bank's own come before what plugins know.
    async fn measure(
        &self,
        measures: &mut BTreeMap<String, Measure>,
        checkpoints: &CheckpointCollection,
        query: &CheckpointQuery,
        made: &Checkpoint,
    ) -> Result<(), CheckpointError> {
        let mut wanted: Vec<_> = self.holds.keys().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let is_before = |one: &Checkpoint| one.id != made.id && one.timestamp <= made.timestamp;
        let mut earlier = checkpoints
            .each(query)
            .await?
            .try_filter(|one| std::future::ready(is_before(one)))
            .boxed();
        while let Some(checkpoint) = earlier.try_next().await? {
            let info = checkpoint.info();
            wanted.retain(|key| match measure_in(&info, key, checkpoint.id) {
                Some(measure) => {
                    measures.insert((*key).clone(), measure);
                    false
                }
                None => true,
            });
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
    pub(crate) fn write(&self, info: &mut Map<String, Value>) {
        for key in [HOLDS, INCOMPLETE, SUSPICIOUS, ACCEPTED] {
            info.remove(key);
        }
        if !self.holds.is_empty() {
            info.insert(HOLDS.to_owned(), json!(self.holds));
        }
        self.flaws(info);
    }

    /// What the operation log and notifications tell.
    pub(crate) fn tell(&self, told: &mut Value) {
        if let Some(told) = told.as_object_mut() {
            self.flaws(told);
        }
        let mut warn = |key: &String, reason: &str| {
            let report = &mut told["resources"][key];
            match report["warnings"].as_array_mut() {
                Some(warnings) => warnings.push(json!(reason)),
                None => report["warnings"] = json!([reason]),
            }
        };
        for (key, reason) in &self.suspicious {
            warn(key, reason);
        }
        // What was always empty may be new: it is said, and held against nothing.
        for key in self
            .holds
            .iter()
            .filter_map(|(key, holds)| (holds.files == Some(0)).then_some(key))
        {
            if !(self.suspicious.contains_key(key) || self.incomplete.contains_key(key)) {
                warn(key, NOTHING);
            }
        }
    }

    fn flaws(&self, into: &mut Map<String, Value>) {
        if !self.incomplete.is_empty() {
            let missing: u64 = self.incomplete.values().map(total).sum();
            let incomplete = json!({"total": missing, "resources": self.incomplete});
            into.insert(INCOMPLETE.to_owned(), incomplete);
        }
        if !self.suspicious.is_empty() {
            let suspicious = json!({"resources": self.suspicious});
            into.insert(SUSPICIOUS.to_owned(), suspicious);
        }
    }
}

/// What a checkpoint says that it held of a resource, if that is not in doubt.
fn measure_in(info: &Map<String, Value>, key: &str, of: CheckpointId) -> Option<Measure> {
    let said = |kind: &str| info.get(kind).map(|flaw| &flaw["resources"][key]);
    if said(SUSPICIOUS).is_some_and(|reason| !reason.is_null()) {
        return None;
    }
    let holds = info.get(HOLDS)?.get(key)?;
    let mut holds: Holds = serde_json::from_value(holds.clone()).unwrap_or_default();
    let incomplete = said(INCOMPLETE).filter(|incomplete| !incomplete.is_null());
    let missing = incomplete.map_or(0, total);
    holds.files = holds.files.map(|files| files.saturating_add(missing));
    let of = Some(of);
    Some(Measure { holds, of })
}

fn total(incomplete: &Value) -> u64 {
    incomplete["total"].as_u64().unwrap_or(1)
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

/// What a copy takes over of what its source says of itself.
pub(crate) fn carry(source: &Map<String, Value>, into: &mut Map<String, Value>) {
    for key in [HOLDS, INCOMPLETE, SUSPICIOUS, ACCEPTED] {
        if let Some(value) = source.get(key) {
            into.insert(key.to_owned(), value.clone());
        }
    }
}

/// What a suspicious checkpoint says of itself when it is accepted; `None` if it is not suspicious.
pub(crate) fn accepted(mut info: Map<String, Value>, at: &str) -> Option<Map<String, Value>> {
    let suspicious = info.remove(SUSPICIOUS)?;
    info.insert(
        ACCEPTED.to_owned(),
        json!({"at": at, SUSPICIOUS: suspicious}),
    );
    Some(info)
}

#[cfg(test)]
mod tests {
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
        let Value::Object(info) = info else {
            unreachable!("it is one");
        };
        let of = CheckpointId::new();
        let measure = measure_in(&info, "a", of).unwrap();
        assert_eq!(measure.holds.files, Some(1000));
        let lost = suspicion(&holds(400, 1), 0, &measure, 0.5).unwrap();
        assert!(lost.contains("held 1000"), "{lost}");
        assert_eq!(measure_in(&info, "b", of), None);
        assert_eq!(measure_in(&info, "c", of), None);
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
        let mut told = json!({"resources": {"a": {"files": 0, "warnings": ["first"]}, "b": {"files": 1}, "c": {}}});
        found.tell(&mut told);
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
