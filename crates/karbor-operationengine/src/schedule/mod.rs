//! Schedules: when a trigger fires.
//!
//! A [`Schedule`] is a value made of a trigger's properties: a pattern — an RFC 5545 calendar or a
//! crontab line, as the trigger's own `format` says (Q33) — and the time between `start_time` and
//! `end_time`, both included, in which it holds. It knows no clock and keeps no state: what comes
//! next is a function of the schedule and of the time that is asked for, so any engine can answer
//! it, at any time, and all give the same answer. All times are UTC, to the second.
//!
//! What the patterns mean is left to libraries (`rrule`, `croner`); what stands around them here is
//! what they do not do: refusing what they would answer wrongly (see `recurrence`), and starting near
//! the time that is asked for instead of at the beginning, so that the answer costs the same after
//! ten years as on the first day.
//!
//! Two doors: [`Schedule::parse`] is for what a person asks for and applies the configured limits;
//! [`Schedule::stored`] is for what was accepted before, which goes on even if the limits changed.

mod calendar;
mod crontab;
mod invalid;
mod limits;
mod recurrence;

use std::time::Duration;

use calendar::Calendar;
use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, TimeDelta, Timelike, Utc};
use crontab::Crontab;
use invalid::invalid;
use karbor_model::ApiError;
pub use limits::{LimitsError, ScheduleLimits};
use serde_json::{Map, Value};

/// How a trigger writes its times.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// The longest pattern, in bytes. It goes into error messages whole, and the parser of calendars
/// goes deeper with every component.
const MAX_PATTERN: usize = 8192;

/// How much of a pattern is looked at for times that are too close: this many of them, or this many
/// days (two rules that meet on leap days do so within eight years), whichever ends first.
const CHECKED_TIMES: usize = 5000;
const CHECKED_DAYS: i64 = 8 * 366;

/// When a trigger fires. See the module's text.
#[derive(Debug, Clone)]
pub struct Schedule {
    pattern: Pattern,
    start: DateTime<Utc>,
    end: Option<DateTime<Utc>>,
    window: i64,
}

#[derive(Debug, Clone)]
enum Pattern {
    Calendar(Calendar),
    Crontab(Box<Crontab>),
}

impl Schedule {
    /// The schedule of a trigger's properties: `format` (`calendar` or `crontab`), `pattern`,
    /// `start_time` and, if it ends, `end_time` (`YYYY-MM-DD HH:MM:SS`, UTC), `window` (seconds, a
    /// number or a text).
    ///
    /// # Errors
    /// 400, in the original's words where it had some, if a property is missing or cannot be
    /// understood, if two of the first 5000 times (or of the first eight years, if those have
    /// fewer) are closer than `min_interval`, or if the window is outside its limits. Whether any
    /// time is still to come depends on the clock: see [`first_after`](Self::first_after).
    pub fn parse(
        properties: &Map<String, Value>,
        limits: &ScheduleLimits,
    ) -> Result<Self, ApiError> {
        let schedule = Self::read(properties, limits)?;
        schedule.check_interval(limits)?;
        limits.check_window(schedule.window)?;
        schedule.check_end()?;
        Ok(schedule)
    }

    /// The schedule of a trigger that was accepted before: limits and end are not looked at again,
    /// `limits` gives the window of a trigger that names none.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), if a property is missing or cannot be understood.
    pub fn stored(
        properties: &Map<String, Value>,
        limits: &ScheduleLimits,
    ) -> Result<Self, ApiError> {
        Self::read(properties, limits)
    }

