//! Schedules, compared with what python-dateutil and croniter answer: a table of tricky cases that
//! is checked in with their answers, and rules made at random that are asked anew.

mod random;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use karbor_operationengine::{Schedule, ScheduleLimits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("cases.json");
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

const LIMITS: ScheduleLimits = ScheduleLimits {
    min_interval: 60,
    min_window: 20,
    max_window: 30,
};

/// As `oracle.py` reads and writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Case {
    format: String,
    pattern: Vec<String>,
    start: String,
    #[serde(default)]
    times: Option<Vec<String>>,
}

impl Case {
    fn new(format: &str, pattern: String) -> Self {
        Self {
            format: format.to_owned(),
            pattern: vec![pattern],
            start: "2030-01-02 10:40:05".to_owned(),
            times: None,
        }
    }

    fn properties(&self) -> Map<String, Value> {
        let lines = self.pattern.join("\n");
        let pattern = match self.format.as_str() {
            "calendar" => {
                format!("BEGIN:VCALENDAR\nBEGIN:VEVENT\n{lines}\nEND:VEVENT\nEND:VCALENDAR")
            }
            _ => lines,
        };
        let properties = [
            ("format", json!(self.format)),
            ("pattern", json!(pattern)),
            ("start_time", json!(self.start)),
        ];
        let named = properties.into_iter();
        named
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn schedule(&self) -> Option<Schedule> {
        Schedule::stored(&self.properties(), &LIMITS).ok()
    }

    fn begin(&self) -> DateTime<Utc> {
        let start = NaiveDateTime::parse_from_str(&self.start, TIME_FORMAT).unwrap();
        start.and_utc() - TimeDelta::seconds(1)
    }
}

/// The first times of a schedule, as many as `count`.
fn times(schedule: &Schedule, begin: DateTime<Utc>, count: usize) -> Vec<String> {
    let next = |after: &DateTime<Utc>| schedule.next_after(*after);
    std::iter::successors(next(&begin), next)
        .take(count)
        .map(|time| time.format(TIME_FORMAT).to_string())
        .collect()
}

/// The libraries' answers.
fn told(python: &PathBuf, cases: &[Case]) -> Vec<Case> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schedules/oracle.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = serde_json::to_vec(cases).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&asked).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_table_holds() {
    let cases: Vec<Case> = serde_json::from_str(TABLE).unwrap();
    assert!(cases.len() > 100);
    let mut wrong = Vec::new();
    for case in cases {
        let expected = case.times.clone().unwrap();
        let ours = case
            .schedule()
            .map(|schedule| times(&schedule, case.begin(), expected.len().max(1)));
        if ours.as_ref() != Some(&expected) {
            wrong.push(format!(
                "{:?}\n  ours {ours:?}\n  told {expected:?}",
                case.pattern
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_what_the_libraries_say() {
    let Some(python) = karbor_testkit::python("schedules") else {
        return;
    };
    let cases: Vec<Case> = serde_json::from_str(TABLE).unwrap();
    assert_eq!(told(&python, &cases), cases);
}

/// What we answer, the library answers too; what we refuse is refused loudly, which is why that is
/// not looked at here.
#[test]
fn random_patterns_are_answered_alike() {
    let Some(python) = karbor_testkit::python("schedules") else {
        return;
    };
    let mut cases = random::calendars(200);
    cases.extend(random::crontabs(150));
    let mut compared = 0;
    let mut wrong = Vec::new();
    for case in told(&python, &cases) {
        let (Some(expected), Some(schedule)) = (&case.times, case.schedule()) else {
            continue;
        };
        // Beyond, we have stopped looking.
        let near = |time: &&String| time.as_str() < "2200";
        let expected: Vec<_> = expected.iter().take_while(near).collect();
        let ours = times(&schedule, case.begin(), expected.len().max(1));
        let ours: Vec<_> = ours.iter().take_while(near).collect();
        compared += 1;
        if ours != expected {
            wrong.push(format!(
                "{:?}\n  ours {ours:?}\n  told {expected:?}",
                case.pattern
            ));
        }
    }
    assert!(compared > cases.len() / 3, "only {compared} were compared");
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
