//! What a run tells: how far it is, why it waits, what it did with each resource. The operation log keeps it in
//! `extra_info` (`docs/operations.md` describes it).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Holds, INCOMPLETE, Incomplete, Missing, Suspicious};

/// What a run tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunReport {
    /// How far it is, while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// Why it waits, while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What became of each resource by `type#id`, when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeMap<String, ResourceReport>>,
    /// What is to be known of the run as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The files and directories that are missing from the checkpoint that it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// Why that checkpoint may be the one of a source that was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspicious: Option<Suspicious>,
}

impl RunReport {
    /// Of `extra_info` of an operation log, JSON text or JSON. Nothing of a text for people, such as the original wrote;
    /// a part that is of another form tells nothing, and the others tell what they do.
    #[must_use]
    pub fn read(extra_info: Option<&Value>) -> Self {
        let told = match extra_info {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        fn part<T: serde::de::DeserializeOwned>(told: &Value, key: &str) -> Option<T> {
            serde_json::from_value(told.get(key)?.clone()).ok()
        }
        Self {
            progress: told.get("progress").and_then(RunProgress::read),
            waiting: part(&told, "waiting"),
            resources: part(&told, "resources"),
            warnings: part(&told, "warnings").unwrap_or_default(),
            incomplete: part(&told, INCOMPLETE),
            suspicious: part(&told, "suspicious"),
        }
    }

    /// A run that works.
    #[must_use]
    pub fn working(progress: RunProgress) -> Self {
        Self {
            progress: Some(progress),
            ..Self::default()
        }
    }

    /// A run that waits, and why.
    #[must_use]
    pub fn waits(why: impl Into<String>) -> Self {
        Self {
            waiting: Some(why.into()),
            ..Self::default()
        }
    }

    /// Every resource with its report.
    pub fn each(&self) -> impl Iterator<Item = (&String, &ResourceReport)> {
        self.resources.iter().flatten()
    }

    /// The report of a resource, to add to.
    pub fn of(&mut self, resource: &str) -> &mut ResourceReport {
        let resources = self.resources.get_or_insert_default();
        resources.entry(resource.to_owned()).or_default()
    }

    /// What the run added to the bank, in bytes: what is new where the plugin tells it apart, else all of it.
    #[must_use]
    pub fn added_bytes(&self) -> i64 {
        let of = |(_, report): (_, &ResourceReport)| {
            let number = |key: &str| report.get(key).and_then(Value::as_i64);
            number("new_bytes").or_else(|| number("bytes"))
        };
        self.each().filter_map(of).fold(0, i64::saturating_add)
    }
}

/// What the hooks of one resource tell: what the plugin counted, under its names, and what has a meaning here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceReport(pub Map<String, Value>);

impl ResourceReport {
    /// What is told under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What was protected of it; nothing if the plugin counts neither files nor bytes.
    #[must_use]
    pub fn holds(&self) -> Option<Holds> {
        let number = |name: &str| self.get(name).and_then(Value::as_u64);
        let holds = Holds {
            files: number("files"),
            bytes: number("bytes"),
        };
        (holds != Holds::default()).then_some(holds)
    }

    /// What the plugin knows that the resource held the last time.
    #[must_use]
    pub fn held_before(&self) -> Option<Holds> {
        let before = self.get("before")?;
        Some(serde_json::from_value(before.clone()).unwrap_or_default())
    }

    /// What could not be read of it.
    #[must_use]
    pub fn incomplete(&self) -> Option<Missing> {
        let told = self.get(INCOMPLETE)?;
        let unknown = || Missing {
            total: told["total"].as_u64().unwrap_or(1),
            named: Vec::new(),
        };
        Some(serde_json::from_value(told.clone()).unwrap_or_else(|_| unknown()))
    }

