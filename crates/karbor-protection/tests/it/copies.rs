//! Copies of checkpoints, in a second bank and in the same.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    Checkpoint, CheckpointId, CheckpointStatus, ErrorKind, OperationLogStatus, OperationType,
    Parameters, Plan, ReadbackStatus, Resource,
};
use karbor_plugin::{Bank, BankKey};
use karbor_testkit::Fault;
use serde_json::{Value, json};

use crate::house::{House, Running, SIMULATED, id, member, plan, stranger, until};

/// Protects a plan once more.
pub async fn protected(running: &Running, plan: &Plan) -> CheckpointId {
    let id = running.protect(plan.clone()).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::Available);
    running.log_of(id).await;
    id
}

/// Makes a checkpoint look as if it had been made so many days before.
async fn aged(house: &House, running: &Running, id: CheckpointId, days: i64) {
    let mut checkpoint = running.checkpoint(id).await;
    for key in house
        .keys()
        .iter()
        .filter(|key| key.ends_with(&format!("@{id}")))
    {
        house
            .bank
            .delete(&BankKey::parse(key).unwrap())
            .await
            .unwrap();
    }
    checkpoint.timestamp -= days * 86400;
    checkpoint.created_at = checkpoint
        .created_at
        .map(|day| day - chrono::TimeDelta::days(days));
    let checkpoints = house.checkpoints(&house.bank);
    checkpoints.create(&checkpoint).await.unwrap();
}

fn extra_info(checkpoint: &Checkpoint) -> Value {
    let text = checkpoint.extra_info.as_ref().unwrap().as_str().unwrap();
    serde_json::from_str(text).unwrap()
}

fn data() -> Parameters {
    let level = json!({"level": "data"}).as_object().unwrap().clone();
    [(SIMULATED.to_owned(), level)].into()
}

pub async fn is_whole(running: &Running, checkpoint: CheckpointId) {
    let verified = running
        .verify_with(&member(), checkpoint, data())
        .await
        .unwrap();
    let verified = running.verified(verified).await;
    assert_eq!(verified.status, ReadbackStatus::Success);
    let restored = running
        .restore(checkpoint, Parameters::new())
        .await
        .unwrap();
    let restored = running.restored(restored).await;
    assert_eq!(restored.status, ReadbackStatus::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_restored_when_the_first_bank_is_gone() {
    let house = House::new()
        .with_resources(&["app", "part bytes=3000000"])
        .with_edges(&[(0, 1)])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let source = protected(&running, &wanted).await;
    // A copy asks nobody but the bank what there is.
    house.inventory.lock().unwrap().broken = true;
    let copies = running.copy(&wanted).await.unwrap();
    let [(of, copy)] = copies[..] else {
        panic!("{copies:?}")
    };
    assert_eq!(of, source);
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    let log = running.log_of(copy).await;
    assert_eq!(
        (log.operation_type, log.status, log.plan_id),
        (
            OperationType::Copy,
            OperationLogStatus::Success,
            Some(wanted.id)
        )
    );
    let (original, made) = (
        running.checkpoint(source).await,
        running.checkpoint(copy).await,
    );
    let info = extra_info(&made);
    assert_eq!(info["copied_from"], json!(source));
    assert_eq!(info["copy_status"], "finished");
    assert_eq!(original.resource_graph, made.resource_graph);
    let listed: Vec<_> = running.list().await.iter().map(|one| one.id).collect();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&source) && listed.contains(&copy));
    is_whole(&running, copy).await;

    // The bank fails for good: the copy is found and restored as it is configured now.
    house.bank.inject(Fault::FailForGood, usize::MAX, |_| true);
    is_whole(&running, copy).await;
    drop(running);

    // And as the bank of the provider, with an empty database.
    let lost = house.after_the_loss_of_all_but_the_copies();
    let running = lost.open().await;
    let listed: Vec<_> = running.list().await.iter().map(|one| one.id).collect();
    assert_eq!(listed, [copy]);
    is_whole(&running, copy).await;
    // What was claimed by those who are lost ends.
    lost.copies.inner().advance(Duration::from_secs(61));
    running.delete(copy).await.unwrap();
    assert_eq!(running.settled(copy).await, CheckpointStatus::Deleted);
}

