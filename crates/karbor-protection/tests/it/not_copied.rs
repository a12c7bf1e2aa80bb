//! What is not copied, and how that is told.

use karbor_db::ListQuery;
use karbor_manager::{Health, Manager};
use karbor_model::{
    CheckpointId, CheckpointStatus, ErrorKind, OperationId, OperationLog, OperationLogId,
    OperationLogStatus, OperationType, QuotaChange, QuotaResource,
};
use karbor_plugin::{Bank, BankKey};
use karbor_testkit::Fault;
use serde_json::{Value, json};

use crate::{
    copies::{is_whole, protected},
    house::{House, PROJECT, Running, until},
};

/// As if the maker of the copy had gone without a word.
async fn unfinished(house: &House, running: &Running, copy: CheckpointId) {
    let mut checkpoint = running.checkpoint(copy).await;
    checkpoint.status = CheckpointStatus::Copying;
    let copies = house.checkpoints(&house.copies);
    copies.create(&checkpoint).await.unwrap();
}

/// The database was lost, or the copy bank was not configured for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_makes_any_more_is_no_copy() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let source = protected(&running, &wanted).await;
    let copy = running.copy(&wanted).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    let log = running.log_of(copy).await;
    unfinished(&house, &running, copy).await;

    // Another service is at work on it, or one of this database will go on with it.
    let name =
        BankKey::parse(&format!("checkpoints/{copy}/copied-{}", OperationId::new())).unwrap();
    let ttl = std::time::Duration::from_secs(60);
    let lease = house
        .copies
        .acquire_lease(&name, "another", ttl)
        .await
        .unwrap();
    assert_eq!(running.copy(&wanted).await.unwrap(), []);
    house.copies.release_lease(&lease).await.unwrap();
    let unended = OperationLog {
        id: OperationLogId::new(),
        status: OperationLogStatus::InProgress,
        ended_at: None,
        ..log
    };
    running
        .db
        .runs()
        .operation_log_create(&unended)
        .await
        .unwrap();
    assert_eq!(running.copy(&wanted).await.unwrap(), []);
    assert_eq!(
        running.checkpoint(copy).await.status,
        CheckpointStatus::Copying
    );
    let (from, to) = (OperationLogStatus::InProgress, OperationLogStatus::Failed);
    running
        .db
        .runs()
        .operation_log_set_status(unended.id, from, to)
        .await
        .unwrap();

    let again = running.copy(&wanted).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].0, source);
    assert_eq!(
        running.settled(again[0].1).await,
        CheckpointStatus::Available
    );
    assert_eq!(
        running.checkpoint(copy).await.status,
        CheckpointStatus::Error
    );
    is_whole(&running, again[0].1).await;
    until(async || running.delete(copy).await.ok()).await;
}

/// The answer names what has begun; what could not begin is in the operation log, and the next round
/// says why.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_begin_is_told() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let first = protected(&running, &wanted).await;
    let second = protected(&running, &wanted).await;
    let third = protected(&running, &wanted).await;
    let change = QuotaChange {
        limits: [(QuotaResource::Checkpoints, 4)].into(),
        class: None,
    };
    running.db.quotas().update(PROJECT, &change).await.unwrap();
    let begun = running.copy(&wanted).await.unwrap();
    assert_eq!(begun.len(), 1);
    let of = |ids: [CheckpointId; 3]| ids.iter().position(|id| *id == begun[0].0);
    assert!(of([first, second, third]).is_some());
    assert_eq!(
        running.settled(begun[0].1).await,
        CheckpointStatus::Available
    );
    running.log_of(begun[0].1).await;
    let logs = running
        .db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await
        .unwrap();
    let failed: Vec<_> = logs
        .iter()
        .filter(|log| log.status == OperationLogStatus::Failed)
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].operation_type, OperationType::Copy);
    assert!(failed[0].ended_at.is_some());
    let told = failed[0].error_info.as_ref().unwrap();
    assert!(told.contains("Maximum number of checkpoints"), "{told}");
    assert!(
        [first, second, third]
            .iter()
            .any(|id| told.contains(&id.to_string())),
        "{told}"
    );
    // Asked again, with nothing begun, the answer itself tells it, and how much is left.
    let error = running.copy(&wanted).await.unwrap_err();
    let wanted = "2 checkpoints of the plan are not copied: Maximum number of checkpoints";
    assert!(error.message.starts_with(wanted), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_somebody_else_has_is_not_called_copied() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let wanted = running.plan(1);
    let source = protected(&running, &wanted).await;
    let name = format!("checkpoints/{source}/delete-{}", OperationId::new());
    let name = BankKey::parse(&name).unwrap();
    let ttl = std::time::Duration::from_secs(600);
    let lease = house
        .bank
        .acquire_lease(&name, "another", ttl)
        .await
        .unwrap();
    let error = running.copy(&wanted).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("being deleted"), "{error}");
    house.bank.release_lease(&lease).await.unwrap();
    let copies = running.copy(&wanted).await.unwrap();
    assert_eq!(copies[0].0, source);
    assert_eq!(
        running.settled(copies[0].1).await,
        CheckpointStatus::Available
    );
}

/// The service dies before the copy is in its bank, and somebody else copies meanwhile: the run is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_somebody_else_made_meanwhile_is_not_tried_for_ever() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let first = house.open().await;
    let wanted = first.plan(1);
    let source = protected(&first, &wanted).await;
    house.copies.inject(Fault::Hang, usize::MAX, |call| {
        call.key.ends_with("index.json")
    });
    let wrote = until(async || {
        let calls = house.copies.calls();
        calls
            .iter()
            .any(|call| call.key.ends_with("index.json"))
            .then_some(())
    });
    tokio::select! {
        begun = first.copy(&wanted) => panic!("{begun:?}"),
        () = wrote => {}
    }
    let mut other = first.checkpoint(source).await;
    drop(first);
    house.copies.heal();
    other.id = CheckpointId::new();
    let info = json!({"copied_from": source, "protected_at": "2026-01-01T00:00:00+00:00"});
    other.extra_info = Some(Value::String(info.to_string()));
    let copies = house.checkpoints(&house.copies);
    copies.create(&other).await.unwrap();

    let second = house.open().await;
    let log = until(async || {
        let logs = second
            .db
            .runs()
            .operation_log_list(&ListQuery::of_every_project())
            .await
            .unwrap();
        let log = logs
            .into_iter()
            .find(|log| log.operation_type == OperationType::Copy)?;
        (log.status != OperationLogStatus::InProgress).then_some(log)
    })
    .await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    assert!(log.error_info.unwrap().contains("copied already"));
    until(async || (second.api().is_working() == Health::Working).then_some(())).await;
    assert_eq!(second.copy(&wanted).await.unwrap(), []);
}
