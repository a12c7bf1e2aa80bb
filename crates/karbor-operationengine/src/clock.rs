//! The clock that schedules follow may jump: a dead battery, a wrong time server, an operator.
//!
//! **Noticed.** What the time of day says is compared with the time that has passed. A jump is logged,
//! announced (`karbor.clock.warning`) and shown with the service.
//!
//! **Followed.** Schedules go by the clock as it is now. What a clock that ran ahead left behind — next due
//! times that the patterns do not give from now, triggers that seemed to fire no more — is planned anew at
//! the start, after a jump, and from time to time, since another engine's clock may be the wrong one. A due
//! time of the window before now is run if it has not been.
//!
//! **Not trusted with deletions.** For a day after a jump ahead, retention counts by the clock as it was
//! before: if the new time is wrong, every checkpoint would seem too old, and the one that was just made
//! would seem to be the newest for as long as the clock was ahead. A restart does not end that day, and a
//! clock that is more than a day further at the start than it was last read counts as one that jumped:
//! nobody knows whether the machine was off for so long or has lost its time ([`ClockReading`]).

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use karbor_db::{Planned, Replanned};
use karbor_model::{ApiError, CheckpointId, Trigger};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    engine::{BATCH, Engine, lock},
    schedule::Schedule,
};

/// A clock that is kept right is moved by less.
const JUMP: TimeDelta = TimeDelta::seconds(10);

/// How long it takes until a time that a clock jumped ahead to is trusted.
const DOUBTED: Duration = Duration::from_secs(24 * 3600);

/// A service may be stopped for so long before its clock is doubted.
const STOPPED: TimeDelta = TimeDelta::days(1);

/// How often next due times are looked through when no jump was noticed.
const LOOK_THROUGH: Duration = Duration::from_secs(300);

/// What an engine knows of its clock.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The last reading: the time of day, and the time that had passed since the start.
    last: (DateTime<Utc>, Duration),
    /// Jumps of the last day.
    jumps: Vec<Jump>,
    /// Jumps that nobody was told of yet.
    untold: Vec<Jump>,
    /// When next due times were last looked through.
    looked_through: Option<Duration>,
    /// Checkpoints from the future that were announced.
    announced: BTreeSet<CheckpointId>,
    /// The last thing that was noticed.
    pub(crate) notice: Option<String>,
}

/// The time of day went another way than time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Jump {
    /// For how long it is in doubt, in time since the start.
    until: Duration,
    /// What the time of day should have been.
    from: DateTime<Utc>,
    /// What it was.
    to: DateTime<Utc>,
}

impl Jump {
    fn by(&self) -> TimeDelta {
        self.to - self.from
    }

    fn told(&self, host: &str) -> String {
        let (by, from, to) = (self.by(), self.from, self.to);
        let (from, to) = (from.trunc_subsecs(0), to.trunc_subsecs(0));
        let how = match by > TimeDelta::zero() {
            true => format!(
                "was set forward by {} (or the machine slept or was off)",
                span(by)
            ),
            false => format!("was set back by {}", span(-by)),
        };
        format!(
            "The clock of {host} {how}: from {from} to {to}. Schedules follow it as it is now; if it is \
             wrong, mend what sets it."
        )
    }
}

impl Watch {
    pub(crate) fn new(now: DateTime<Utc>, passed: Duration) -> Self {
        Self {
            last: (now, passed),
            jumps: Vec::new(),
            untold: Vec::new(),
            looked_through: None,
            announced: BTreeSet::new(),
            notice: None,
        }
    }

    /// Takes a reading.
    fn look(&mut self, now: DateTime<Utc>, passed: Duration) {
        let (before, then) = self.last;
        let went_on = TimeDelta::from_std(passed.saturating_sub(then)).unwrap_or_default();
        let jump = Jump {
            until: passed + DOUBTED,
            from: before + went_on,
            to: now,
        };
        if jump.by().abs() > JUMP {
            self.jumps.push(jump);
            self.untold.push(jump);
            self.looked_through = None;
        }
        self.jumps.retain(|jump| passed < jump.until);
        self.last = (now, passed);
    }

    /// What is to be known of the clock after a restart.
    fn reading(&self) -> ClockReading {
        let (now, passed) = self.last;
        let doubt = |jump: &Jump| {
            let left = jump.until.saturating_sub(passed);
            (jump.by().num_seconds(), left.as_secs())
        };
        ClockReading {
            seen_at: now,
            doubts: self.jumps.iter().map(doubt).collect(),
        }
    }

