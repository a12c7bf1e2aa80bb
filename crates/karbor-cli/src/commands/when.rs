//! When something is to happen, in words for people: what becomes the properties of a trigger.

use std::fs;

use clap::Args;
use serde_json::{Map, Value};

use crate::error::CliError;

/// A pattern of times. All times are UTC.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct When {
    /// Every hour
    #[arg(long, group = "pattern", help_heading = "When (UTC)")]
    hourly: bool,
    /// Every day
    #[arg(long, group = "pattern", help_heading = "When (UTC)")]
    daily: bool,
    /// Every week
    #[arg(long, group = "pattern", help_heading = "When (UTC)")]
    weekly: bool,
    /// Every month
    #[arg(long, group = "pattern", help_heading = "When (UTC)")]
    monthly: bool,
    /// At this time of the day (with --hourly only the minutes count) [default: 00:00]
    #[arg(long, value_name = "HH:MM", help_heading = "When (UTC)", value_parser = time_of_day)]
    at: Option<(u32, u32)>,
    /// On this day: mon … sun with --weekly, 1 … 28 with --monthly [default: sun, 1]
    #[arg(long, value_name = "DAY", help_heading = "When (UTC)")]
    on: Option<String>,
    /// A crontab's five fields, e.g. "30 3 * * 1-5"
    #[arg(
        long,
        group = "pattern",
        value_name = "EXPRESSION",
        help_heading = "When (UTC)"
    )]
    cron: Option<String>,
    /// An RFC 5545 calendar with recurrence rules: the text or @file; or a bare rule, e.g.
    /// "FREQ=DAILY;BYHOUR=3"
    #[arg(
        long,
        group = "pattern",
        value_name = "RULE|TEXT|@FILE",
        help_heading = "When (UTC)"
    )]
    calendar: Option<String>,
    /// Not before, e.g. "2030-01-01 00:00:00"
    #[arg(long, value_name = "TIME", help_heading = "When (UTC)")]
    start: Option<String>,
    /// Not after
    #[arg(long, value_name = "TIME", help_heading = "When (UTC)")]
    end: Option<String>,
    /// How late it may still begin, in seconds [default: the service's]
    #[arg(long, value_name = "SECONDS", help_heading = "When (UTC)")]
    window: Option<u32>,
}

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// `HH:MM`
fn time_of_day(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(hour, minute)| {
        let number = |text: &str| {
            (text.len() == 2)
                .then(|| text.parse::<u32>().ok())
                .flatten()
        };
        Some((number(hour)?, number(minute)?))
    });
    numbers
        .filter(|(hour, minute)| *hour < 24 && *minute < 60)
        .ok_or_else(|| "write it like 03:30".to_owned())
}