/// The server of the copy bank is down: the service starts, lists and protects by its own bank.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_bank_that_hangs_holds_up_nothing_else() {
    let house = House::new().with_resources(&["one"]).with_copy_bank();
    let running = house.open().await;
    let made = running.available(1).await;
    drop(running);
    house.copies.inject(Fault::Hang, usize::MAX, |_| true);
    let limit = Duration::from_secs(60);
    let running = tokio::time::timeout(limit, house.open()).await.unwrap();
    // What is not in the first bank may be in the second: that it cannot be asked is an answer, in time.
    let (asker, provider) = (member(), running.provider);
    let shown = running
        .api()
        .show_checkpoint(&asker, provider, CheckpointId::new());
    let asked = async { tokio::join!(running.list(), shown) };
    let (listed, shown) = tokio::time::timeout(limit, asked).await.unwrap();
    assert_eq!(shown.unwrap_err().kind, ErrorKind::Unavailable);
    let listed: Vec<_> = listed.iter().map(|one| one.id).collect();
    assert_eq!(listed, [made]);
    running.available(1).await;
    let stopped = running.service.shutdown(limit).await;
    assert!(stopped.is_graceful(), "{stopped:?}");
}

/// What was copied today of last year's data is last year's: the newest is today's.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_as_old_as_its_source() {
    for with_copy_bank in [true, false] {
        let house = House::new().with_resources(&["one bytes=10"]);
        let house = match with_copy_bank {
            true => house.with_copy_bank(),
            false => house,
        };
        let running = house.open().await;
        let wanted = running.plan(1);
        let old = protected(&running, &wanted).await;
        aged(&house, &running, old, 365).await;
        let new = protected(&running, &wanted).await;
        let copies = running.copy(&wanted).await.unwrap();
        let [(first, copy_of_old), (second, copy_of_new)] = copies[..] else {
            panic!("{copies:?}")
        };
        assert_eq!((first, second), (old, new));
        for (of, copy) in copies {
            assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
            let (of, copy) = (running.checkpoint(of).await, running.checkpoint(copy).await);
            assert_eq!(
                (copy.created_at, copy.timestamp),
                (of.created_at, of.timestamp)
            );
            let info = extra_info(&copy);
            let at = |field: &str| {
                info[field]
                    .as_str()
                    .unwrap()
                    .parse::<DateTime<Utc>>()
                    .unwrap()
            };
            assert_eq!(at("protected_at").timestamp(), of.timestamp);
            assert!(at("copied_at").timestamp() >= running.checkpoint(new).await.timestamp);
        }
        // Whatever the order, the original comes before its copies, page by page too.
        let newest_first = [new, copy_of_new, old, copy_of_old];
        let oldest_first = [old, copy_of_old, new, copy_of_new];
        for (direction, wanted) in [("desc", newest_first), ("asc", oldest_first)] {
            for page in 1..=4 {
                assert_eq!(
                    running.pages(direction, page).await,
                    wanted,
                    "{direction} by {page}"
                );
            }
        }
    }
}

