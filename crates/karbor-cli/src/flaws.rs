//! What is to be said against a checkpoint: it is incomplete, or suspicious.

use std::collections::BTreeMap;

use karbor_model::{CheckpointInfo, INCOMPLETE, Incomplete, SUSPICIOUS, Suspicious};
use serde_json::Value;

/// The flaws that a checkpoint's `extra_info` tells.
pub(crate) struct Flaws {
    incomplete: Option<Incomplete>,
    suspicious: Option<Suspicious>,
    unreadable: Option<String>,
}

impl Flaws {
    /// Of a checkpoint.
    pub(crate) fn of(checkpoint: &Value) -> Self {
        let info = CheckpointInfo::read(checkpoint.get("extra_info"));
        Self {
            incomplete: info.incomplete(),
            suspicious: info.suspicious(),
            unreadable: info.unreadable().map(str::to_owned),
        }
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete.is_some()
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.suspicious.is_some()
    }

    /// Why its record cannot be read, if that is so; then what is not said of it is not known.
    pub(crate) fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    pub(crate) fn are_there(&self) -> bool {
        self.is_incomplete() || self.is_suspicious()
    }

    /// In a word or two.
    pub(crate) fn brief(&self) -> String {
        let words = [
            (self.is_incomplete(), INCOMPLETE),
            (self.is_suspicious(), SUSPICIOUS),
        ];
        let words = words.into_iter().filter(|(is, _)| *is);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(", ")
    }

    /// How many files and directories are missing.
    pub(crate) fn missing(&self) -> u64 {
        self.incomplete.as_ref().map_or(0, |flaw| flaw.total)
    }

    /// What is missing, one a line: resource, path and reason.
    pub(crate) fn named(&self, names: &BTreeMap<String, String>) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        let incomplete = self.incomplete.iter();
        for (key, missing) in incomplete.flat_map(|flaw| &flaw.resources) {
            let resource = names.get(key).unwrap_or(key);
            rows.extend(missing.named.iter().map(|one| {
                let path = one.path.escape_debug().to_string();
                [resource.clone(), path, one.reason.clone()]
            }));
            match missing.total.saturating_sub(missing.named.len() as u64) {
                0 => {}
                others => rows.push([
                    resource.clone(),
                    format!("and {others} more"),
                    String::new(),
                ]),
            }
        }
        rows
    }

    /// Why it is suspicious, one resource a line: resource and reason.
    pub(crate) fn reasons(&self, names: &BTreeMap<String, String>) -> Vec<[String; 2]> {
        let suspicious = self.suspicious.iter();
        let reasons = suspicious.flat_map(|flaw| &flaw.resources);
        let named = |key: &String| names.get(key).unwrap_or(key).clone();
        reasons
            .map(|(key, reason)| [named(key), reason.clone()])
            .collect()
    }

    /// All that is said, as lines.
    pub(crate) fn lines(&self, names: &BTreeMap<String, String>) -> Vec<String> {
        let missing = self.named(names).into_iter();
        let missing = missing.map(|[resource, path, reason]| match reason.as_str() {
            "" => format!("{resource}: {path}"),
            reason => format!("{resource}: {path} ({reason})"),
        });
        let reasons = self.reasons(names).into_iter();
        missing
            .chain(reasons.map(|[resource, reason]| format!("{resource}: {reason}")))
            .collect()
    }
}