impl When {
    /// The properties that are asked for, without those that are not.
    pub(super) fn properties(&self) -> Result<Map<String, Value>, CliError> {
        let mut properties = Map::new();
        if let Some((format, pattern)) = self.pattern()? {
            properties.insert("format".to_owned(), format.into());
            properties.insert("pattern".to_owned(), pattern.into());
        } else if self.at.is_some() || self.on.is_some() {
            return Err(CliError::usage("--at and --on need a pattern")
                .hint("give --hourly, --daily, --weekly or --monthly with them"));
        }
        for (name, value) in [("start_time", &self.start), ("end_time", &self.end)] {
            if let Some(value) = value {
                properties.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(window) = self.window {
            properties.insert("window".to_owned(), window.into());
        }
        Ok(properties)
    }

    /// A name for it: `daily`, `cron`, ….
    pub(super) fn word(&self) -> &'static str {
        let words = [
            (self.hourly, "hourly"),
            (self.daily, "daily"),
            (self.weekly, "weekly"),
            (self.monthly, "monthly"),
            (self.cron.is_some(), "cron"),
        ];
        words
            .iter()
            .find(|(given, _)| *given)
            .map_or("calendar", |(_, word)| word)
    }

    fn pattern(&self) -> Result<Option<(&'static str, String)>, CliError> {
        let (hour, minute) = self.at.unwrap_or_default();
        if self.on.is_some() && !(self.weekly || self.monthly) {
            return Err(CliError::usage("--on goes with --weekly or --monthly only"));
        }
        if self.at.is_some() && (self.cron.is_some() || self.calendar.is_some()) {
            return Err(CliError::usage(
                "--at goes with --hourly, --daily, --weekly or --monthly only",
            ));
        }
        Ok(if self.hourly {
            Some(("crontab", format!("{minute} * * * *")))
        } else if self.daily {
            Some(("crontab", format!("{minute} {hour} * * *")))
        } else if self.weekly {
            let day = self.weekday()?;
            Some(("crontab", format!("{minute} {hour} * * {day}")))
        } else if self.monthly {
            let day = self.day_of_month()?;
            Some(("crontab", format!("{minute} {hour} {day} * *")))
        } else if let Some(cron) = &self.cron {
            Some(("crontab", cron.clone()))
        } else {
            let text = self.calendar.as_deref();
            text.map(calendar)
                .transpose()?
                .map(|text| ("calendar", text))
        })
    }

    fn weekday(&self) -> Result<usize, CliError> {
        let wanted = self.on.as_deref().unwrap_or("sun").to_lowercase();
        DAYS.iter()
            .position(|day| wanted.len() >= 3 && wanted.starts_with(day))
            .ok_or_else(|| {
                CliError::usage(format!("--on {wanted}: that is no day of the week"))
                    .hint("write it like mon")
            })
    }

    fn day_of_month(&self) -> Result<u32, CliError> {
        let wanted = self.on.as_deref().unwrap_or("1");
        wanted
            .parse()
            .ok()
            .filter(|day| (1..=28).contains(day))
            .ok_or_else(|| {
                CliError::usage(format!(
                    "--on {wanted}: that is no day that every month has"
                ))
                .hint("give 1 to 28; --cron and --calendar can say more")
            })
    }
}

/// The text of a calendar, around a bare rule if it is one.
fn calendar(text: &str) -> Result<String, CliError> {
    let text = match text.strip_prefix('@') {
        Some(file) => fs::read_to_string(file).map_err(|error| {
            CliError::usage(format!("--calendar: {file} could not be read: {error}"))
        })?,
        None => text.to_owned(),
    };
    let rule = text.trim();
    if rule.starts_with("FREQ=") {
        return Ok(format!(
            "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:{rule}\nEND:VEVENT\nEND:VCALENDAR"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        when: When,
    }

    fn pattern(arguments: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from(["x"].iter().chain(arguments));
        let line = line.map_err(|error| error.to_string())?;
        let properties = line.when.properties().map_err(|error| error.to_string())?;
        Ok(properties.get("pattern").cloned().unwrap_or_default())
    }

    #[test]
    fn words_become_crontabs() {
        for (arguments, crontab) in [
            (&["--hourly"][..], "0 * * * *"),
            (&["--hourly", "--at", "00:20"], "20 * * * *"),
            (&["--daily", "--at", "03:30"], "30 3 * * *"),
            (&["--weekly"], "0 0 * * 0"),
            (&["--weekly", "--on", "Friday"], "0 0 * * 5"),
            (
                &["--monthly", "--on", "28", "--at", "23:59"],
                "59 23 28 * *",
            ),
            (&["--cron", "*/5 * * * *"], "*/5 * * * *"),
        ] {
            assert_eq!(pattern(arguments), Ok(crontab.into()), "{arguments:?}");
        }
    }

    #[test]
    fn a_bare_rule_becomes_a_calendar() {
        let calendar = pattern(&["--calendar", "FREQ=DAILY;BYHOUR=3"]).unwrap();
        assert_eq!(
            calendar,
            "BEGIN:VCALENDAR\nBEGIN:VEVENT\nRRULE:FREQ=DAILY;BYHOUR=3\nEND:VEVENT\nEND:VCALENDAR"
        );
        assert_eq!(pattern(&["--calendar", "BEGIN:X"]), Ok("BEGIN:X".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [
            &["--daily", "--weekly"][..],
            &["--daily", "--at", "24:00"],
            &["--daily", "--at", "3:30"],
            &["--daily", "--on", "mon"],
            &["--weekly", "--on", "sunn", "--cron", "x"],
            &["--weekly", "--on", "12"],
            &["--monthly", "--on", "31"],
            &["--cron", "0 0 * * *", "--at", "03:00"],
            &["--at", "03:00"],
            &["--calendar", "@/nonexistent"],
        ] {
            assert!(pattern(arguments).is_err(), "{arguments:?}");
        }
    }
}