    fn read(properties: &Map<String, Value>, limits: &ScheduleLimits) -> Result<Self, ApiError> {
        let format = properties.get("format").map_or("", text);
        let pattern = properties.get("pattern").map_or("", text);
        if pattern.len() > MAX_PATTERN {
            return Err(invalid(format!(
                "The trigger pattern is too long: it may have {MAX_PATTERN} bytes"
            )));
        }
        // Each looks at its pattern first, then wants the start, as the original did.
        let start = || {
            time(properties, "start_time")?
                .ok_or_else(|| invalid("The trigger's start time is unknown"))
        };
        let (pattern, start) = match format {
            "calendar" => {
                let event = calendar::Event::parse(pattern)?;
                let start = start()?;
                (Pattern::Calendar(event.calendar(pattern, start)?), start)
            }
            "crontab" => {
                let crontab = Crontab::parse(pattern)?;
                (Pattern::Crontab(Box::new(crontab)), start()?)
            }
            _ => {
                let reason = "It must be 'calendar' or 'crontab'.";
                return Err(ApiError::invalid_field("format", format, reason));
            }
        };
        Ok(Self {
            pattern,
            start,
            window: limits.window(properties.get("window"))?,
            end: time(properties, "end_time")?,
        })
    }

    /// The next time strictly after `after`, or none if there is no more. A pattern that has a time
    /// only after the year 5000, or none within a hundred thousand of its periods, has none.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Strictly after the second before is the start itself.
        let after = after
            .trunc_subsecs(0)
            .max(self.start - TimeDelta::seconds(1));
        let next = self.times_after(after).next()?;
        self.end.is_none_or(|end| next <= end).then_some(next)
    }

    /// The next time after `now`, for a trigger that is about to be made or changed.
    ///
    /// # Errors
    /// 400 if there is none: such a trigger can never fire (Q32, Q38).
    pub fn first_after(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
        self.next_after(now).ok_or_else(|| {
            invalid(format!(
                "The trigger can never fire: its pattern has no time between now ({} UTC) and its \
                 end. Check pattern, start_time and end_time",
                now.format(TIME_FORMAT)
            ))
        })
    }

    /// How late an operation may still start.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.window.unsigned_abs())
    }

    /// No two times are closer than `min_interval`, over as much of the pattern as is looked at
    /// (Q35).
    fn check_interval(&self, limits: &ScheduleLimits) -> Result<(), ApiError> {
        let horizon = self.start + TimeDelta::days(CHECKED_DAYS);
        let mut last = None;
        let too_close = self
            .times_after(self.start - TimeDelta::seconds(1))
            .take(CHECKED_TIMES)
            .take_while(|next| *next <= horizon)
            .any(|next| {
                let before: Option<DateTime<Utc>> = last.replace(next);
                before.is_some_and(|before| (next - before).num_seconds() < limits.min_interval)
            });
        if too_close {
            return Err(invalid(format!(
                "The interval of two adjacent time points is less than {}",
                limits.min_interval
            )));
        }
        Ok(())
    }

    /// Every time of the pattern after `after`, in order, whatever start and end say.
    fn times_after(&self, after: DateTime<Utc>) -> Box<dyn Iterator<Item = DateTime<Utc>> + '_> {
        match &self.pattern {
            Pattern::Calendar(calendar) => Box::new(calendar.times_after(after)),
            Pattern::Crontab(crontab) => Box::new(crontab.times_after(after)),
        }
    }

    fn check_end(&self) -> Result<(), ApiError> {
        match self.end {
            Some(end) if end <= self.start => Err(invalid(format!(
                "The trigger's start time({}) is bigger than end time({})",
                self.start.format(TIME_FORMAT),
                end.format(TIME_FORMAT)
            ))),
            _ => Ok(()),
        }
    }
}

/// A property as text; what is neither text nor number is none.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A time of the properties; an empty one counts as none.
fn time(properties: &Map<String, Value>, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let given = match properties.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(given) => text(given),
    };
    NaiveDateTime::parse_from_str(given, TIME_FORMAT)
        .ok()
        // Neither a leap second nor a year that a time after it could leave the calendar from.
        .filter(|time| time.nanosecond() == 0 && (1..=9999).contains(&time.year()))
        .map(|time| Some(time.and_utc()))
        .ok_or_else(|| invalid(format!("The format of trigger {name} is not correct")))
}

#[cfg(test)]
mod tests;
