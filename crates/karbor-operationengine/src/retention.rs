//! Retention: which checkpoints of a scheduled operation need not be kept.
//!
//! A pure function of the checkpoints, the policy and the time: what it answers does not depend on
//! the order in which a bank lists them (the original's did, and so deleted the newest, Q45), and
//! asking again after its answer was carried out asks for nothing more.
//!
//! The `keep_*` rules are those of `restic forget` (since 0.16): going from the newest to the oldest, a rule
//! keeps the first checkpoint of each hour (day, ISO week, month, year; all in UTC) until it has
//! kept as many as it says; as long as it has not, it keeps the oldest too. A checkpoint stays if
//! any rule keeps it, or if there is none. Of those that stay, `retention_duration` then takes what
//! is too old, and `max_backups` all but the newest. The newest of all always stays.
//!
//! Checkpoints that a wrong clock dated in the future are neither counted nor deleted: as the newest they
//! would push out all the real ones.
//!
//! What is said of checkpoints holds for those without a flaw, as if there were no others: an incomplete or
//! suspicious one never takes the place of a good one, and the newest good one always stays. A flawed one stays
//! as long as it would if it counted, beside the good ones that stay.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use karbor_model::{ApiError, CheckpointId};

/// Clocks of hosts that work together may differ by so much.
pub(crate) const SKEW: TimeDelta = TimeDelta::minutes(5);

/// A checkpoint that a retention policy decides about: one that the operation made and that is
/// `available`. Others are not shown to it: they are neither counted nor deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Id.
    pub id: CheckpointId,
    /// When it was made, UTC.
    pub created_at: DateTime<Utc>,
    /// It is incomplete or suspicious.
    pub flawed: bool,
}

impl Candidate {
    /// Is it dated later than clocks that differ a little can explain?
    #[must_use]
    pub fn is_from_the_future(&self, now: DateTime<Utc>) -> bool {
        self.created_at > now + SKEW
    }
}

/// What a scheduled operation has to keep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    max_backups: Option<usize>,
    max_days: Option<i64>,
    rules: Vec<(Period, Quantity)>,
}

/// One checkpoint of each of these is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Each,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// For how many periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    All,
    AtMost(usize),
}

const RULES: [(&str, Period); 6] = [
    ("keep_last", Period::Each),
    ("keep_hourly", Period::Hour),
    ("keep_daily", Period::Day),
    ("keep_weekly", Period::Week),
    ("keep_monthly", Period::Month),
    ("keep_yearly", Period::Year),
];

impl RetentionPolicy {
    /// Reads an operation's definition: `max_backups` (how many to keep at the most) and
    /// `retention_duration` (whole days to keep them), where -1 and 0 are no limit, as in the
    /// original; and `keep_last`, `keep_hourly`, `keep_daily`, `keep_weekly`, `keep_monthly`,
    /// `keep_yearly`, where -1 keeps one of every period. What else the definition holds is not
    /// looked at.
    ///
    /// # Errors
    /// 400 naming the field whose value is no such number (Q42), or that begins with `keep_` and is
    /// none of these.
    pub fn parse(definition: &BTreeMap<String, String>) -> Result<Self, ApiError> {
        for name in definition.keys().filter(|name| name.starts_with("keep_")) {
            if !RULES.iter().any(|(known, _)| known == name) {
                let known = RULES.map(|(name, _)| name).join(", ");
                return Err(ApiError::invalid_field(
                    "operation_definition",
                    name,
                    format!("There is no such rule; there are {known}."),
                ));
            }
        }
        let mut rules = Vec::new();
        for (name, period) in RULES {
            let reason = "It must be a whole number, 1 or more, or -1 for all.";
            match number(definition, name, reason)? {
                None => {}
                Some(-1) => rules.push((period, Quantity::All)),
                Some(count) if count > 0 => {
                    rules.push((
                        period,
                        Quantity::AtMost(usize::try_from(count).unwrap_or(usize::MAX)),
                    ));
                }
                Some(count) => return Err(ApiError::invalid_field(name, count, reason)),
            }
        }
        Ok(Self {
            max_backups: limit(definition, "max_backups")?
                .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
            max_days: limit(definition, "retention_duration")?,
            rules,
        })
    }

