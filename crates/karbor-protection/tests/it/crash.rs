//! Crashes within the process: the service is dropped where it stands. (`kill -9` of a real one is
//! tested with the binary.)

use karbor_model::{CheckpointStatus, OperationLogStatus, Parameters, ReadbackStatus};
use karbor_testkit::{Fault, FaultyBank, MemoryBank, Verb};

use crate::house::{House, until};

/// Q69: a checkpoint that was being made when the service died does not stay so.
#[tokio::test(flavor = "multi_thread")]
async fn q69_a_protect_goes_on_after_a_crash() {
    let house = House::new().with_resources(&["sleep=600", "quick"]);
    let first = house.open().await;
    let checkpoint = first.protect(first.plan(2)).await.unwrap();
    drop(first);
    // The sleeper is told by its name in the checkpoint's graph; the second life must not sleep long.
    let second = house.open().await;
    assert_eq!(
        second.checkpoint(checkpoint).await.status,
        CheckpointStatus::Protecting
    );
    let log = until(async || {
        let logs = second
            .db
            .runs()
            .operation_log_list(&karbor_db::ListQuery::of_every_project())
            .await
            .unwrap();
        logs.into_iter()
            .find(|log| log.checkpoint_id == Some(checkpoint))
    })
    .await;
    assert_eq!(log.status, OperationLogStatus::InProgress);
    use karbor_interfaces::protection::ProtectionApi;
    until(async || {
        second
            .api()
            .cancel_operation(&crate::house::member(), log.id)
            .await
            .ok()
    })
    .await;
    assert_eq!(second.settled(checkpoint).await, CheckpointStatus::Error);
    assert_eq!(
        second.log_of(checkpoint).await.status,
        OperationLogStatus::Failed
    );
}

/// What finished hooks wrote is in the lost bank, and they would not run again: a checkpoint made of
/// the rest would be hollow.
#[tokio::test(flavor = "multi_thread")]
async fn a_protect_does_not_go_on_in_another_bank() {
    let mut house = House::new().with_resources(&["sleep=600", "quick"]);
    let first = house.open().await;
    let checkpoint = first.protect(first.plan(2)).await.unwrap();
    let of_quick = format!("resource-data/{}/metadata", crate::house::id(1));
    until(async || {
        let keys = house.bank.inner().keys();
        keys.iter()
            .any(|key| key.ends_with(&of_quick))
            .then_some(())
    })
    .await;
    drop(first);
    house.bank = std::sync::Arc::new(FaultyBank::new(MemoryBank::new()));
    let second = house.open().await;
    let log = second.log_of(checkpoint).await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    let error = log.error_info.unwrap();
    assert!(error.contains("could not be found"), "{error}");
    assert!(second.list().await.is_empty());
}

/// The bank fails at its nth write and the service dies there; after a restart with the bank
/// healed, whatever was begun ends whole: an available checkpoint, or none that claims to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_write_to_the_bank_ends_truthfully() {
    for nth in 1..12 {
        let house = House::new()
            .with_resources(&["a", "b"])
            .with_edges(&[(0, 1)]);
        let first = house.open().await;
        house.bank.fail_write(nth, Fault::FailForGood);
        let begun = first.protect(first.plan(1)).await;
        if let Ok(checkpoint) = begun {
            // However far it came by now.
            drop(first);
            house.bank.heal();
            let second = house.open().await;
            let status = second.settled(checkpoint).await;
            let log = second.log_of(checkpoint).await;
            let ended = (
                status == CheckpointStatus::Available,
                log.status == OperationLogStatus::Success,
            );
            assert!(
                ended.0 == ended.1,
                "write {nth}: {status} and {}",
                log.status
            );
            if status == CheckpointStatus::Available {
                let restore = second.restore(checkpoint, Parameters::new()).await.unwrap();
                assert_eq!(
                    second.restored(restore).await.status,
                    ReadbackStatus::Success,
                    "write {nth}"
                );
            }
        } else {
            house.bank.heal();
            first.available(1).await;
        }
    }
}

/// The end of a run cannot be written to the bank for a while: the run waits, says so, and ends when
/// it can.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_written_is_written_later() {
    use karbor_manager::Manager;
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let seen = std::sync::atomic::AtomicUsize::new(0);
    // The first write says "deleting"; the last, "deleted", does not get through.
    house.bank.inject(Fault::Fail, usize::MAX, move |call| {
        let index = call.verb == Verb::Put && call.key.ends_with("/index.json");
        index && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0
    });
    until(async || running.delete(checkpoint).await.ok()).await;
    until(async || (!running.service.manager().is_working().is_working()).then_some(())).await;
    assert_eq!(
        running.checkpoint(checkpoint).await.status,
        CheckpointStatus::Deleting
    );
    house.bank.heal();
    assert_eq!(running.settled(checkpoint).await, CheckpointStatus::Deleted);
    until(async || {
        running
            .service
            .manager()
            .is_working()
            .is_working()
            .then_some(())
    })
    .await;
}

/// A service that died after a run had ended and before its claim was given up: the next start gives
/// it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_a_crash_left_behind_is_given_up_at_the_next_start() {
    let house = House::new().with_resources(&["one"]);
    let first = house.open().await;
    house.bank.inject(Fault::Fail, usize::MAX, |call| {
        call.verb == Verb::ReleaseLease
    });
    let checkpoint = first.available(1).await;
    drop(first);
    house.bank.heal();
    let second = house.open().await;
    second.delete(checkpoint).await.unwrap();
    assert_eq!(second.settled(checkpoint).await, CheckpointStatus::Deleted);
}
