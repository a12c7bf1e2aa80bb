use chrono::TimeZone;
use karbor_model::ErrorKind;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const LIMITS: ScheduleLimits = ScheduleLimits {
    min_interval: 60,
    min_window: 20,
    max_window: 30,
};

fn ical(rules: &str) -> String {
    format!("BEGIN:VCALENDAR\nBEGIN:VEVENT\n{rules}\nEND:VEVENT\nEND:VCALENDAR")
}

fn properties(format: &str, pattern: &str) -> Map<String, Value> {
    let Value::Object(properties) = json!({
        "format": format, "pattern": pattern, "start_time": "2030-01-01 00:00:00",
    }) else {
        unreachable!()
    };
    properties
}

fn calendar(rule: &str) -> Map<String, Value> {
    properties("calendar", &ical(&format!("RRULE:{rule}")))
}

fn with(mut properties: Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
    properties.insert(name.to_owned(), value);
    properties
}

fn refused(properties: &Map<String, Value>) -> String {
    let error = Schedule::parse(properties, &LIMITS).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest);
    error.message
}

fn at(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, TIME_FORMAT)
        .unwrap()
        .and_utc()
}

fn times(properties: &Map<String, Value>, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(properties, &LIMITS).unwrap();
    let mut after = at("2000-01-01 00:00:00");
    let next = || {
        after = schedule.next_after(after)?;
        Some(after.format("%F %T").to_string())
    };
    std::iter::from_fn(next).take(count).collect()
}

#[test]
fn the_originals_words() {
    let eventless = "BEGIN:VCALENDAR\nEND:VCALENDAR";
    let ruleless = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VEVENT\nEND:VCALENDAR";
    let daily = || calendar("FREQ=DAILY");
    let cases = [
        (
            properties("calendar", "bad"),
            "The trigger pattern(bad) is invalid".to_owned(),
        ),
        (
            properties("calendar", eventless),
            format!("The trigger pattern({eventless}) must include less than one VEVENT component"),
        ),
        (
            properties("calendar", ruleless),
            format!(
                "The first VEVENT component of trigger pattern({ruleless}) must include less than \
                 one RRULE property"
            ),
        ),
        (
            calendar("FREQ=SECONDLY"),
            "The interval of two adjacent time points is less than 60".to_owned(),
        ),
        (
            with(daily(), "window", json!(5)),
            "The trigger windows 5 must be between 20 and 30".to_owned(),
        ),
        (
            with(daily(), "window", json!("soon")),
            "The trigger windows(soon) is not integer".to_owned(),
        ),
        (
            with(daily(), "start_time", json!("")),
            "The trigger's start time is unknown".to_owned(),
        ),
        (
            with(daily(), "start_time", json!("2030-01-01T00:00:00")),
            "The format of trigger start_time is not correct".to_owned(),
        ),
        (
            with(daily(), "end_time", json!("bad")),
            "The format of trigger end_time is not correct".to_owned(),
        ),
        (
            with(daily(), "end_time", json!("2029-01-01 00:00:00")),
            "The trigger's start time(2030-01-01 00:00:00) is bigger than end time(2029-01-01 \
             00:00:00)"
                .to_owned(),
        ),
        (
            properties("crontab", "* * *"),
            "The trigger pattern(* * *) is invalid".to_owned(),
        ),
        (
            properties("crontab", ""),
            "The trigger pattern is None".to_owned(),
        ),
        (
            properties("crontab", "* * * * * */10"),
            "The interval of two adjacent time points is less than 60".to_owned(),
        ),
    ];
    for (properties, message) in cases {
        assert_eq!(refused(&properties), message);
    }
}

#[test]
fn q33_the_triggers_own_format_decides() {
    assert!(refused(&properties("nonsense", "0 0 * * *")).contains("format"));
    assert!(Schedule::parse(&properties("crontab", "0 0 * * *"), &LIMITS).is_ok());
    refused(&properties("calendar", "0 0 * * *"));
}

#[test]
fn q35_the_whole_pattern_is_looked_at() {
    refused(&calendar("FREQ=DAILY;BYHOUR=3;BYMINUTE=0;BYSECOND=0,10"));
    // Far from each other for two days and more, then not.
    let rules = "RRULE:FREQ=MINUTELY;INTERVAL=61\nRRULE:FREQ=SECONDLY;INTERVAL=4021";
    refused(&properties("calendar", &ical(rules)));
    // Only in leap years.
    let rules = "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=23;BYMINUTE=59;BYSECOND=59\n\
                 RRULE:FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=1";
    refused(&properties("calendar", &ical(rules)));
    // Two rules that meet exactly are one time.
    let rules = "RRULE:FREQ=DAILY\nRRULE:FREQ=HOURLY;INTERVAL=6";
    assert!(Schedule::parse(&properties("calendar", &ical(rules)), &LIMITS).is_ok());
}

