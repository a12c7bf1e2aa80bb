//! One RRULE.
//!
//! The library counts from the anchor, one period after the other. A rule is therefore counted from
//! the last period before the time that is asked for ([`Recurrence::near`]), which gives the same
//! times because everything a rule takes from its anchor (time of day, weekday, day of the month)
//! was written into it first. `COUNT` is turned into `UNTIL` once, when the rule is read.
//!
//! What the library answers wrongly is either written in another way that means the same, or
//! refused: `INTERVAL=0`; a numbered `BYDAY` in a period that has no numbered weekdays (RFC 5545
//! forbids it, the library drops the whole `BYDAY`); and a rule within the day whose steps do not fit the hour or the minute
//! and that also names hours, minutes or seconds (it loses the phase when it leaps over what is not
//! named).

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Timelike, Utc};
use rrule::{Frequency, NWeekday, RRule, RRuleSet, Tz, Unvalidated};

use super::calendar::moment;

/// The highest COUNT: they are counted through when the rule is read.
const MAX_COUNT: usize = 100_000;

/// The times of one RRULE.
#[derive(Debug, Clone)]
pub(super) struct Recurrence {
    rule: RRule,
    anchor: DateTime<Utc>,
}

impl Recurrence {
    /// Reads a rule's value (`FREQ=DAILY;…`), counted from `anchor`. None if it has no times at
    /// all.
    pub(super) fn parse(text: &str, anchor: DateTime<Utc>) -> Result<Option<Self>, String> {
        let mut parts = Vec::new();
        let mut count = None;
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}' is not NAME=VALUE"))?;
            let (name, value) = (name.trim(), value.trim());
            match name {
                "COUNT" => count = Some(self::count(value)?),
                "UNTIL" => {
                    let until = moment(value)?;
                    if until < anchor {
                        return Ok(None);
                    }
                    parts.push(format!("UNTIL={}", until.format("%Y%m%dT%H%M%SZ")));
                }
                _ => parts.push(format!("{name}={value}")),
            }
        }
        let rule: RRule<Unvalidated> = parts.join(";").parse().map_err(in_words)?;
        if rule.get_interval() == 0 {
            return Err("INTERVAL must be at least 1".to_owned());
        }
        let numbered = |day: &NWeekday| matches!(day, NWeekday::Nth(..));
        if rule.get_freq() > Frequency::Monthly && rule.get_by_weekday().iter().any(numbered) {
            return Err("BYDAY with a number is only for FREQ=MONTHLY and FREQ=YEARLY".to_owned());
        }
        let Some(rule) = within_the_day(rule, anchor)? else {
            return Ok(None);
        };
        let endless = Self::anchored(rule.clone(), anchor)?;
        let Some(count) = count else {
            return Ok(Some(endless));
        };
        let before = anchor - TimeDelta::seconds(1);
        match endless.times_after(before).take(count).last() {
            Some(last) => Self::anchored(rule.until(in_utc(last)), anchor).map(Some),
            None => Ok(None),
        }
    }

    fn anchored(rule: RRule<Unvalidated>, anchor: DateTime<Utc>) -> Result<Self, String> {
        let rule = rule.validate(in_utc(anchor)).map_err(in_words)?;
        Ok(Self { rule, anchor })
    }

    /// Its times strictly after `after`, in order.
    pub(super) fn times_after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let rules = RRuleSet::new(in_utc(self.near(after)))
            .limit()
            .rrule(self.rule.clone());
        (&rules)
            .into_iter()
            .map(|time| time.with_timezone(&Utc))
            .skip_while(move |time| *time <= after)
    }

    /// The begin of the period of the rule that `after` lies in, or its anchor if that comes later.
    fn near(&self, after: DateTime<Utc>) -> DateTime<Utc> {
        let interval = i64::from(self.rule.get_interval());
        let anchor = self.anchor;
        let near = match self.rule.get_freq() {
            Frequency::Yearly => {
                let years = i64::from(after.year() - anchor.year()).div_euclid(interval) * interval;
                first_of(i64::from(anchor.year()) + years, 1)
            }
            Frequency::Monthly => {
                let of =
                    |time: DateTime<Utc>| i64::from(time.year()) * 12 + i64::from(time.month0());
                let month = of(anchor) + (of(after) - of(anchor)).div_euclid(interval) * interval;
                first_of(month.div_euclid(12), month.rem_euclid(12) + 1)
            }
            Frequency::Weekly => {
                let first = anchor.date_naive().week(self.rule.get_week_start());
                step(
                    first.checked_first_day().map(midnight),
                    after,
                    interval * 7 * 86_400,
                )
            }
            Frequency::Daily => step(
                Some(midnight(anchor.date_naive())),
                after,
                interval * 86_400,
            ),
            Frequency::Hourly => step(
                anchor.with_minute(0).and_then(|time| time.with_second(0)),
                after,
                interval * 3600,
            ),
            Frequency::Minutely => step(anchor.with_second(0), after, interval * 60),
            Frequency::Secondly => step(Some(anchor), after, interval),
        };
        near.map_or(anchor, |near| near.max(anchor))
    }
}

