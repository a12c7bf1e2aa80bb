//! What is to be said against a checkpoint: it is incomplete, or suspicious.

use std::collections::BTreeMap;

use karbor_model::{INCOMPLETE, SUSPICIOUS};
use serde_json::Value;

use crate::output::{plain, string, unpacked};

/// What of a checkpoint's `extra_info` is said against it.
pub(crate) struct Flaws {
    incomplete: Value,
    suspicious: Value,
    unreadable: Value,
}

/// What the service says of a record that it cannot read.
const UNREADABLE: &str = "unreadable";

impl Flaws {
    /// Of a checkpoint.
    pub(crate) fn of(checkpoint: &Value) -> Self {
        let mut info = unpacked(&checkpoint["extra_info"]);
        let mut take = |key: &str| info.get_mut(key).map(Value::take).unwrap_or_default();
        Self {
            incomplete: take(INCOMPLETE),
            suspicious: take(SUSPICIOUS),
            unreadable: take(UNREADABLE),
        }
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        !self.incomplete.is_null()
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        !self.suspicious.is_null()
    }

    /// Its record cannot be read, so what is not said of it is not known.
    pub(crate) fn is_unreadable(&self) -> bool {
        !self.unreadable.is_null()
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
        self.incomplete["total"].as_u64().unwrap_or_default()
    }

    /// What is missing, one a line: resource, path and reason.
    pub(crate) fn named(&self, names: &BTreeMap<String, String>) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        for (key, of) in self.incomplete["resources"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let resource = names.get(key).unwrap_or(key);
            let named = of["named"].as_array().map_or(&[][..], Vec::as_slice);
            rows.extend(named.iter().map(|one| {
                let path = string(one, "path").escape_debug().to_string();
                [resource.clone(), path, plain(&one["reason"])]
            }));
            let total = of["total"].as_u64().unwrap_or_default();
            match total.saturating_sub(named.len() as u64) {
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
        let of = self.suspicious["resources"].as_object();
        of.into_iter()
            .flatten()
            .map(|(key, reason)| [names.get(key).unwrap_or(key).clone(), plain(reason)])
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