#[test]
fn q32_a_trigger_that_can_never_fire_is_told() {
    let over = with(
        calendar("FREQ=DAILY"),
        "end_time",
        json!("2030-06-01 00:00:00"),
    );
    let schedule = Schedule::parse(&over, &LIMITS).unwrap();
    assert!(schedule.first_after(at("2030-06-01 00:00:00")).is_err());
    assert_eq!(
        schedule.first_after(at("2030-05-31 00:00:00")).unwrap(),
        at("2030-06-01 00:00:00")
    );
    let impossible = calendar("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30");
    let schedule = Schedule::parse(&impossible, &LIMITS).unwrap();
    assert!(schedule.first_after(at("2030-01-01 00:00:00")).is_err());
}

#[test]
fn start_and_end_are_included() {
    let daily = with(
        calendar("FREQ=DAILY"),
        "end_time",
        json!("2030-01-02 00:00:00"),
    );
    assert_eq!(
        times(&daily, 5),
        ["2030-01-01 00:00:00", "2030-01-02 00:00:00"]
    );
    let cron = with(
        properties("crontab", "0 0 * * *"),
        "end_time",
        json!("2030-01-02 00:00:00"),
    );
    assert_eq!(times(&cron, 5), times(&daily, 5));
}

#[test]
fn a_calendars_own_start_is_what_is_counted_from() {
    let pattern = ical("DTSTART:20291230T033000Z\nRRULE:FREQ=DAILY;INTERVAL=3;COUNT=3");
    assert_eq!(
        times(&properties("calendar", &pattern), 5),
        ["2030-01-02 03:30:00", "2030-01-05 03:30:00"]
    );
    let pattern = ical("DTSTART;TZID=Europe/Berlin:20300101T030000\nRRULE:FREQ=DAILY");
    assert!(refused(&properties("calendar", &pattern)).contains("give times in UTC"));
}

#[test]
fn added_and_excluded_times() {
    let pattern = ical(
        "RRULE:FREQ=DAILY;COUNT=3\nRDATE:20300101T120000Z,20300110T000000Z\nEXDATE:20300102T000000Z",
    );
    assert_eq!(
        times(&properties("calendar", &pattern), 9),
        [
            "2030-01-01 00:00:00",
            "2030-01-01 12:00:00",
            "2030-01-03 00:00:00",
            "2030-01-10 00:00:00"
        ]
    );
}

#[test]
fn line_ends_may_be_written_as_shells_do() {
    let pattern = ical("RRULE:FREQ=DAILY");
    for pattern in [
        pattern.replace('\n', "\\n"),
        pattern.replace('\n', "\r\n"),
        pattern.to_lowercase(),
    ] {
        assert_eq!(
            times(&properties("calendar", &pattern), 1),
            ["2030-01-01 00:00:00"]
        );
    }
}

#[test]
fn what_the_library_would_answer_wrongly_is_refused() {
    for rule in [
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=SECONDLY;INTERVAL=75;BYMINUTE=0,30",
        "FREQ=MINUTELY;INTERVAL=45;BYHOUR=3",
        "FREQ=MINUTELY;INTERVAL=30;BYHOUR=3;BYSETPOS=1",
        "FREQ=DAILY;COUNT=4000000000",
        "FREQ=WEEKLY;BYDAY=2TU",
        "FREQ=FORTNIGHTLY",
        "FREQ=DAILY;BYHOUR=25",
    ] {
        let message = refused(&calendar(rule));
        assert!(message.contains("is invalid: "), "{message}");
    }
}

#[test]
fn ten_years_later_it_costs_the_same() {
    let mut old = calendar("FREQ=MINUTELY;INTERVAL=7");
    old.insert("start_time".to_owned(), json!("1970-01-01 00:00:00"));
    let schedule = Schedule::parse(&old, &LIMITS).unwrap();
    let begun = std::time::Instant::now();
    let next = schedule.next_after(at("2400-01-01 00:00:00")).unwrap();
    assert!(next < at("2400-01-01 00:07:01"));
    // From the beginning it would be thirty million steps.
    assert!(begun.elapsed() < Duration::from_millis(200));
}

