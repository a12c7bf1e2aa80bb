//! A bank that is away when a checkpoint is asked for with time to begin: it is tried again until that time is
//! over, and comes to one checkpoint or to one record of a failure.

use std::time::Duration;

use chrono::TimeDelta;
use karbor_db::ListQuery;
use karbor_interfaces::protection::ProtectionApi;
use karbor_manager::Clock;
use karbor_model::{
    CheckpointId, CheckpointProperties, CheckpointStatus, OperationId, OperationLog,
    OperationLogId, OperationLogStatus,
};
use karbor_testkit::{FakeClock, Fault, Verb};

use crate::house::{House, Running, member, until};

const WINDOW: TimeDelta = TimeDelta::minutes(15);
const STEP: Duration = Duration::from_millis(100);

/// One that is asked for under an id, with a quarter of an hour to begin in.
struct Asked {
    house: House,
    clock: FakeClock,
    id: OperationId,
    properties: CheckpointProperties,
}

impl Asked {
    fn new() -> Self {
        let clock = FakeClock::new();
        let id = OperationId::new();
        let properties = CheckpointProperties {
            operation_id: Some(id),
            begin_before: Some(clock.now() + WINDOW),
            ..CheckpointProperties::default()
        };
        Self {
            house: House::new().with_resources(&["a"]).with_clock(&clock),
            properties,
            clock,
            id,
        }
    }

    async fn ask(&self, running: &Running) -> CheckpointId {
        let (context, properties) = (member(), self.properties.clone());
        let asked = running.api().protect(&context, running.plan(1), properties);
        asked.await.unwrap()
    }

    /// The bank is away from its `nth` write on.
    fn away_from(&self, nth: usize) {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let late = move |writes: bool| {
            let more = usize::from(writes);
            seen.fetch_add(more, std::sync::atomic::Ordering::SeqCst) + more >= nth
        };
        self.house
            .bank
            .inject(Fault::Fail, usize::MAX, move |call| {
                late(call.verb.writes())
            });
    }

    async fn log(&self, running: &Running) -> OperationLog {
        let log = OperationLogId(self.id.0);
        running.db.runs().operation_log_get(log).await.unwrap()
    }

    /// Time goes on, slowly beside what the service does, until the bank was tried so often.
    async fn tried(&self, running: &Running, times: usize) {
        until(async || {
            self.clock.turn(STEP);
            self.log(running).await;
            (self.house.bank.count(Verb::AcquireLease) >= times).then_some(())
        })
        .await;
    }

    /// Time goes on until the record says how it ended.
    async fn ended(&self, running: &Running) -> OperationLog {
        until(async || {
            self.clock.turn(STEP);
            let log = self.log(running).await;
            (log.status != OperationLogStatus::InProgress).then_some(log)
        })
        .await
    }

    async fn is_one_good_checkpoint(&self, running: &Running, id: CheckpointId) {
        assert_eq!(
            self.ended(running).await.status,
            OperationLogStatus::Success
        );
        let made = running.list().await;
        assert_eq!(made.len(), 1);
        assert_eq!(
            (made[0].id, made[0].status),
            (id, CheckpointStatus::Available)
        );
        let logs = running
            .db
            .runs()
            .operation_log_list(&ListQuery::of_every_project())
            .await;
        assert_eq!(logs.unwrap().len(), 1);
    }
}

/// That time may not come for years.
#[tokio::test]
async fn what_a_clock_that_was_ahead_asked_for_does_not_wait_until_its_time_comes() {
    let asked = Asked::new();
    let running = asked.house.open().await;
    asked.away_from(1);
    asked.ask(&running).await;
    asked.tried(&running, 2).await;
    let right = asked.clock.now() - TimeDelta::hours(1);
    asked.clock.set_time_of_day(right);
    let log = asked.ended(&running).await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    assert!(asked.clock.now() < right + TimeDelta::minutes(5));
}

#[tokio::test]
async fn it_begins_when_the_bank_is_back() {
    let asked = Asked::new();
    let running = asked.house.open().await;
    asked.away_from(1);
    let id = asked.ask(&running).await;
    asked.tried(&running, 4).await;
    let log = asked.log(&running).await;
    assert_eq!(log.status, OperationLogStatus::InProgress);
    let waits = log.extra_info.unwrap()["waiting"].to_string();
    assert!(waits.contains("The bank cannot be used"), "{waits}");
    assert_eq!(asked.ask(&running).await, id, "asked again, it is the same");
    asked.house.bank.heal();
    asked.is_one_good_checkpoint(&running, id).await;
}

#[tokio::test]
async fn where_the_bank_stays_away_it_fails_once() {
    let asked = Asked::new();
    let running = asked.house.open().await;
    asked.away_from(1);
    let id = asked.ask(&running).await;
    asked.tried(&running, 3).await;
    asked.clock.turn(Duration::from_mins(14));
    let log = asked.ended(&running).await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    assert!(log.ended_at.unwrap() > log.started_at + WINDOW);
    let reason = log.error_info.unwrap();
    assert!(
        reason.contains("The bank cannot be used") && reason.contains("2026-01-01 00:15:00 UTC"),
        "{reason}"
    );
    asked.house.bank.heal();
    assert_eq!(asked.ask(&running).await, id);
    drop(running);
    let again = asked.house.open().await;
    assert!(again.list().await.is_empty());
    let logs = again
        .db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await;
    assert_eq!(logs.unwrap().len(), 1);
}

/// The bank goes away at each of the writes that come before the first hook, and the service lives on or dies.
#[tokio::test]
async fn wherever_the_bank_goes_away_one_checkpoint_is_made() {
    for (nth, dies) in (1..=5).flat_map(|nth| [(nth, false), (nth, true)]) {
        let asked = Asked::new();
        let mut running = asked.house.open().await;
        asked.away_from(nth);
        let id = asked.ask(&running).await;
        if dies {
            drop(running);
            running = asked.house.open().await;
        }
        asked.clock.turn(Duration::from_secs(1));
        asked.house.bank.heal();
        asked.is_one_good_checkpoint(&running, id).await;
    }
}

/// Its time went by while nobody was there to try.
#[tokio::test]
async fn after_its_time_nothing_is_begun() {
    let asked = Asked::new();
    let first = asked.house.open().await;
    asked.away_from(1);
    asked.ask(&first).await;
    drop(first);
    asked.clock.turn(Duration::from_secs(901));
    asked.house.bank.heal();
    let second = asked.house.open().await;
    let log = asked.ended(&second).await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    assert!(second.list().await.is_empty());
}

/// The caller knows whether it is in time; what comes then takes as long as it takes.
#[tokio::test]
async fn what_was_asked_for_in_time_begins_at_once() {
    let asked = Asked::new();
    let running = asked.house.open().await;
    asked.clock.turn(Duration::from_secs(901));
    let id = asked.ask(&running).await;
    asked.is_one_good_checkpoint(&running, id).await;
}

/// A caller that gives no time hears at once that the bank is away.
#[tokio::test]
async fn without_time_it_is_refused_at_once() {
    let mut asked = Asked::new();
    asked.properties.begin_before = None;
    let running = asked.house.open().await;
    asked.away_from(1);
    let (context, properties) = (member(), asked.properties.clone());
    let refused = running.api().protect(&context, running.plan(1), properties);
    assert!(refused.await.unwrap_err().kind.is_retryable());
    assert_eq!(asked.log(&running).await.status, OperationLogStatus::Failed);
}