/// Q30: what is copied is not copied again; what was not, or is gone, is.
#[tokio::test(flavor = "multi_thread")]
async fn q30_a_second_copy_copies_only_what_is_new() {
    for with_copy_bank in [true, false] {
        let house = House::new().with_resources(&["one bytes=10"]);
        let house = match with_copy_bank {
            true => house.with_copy_bank(),
            false => house,
        };
        let running = house.open().await;
        let wanted = running.plan(1);
        let first = protected(&running, &wanted).await;
        let copies = running.copy(&wanted).await.unwrap();
        assert_eq!(copies.len(), 1);
        // Also while the copy is being made.
        assert_eq!(running.copy(&wanted).await.unwrap(), []);
        let copy = copies[0].1;
        assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
        running.log_of(copy).await;
        assert_eq!(running.copy(&wanted).await.unwrap(), []);
        let second = protected(&running, &wanted).await;
        let copies = running.copy(&wanted).await.unwrap();
        assert_eq!(copies.len(), 1);
        assert_eq!(copies[0].0, second);
        running.settled(copies[0].1).await;
        until(async || running.delete(copy).await.ok()).await;
        assert_eq!(running.settled(copy).await, CheckpointStatus::Deleted);
        let again = running.copy(&wanted).await.unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].0, first);
        assert_eq!(
            running.settled(again[0].1).await,
            CheckpointStatus::Available
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_copy_at_once_one_copies() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    protected(&running, &wanted).await;
    let all = futures::future::join_all((0..4).map(|_| running.copy(&wanted))).await;
    let mut copies: Vec<_> = all.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let (_, copy) = copies.remove(0);
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    assert_eq!(running.list().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_names_the_resource_and_leaves_nothing_but_its_record() {
    let house = House::new()
        .with_resources(&["good bytes=10", "bad bytes=10 fail_copy"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(2);
    let source = protected(&running, &wanted).await;
    let before = house.keys();
    let copies = running.copy(&wanted).await.unwrap();
    let copy = copies[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Error);
    let log = running.log_of(copy).await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    let info = log.error_info.unwrap();
    assert!(
        info.contains("bad bytes=10 fail_copy (resource): ") && info.contains("told to fail"),
        "{info}"
    );
    let data: Vec<_> = house.copies.inner().keys();
    assert!(
        !data.iter().any(|key| key.contains("resource-data")),
        "{data:?}"
    );
    assert_eq!(before, house.keys(), "the source's bank was written to");
    is_whole(&running, source).await;
    // A copy that failed is no copy.
    let again = running.copy(&wanted).await.unwrap();
    assert_eq!(again[0].0, source);
}

/// The copy bank fails at its nth write and the service dies there; after a restart with the bank
/// healed, whatever was begun ends truthfully, and the next copy makes what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_write_to_the_copy_bank_ends_truthfully() {
    for nth in 1..12 {
        let house = House::new()
            .with_resources(&["a bytes=10", "b"])
            .with_edges(&[(0, 1)])
            .with_copy_bank();
        let first = house.open().await;
        let wanted = first.plan(1);
        protected(&first, &wanted).await;
        house.copies.fail_write(nth, Fault::FailForGood);
        let begun = first.copy(&wanted).await;
        drop(first);
        house.copies.heal();
        let second = house.open().await;
        if let Ok(copies) = &begun {
            let copy = copies[0].1;
            let status = second.settled(copy).await;
            let log = second.log_of(copy).await;
            assert_eq!(
                status == CheckpointStatus::Available,
                log.status == OperationLogStatus::Success,
                "write {nth}: {status} and {}",
                log.status
            );
        }
        for (_, copy) in second.copy(&wanted).await.unwrap() {
            assert_eq!(second.settled(copy).await, CheckpointStatus::Available);
        }
        let copies: Vec<_> = second.list().await;
        let whole: Vec<_> = copies
            .iter()
            .filter(|one| one.status == CheckpointStatus::Available)
            .collect();
        assert_eq!(whole.len(), 2, "write {nth}: {copies:?}");
        for one in whole {
            is_whole(&second, one.id).await;
        }
    }
}

/// Q29: a plugin that has nothing to copy says so before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn q29_what_cannot_be_copied_is_refused_with_the_reason() {
    let house = House::new();
    let running = house.open().await;
    let resource = Resource::new("OS::Cinder::Volume", id(0), "volume");
    let wanted = plan(house.other_provider, vec![resource]);
    let source = running.protect(wanted.clone()).await.unwrap();
    running.log_of(source).await;
    let before = house.keys();
    let error = running.copy(&wanted).await.unwrap_err();
    assert_eq!(
        (error.kind, error.class.as_str()),
        (ErrorKind::BadRequest, "FlowError")
    );
    assert!(
        error.message.contains("no data that could be copied"),
        "{error}"
    );
    assert_eq!(before, house.keys());
    let foreign = running.api().copy(&stranger(), wanted).await.unwrap_err();
    assert_eq!(foreign.kind, ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_bank_that_is_the_bank_is_no_copy_bank() {
    let mut house = House::new().with_resources(&["one"]);
    house.banks = ("memory", Some("memory"));
    let running = house.open().await;
    let wanted = running.plan(1);
    protected(&running, &wanted).await;
    let error = running.copy(&wanted).await.unwrap_err();
    assert!(error.message.contains("another place"), "{error}");
}

/// A second bank that is only plugged in to copy to does not stand in the way of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_bank_that_is_away_keeps_nobody_from_the_first() {
    let house = House::new().with_resources(&["one"]).with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    house
        .copies
        .inject(Fault::FailForGood, usize::MAX, |_| true);
    let source = protected(&running, &wanted).await;
    assert_eq!(running.list().await.len(), 1);
    assert_eq!(
        running.copy(&wanted).await.unwrap_err().kind,
        ErrorKind::Unavailable
    );
    house.copies.heal();
    let copies = running.copy(&wanted).await.unwrap();
    assert_eq!(copies[0].0, source);
    assert_eq!(
        running.settled(copies[0].1).await,
        CheckpointStatus::Available
    );
}

/// Times are kept in seconds: of one second the ids decide, which must not be chance.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_one_second_are_listed_as_they_were_made_and_so_are_their_copies() {
    let house = House::new().with_resources(&["plain"]).with_copy_bank();
    let running = house.open().await;
    let plan = running.plan(1);
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(protected(&running, &plan).await);
    }
    let listed = running.list().await;
    let listed: Vec<_> = listed.iter().map(|checkpoint| checkpoint.id).collect();
    assert_eq!(listed, made);
    let copied = until(async || {
        let copied = running.copy(&plan).await.ok()?;
        (copied.len() == made.len()).then_some(copied)
    })
    .await;
    let (sources, copies): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
    assert_eq!(sources, made);
    assert!(copies.is_sorted(), "{copies:?}");
}

/// A list without what the first bank has would hide a loss; the error leads to the copies.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_bank_is_away_the_way_to_the_copies_is_told() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    protected(&running, &wanted).await;
    let copy = running.copy(&wanted).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    running.log_of(copy).await;
    house.bank.inject(Fault::Fail, usize::MAX, |_| true);
    let (asker, none) = (member(), BTreeMap::new());
    let listed = running.api().list_checkpoints(
        &asker,
        running.provider,
        None,
        None,
        Vec::new(),
        Vec::new(),
        none,
        false,
    );
    let error = listed.await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let command = "karbor operation-log list --operation copy";
    assert!(error.message.contains(command), "{error}");
    assert_eq!(
        running.checkpoint(copy).await.status,
        CheckpointStatus::Available
    );
}

/// Without a second bank copies are made, as the original made them, and say that they are lost with the bank.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_the_same_bank_says_so() {
    for second_bank in [false, true] {
        let mut house = House::new().with_resources(&["one bytes=10"]);
        if second_bank {
            house = house.with_copy_bank();
        }
        let running = house.open().await;
        let wanted = running.plan(1);
        protected(&running, &wanted).await;
        let copy = running.copy(&wanted).await.unwrap()[0].1;
        assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
        let info = extra_info(&running.checkpoint(copy).await);
        assert_eq!(info["same_bank"] == json!(true), !second_bank, "{info}");
        let told = running.log_of(copy).await.extra_info.unwrap();
        assert_eq!(
            told["warnings"].to_string().contains("copy_bank"),
            !second_bank,
            "{told}"
        );
    }
}
