//! RFC 5545 calendars: the first VEVENT's RRULEs together, with its RDATEs and without its EXDATEs.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use icalendar::parser::{Component, Property, read_components, unfold};
use karbor_model::ApiError;

use super::{invalid::invalid, recurrence::Recurrence};

/// How deep components may stand in each other: the parser recurses.
const MAX_COMPONENTS: usize = 32;

/// The times of a calendar.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    rules: Vec<Recurrence>,
    added: BTreeSet<DateTime<Utc>>,
    excluded: BTreeSet<DateTime<Utc>>,
}

/// What a pattern says, before it is known when it starts.
pub(super) struct Event {
    rules: Vec<String>,
    start: Option<DateTime<Utc>>,
    added: BTreeSet<DateTime<Utc>>,
    excluded: BTreeSet<DateTime<Utc>>,
}

impl Event {
    /// Reads the first VEVENT of `pattern`.
    pub(super) fn parse(pattern: &str) -> Result<Self, ApiError> {
        let wrong = || invalid(format!("The trigger pattern({pattern}) is invalid"));
        // Names and values may be written small, and none of those that matter means anything else
        // then.
        let text = unfold(&unescaped(pattern).trim().to_uppercase());
        if text.matches("BEGIN:").count() > MAX_COMPONENTS {
            return Err(wrong());
        }
        let components = read_components(&text).map_err(|_| wrong())?;
        let event = components.iter().find_map(first_event).ok_or_else(|| {
            invalid(format!(
                "The trigger pattern({pattern}) must include less than one VEVENT component"
            ))
        })?;
        Self::read(event, pattern)
    }

    fn read(event: &Component<'_>, pattern: &str) -> Result<Self, ApiError> {
        let mut read = Self {
            rules: Vec::new(),
            start: None,
            added: BTreeSet::new(),
            excluded: BTreeSet::new(),
        };
        for property in &event.properties {
            let value = property.val.as_str();
            match property.name.as_str() {
                "RRULE" => read.rules.push(value.to_owned()),
                "DTSTART" => {
                    let times = moments(property).map_err(|why| because(pattern, &why))?;
                    read.start = times.into_iter().next();
                }
                "RDATE" => read
                    .added
                    .extend(moments(property).map_err(|why| because(pattern, &why))?),
                "EXDATE" => read
                    .excluded
                    .extend(moments(property).map_err(|why| because(pattern, &why))?),
                "EXRULE" => {
                    return Err(because(
                        pattern,
                        "EXRULE is not supported: name the times in EXDATE",
                    ));
                }
                _ => {}
            }
        }
        if read.rules.is_empty() {
            return Err(invalid(format!(
                "The first VEVENT component of trigger pattern({pattern}) must include less than \
                 one RRULE property"
            )));
        }
        Ok(read)
    }

    /// Its times, counted from its own DTSTART or else from the trigger's `start`.
    pub(super) fn calendar(
        self,
        pattern: &str,
        start: DateTime<Utc>,
    ) -> Result<Calendar, ApiError> {
        let anchor = self.start.unwrap_or(start);
        let rules = self
            .rules
            .iter()
            .filter_map(|rule| Recurrence::parse(rule, anchor).transpose());
        Ok(Calendar {
            rules: rules
                .collect::<Result<_, _>>()
                .map_err(|why| because(pattern, &why))?,
            added: self.added,
            excluded: self.excluded,
        })
    }
}

impl Calendar {
    /// The times strictly after `after`, in order, each once.
    pub(super) fn times_after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let mut rules: Vec<_> = self
            .rules
            .iter()
            .map(|rule| rule.times_after(after).peekable())
            .collect();
        let mut added = self
            .added
            .iter()
            .copied()
            .filter(move |time| *time > after)
            .peekable();
        std::iter::from_fn(move || {
            let next = rules.iter_mut().filter_map(|rule| rule.peek().copied());
            let next = next.chain(added.peek().copied()).min()?;
            for rule in &mut rules {
                while rule.next_if_eq(&next).is_some() {}
            }
            added.next_if_eq(&next);
            Some(next)
        })
        .filter(|time| !self.excluded.contains(time))
    }
}

fn first_event<'a>(component: &'a Component<'a>) -> Option<&'a Component<'a>> {
    if component.name == "VEVENT" {
        return Some(component);
    }
    component.components.iter().find_map(first_event)
}

/// Shells and the original's client hand over `\n` as two characters: such patterns are read as the
/// text of a JSON string.
fn unescaped(pattern: &str) -> String {
    if !pattern.contains('\\') {
        return pattern.to_owned();
    }
    serde_json::from_str(&format!("\"{pattern}\"")).unwrap_or_else(|_| pattern.to_owned())
}

fn because(pattern: &str, why: &str) -> ApiError {
    invalid(format!("The trigger pattern({pattern}) is invalid: {why}"))
}

/// The times that a property names.
fn moments(property: &Property<'_>) -> Result<Vec<DateTime<Utc>>, String> {
    let name = property.name.as_str();
    for parameter in &property.params {
        let value = parameter.val.as_ref().map_or("", |value| value.as_str());
        let known = match parameter.key.as_str() {
            "TZID" => ["UTC", "ETC/UTC", "GMT"].contains(&value),
            "VALUE" => ["DATE", "DATE-TIME"].contains(&value),
            _ => true,
        };
        if !known {
            let key = parameter.key.as_str();
            return Err(format!(
                "{name} with {key}={value} is not supported: give times in UTC"
            ));
        }
    }
    property.val.as_str().split(',').map(moment).collect()
}

/// A DATE or DATE-TIME; one without a zone is in UTC, as all times of triggers are.
pub(super) fn moment(value: &str) -> Result<DateTime<Utc>, String> {
    let value = value.trim();
    let local = value.strip_suffix('Z').unwrap_or(value);
    let time = if local.len() == 8 {
        NaiveDate::parse_from_str(local, "%Y%m%d").map(|day| day.and_time(NaiveTime::MIN))
    } else {
        NaiveDateTime::parse_from_str(local, "%Y%m%dT%H%M%S")
    };
    time.map(|time| time.and_utc())
        .map_err(|_| format!("'{value}' is not a time such as 20300101T000000Z"))
}
