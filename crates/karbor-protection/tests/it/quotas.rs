//! What counts against quotas is what the bank has, however a run ends.

use karbor_db::{Db, QuotaSettlement};
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    CheckpointId, CheckpointStatus, ErrorKind, QuotaChange, QuotaHolding, QuotaLimits,
    QuotaResource,
    QuotaResource::{Bytes, Checkpoints},
};
use karbor_testkit::Fault;

use crate::house::{House, PROJECT, Running, member, until};

async fn limit(db: &Db, resource: QuotaResource, limit: i64) {
    let change = QuotaChange {
        limits: QuotaLimits::from([(resource, limit)]),
        class: None,
    };
    db.quotas().update(PROJECT, &change).await.unwrap();
}

async fn used(db: &Db, resource: QuotaResource) -> i64 {
    db.quotas().usage(PROJECT).await.unwrap()[&resource]
}

/// What the list shows of the project.
async fn there(running: &Running) -> i64 {
    let member = member();
    let all = running.api().list_checkpoints(
        &member,
        running.provider,
        None,
        None,
        Vec::new(),
        Vec::new(),
        std::collections::BTreeMap::new(),
        false,
    );
    i64::try_from(all.await.unwrap().len()).unwrap()
}

async fn deleted(running: &Running, id: CheckpointId) {
    running.delete(id).await.unwrap();
    let status = running.settled(id).await;
    assert_eq!(status, CheckpointStatus::Deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_checkpoint_makes_room_at_once() {
    let house = House::new().with_resources(&["bytes=100"]);
    let running = house.open().await;
    limit(&running.db, Checkpoints, 2).await;
    let first = running.available(1).await;
    running.available(1).await;
    assert_eq!(used(&running.db, Checkpoints).await, 2);
    until(async || (used(&running.db, Bytes).await == 200).then_some(())).await;

    let refused = running.protect(running.plan(1)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::OverLimit);
    assert_eq!(refused.class, "CheckpointLimitExceeded");
    assert_eq!(
        refused.message,
        "Maximum number of checkpoints allowed (2) exceeded"
    );
    assert_eq!(there(&running).await, 2, "nothing was begun");

    deleted(&running, first).await;
    let third = running.protect(running.plan(1)).await.unwrap();
    running.settled(third).await;
    assert_eq!(used(&running.db, Checkpoints).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn used_up_bytes_refuse_the_next_checkpoint() {
    let house = House::new().with_resources(&["bytes=100"]);
    let running = house.open().await;
    limit(&running.db, Bytes, 100).await;
    let first = running.available(1).await;
    until(async || (used(&running.db, Bytes).await == 100).then_some(())).await;
    let refused = running.protect(running.plan(1)).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Maximum number of bytes allowed (100) exceeded"
    );
    deleted(&running, first).await;
    running.available(1).await;
}

/// A checkpoint in error is there until it is deleted; one that was never written is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_counts_as_what_it_left() {
    let house = House::new().with_resources(&["fail_protect"]);
    let running = house.open().await;
    let id = running.protect(running.plan(1)).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::Error);
    running.log_of(id).await;
    assert_eq!(used(&running.db, Checkpoints).await, 1);
    deleted(&running, id).await;
    assert_eq!(used(&running.db, Checkpoints).await, 0);

    let house = House::new().with_resources(&["plain"]);
    let running = house.open().await;
    house.bank.fail_write(1, Fault::FailForGood);
    running.protect(running.plan(1)).await.unwrap_err();
    house.bank.heal();
    assert_eq!(used(&running.db, Checkpoints).await, there(&running).await);
}

/// The service dies at every write to the bank in turn: what counts afterwards is what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_counts_truthfully() {
    for nth in 1..12 {
        let house = House::new().with_resources(&["bytes=10"]);
        let first = house.open().await;
        house.bank.fail_write(nth, Fault::FailForGood);
        let begun = first.protect(first.plan(1)).await;
        drop(first);
        house.bank.heal();
        let second = house.open().await;
        if let Ok(id) = begun {
            second.settled(id).await;
            second.log_of(id).await;
        }
        until(async || {
            // A write that failed may have left a checkpoint that nobody was told of.
            second.api().recount_quotas().await.unwrap();
            let holdings = second.db.runs().holdings(second.provider).await.unwrap();
            let settled = holdings.iter().all(|holding| holding.settled);
            let agree = used(&second.db, Checkpoints).await == there(&second).await;
            (settled && agree).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_takes_in_what_the_database_forgot_and_drops_what_is_gone() {
    let house = House::new().with_resources(&["bytes=10"]);
    let first = house.open().await;
    let forgotten = first.available(1).await;
    until(async || (used(&first.db, Bytes).await == 10).then_some(())).await;
    let (db, provider) = (&first.db, first.provider);
    db.runs()
        .holding_settle(&QuotaSettlement::Released(forgotten))
        .await
        .unwrap();
    let gone = QuotaHolding {
        checkpoint_id: CheckpointId::new(),
        project_id: PROJECT.to_owned(),
        provider_id: provider,
        bytes: 1000,
        settled: true,
    };
    db.runs()
        .holdings_recount(provider, &[], &[gone])
        .await
        .unwrap();
    assert_eq!(used(db, Bytes).await, 1000);
    drop(first);
    let second = house.open().await;
    let recount = second.api().recount_quotas().await.unwrap();
    assert_eq!((recount.added, recount.removed), (1, 1));
    assert_eq!(used(&second.db, Bytes).await, 10);
    assert_eq!(used(&second.db, Checkpoints).await, 1);
}
