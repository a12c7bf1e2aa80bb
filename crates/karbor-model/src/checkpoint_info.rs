//! What a checkpoint says of itself in `extra_info`, beside its record.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{CheckpointId, CheckpointStatus, ScheduledOperationId, TriggerId};

/// Name, in `extra_info` and in reports, of what is not in the checkpoint because it could not be read.
pub const INCOMPLETE: &str = "incomplete";
/// Name, in `extra_info` and in reports, of why the checkpoint may be that of a source that was lost.
pub const SUSPICIOUS: &str = "suspicious";

const ACCEPTED: &str = "accepted";
const HOLDS: &str = "holds";
const UNREADABLE: &str = "unreadable";
const LISTED_FOR: &str = "listed_for";
const COPY_STATUS: &str = "copy_status";
const SAME_BANK: &str = "same_bank";

/// `extra_info` of a checkpoint: a JSON object, in which the one who asked for the checkpoint may say what he likes, and
/// in which what has a name here means something. What has none stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointInfo(Map<String, Value>);

/// How much of a resource there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Holds {
    /// Files; databases have none.
    pub files: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
}

/// What could not be read, of all resources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// How many files and directories.
    pub total: u64,
    /// By `type#id`.
    pub resources: BTreeMap<String, Missing>,
}

/// What could not be read of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "MissingAsStored")]
pub struct Missing {
    /// How many files and directories; at least one.
    pub total: u64,
    /// The first of them.
    pub named: Vec<Unread>,
}

/// A file or directory that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Where it is, as it is called.
    pub path: String,
    /// Why it could not be read.
    #[serde(default)]
    pub reason: String,
}

#[derive(Deserialize)]
struct MissingAsStored {
    #[serde(default)]
    total: Option<u64>,
    #[serde(default)]
    named: Vec<Unread>,
}

impl From<MissingAsStored> for Missing {
    fn from(stored: MissingAsStored) -> Self {
        Self {
            total: stored.total.unwrap_or(1),
            named: stored.named,
        }
    }
}

/// Why resources may be the shadow of what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicious {
    /// Why, by `type#id`.
    pub resources: BTreeMap<String, String>,
    /// What each was measured against; checkpoints of earlier versions do not say that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, Measure>,
}

/// What a resource of a checkpoint is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// How much of it there was.
    #[serde(flatten)]
    pub holds: Holds,
    /// The checkpoint that held it; `None`: the plugin knows it from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<CheckpointId>,
}

/// What a copy is a copy of: the checkpoint that was protected, however often it was copied since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// That checkpoint.
    pub copied_from: CheckpointId,
    /// When its data were protected, UTC.
    pub protected_at: DateTime<Utc>,
}

impl CheckpointInfo {
    /// Who makes the checkpoints of schedules, in the original's word.
    pub const OPERATION_ENGINE: &'static str = "operation-engine";

    /// Reads `extra_info`, JSON text or JSON; nothing if that is no object.
    #[must_use]
    pub fn read(extra_info: Option<&Value>) -> Self {
        let info = match extra_info {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        match info {
            Value::Object(info) => Self(info),
            _ => Self::default(),
        }
    }

    /// The JSON text that an index file keeps; `None` when there is nothing to say.
    #[must_use]
    pub fn to_extra_info(&self) -> Option<Value> {
        let text = || Value::Object(self.0.clone()).to_string();
        (!self.0.is_empty()).then(|| Value::String(text()))
    }

    /// What a checkpoint says that a schedule asked for.
    #[must_use]
    pub fn of_schedule(trigger: TriggerId, operation: ScheduledOperationId) -> Self {
        let said = [
            ("created_by", json!(Self::OPERATION_ENGINE)),
            ("trigger_id", json!(trigger)),
            ("scheduled_operation_id", json!(operation)),
        ];
        Self(
            said.map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
        )
    }

    /// Did a schedule ask for it?
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.text("created_by") == Some(Self::OPERATION_ENGINE)
    }

    /// The scheduled operation that asked for it.
    #[must_use]
    pub fn scheduled_operation_id(&self) -> Option<ScheduledOperationId> {
        self.text("scheduled_operation_id")?.parse().ok()
    }