    /// What is to be known of it.
    #[must_use]
    pub fn warnings(&self) -> Vec<&Value> {
        let told = self.get("warnings").and_then(Value::as_array);
        told.into_iter().flatten().collect()
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: &str) {
        let told = self.0.entry("warnings").or_insert_with(|| json!([]));
        match told.as_array_mut() {
            Some(warnings) => warnings.push(warning.into()),
            None => *told = json!([warning]),
        }
    }
}

/// How far a run is, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunProgress {
    /// Is it being undone? Then the tasks counted are undos.
    pub undoing: bool,
    /// Tasks that ended.
    pub tasks_done: usize,
    /// All tasks.
    pub tasks_total: usize,
    /// Bytes moved.
    pub bytes_done: u64,
    /// Bytes to move, as far as hooks have said.
    pub bytes_expected: u64,
    /// How fast they move now, smoothed.
    pub bytes_per_second: f64,
    /// Resources with a running hook, then those that moved bytes; not all of many.
    pub resources: Vec<ResourceProgress>,
}

impl RunProgress {
    /// What an object says; what it says in another form is nothing.
    fn read(told: &Value) -> Option<Self> {
        let number = |told: &Value, name: &str| told.get(name).and_then(Value::as_u64);
        let count = |name: &str| number(told, name).and_then(|count| count.try_into().ok());
        let text = |told: &Value, name: &str| Some(told.get(name)?.as_str()?.to_owned());
        let resources = told.get("resources").and_then(Value::as_array);
        let resources = resources
            .into_iter()
            .flatten()
            .map(|told| ResourceProgress {
                key: text(told, "key").unwrap_or_default(),
                name: text(told, "name").unwrap_or_default(),
                hook: text(told, "hook"),
                bytes_done: number(told, "bytes_done").unwrap_or_default(),
                bytes_expected: number(told, "bytes_expected").unwrap_or_default(),
            });
        told.is_object().then(|| Self {
            undoing: told.get("undoing") == Some(&Value::Bool(true)),
            tasks_done: count("tasks_done").unwrap_or_default(),
            tasks_total: count("tasks_total").unwrap_or_default(),
            bytes_done: number(told, "bytes_done").unwrap_or_default(),
            bytes_expected: number(told, "bytes_expected").unwrap_or_default(),
            bytes_per_second: told
                .get("bytes_per_second")
                .and_then(Value::as_f64)
                .unwrap_or_default(),
            resources: resources.collect(),
        })
    }
}

/// How far a run is with one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceProgress {
    /// `type#id`.
    pub key: String,
    /// Name.
    pub name: String,
    /// The hook that runs, if one does.
    pub hook: Option<String>,
    /// Bytes moved.
    pub bytes_done: u64,
    /// Bytes to move, as far as hooks have said.
    pub bytes_expected: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_is_new_else_what_there_is() {
        let read = |told: Value| RunReport::read(Some(&told)).added_bytes();
        let reports = json!({"resources": {
            "Host::Directory#/a": {"bytes": 100, "new_bytes": 7},
            "Simulated::Resource#b": {"bytes": 5},
            "OS::Nova::Server#c": {"bytes": "many"},
        }});
        assert_eq!(read(reports), 12);
        for none in [json!(null), json!({}), json!({"resources": []})] {
            assert_eq!(read(none.clone()), 0, "{none}");
        }
        let much = json!({"resources": {"a": {"bytes": i64::MAX}, "b": {"bytes": 1}}});
        assert_eq!(read(much), i64::MAX);
    }

    #[test]
    fn each_part_is_told_though_another_is_odd() {
        let told = json!({"waiting": "for room", "progress": "some", "warnings": ["w"]});
        let report = RunReport::read(Some(&told.to_string().into()));
        assert_eq!(report.waiting.as_deref(), Some("for room"));
        assert_eq!(
            (report.progress, report.warnings),
            (None, vec!["w".to_owned()])
        );
        let text = json!("deleted by hand");
        assert_eq!(RunReport::read(Some(&text)), RunReport::default());
        assert_eq!(json!(RunReport::default()), json!({}));
    }
}
