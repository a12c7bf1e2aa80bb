//! Patterns made at random; the same ones in every run.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::Case;

/// Calendars of one rule.
pub(super) fn calendars(count: usize) -> Vec<Case> {
    let rule = (freq(), proptest::collection::vec(part(), 0..4));
    let rule = rule.prop_map(|(freq, parts)| {
        let mut names = std::collections::BTreeSet::new();
        let once = parts.into_iter().filter(|(name, _)| names.insert(*name));
        let parts: Vec<_> = once
            .map(|(name, value)| format!(";{name}={value}"))
            .collect();
        Case::new("calendar", format!("RRULE:FREQ={freq}{}", parts.concat()))
    });
    drawn(rule, count)
}

/// Crontab lines of five or six fields.
pub(super) fn crontabs(count: usize) -> Vec<Case> {
    // Whether a day that is written */n restricts anything depends, in croniter, on the other day.
    let day = |min, max| field(min, max).prop_filter("a day", |field| !field.starts_with("*/"));
    let line = (
        field(0, 59),
        field(0, 23),
        day(1, 31),
        field(1, 12),
        day(0, 6),
        proptest::option::weighted(0.2, field(0, 59)),
    );
    let line = line.prop_map(|(minute, hour, day, month, weekday, second)| {
        let second = second
            .map(|second| format!(" {second}"))
            .unwrap_or_default();
        Case::new(
            "crontab",
            format!("{minute} {hour} {day} {month} {weekday}{second}"),
        )
    });
    drawn(line, count)
}

fn drawn(strategy: impl Strategy<Value = Case>, count: usize) -> Vec<Case> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(Config::default().rng_algorithm),
    );
    let tree = std::iter::repeat_with(|| strategy.new_tree(&mut runner).unwrap().current());
    tree.take(count).collect()
}

fn freq() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY",
    ])
}

fn part() -> impl Strategy<Value = (&'static str, String)> {
    let days = || prop::sample::select(vec!["MO", "TU", "WE", "TH", "FR", "SA", "SU"]);
    prop_oneof![
        3 => prop::sample::select(vec![1, 2, 3, 4, 5, 6, 7, 10, 15, 20, 30, 40, 45, 60, 90, 120, 180, 1440])
            .prop_map(|interval: u16| ("INTERVAL", interval.to_string())),
        1 => (1..30_u32).prop_map(|count| ("COUNT", count.to_string())),
        1 => (2030..2034_u32).prop_map(|year| ("UNTIL", format!("{year}0615T120000Z"))),
        2 => numbers(1..=12).prop_map(|months| ("BYMONTH", months)),
        1 => numbers(1..=31).prop_map(|days| ("BYMONTHDAY", days)),
        1 => numbers(-31..=-1).prop_map(|days| ("BYMONTHDAY", days)),
        1 => numbers(-366..=-1).prop_map(|days| ("BYYEARDAY", days)),
        1 => numbers(1..=366).prop_map(|days| ("BYYEARDAY", days)),
        1 => numbers(1..=53).prop_map(|weeks| ("BYWEEKNO", weeks)),
        2 => proptest::collection::vec(days(), 1..4).prop_map(|days| ("BYDAY", days.join(","))),
        1 => (prop::sample::select(vec![-2, -1, 1, 2, 5]), days())
            .prop_map(|(n, day): (i32, _)| ("BYDAY", format!("{n}{day}"))),
        2 => numbers(0..=23).prop_map(|hours| ("BYHOUR", hours)),
        2 => numbers(0..=59).prop_map(|minutes| ("BYMINUTE", minutes)),
        1 => numbers(0..=59).prop_map(|seconds| ("BYSECOND", seconds)),
        1 => prop::sample::select(vec![-2, -1, 1, 2, 3]).prop_map(|n: i32| ("BYSETPOS", n.to_string())),
        1 => days().prop_map(|day| ("WKST", day.to_owned())),
    ]
}

fn numbers(range: std::ops::RangeInclusive<i32>) -> impl Strategy<Value = String> {
    proptest::collection::vec(range, 1..4).prop_map(|numbers| {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        numbers.join(",")
    })
}

fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    let range = (min..=max, min..=max).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let part = prop_oneof![
        (min..=max).prop_map(|value| value.to_string()),
        range
            .clone()
            .prop_filter("a range", |(a, b)| a < b)
            .prop_map(|(a, b)| format!("{a}-{b}")),
        (range.prop_filter("a range", |(a, b)| a < b), 1..10_u32)
            .prop_map(|((a, b), step)| format!("{a}-{b}/{step}")),
        (min..max, 1..30_u32).prop_map(|(value, step)| format!("{value}/{step}")),
    ];
    prop_oneof![
        4 => Just("*".to_owned()),
        1 => (1..30_u32).prop_map(|step| format!("*/{step}")),
        3 => proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join(",")),
    ]
}