    /// Takes over what the engine that ran here before knew.
    pub(crate) fn go_on_from(&mut self, before: &ClockReading) {
        let (now, passed) = self.last;
        let seen = before.seen_at;
        let doubts = before.doubts.iter().map(|(seconds, left)| Jump {
            until: passed + Duration::from_secs(*left).min(DOUBTED),
            from: seen - TimeDelta::try_seconds(*seconds).unwrap_or_default(),
            to: seen,
        });
        self.jumps.extend(doubts);
        let stopped = Jump {
            until: passed + DOUBTED,
            from: seen,
            to: now,
        };
        if stopped.by() > STOPPED || stopped.by() < -JUMP {
            self.jumps.push(stopped);
            self.untold.push(stopped);
        }
    }

    /// The time that deletions go by: a time that the clock jumped ahead to today is not trusted.
    fn trusted(&self) -> DateTime<Utc> {
        let jumped: TimeDelta = self.jumps.iter().map(Jump::by).sum();
        self.last.0 - jumped.max(TimeDelta::zero())
    }

    /// Is it time to look through the next due times?
    fn is_to_look_through(&self) -> bool {
        let passed = self.last.1;
        self.looked_through
            .is_none_or(|last| passed.saturating_sub(last) >= LOOK_THROUGH)
    }
}

/// What an engine's report keeps of its clock, for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// What the time of day was, UTC.
    pub seen_at: DateTime<Utc>,
    /// Jumps that are in doubt: by how many seconds each was, and for how many more it is.
    pub doubts: Vec<(i64, u64)>,
}

impl Engine {
    /// How it stands with the clock.
    pub(crate) fn clock_reading(&self) -> ClockReading {
        self.look_at_clock().reading()
    }

    /// Reads the clock, tells of a jump, and plans anew what a wrong clock left behind.
    pub(crate) async fn watch_clock(&self) -> Result<(), ApiError> {
        let (untold, is_to_look_through, passed) = {
            let mut watch = self.look_at_clock();
            let untold = std::mem::take(&mut watch.untold);
            (untold, watch.is_to_look_through(), watch.last.1)
        };
        for jump in untold {
            let details = json!({
                "seconds": jump.by().num_seconds(),
                "from": jump.from,
                "to": jump.to,
            });
            self.notice(jump.told(&self.host), details).await;
        }
        if is_to_look_through {
            self.look_through().await?;
            lock(&self.watch).looked_through = Some(passed);
        }
        Ok(())
    }

    /// The time that deletions go by.
    pub(crate) fn trusted_now(&self) -> DateTime<Utc> {
        self.look_at_clock().trusted()
    }

    fn look_at_clock(&self) -> std::sync::MutexGuard<'_, Watch> {
        let mut watch = lock(&self.watch);
        watch.look(self.clock.now(), self.clock.monotonic());
        watch
    }

    /// Tells of checkpoints that seem to come from the future, of each once.
    pub(crate) async fn announce_future(&self, ids: impl Iterator<Item = CheckpointId>) {
        let new: Vec<_> = {
            let mut watch = lock(&self.watch);
            ids.filter(|id| watch.announced.insert(*id)).collect()
        };
        if new.is_empty() {
            return;
        }
        let names: Vec<_> = new.iter().map(CheckpointId::to_string).collect();
        let message = format!(
            "Checkpoints are dated in the future, by a clock that was wrong: retention neither counts nor \
             deletes them until then. Delete what is not needed: {}",
            names.join(", ")
        );
        self.notice(message, json!({ "checkpoints": names })).await;
    }

    async fn notice(&self, message: String, mut details: Value) {
        tracing::warn!("{message}");
        details["host"] = json!(self.host);
        if let Err(error) = self.stores.announcements.clock(&message, details).await {
            tracing::error!(%error, "what was noticed of the clock cannot be announced");
        }
        lock(&self.watch).notice = Some(message);
    }

    /// Plans triggers anew whose next due times are not what their patterns give from now.
    async fn look_through(&self) -> Result<(), ApiError> {
        let now = self.clock.now();
        let (mut after, mut count, mut earliest) = (None, 0, None);
        loop {
            let ahead = self
                .stores
                .schedules
                .triggers_ahead(now, after, BATCH)
                .await?;
            let Some(last) = ahead.last() else {
                break;
            };
            after = Some(last.trigger.id);
            let wrong = ahead.into_iter().filter_map(|was| {
                let schedule = self.stored(&was.trigger)?;
                is_wrong(&schedule, &was, now).then(|| Replanned {
                    at: schedule.next_after(look_back(&schedule, &was.trigger, now)),
                    was,
                })
            });
            let wrong: Vec<_> = wrong.collect();
            if !wrong.is_empty() {
                count += self.stores.schedules.triggers_replan(&wrong).await?;
                let first = wrong.iter().filter_map(|replanned| replanned.at).min();
                earliest = [earliest, first].into_iter().flatten().min();
            }
        }
        if count == 0 {
            return Ok(());
        }
        let first = earliest.map_or_else(String::new, |at| format!(" The first fires at {at}."));
        let message = format!(
            "{count} triggers were to fire at times that their patterns do not give from now ({}): a clock was \
             wrong when they last fired. They are planned anew.{first}",
            now.trunc_subsecs(0)
        );
        self.notice(message, json!({ "triggers": count })).await;
        Ok(())
    }
}