/// Writes a rule within the day so that the library counts it rightly.
///
/// A step that divides the hour's or the minute's sixty parts meets the same parts of each, so it is
/// a step of one with those parts named; a step of whole minutes or hours is a step of the larger
/// unit with the anchor's part named. None if that leaves no part.
fn within_the_day(
    rule: RRule<Unvalidated>,
    anchor: DateTime<Utc>,
) -> Result<Option<RRule<Unvalidated>>, String> {
    let rule = match rule.get_freq() {
        Frequency::Secondly if names_time(&rule) => {
            let step = Step::of(&rule, anchor.second())?;
            let seconds = step.parts(rule.get_by_second());
            let rule = rule.freq(Frequency::Minutely).interval(step.larger);
            if seconds.is_empty() {
                return Ok(None);
            }
            rule.by_second(seconds)
        }
        _ => rule,
    };
    let limited = !rule.get_by_hour().is_empty() || !rule.get_by_minute().is_empty();
    if rule.get_freq() != Frequency::Minutely || !limited {
        return Ok(Some(rule));
    }
    let step = Step::of(&rule, anchor.minute())?;
    let minutes = step.parts(rule.get_by_minute());
    if minutes.is_empty() {
        return Ok(None);
    }
    let rule = rule.freq(Frequency::Hourly).interval(step.larger);
    Ok(Some(rule.by_minute(minutes)))
}

/// Does a rule within the day name hours, minutes or seconds beside its step?
fn names_time(rule: &RRule<Unvalidated>) -> bool {
    let named = [
        rule.get_by_hour(),
        rule.get_by_minute(),
        rule.get_by_second(),
    ];
    named.iter().any(|named| !named.is_empty())
}

/// The steps of a rule, seen from the next larger unit.
struct Step {
    /// The step in the larger unit.
    larger: u16,
    /// The step within it; 60 if there is one time only.
    smaller: u32,
    /// The first part that is met.
    first: u32,
}

impl Step {
    fn of(rule: &RRule<Unvalidated>, anchor: u32) -> Result<Self, String> {
        let interval = rule.get_interval();
        if rule.get_by_set_pos().is_empty() && interval.is_multiple_of(60) {
            Ok(Self {
                larger: interval / 60,
                smaller: 60,
                first: anchor,
            })
        } else if rule.get_by_set_pos().is_empty() && 60_u16.is_multiple_of(interval) {
            Ok(Self {
                larger: 1,
                smaller: interval.into(),
                first: anchor % u32::from(interval),
            })
        } else {
            let freq = rule.get_freq();
            Err(format!(
                "FREQ={freq} with INTERVAL={interval} and BYHOUR, BYMINUTE or BYSECOND is \
                 not supported unless the interval divides 60 or is a multiple of it and there \
                 is no BYSETPOS: write it as FREQ=DAILY with BYHOUR, BYMINUTE and BYSECOND"
            ))
        }
    }

    /// The parts of the larger unit that are met and, if any are named, named.
    fn parts(&self, named: &[u8]) -> Vec<u8> {
        let met = (0..60_u8).filter(|part| {
            let part = u32::from(*part);
            part >= self.first && (part - self.first).is_multiple_of(self.smaller)
        });
        met.filter(|part| named.is_empty() || named.contains(part))
            .collect()
    }
}

/// `base` and as many steps as there are before `after`.
fn step(base: Option<DateTime<Utc>>, after: DateTime<Utc>, seconds: i64) -> Option<DateTime<Utc>> {
    let base = base?;
    let steps = (after - base).num_seconds().div_euclid(seconds);
    base.checked_add_signed(TimeDelta::try_seconds(steps.checked_mul(seconds)?)?)
}

/// The first day of a month, at midnight.
fn first_of(year: i64, month: i64) -> Option<DateTime<Utc>> {
    let (year, month) = (i32::try_from(year).ok()?, u32::try_from(month).ok()?);
    NaiveDate::from_ymd_opt(year, month, 1).map(midnight)
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

fn in_utc(time: DateTime<Utc>) -> DateTime<Tz> {
    time.with_timezone(&Tz::UTC)
}

fn count(value: &str) -> Result<usize, String> {
    let count = value.parse().ok().filter(|count| *count <= MAX_COUNT);
    count.ok_or_else(|| format!("COUNT={value} is not a number from 0 to {MAX_COUNT}"))
}

fn in_words(error: rrule::RRuleError) -> String {
    error.to_string()
}
