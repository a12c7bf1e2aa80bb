//! How a flow ended.

use std::{collections::BTreeMap, fmt};

use karbor_model::Resource;
use karbor_plugin::HookReport;
use serde::Serialize;
use serde_json::Value;

use crate::planner::Hook;

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowStatus {
    /// Every hook of every resource ran to its end.
    Success,
    /// A hook failed; everything that was started was undone, as far as that worked.
    Failed,
    /// It was cancelled; everything that was started was undone, as far as that worked.
    Cancelled,
    /// It could not go on, and **nothing was undone**: the journal cannot be written, or is not of
    /// this flow. It has not ended; run it again with what the journal holds.
    Interrupted,
}

/// A hook that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowFailure {
    /// The place of the resource.
    pub node: usize,
    /// `type#id` of the resource.
    pub resource: String,
    /// The resource's name.
    pub name: String,
    /// The hook; [`Hook::Undo`] if it was the undo that failed.
    pub hook: Hook,
    /// Why, for a person.
    pub reason: String,
}

impl fmt::Display for FlowFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = self.resource.split_once('#').unwrap_or_default();
        let resource = Resource::new(kind, id, &*self.name);
        write!(f, "{}: ", resource.in_words())?;
        if self.hook == Hook::Undo {
            write!(f, "what was begun could not be undone: ")?;
        }
        write!(f, "{}", self.reason)
    }
}

/// The result of a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowOutcome {
    /// How it ended.
    pub status: FlowStatus,
    /// Every hook that failed, in the order in which they did, with those of earlier runs. Hooks
    /// that only stopped because the flow was stopping are not here.
    pub failures: Vec<FlowFailure>,
    /// What the hooks had to tell, merged per resource, by `type#id`; none for those with nothing.
    pub reports: BTreeMap<String, HookReport>,
    /// Why the flow was interrupted, if it was.
    pub interrupted: Option<String>,
}

impl FlowOutcome {
    /// The outcome of a flow that could not even begin to go on.
    pub(crate) fn interrupted(reason: String) -> Self {
        Self {
            status: FlowStatus::Interrupted,
            failures: Vec::new(),
            reports: BTreeMap::new(),
            interrupted: Some(reason),
        }
    }

    /// Every failing resource with its reason, one a line; nothing after a success.
    #[must_use]
    pub fn error_info(&self) -> Option<String> {
        // Only a failure begins a line at its beginning, whatever names a reason holds.
        let line = |failure: &FlowFailure| failure.to_string().replace('\n', "\n    ");
        let mut lines: Vec<String> = self.failures.iter().map(line).collect();
        match self.status {
            FlowStatus::Cancelled => lines.insert(0, "cancelled".to_owned()),
            FlowStatus::Interrupted => lines.extend(self.interrupted.clone()),
            FlowStatus::Success | FlowStatus::Failed => {}
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Adds the report of a later hook to that of a resource: numbers are counts and are summed,
/// lists are joined, of anything else the later one stays.
pub(crate) fn merge(into: &mut HookReport, report: HookReport) {
    for (key, value) in report {
        match (into.get_mut(&key), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::Number(count)), Value::Number(more))
                if count.is_u64() && more.is_u64() =>
            {
                let sum = count
                    .as_u64()
                    .unwrap_or_default()
                    .saturating_add(more.as_u64().unwrap_or_default());
                *count = sum.into();
            }
            (Some(held), value) => *held = value,
            (None, value) => {
                into.insert(key, value);
            }
        }
    }
}
