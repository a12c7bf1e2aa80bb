//! What to do about a due time that has come: run it, or make up for the last of several, or record
//! that it was missed. Pure: a function of the schedule and of two times.

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;

/// How many missed due times are counted one by one.
const MOST_COUNTED: usize = 100;

/// The shortest window that is kept to: due times are whole seconds, engines are not that exact.
const SHORTEST_WINDOW: TimeDelta = TimeDelta::seconds(1);

/// What to do about a due time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The due time to run for, and until when it may begin.
    pub(crate) run: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The last due time that was missed, and what was missed and why, for the operation log.
    pub(crate) missed: Option<(DateTime<Utc>, String)>,
    /// The next due time.
    pub(crate) next: Option<DateTime<Utc>>,
}

/// Decides about `due` at `now`, which is not before it.
///
/// Of all due times from `due` to `now` the latest is run if `now` is inside its window; the others
/// are missed.
pub(crate) fn decide(schedule: &Schedule, due: DateTime<Utc>, now: DateTime<Utc>) -> Decision {
    let window = TimeDelta::from_std(schedule.window()).unwrap_or(SHORTEST_WINDOW);
    let window = window.max(SHORTEST_WINDOW);
    let opens = now - window;
    let mut time = if due >= opens {
        Some(due)
    } else {
        // A moment before, as a due time at the window's very edge is inside.
        schedule.next_after(opens - TimeDelta::nanoseconds(1))
    };
    let mut latest = None;
    while let Some(at) = time.filter(|at| *at <= now) {
        latest = Some(at);
        time = schedule.next_after(at);
    }
    Decision {
        run: latest.map(|at| (at, at + window)),
        missed: missed(schedule, due, latest, now),
        next: time,
    }
}

/// Tells of the due times from `due` until `made_up`, or until `now`.
fn missed(
    schedule: &Schedule,
    due: DateTime<Utc>,
    made_up: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, String)> {
    let is_missed = |at: &DateTime<Utc>| made_up.map_or(*at <= now, |made_up| *at < made_up);
    let all = std::iter::successors(Some(due), |at| schedule.next_after(*at));
    let times: Vec<_> = all.take_while(is_missed).take(MOST_COUNTED).collect();
    let (first, last) = (times.first()?, times.last()?);
    let which = match times.len() {
        1 => format!("The run due at {first} was missed"),
        MOST_COUNTED => format!("{MOST_COUNTED} runs or more, due from {first} on, were missed"),
        count => format!("{count} runs, due from {first} to {last}, were missed"),
    };
    let why = "no operation engine was there to run it inside the window";
    let reason = match made_up {
        Some(made_up) => format!("{which}: {why}. The one due at {made_up} is made up for."),
        None => format!("{which}: {why}."),
    };
    Some((*last, reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schedule::ScheduleLimits;

    const LIMITS: ScheduleLimits = ScheduleLimits {
        min_interval: 1,
        min_window: 0,
        max_window: 100_000,
    };

    fn hourly(window: i64, end: Option<&str>) -> Schedule {
        let mut properties = json!({
            "format": "crontab",
            "pattern": "0 * * * *",
            "start_time": "2026-01-01 00:00:00",
            "window": window,
        });
        if let Some(end) = end {
            properties["end_time"] = end.into();
        }
        Schedule::parse(properties.as_object().unwrap(), &LIMITS).unwrap()
    }

    fn at(hour: i64, second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + hour * 3600 + second, 0).unwrap()
    }

    #[test]
    fn on_time_it_runs_and_nothing_is_missed() {
        for late in [0, 900] {
            let decision = decide(&hourly(900, None), at(1, 0), at(1, late));
            assert_eq!(decision.run, Some((at(1, 0), at(1, 900))));
            assert_eq!(decision.missed, None);
            assert_eq!(decision.next, Some(at(2, 0)));
        }
    }

    #[test]
    fn outside_its_window_it_is_missed() {
        let decision = decide(&hourly(900, None), at(1, 0), at(1, 901));
        assert_eq!(decision.run, None);
        let (_, missed) = decision.missed.unwrap();
        assert!(missed.contains("The run due at 2026-01-01 01:00:00 UTC was missed"));
        assert_eq!(decision.next, Some(at(2, 0)));
    }

    #[test]
    fn of_many_only_the_latest_is_made_up_for() {
        let decision = decide(&hourly(900, None), at(1, 0), at(5, 10));
        assert_eq!(decision.run, Some((at(5, 0), at(5, 900))));
        let (_, missed) = decision.missed.unwrap();
        assert!(missed.starts_with("4 runs, due from"), "{missed}");
        assert!(missed.contains("made up for"), "{missed}");
        let decision = decide(&hourly(900, None), at(1, 0), at(5, 1000));
        assert_eq!(decision.run, None);
        assert!(decision.missed.unwrap().1.starts_with("5 runs"));
        assert_eq!(decision.next, Some(at(6, 0)));
    }

    #[test]
    fn years_of_misses_are_one_record() {
        let decision = decide(&hourly(900, None), at(1, 0), at(100_000, 1000));
        assert!(decision.missed.unwrap().1.starts_with("100 runs or more"));
        assert_eq!(decision.next, Some(at(100_001, 0)));
    }

    #[test]
    fn after_the_last_there_is_none() {
        let end = Some("2026-01-01 02:00:00");
        let decision = decide(&hourly(900, end), at(2, 0), at(2, 1));
        assert_eq!(decision.run, Some((at(2, 0), at(2, 900))));
        assert_eq!(decision.next, None);
    }

    proptest! {
        /// Every due time up to now is either run or counted, and the next is after now.
        #[test]
        fn no_due_time_is_lost(due in 1..50_i64, late in 0..200_000_i64, window in 0..8000_i64) {
            let (first, now) = (at(due, 0), at(due, late));
            let decision = decide(&hourly(window, None), first, now);
            let passed = late / 3600 + 1;
            let run = i64::from(decision.run.is_some());
            let counted = match decision.missed.as_ref().map(|(_, reason)| reason.as_str()) {
                None => 0,
                Some(text) if text.starts_with("The run") => 1,
                Some(text) => text.split(' ').next().unwrap().parse().unwrap(),
            };
            prop_assert_eq!(run + counted, passed);
            prop_assert!(decision.next.unwrap() > now);
            if let Some((at, until)) = decision.run {
                prop_assert!(at <= now && now <= until && at + TimeDelta::hours(1) > now);
            }
        }
    }
}