#[test]
fn stored_schedules_outlive_the_limits_they_were_made_under() {
    let narrow = with(calendar("FREQ=HOURLY"), "window", json!("25"));
    let wide = ScheduleLimits {
        min_interval: 86_400,
        min_window: 600,
        max_window: 1200,
    };
    assert!(Schedule::parse(&narrow, &wide).is_err());
    let schedule = Schedule::stored(&narrow, &wide).unwrap();
    assert_eq!(schedule.window(), Duration::from_secs(25));
    let stored = Schedule::stored(&calendar("FREQ=HOURLY"), &wide).unwrap();
    assert_eq!(stored.window(), Duration::from_secs(600));
}

fn rule_text() -> impl Strategy<Value = String> {
    let freq = prop_oneof![
        Just("YEARLY"),
        Just("MONTHLY"),
        Just("WEEKLY"),
        Just("DAILY"),
        Just("HOURLY"),
        Just("MINUTELY"),
        Just("SECONDLY"),
    ];
    let part = prop_oneof![
        (0..70_000_u32).prop_map(|n| format!("INTERVAL={n}")),
        (1..100_u32).prop_map(|n| format!("INTERVAL={n}")),
        (0..50_u32).prop_map(|n| format!("COUNT={n}")),
        proptest::collection::vec(-400..400_i32, 1..4)
            .prop_map(|n| format!("BYSETPOS={}", list(&n))),
        proptest::collection::vec(-32..33_i32, 1..4)
            .prop_map(|n| format!("BYMONTHDAY={}", list(&n))),
        proptest::collection::vec(1..13_i32, 1..4).prop_map(|n| format!("BYMONTH={}", list(&n))),
        proptest::collection::vec(-370..370_i32, 1..4)
            .prop_map(|n| format!("BYYEARDAY={}", list(&n))),
        proptest::collection::vec(-54..54_i32, 1..4).prop_map(|n| format!("BYWEEKNO={}", list(&n))),
        proptest::collection::vec(0..24_i32, 1..4).prop_map(|n| format!("BYHOUR={}", list(&n))),
        proptest::collection::vec(0..60_i32, 1..4).prop_map(|n| format!("BYMINUTE={}", list(&n))),
        proptest::collection::vec(0..61_i32, 1..4).prop_map(|n| format!("BYSECOND={}", list(&n))),
        (-6..6_i32, 0..7_usize).prop_map(|(n, day)| {
            let day = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"][day];
            if n == 0 {
                format!("BYDAY={day}")
            } else {
                format!("BYDAY={n}{day}")
            }
        }),
        Just("WKST=SU".to_owned()),
        Just("UNTIL=20310101".to_owned()),
    ];
    (freq, proptest::collection::vec(part, 0..4))
        .prop_map(|(freq, parts)| format!("FREQ={freq};{}", parts.join(";")))
}

fn list(numbers: &[i32]) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No text can bring it down.
    #[test]
    fn no_pattern_panics(format in "calendar|crontab", pattern in ".{0,80}", after in 0..32_503_680_000_i64) {
        let after = Utc.timestamp_opt(after, 0).unwrap();
        if let Ok(schedule) = Schedule::parse(&properties(&format, &pattern), &LIMITS) {
            prop_assert!(schedule.next_after(after).is_none_or(|next| next > after));
        }
    }

    /// Nor a line that is nearly right.
    #[test]
    fn no_crontab_panics(line in "([0-9*/,LW#-]{1,6} ){4,5}[0-9*/,L#A-Z-]{1,5}", after in 0..32_503_680_000_i64) {
        let after = Utc.timestamp_opt(after, 0).unwrap();
        if let Ok(schedule) = Schedule::parse(&properties("crontab", &line), &LIMITS) {
            prop_assert!(schedule.next_after(after).is_none_or(|next| next > after));
        }
    }

    /// The next time is later, and the first after any moment is the first of the whole row: where
    /// the counting begins makes no difference.
    #[test]
    fn near_or_far_is_the_same(rule in rule_text(), seconds in 0..100_000_000_i64) {
        let Ok(schedule) = Schedule::stored(&calendar(&rule), &LIMITS) else {
            return Ok(());
        };
        let after = at("2030-01-01 00:00:00") + TimeDelta::seconds(seconds % 10_000_000);
        let row: Vec<_> = schedule.times_after(at("2029-12-31 23:59:59")).take(3000).collect();
        prop_assert!(row.is_sorted_by(|a, b| a < b));
        let expected = row.iter().find(|time| **time > after).copied();
        // A row that was cut short says nothing about what comes after it.
        if expected.is_some() || row.len() < 3000 {
            prop_assert_eq!(schedule.next_after(after), expected, "{} after {}", rule, after);
        }
    }
}