    /// What it holds of a resource (`type#id`), if it says so.
    #[must_use]
    pub fn holds(&self, resource: &str) -> Option<Holds> {
        let holds = self.0.get(HOLDS)?.get(resource)?;
        Some(serde_json::from_value(holds.clone()).unwrap_or_default())
    }

    /// The files and directories that are missing from it. A statement in a form that cannot be read counts as one more.
    #[must_use]
    pub fn incomplete(&self) -> Option<Incomplete> {
        self.flaw(INCOMPLETE, |said| Incomplete {
            total: said["total"].as_u64().unwrap_or(1),
            resources: entries(&said["resources"], |_| Missing {
                total: 1,
                named: Vec::new(),
            }),
        })
    }

    /// Why it may be that of a source that was lost.
    #[must_use]
    pub fn suspicious(&self) -> Option<Suspicious> {
        self.flaw(SUSPICIOUS, |said| Suspicious {
            resources: entries(&said["resources"], Value::to_string),
            measured: BTreeMap::new(),
        })
    }

    /// Is something to be said against it: is it incomplete, or suspicious? Such a checkpoint never takes
    /// the place of one without.
    #[must_use]
    pub fn is_flawed(&self) -> bool {
        [INCOMPLETE, SUSPICIOUS]
            .iter()
            .any(|key| self.0.get(*key).is_some_and(|said| !said.is_null()))
    }

    /// Says what was found out about it, in place of what was said before.
    pub fn set_findings(
        &mut self,
        holds: &BTreeMap<String, Holds>,
        incomplete: Option<&Incomplete>,
        suspicious: Option<&Suspicious>,
    ) {
        self.0.shift_remove(ACCEPTED);
        self.set(HOLDS, (!holds.is_empty()).then_some(holds));
        self.set(INCOMPLETE, incomplete);
        self.set(SUSPICIOUS, suspicious);
    }

    /// Takes the suspicion off it, and notes when (UTC) and of what; `false` if there is none.
    pub fn accept(&mut self, at: DateTime<Utc>) -> bool {
        let Some(suspicious) = self.0.shift_remove(SUSPICIOUS) else {
            return false;
        };
        let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let accepted = json!({"at": at, SUSPICIOUS: suspicious});
        self.0.insert(ACCEPTED.to_owned(), accepted);
        true
    }

    /// What one says that stands for a checkpoint whose record cannot be believed, and why that is.
    #[must_use]
    pub fn of_unreadable(reason: &str) -> Self {
        let mut info = Self::default();
        info.set(UNREADABLE, Some(reason));
        info
    }

    /// Why the record of the checkpoint that it stands for cannot be believed.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.text(UNREADABLE)
    }

    /// Notes the projects that the index lists it for: it is deleted unread.
    pub fn set_listed_for<'a>(&mut self, projects: impl IntoIterator<Item = &'a str>) {
        let projects: Vec<_> = projects.into_iter().collect();
        self.set(LISTED_FOR, Some(projects));
    }

    /// The projects that [`set_listed_for`](Self::set_listed_for) noted.
    #[must_use]
    pub fn listed_for(&self) -> Vec<String> {
        self.part(LISTED_FOR).unwrap_or_default()
    }

    /// What it is a copy of, if it is one.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        serde_json::from_value(Value::Object(self.0.clone())).ok()
    }

    /// What a copy says of itself that is made at `copied_at` (UTC) of a checkpoint which says `source`; and that it
    /// lies in the same bank, if it does.
    #[must_use]
    pub fn of_copy(
        origin: &Origin,
        source: &Self,
        copied_at: DateTime<Utc>,
        same_bank: bool,
    ) -> Self {
        let mut info = Self::default();
        info.set("copied_from", Some(origin.copied_from));
        info.set("protected_at", Some(origin.protected_at.to_rfc3339()));
        let copied_at = copied_at.to_rfc3339_opts(SecondsFormat::Secs, false);
        info.set("copied_at", Some(copied_at));
        info.set(SAME_BANK, same_bank.then_some(true));
        for key in [HOLDS, INCOMPLETE, SUSPICIOUS, ACCEPTED] {
            info.set(key, source.0.get(key));
        }
        info
    }

    /// Says, in the original's words, that the copy is whole.
    pub fn set_copied(&mut self) {
        self.set(COPY_STATUS, Some(CheckpointStatus::Finished));
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    fn part<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_value(self.0.get(key)?.clone()).ok()
    }

    fn flaw<T: DeserializeOwned>(&self, key: &str, read: impl Fn(&Value) -> T) -> Option<T> {
        let said = self.0.get(key).filter(|said| !said.is_null())?;
        Some(self.part(key).unwrap_or_else(|| read(said)))
    }

    fn set(&mut self, key: &str, value: Option<impl Serialize>) {
        self.0.shift_remove(key);
        let value = value.map(|value| serde_json::to_value(value).unwrap_or_default());
        self.0.extend(value.map(|value| (key.to_owned(), value)));
    }
}

