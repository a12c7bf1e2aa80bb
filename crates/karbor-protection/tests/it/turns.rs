//! Whose turn it is: `max_concurrent_operations`.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use karbor_interfaces::protection::ProtectionApi as _;
use karbor_model::{
    CheckpointId, CheckpointStatus, OperationLog, OperationLogId, OperationType, Parameters,
    ReadbackId, ReadbackStatus,
};
use karbor_protection::OPTIONS;
use karbor_testkit::{FakeClock, Fault, Verb};
use serde_json::{Value, json};

use crate::house::{House, Running, SIMULATED, member, until};

fn slowly(seconds: &str) -> Parameters {
    let wish = json!({ "sleep": seconds });
    [(SIMULATED.to_owned(), wish.as_object().unwrap().clone())].into()
}

impl Running {
    async fn verify_slowly(&self, checkpoint: CheckpointId) -> ReadbackId {
        self.verify_with(&member(), checkpoint, slowly("600"))
            .await
            .unwrap()
    }

    /// The record of a run, which has the run's id.
    async fn log(&self, id: ReadbackId) -> OperationLog {
        let log = self.db.runs().operation_log_get(OperationLogId(id.0)).await;
        log.unwrap()
    }

    /// What the record says that the run waits for, once it does.
    async fn waits(&self, id: ReadbackId) -> String {
        until(async || {
            let told = self.log(id).await.extra_info.unwrap_or_default();
            told["waiting"].as_str().map(str::to_owned)
        })
        .await
    }

    async fn cancel(&self, id: ReadbackId) {
        let log = OperationLogId(id.0);
        let cancelled = self.api().cancel_operation(&member(), log).await;
        cancelled.unwrap();
    }
}