    /// Which of `candidates` are not to be kept, the oldest first. Never the newest of them, nor one that is
    /// dated in the future.
    #[must_use]
    pub fn to_delete(&self, candidates: &[Candidate], now: DateTime<Utc>) -> Vec<CheckpointId> {
        let good: Vec<_> = candidates
            .iter()
            .filter(|one| !one.flawed)
            .copied()
            .collect();
        let mut gone = self.expired(&good, now);
        let mut left = candidates.to_vec();
        left.retain(|one| !gone.contains(&(one.created_at, one.id)));
        let is_flawed = |id| left.iter().any(|one| one.id == id && one.flawed);
        let flawed = self.expired(&left, now).into_iter();
        gone.extend(flawed.filter(|(_, id)| is_flawed(*id)));
        gone.sort_unstable();
        gone.into_iter().map(|(_, id)| id).collect()
    }

    /// Which of `candidates` are not to be kept, whatever their flaws, the oldest first.
    fn expired(
        &self,
        candidates: &[Candidate],
        now: DateTime<Utc>,
    ) -> Vec<(DateTime<Utc>, CheckpointId)> {
        // One order whatever the bank's: newest first, the id where two were made at once.
        let by_age: BTreeSet<_> = candidates
            .iter()
            .filter(|candidate| !candidate.is_from_the_future(now))
            .map(|candidate| (candidate.created_at, candidate.id))
            .collect();
        let newest_first: Vec<_> = by_age.into_iter().rev().collect();
        let mut kept = self.kept_by_rules(&newest_first);
        if let Some(days) = self.max_days {
            kept.retain(|(created_at, _)| (now - created_at).num_days() <= days);
        }
        if let Some(count) = self.max_backups {
            while kept.len() > count {
                kept.pop_first();
            }
        }
        let older = newest_first.iter().skip(1);
        let gone = older.rev().filter(|candidate| !kept.contains(candidate));
        gone.copied().collect()
    }

    fn kept_by_rules(
        &self,
        newest_first: &[(DateTime<Utc>, CheckpointId)],
    ) -> BTreeSet<(DateTime<Utc>, CheckpointId)> {
        if self.rules.is_empty() {
            return newest_first.iter().copied().collect();
        }
        let mut kept = BTreeSet::new();
        for (period, quantity) in &self.rules {
            let mut last = None;
            let mut counted = 0;
            for (number, candidate) in newest_first.iter().enumerate() {
                if matches!(quantity, Quantity::AtMost(most) if counted >= *most) {
                    break;
                }
                let this = Some(period.of(candidate.0, number));
                if this != last || number + 1 == newest_first.len() {
                    kept.insert(*candidate);
                    last = this;
                    counted += 1;
                }
            }
        }
        kept
    }
}

impl Period {
    /// A number for the period that a time lies in; the same for every time of it.
    fn of(self, time: DateTime<Utc>, number: usize) -> (i32, usize) {
        let within = |part: u32| part as usize;
        let week = time.iso_week();
        match self {
            Self::Each => (0, number),
            Self::Hour => (time.year(), within(time.ordinal() * 24 + time.hour())),
            Self::Day => (time.year(), within(time.ordinal())),
            Self::Week => (week.year(), within(week.week())),
            Self::Month => (time.year(), within(time.month())),
            Self::Year => (time.year(), 0),
        }
    }
}

/// A number of the definition; an empty text counts as not given.
fn number(
    definition: &BTreeMap<String, String>,
    name: &str,
    reason: &str,
) -> Result<Option<i64>, ApiError> {
    let Some(given) = definition.get(name).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let number = given.trim().parse().map(Some);
    number.map_err(|_| ApiError::invalid_field(name, given, reason))
}