/// The entries of an object, each as what it is, or as `otherwise` says.
fn entries<T: DeserializeOwned>(
    object: &Value,
    otherwise: impl Fn(&Value) -> T,
) -> BTreeMap<String, T> {
    let entries = object.as_object().into_iter().flatten();
    let read = |value: &Value| serde_json::from_value(value.clone()).ok();
    entries
        .map(|(key, value)| (key.clone(), read(value).unwrap_or_else(|| otherwise(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: Value) -> CheckpointInfo {
        CheckpointInfo::read(Some(&Value::String(info.to_string())))
    }

    #[test]
    fn what_has_no_meaning_here_stays() {
        let said = json!({"mine": [1, {"x": null}], "created_by": 7, "holds": "much"});
        let mut info = read(said.clone());
        assert!(!info.is_scheduled() && info.holds("a").is_none() && !info.is_flawed());
        assert_eq!(info.to_extra_info(), Some(said.to_string().into()));
        info.set_findings(&BTreeMap::new(), None, None);
        let kept = json!({"mine": [1, {"x": null}], "created_by": 7});
        assert_eq!(info.to_extra_info(), Some(kept.to_string().into()));
    }

    #[test]
    fn text_and_json_say_the_same_and_anything_else_nothing() {
        let said = json!({"unreadable": "damaged"});
        assert_eq!(CheckpointInfo::read(Some(&said)), read(said));
        for other in [
            None,
            Some(json!(null)),
            Some(json!("no json")),
            Some(json!([1])),
        ] {
            let info = CheckpointInfo::read(other.as_ref());
            assert_eq!(info, CheckpointInfo::default());
            assert_eq!(info.to_extra_info(), None);
        }
    }

    /// What is against a checkpoint counts however it is said.
    #[test]
    fn a_flaw_in_an_unknown_form_is_a_flaw() {
        let info = read(json!({"incomplete": {"resources": {"a": {"total": 3}, "b": "?"}}}));
        assert!(info.is_flawed());
        let incomplete = info.incomplete().unwrap();
        assert_eq!(incomplete.total, 1);
        assert_eq!(
            (
                incomplete.resources["a"].total,
                incomplete.resources["b"].total
            ),
            (3, 1)
        );
        let info = read(json!({"suspicious": {"resources": {"a": ["odd"]}}}));
        assert_eq!(info.suspicious().unwrap().resources["a"], "[\"odd\"]");
        assert!(read(json!({"suspicious": true})).suspicious().is_some());
        assert!(!read(json!({"suspicious": null})).is_flawed());
    }

    #[test]
    fn only_a_suspicious_one_can_be_accepted() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert!(!read(json!({"incomplete": {"total": 1}})).accept(at));
        let mut info = read(json!({"suspicious": {"resources": {"a": "shrank"}}}));
        assert!(info.accept(at) && !info.is_flawed() && !info.accept(at));
        let kept = json!({"accepted": {
            "at": "2023-11-14T22:13:20Z", "suspicious": {"resources": {"a": "shrank"}},
        }});
        assert_eq!(info.to_extra_info(), Some(kept.to_string().into()));
    }
}
