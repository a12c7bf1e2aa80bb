//! The lines of a flow's journal.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::UnknownState;

/// What happened to a task of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It is about to run.
    Started,
    /// It ran to its end.
    Finished {
        /// What the hook had to tell.
        report: Map<String, Value>,
    },
    /// It did not run to its end.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Was it stopped, because the flow is?
        cancelled: bool,
    },
    /// What the resource's hooks did was undone.
    Undone,
}

impl EventKind {
    /// A task, or a flow, that was stopped.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::Failed {
            reason: "cancelled".to_owned(),
            cancelled: true,
        }
    }

    /// A task that failed.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            cancelled: false,
        }
    }

    /// Its name, as a journal stores it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Undone => "undone",
        }
    }

    /// What a journal stores beside the name: `{"report": {..}}`, or `{"reason": "..", "cancelled": true}`.
    #[must_use]
    pub fn detail(&self) -> Option<Value> {
        match self {
            Self::Finished { report } if !report.is_empty() => Some(json!({ "report": report })),
            Self::Failed {
                reason,
                cancelled: true,
            } => Some(json!({"reason": reason, "cancelled": true})),
            Self::Failed { reason, .. } => Some(json!({ "reason": reason })),
            _ => None,
        }
    }

    /// Reads what a journal stores.
    ///
    /// # Errors
    /// [`UnknownState`] for a name that no event has.
    pub fn read(name: &str, detail: Option<Value>) -> Result<Self, UnknownState> {
        let mut detail = detail.unwrap_or_default();
        match name {
            "started" => Ok(Self::Started),
            "finished" => Ok(Self::Finished {
                report: match detail.get_mut("report").map(Value::take) {
                    Some(Value::Object(report)) => report,
                    _ => Map::new(),
                },
            }),
            "failed" => Ok(Self::Failed {
                cancelled: detail.get("cancelled") == Some(&Value::Bool(true)),
                reason: match detail.get_mut("reason").map(Value::take) {
                    Some(Value::String(reason)) => reason,
                    _ => "the journal does not say why".to_owned(),
                },
            }),
            "undone" => Ok(Self::Undone),
            _ => Err(UnknownState {
                what: "flow event",
                value: name.to_owned(),
            }),
        }
    }
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Its number: 1, 2, 3, … without gaps in one flow.
    pub seq: u64,
    /// `<hook>:<type>#<id>`, `undo:<type>#<id>`, or `flow` for the cancel of the whole.
    pub task: String,
    /// What happened.
    pub kind: EventKind,
    /// When, UTC.
    pub at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back() {
        let report = Map::from_iter([("bytes".to_owned(), json!(7))]);
        for kind in [
            EventKind::Started,
            EventKind::Finished { report },
            EventKind::Finished { report: Map::new() },
            EventKind::failed("no room"),
            EventKind::cancelled(),
            EventKind::Undone,
        ] {
            let read = EventKind::read(kind.name(), kind.detail());
            assert_eq!(read.as_ref(), Ok(&kind));
        }
        assert!(EventKind::read("paused", None).is_err());
    }

    #[test]
    fn an_event_without_its_detail_is_one_all_the_same() {
        let finished = EventKind::read("finished", None).unwrap();
        assert_eq!(finished, EventKind::Finished { report: Map::new() });
        let odd = Some(json!({"reason": 5, "cancelled": "yes"}));
        let failed = EventKind::read("failed", odd).unwrap();
        assert_eq!(failed, EventKind::failed("the journal does not say why"));
        assert!(EventKind::read("failed", Some(json!([1]))).is_ok());
    }
}