/// A limit of the original's: none if it is -1 or 0.
fn limit(definition: &BTreeMap<String, String>, name: &str) -> Result<Option<i64>, ApiError> {
    let reason = "It must be a whole number; -1 or 0 for no limit.";
    match number(definition, name, reason)? {
        Some(limit) if limit < -1 => Err(ApiError::invalid_field(name, limit, reason)),
        limit => Ok(limit.filter(|limit| *limit > 0)),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn policy(fields: &[(&str, &str)]) -> RetentionPolicy {
        RetentionPolicy::parse(&definition(fields)).unwrap()
    }

    fn definition(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2030, 6, 15, 12, 0, 0).unwrap()
    }

    /// Candidates made so many hours ago; the id says how many.
    fn hours_ago(hours: &[u32]) -> Vec<Candidate> {
        let made = hours.iter().map(|hours| Candidate {
            id: id(*hours),
            created_at: now() - TimeDelta::hours(i64::from(*hours)),
            flawed: false,
        });
        made.collect()
    }

    fn id(number: u32) -> CheckpointId {
        CheckpointId(Uuid::from_u128(number.into()))
    }

    fn ids(hours: &[u32]) -> Vec<CheckpointId> {
        hours.iter().copied().map(id).collect()
    }

    #[test]
    fn q45_the_oldest_go_first_and_the_newest_never() {
        let shuffled = hours_ago(&[3, 1, 5, 2, 4]);
        let deleted = policy(&[("max_backups", "2")]).to_delete(&shuffled, now());
        assert_eq!(deleted, ids(&[5, 4, 3]));
        let all_old = hours_ago(&[24 * 900, 24 * 800, 24 * 700]);
        let deleted = policy(&[("retention_duration", "1")]).to_delete(&all_old, now());
        assert_eq!(deleted, ids(&[24 * 900, 24 * 800]));
    }

    /// Those whose id is odd have a flaw.
    fn odd_are_flawed(hours: &[u32]) -> Vec<Candidate> {
        let mut made = hours_ago(hours);
        for one in &mut made {
            one.flawed = one.id.0.as_u128() % 2 == 1;
        }
        made
    }

    #[test]
    fn flawed_ones_take_no_good_ones_place_and_are_pruned_themselves() {
        let two = policy(&[("max_backups", "2")]);
        let made = odd_are_flawed(&[1, 3, 5, 10, 12, 14]);
        assert_eq!(two.to_delete(&made, now()), ids(&[14, 5]));
        // However old the last good one is.
        let old = policy(&[("retention_duration", "1")]);
        let made = odd_are_flawed(&[1, 49, 99, 1000, 2000]);
        assert_eq!(old.to_delete(&made, now()), ids(&[2000, 99, 49]));
        // Nothing but flawed ones: the newest stays.
        let made = odd_are_flawed(&[1, 3, 5]);
        assert_eq!(two.to_delete(&made, now()), ids(&[5]));
        // Older than all good ones, they go as if they were good.
        let made = odd_are_flawed(&[2, 4, 5, 7]);
        assert_eq!(two.to_delete(&made, now()), ids(&[7, 5]));
    }

    #[test]
    fn what_a_wrong_clock_dated_in_the_future_is_neither_counted_nor_deleted() {
        let mut made = hours_ago(&[1, 2, 3]);
        for (number, minutes) in [(100, 6), (101, 60), (102, 600_000)] {
            let created_at = now() + TimeDelta::minutes(minutes);
            let id = id(number);
            made.push(Candidate {
                id,
                created_at,
                flawed: false,
            });
        }
        let deleted = policy(&[("max_backups", "2")]).to_delete(&made, now());
        assert_eq!(deleted, ids(&[3]));
        for rules in [("keep_last", "1"), ("retention_duration", "1")] {
            assert!(!policy(&[rules]).to_delete(&made, now()).contains(&id(1)));
        }
        // A little ahead is a clock that differs, and the newest.
        let created_at = now() + TimeDelta::minutes(4);
        made.push(Candidate {
            id: id(99),
            created_at,
            flawed: false,
        });
        let deleted = policy(&[("max_backups", "2")]).to_delete(&made, now());
        assert_eq!(deleted, ids(&[3, 2]));
    }

    #[test]
    fn whole_days_are_counted() {
        let made = hours_ago(&[0, 24, 47, 48, 49, 72]);
        let deleted = policy(&[("retention_duration", "1")]).to_delete(&made, now());
        assert_eq!(deleted, ids(&[72, 49, 48]));
    }

    #[test]
    fn no_limit_deletes_nothing() {
        let made = hours_ago(&[0, 10, 100, 1000, 10_000, 100_000]);
        for none in ["-1", "0", ""] {
            let policy = policy(&[("max_backups", none), ("retention_duration", none)]);
            assert_eq!(policy, RetentionPolicy::default());
            assert!(policy.to_delete(&made, now()).is_empty());
        }
    }

    #[test]
    fn rules_keep_the_newest_of_each_period_as_restic_does() {
        // Twice a day for eight days, at noon and midnight.
        let hours: Vec<_> = (0..16).map(|half| half * 12).collect();
        let deleted = policy(&[("keep_daily", "3")]).to_delete(&hours_ago(&hours), now());
        // Kept: today's noon, and the two days before at noon.
        let mut gone: Vec<_> = hours
            .iter()
            .copied()
            .filter(|h| ![0, 24, 48].contains(h))
            .collect();
        gone.reverse();
        assert_eq!(deleted, ids(&gone));
        let deleted = policy(&[("keep_last", "1"), ("keep_yearly", "5")])
            .to_delete(&hours_ago(&hours), now());
        // One year only: the rule is not used up, so it keeps the oldest too.
        gone = hours[1..15].to_vec();
        gone.reverse();
        assert_eq!(deleted, ids(&gone));
    }

    #[test]
    fn weeks_are_iso_weeks() {
        // A Sunday and the Monday after it; a Monday in December and the Sunday in January after it.
        let of = |y, m, d| Period::Week.of(Utc.with_ymd_and_hms(y, m, d, 0, 0, 0).unwrap(), 0);
        assert_ne!(of(2030, 6, 9), of(2030, 6, 10));
        assert_eq!(of(2030, 12, 30), of(2031, 1, 5));
    }

    #[test]
    fn q42_nonsense_is_told_with_its_field() {
        for (name, value) in [
            ("max_backups", "many"),
            ("max_backups", "-2"),
            ("retention_duration", "1.5"),
            ("retention_duration", "99999999999999999999"),
            ("keep_last", "0"),
            ("keep_daily", "-2"),
            ("keep_dayly", "1"),
        ] {
            let error = RetentionPolicy::parse(&definition(&[(name, value)])).unwrap_err();
            assert_eq!(error.kind, karbor_model::ErrorKind::BadRequest);
            assert!(error.message.contains(name), "{error}");
        }
    }

    fn any_policy() -> impl Strategy<Value = RetentionPolicy> {
        let value = || proptest::option::of(prop_oneof![Just(-1), 1..10_i64]);
        let names = ["max_backups", "retention_duration"].into_iter();
        let names: Vec<_> = names.chain(RULES.map(|(name, _)| name)).collect();
        proptest::collection::vec(value(), names.len()).prop_map(move |values| {
            let given = names.iter().zip(values);
            let fields =
                given.filter_map(|(name, value)| Some(((*name).to_owned(), value?.to_string())));
            RetentionPolicy::parse(&fields.collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn order_never_matters_and_the_newest_stays(
            (listed, shuffled) in proptest::collection::vec(0..20_000_u32, 0..40)
                .prop_flat_map(|hours| (Just(hours.clone()), Just(hours).prop_shuffle())),
            policy in any_policy(),
        ) {
            let candidates = odd_are_flawed(&listed);
            let deleted = policy.to_delete(&candidates, now());
            prop_assert_eq!(&deleted, &policy.to_delete(&odd_are_flawed(&shuffled), now()));
            let good = candidates.iter().filter(|candidate| !candidate.flawed).copied();
            let good: Vec<_> = good.collect();
            for all in [&candidates, &good] {
                if let Some(newest) = all.iter().max_by_key(|candidate| candidate.created_at) {
                    prop_assert!(!deleted.contains(&newest.id));
                }
            }
            // The good ones fare as if there were no others.
            let gone = deleted.iter().filter(|id| good.iter().any(|one| one.id == **id));
            let gone: Vec<_> = gone.copied().collect();
            prop_assert_eq!(&gone, &policy.to_delete(&good, now()));
            // Oldest first.
            let age = |id: &CheckpointId| candidates.iter().find(|c| c.id == *id).unwrap().created_at;
            prop_assert!(deleted.is_sorted_by_key(age));
            // What was deleted is gone; the rest stays.
            let left: Vec<_> = candidates.iter().copied().filter(|c| !deleted.contains(&c.id)).collect();
            prop_assert!(policy.to_delete(&left, now()).is_empty());
        }

        #[test]
        fn no_definition_panics(name in "max_backups|retention_duration|keep_[a-z]{4,7}", value in ".{0,12}") {
            let _ = RetentionPolicy::parse(&definition(&[(&name, &value)]));
        }
    }
}
