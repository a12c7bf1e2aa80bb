//! Crontab lines, as croniter (the original's library) reads them: minute, hour, day of the month,
//! month, day of the week and, if there is a sixth field, second. If both days are restricted,
//! either is enough.

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use karbor_model::ApiError;

use super::invalid::invalid;

const MONTHS: &[&str] = &[
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A field: its highest value, the names that may stand for values, the letters with a meaning.
const FIELDS: [(u8, &[&str], &[char]); 6] = [
    (59, &[], &[]),
    (23, &[], &[]),
    (31, &[], &['L', 'W']),
    (12, MONTHS, &[]),
    (6, DAYS, &['L']),
    (59, &[], &[]),
];

const NICKNAMES: &[(&str, &str)] = &[
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@WEEKLY", "0 0 * * 0"),
    ("@DAILY", "0 0 * * *"),
    ("@MIDNIGHT", "0 0 * * *"),
    ("@HOURLY", "0 * * * *"),
];

/// The times of a crontab line.
#[derive(Debug, Clone)]
pub(super) struct Crontab {
    cron: Cron,
}

impl Crontab {
    pub(super) fn parse(pattern: &str) -> Result<Self, ApiError> {
        if pattern.is_empty() {
            return Err(invalid("The trigger pattern is None"));
        }
        let wrong = || invalid(format!("The trigger pattern({pattern}) is invalid"));
        let line = pattern.trim().to_uppercase();
        let line = NICKNAMES
            .iter()
            .find(|(name, _)| *name == line)
            .map_or(line.as_str(), |(_, line)| line);
        let fields: Vec<_> = line.split_whitespace().collect();
        if !matches!(fields.len(), 5 | 6) {
            return Err(wrong());
        }
        let mut fields = fields
            .iter()
            .zip(FIELDS)
            .map(|(field, (max, names, letters))| normal(field, max, names, letters))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?;
        let mut seconds = Seconds::Disallowed;
        if fields.len() == 6 {
            // The library wants them first.
            fields.rotate_right(1);
            seconds = Seconds::Required;
        }
        let parser = CronParser::builder()
            .seconds(seconds)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(&fields.join(" ")).map_err(|_| wrong())?;
        Ok(Self { cron })
    }

    /// The times strictly after `after`, in order.
    pub(super) fn times_after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let next = |after: &DateTime<Utc>| self.cron.find_next_occurrence(after, false).ok();
        std::iter::successors(next(&after), next)
    }
}

/// A field as the library reads it; none if it is not one. A start with a step goes up to the
/// field's highest value.
fn normal(field: &str, max: u8, names: &[&str], letters: &[char]) -> Option<String> {
    let parts = field.split(',').map(|part| {
        let words = part.split(['-', '/', '#']);
        let known = |word: &str| {
            let digits = word.trim_matches(letters);
            names.contains(&digits)
                || word == "*"
                || (!word.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
        };
        if !words.clone().all(known) {
            return None;
        }
        Some(match part.split_once('/') {
            Some((start, step)) if start != "*" && !start.contains('-') => {
                format!("{start}-{max}/{step}")
            }
            // The last Friday is L5 to croniter and 5L to the library.
            _ => match part.strip_prefix('L') {
                Some(day) if !day.is_empty() && names == DAYS => format!("{day}L"),
                _ => part.to_owned(),
            },
        })
    });
    Some(parts.collect::<Option<Vec<_>>>()?.join(","))
}