/// Without a word in the configuration there is a limit.
#[test]
fn there_is_a_limit_by_default() {
    let option = OPTIONS
        .iter()
        .find(|option| option.name == "max_concurrent_operations");
    let limit: usize = option.unwrap().default.parse().unwrap();
    assert!((1..=32).contains(&limit), "{limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_at_once_waits_and_says_so() {
    let house = House::new()
        .with_resources(&["one"])
        .with_option("max_concurrent_operations", "2");
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let first = running.verify_slowly(checkpoint).await;
    let second = running.verify(&member(), checkpoint).await.unwrap();
    let waits = running.waits(second).await;
    assert!(waits.contains("max_concurrent_operations"), "{waits}");
    let waiting = running
        .db
        .runs()
        .readback_get(OperationType::Verify, second)
        .await
        .unwrap();
    assert_eq!(waiting.status, ReadbackStatus::InProgress);
    // Verifications leave room for what is in a hurry.
    let restore = running.restore(checkpoint, Parameters::new()).await;
    let restored = running.restored(restore.unwrap()).await;
    assert_eq!(restored.status, ReadbackStatus::Success);
    assert!(running.log(second).await.extra_info.unwrap()["waiting"].is_string());
    // Its turn comes with the end of the first.
    running.cancel(first).await;
    let done = running.verified(second).await;
    assert_eq!(done.status, ReadbackStatus::Success);
    until(async || {
        let log = running.log(second).await;
        let told = log.extra_info.unwrap_or_default();
        (log.ended_at.is_some() && told["waiting"] == Value::Null).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_is_cancelled_at_once() {
    let house = House::new()
        .with_resources(&["one"])
        .with_option("max_concurrent_operations", "1");
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let first = running.verify_slowly(checkpoint).await;
    let second = running.verify_slowly(checkpoint).await;
    running.waits(second).await;
    running.cancel(second).await;
    let ended = running.verified(second).await;
    assert_eq!(ended.status, ReadbackStatus::Fail);
    let log = until(async || {
        let log = running.log(second).await;
        log.ended_at.is_some().then_some(log)
    })
    .await;
    assert!(log.error_info.unwrap().contains("cancelled"));
    let first = running
        .db
        .runs()
        .readback_get(OperationType::Verify, first)
        .await
        .unwrap();
    assert_eq!(first.status, ReadbackStatus::InProgress);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_when_the_service_died_has_its_turn_after_the_start() {
    let house = House::new()
        .with_resources(&["one"])
        .with_option("max_concurrent_operations", "1");
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    running.verify_slowly(checkpoint).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let id = running.verify(&member(), checkpoint).await.unwrap();
        running.waits(id).await;
        waiting.push(id);
    }
    drop(running);
    let house = house.with_option("max_concurrent_operations", "4");
    let running = house.open().await;
    for id in waiting {
        let done = running.verified(id).await;
        assert_eq!(done.status, ReadbackStatus::Success);
    }
}

/// A checkpoint is not deleted under what waits to read it, and can be once that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_kept_for_what_waits_for_it() {
    let house = House::new()
        .with_resources(&["one", "two"])
        .with_option("max_concurrent_operations", "1");
    let running = house.open().await;
    let [kept, other] = [running.available(1).await, running.available(2).await];
    let first = running.verify_slowly(other).await;
    let second = running.verify_slowly(kept).await;
    running.waits(second).await;
    let error = running.delete(kept).await.unwrap_err();
    assert_eq!(error.class, "CheckpointNotBeDeleted");
    running.cancel(second).await;
    running.verified(second).await;
    until(async || running.delete(kept).await.ok()).await;
    running.cancel(first).await;
    running.settled(kept).await;
}

/// A turn is for work: what only waits for the bank to take its end keeps nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_write_down_its_end_gives_its_turn_to_others() {
    let house = House::new()
        .with_resources(&["one"])
        .with_option("max_concurrent_operations", "1");
    let running = house.open().await;
    let good = running.available(1).await;
    let puts = AtomicUsize::new(0);
    house.bank.inject(Fault::Full, usize::MAX, move |call| {
        let is_index = call.verb == Verb::Put && call.key.ends_with("/index.json");
        is_index && puts.fetch_add(1, Ordering::SeqCst) > 0
    });
    let stuck = running.protect(running.plan(1)).await.unwrap();
    let verification = running.verify(&member(), good).await.unwrap();
    let done = running.verified(verification).await;
    assert_eq!(done.status, ReadbackStatus::Success);
    let status = running.checkpoint(stuck).await.status;
    assert_eq!(status, CheckpointStatus::Protecting);
    house.bank.heal();
    assert_eq!(running.settled(stuck).await, CheckpointStatus::Available);
}

/// Nobody waits for the night's backups to get something back.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_for_restores_only() {
    let house = House::new()
        .with_resources(&["one"])
        .with_option("max_concurrent_operations", "1");
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let first = running.verify_slowly(checkpoint).await;
    let restore = running.restore(checkpoint, Parameters::new()).await;
    let restored = running.restored(restore.unwrap()).await;
    assert_eq!(restored.status, ReadbackStatus::Success);
    running.cancel(first).await;
    running.verified(first).await;
}

/// Of what waits nothing has begun, so a bank that was away for a while is no end of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_while_its_claim_lapses_claims_anew() {
    let clock = FakeClock::new();
    clock.set_time_of_day(chrono::Utc::now());
    let house = House::new()
        .with_resources(&["one", "two"])
        .with_option("max_concurrent_operations", "1")
        .with_clock(&clock);
    let running = house.open().await;
    let [kept, other] = [running.available(1).await, running.available(2).await];
    let first = running.verify_slowly(other).await;
    let second = running.verify(&member(), kept).await.unwrap();
    running.waits(second).await;
    let lease = kept.to_string();
    house.bank.inject(Fault::Fail, usize::MAX, move |call| {
        call.verb == Verb::RenewLease && call.key.contains(&lease)
    });
    let pass = || {
        let step = Duration::from_millis(100);
        house.bank.inner().advance(step);
        clock.turn(step);
    };
    let claims = house.bank.count(Verb::AcquireLease);
    until(async || {
        pass();
        running.log(second).await;
        (house.bank.count(Verb::AcquireLease) > claims).then_some(())
    })
    .await;
    house.bank.heal();
    running.cancel(first).await;
    let done = until(async || {
        pass();
        let found = running
            .db
            .runs()
            .readback_get(OperationType::Verify, second)
            .await
            .unwrap();
        (found.status != ReadbackStatus::InProgress).then_some(found)
    })
    .await;
    assert_eq!(done.status, ReadbackStatus::Success);
}
