//! Whose turn it is: `max_concurrent_operations`.

use karbor_interfaces::protection::ProtectionApi as _;
use karbor_model::{
    CheckpointId, OperationLog, OperationLogId, Parameters, RestoreStatus, VerificationId,
    VerificationStatus,
};
use karbor_protection::OPTIONS;
use serde_json::{Value, json};

use crate::house::{House, Running, SIMULATED, member, until};

fn slowly(seconds: &str) -> Parameters {
    let wish = json!({ "sleep": seconds });
    [(SIMULATED.to_owned(), wish.as_object().unwrap().clone())].into()
}

impl Running {
    async fn verify_slowly(&self, checkpoint: CheckpointId) -> VerificationId {
        self.verify_with(&member(), checkpoint, slowly("600"))
            .await
            .unwrap()
    }

    /// The record of a run, which has the run's id.
    async fn log(&self, id: VerificationId) -> OperationLog {
        let log = self.db.operation_log_get(OperationLogId(id.0)).await;
        log.unwrap()
    }

    /// What the record says that the run waits for, once it does.
    async fn waits(&self, id: VerificationId) -> String {
        until(async || {
            let told = self.log(id).await.extra_info.unwrap_or_default();
            told["waiting"].as_str().map(str::to_owned)
        })
        .await
    }

    async fn cancel(&self, id: VerificationId) {
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
    let waiting = running.db.verification_get(second).await.unwrap();
    assert_eq!(waiting.status, VerificationStatus::InProgress);
    // Verifications leave room for what is in a hurry.
    let restore = running.restore(checkpoint, Parameters::new()).await;
    let restored = running.restored(restore.unwrap()).await;
    assert_eq!(restored.status, RestoreStatus::Success);
    assert!(running.log(second).await.extra_info.unwrap()["waiting"].is_string());
    // Its turn comes with the end of the first.
    running.cancel(first).await;
    let done = running.verified(second).await;
    assert_eq!(done.status, VerificationStatus::Success);
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
    assert_eq!(ended.status, VerificationStatus::Fail);
    let log = until(async || {
        let log = running.log(second).await;
        log.ended_at.is_some().then_some(log)
    })
    .await;
    assert!(log.error_info.unwrap().contains("cancelled"));
    let first = running.db.verification_get(first).await.unwrap();
    assert_eq!(first.status, VerificationStatus::InProgress);
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
        assert_eq!(done.status, VerificationStatus::Success);
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