/// Is the next due time one that the pattern does not give from `now`? A clock that was put back by less
/// than the window makes nothing wrong: what it comes to again was run just now.
fn is_wrong(schedule: &Schedule, was: &Planned, now: DateTime<Utc>) -> bool {
    match was.at {
        None => schedule.next_after(now).is_some(),
        Some(at) => {
            let is_of_pattern = schedule.next_after(at - TimeDelta::seconds(1)) == Some(at);
            let next = schedule.next_after(now + window(schedule));
            !is_of_pattern || next.is_some_and(|next| next < at)
        }
    }
}

/// From when on due times count that may not have been run: the window before now, unless the trigger is
/// younger.
fn look_back(schedule: &Schedule, trigger: &Trigger, now: DateTime<Utc>) -> DateTime<Utc> {
    let opens = now - window(schedule);
    let version = trigger.updated_at.or(trigger.created_at);
    version
        .filter(|version| *version <= now)
        .map_or(opens, |version| version.max(opens))
}

fn window(schedule: &Schedule) -> TimeDelta {
    TimeDelta::from_std(schedule.window()).unwrap_or_default()
}

/// A time in the two largest units that it has.
fn span(time: TimeDelta) -> String {
    let units = [
        (time.num_days(), "days"),
        (time.num_hours() % 24, "hours"),
        (time.num_minutes() % 60, "minutes"),
        (time.num_seconds() % 60, "seconds"),
    ];
    let parts = units.iter().skip_while(|(count, _)| *count == 0).take(2);
    let parts = parts.filter(|(count, _)| *count != 0);
    let parts: Vec<_> = parts
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
    }

    fn passed(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_jump_is_told_from_time_that_passes() {
        let mut watch = Watch::new(at(0), passed(0));
        watch.look(at(5000), passed(5000));
        watch.look(at(5008), passed(5000));
        assert!(watch.untold.is_empty());
        watch.look(at(5008 + 90_000), passed(5000));
        watch.look(at(5010), passed(5002));
        let told: Vec<_> = watch.untold.iter().map(|jump| jump.told("here")).collect();
        assert!(
            told[0].contains("set forward by 1 days 1 hours"),
            "{told:?}"
        );
        assert!(told[1].contains("set back by 1 days 1 hours"), "{told:?}");
    }

    #[test]
    fn a_time_that_was_jumped_to_is_trusted_after_a_day_or_when_it_was_put_right() {
        let mut watch = Watch::new(at(0), passed(0));
        let year = 365 * 86_400;
        watch.look(at(year + 10), passed(10));
        assert_eq!(watch.trusted(), at(10));
        watch.look(at(year + 86_409), passed(86_409));
        assert_eq!(watch.trusted(), at(86_409));
        watch.look(at(year + 86_411), passed(86_411));
        assert_eq!(watch.trusted(), at(year + 86_411));

        let mut watch = Watch::new(at(year), passed(0));
        watch.look(at(10), passed(10));
        assert_eq!(watch.trusted(), at(10), "back is believed at once");
        watch.look(at(year), passed(20));
        assert_eq!(watch.trusted(), at(year));
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, text) in [
            (11, "11 seconds"),
            (90, "1 minutes 30 seconds"),
            (3600, "1 hours"),
            (86_400 * 183 + 3600 * 2 + 59, "183 days 2 hours"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
    }
}
