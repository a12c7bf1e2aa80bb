//! Checkpoints of which the bank has no record that can be believed: shown as failed, refused with what to
//! do, and removed without a hand in the bank.

use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointStatus, ErrorKind, OperationLogStatus,
    OperationType, Parameters, ProviderId, RequestContext,
};
use karbor_plugin::{Bank, BankKey};
use karbor_testkit::{Fault, Verb};
use serde_json::{Value, json};

use crate::{
    copies::is_whole,
    house::{House, PROJECT, Running, member, until},
};

fn index(id: CheckpointId) -> String {
    format!("checkpoints/{id}/index.json")
}

fn of_project(project: &str) -> RequestContext {
    RequestContext::for_project("user", project, false)
}

async fn shown(
    running: &Running,
    as_whom: &RequestContext,
    id: CheckpointId,
) -> Result<Checkpoint, ApiError> {
    running
        .api()
        .show_checkpoint(as_whom, running.provider, id)
        .await
}

async fn deleted_by(
    running: &Running,
    as_whom: &RequestContext,
    id: CheckpointId,
) -> Result<(), ApiError> {
    running.api().delete(as_whom, running.provider, id).await
}

/// What the bank has of a checkpoint, but its record.
fn left(house: &House, id: CheckpointId) -> Vec<String> {
    let (id, record) = (id.to_string(), index(id));
    let mut keys = house.keys();
    keys.retain(|key| key.contains(&id) && *key != record);
    keys
}

async fn changed(house: &House, id: CheckpointId, change: impl FnOnce(&mut Value)) {
    let mut record: Value = serde_json::from_slice(&house.object(&index(id)).await).unwrap();
    change(&mut record);
    house.tamper(&index(id), record.to_string());
}

/// It goes, and leaves what a deletion leaves: the record that it is deleted, and no place in a quota.
async fn goes(house: &House, running: &Running, as_whom: &RequestContext, id: CheckpointId) {
    deleted_by(running, as_whom, id).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::Deleted);
    let log = running.log_of(id).await;
    assert_eq!(
        (log.operation_type, log.status),
        (OperationType::Delete, OperationLogStatus::Success)
    );
    let told = log.extra_info.unwrap()["warnings"][0].to_string();
    assert!(told.contains(&format!("karbor:checkpoint={id}")), "{told}");
    assert_eq!(left(house, id), Vec::<String>::new());
    assert!(running.list().await.iter().all(|one| one.id != id));
    let holdings = running.db.quota_holdings(running.provider).await.unwrap();
    assert!(holdings.iter().all(|one| one.checkpoint_id != id));
    until(async || {
        house
            .bank
            .inner()
            .leases(&BankKey::parse(&format!("leases/checkpoints/{id}")).unwrap())
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_shown_as_it_is_listed_and_can_be_deleted() {
    let house = House::new().with_resources(&["one bytes=10", "two bytes=10"]);
    let running = house.open().await;
    let good = running.available(2).await;
    type Damage<'a> = (&'a str, &'a dyn Fn(&str));
    let garbage = |key: &str| house.tamper(key, "garbage");
    let nothing = |key: &str| house.tamper(key, "");
    let kinds: [Damage<'_>; 2] = [("garbage", &garbage), ("empty", &nothing)];
    for (what, damage) in kinds {
        let bad = running.available(2).await;
        damage(&index(bad));
        let seen = shown(&running, &member(), bad).await.unwrap();
        let listed = running.list().await;
        let listed = listed.iter().find(|one| one.id == bad).unwrap();
        assert_eq!(
            (seen.status, &seen.project_id),
            (CheckpointStatus::Error, &PROJECT.to_owned())
        );
        assert_eq!(
            (&seen.extra_info, seen.created_at),
            (&listed.extra_info, listed.created_at),
            "{what}"
        );
        assert!(
            seen.info()["unreadable"]
                .as_str()
                .unwrap()
                .contains("cannot be read"),
            "{what}"
        );

        let refused = running.restore(bad, Parameters::new()).await.unwrap_err();
        assert_eq!(
            (refused.kind, refused.class.as_str()),
            (ErrorKind::Conflict, "CheckpointIndexCorrupt")
        );
        for part in [bad.to_string(), format!("karbor checkpoint delete {bad}")] {
            assert!(refused.message.contains(&part), "{what}: {refused}");
        }
        let verified = running.verify(&member(), bad).await.unwrap_err();
        assert_eq!(verified.kind, ErrorKind::Conflict, "{what}");
        for other in [
            shown(&running, &of_project("p2"), bad).await.map(|_| ()),
            deleted_by(&running, &of_project("p2"), bad).await,
        ] {
            assert_eq!(other.unwrap_err().kind, ErrorKind::Forbidden, "{what}");
        }
        goes(&house, &running, &member(), bad).await;
    }
    is_whole(&running, good).await;
}

/// The record is gone, its names in the index are left.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_a_record_can_be_deleted() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let bad = running.available(1).await;
    house
        .bank
        .inner()
        .delete(&BankKey::parse(&index(bad)).unwrap())
        .await
        .unwrap();
    assert_eq!(
        shown(&running, &member(), bad).await.unwrap().status,
        CheckpointStatus::Error
    );
    goes(&house, &running, &member(), bad).await;
}

/// A record that nobody vouches for decides neither whose it is nor what goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_forged_record_says_is_not_deleted_with_it() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    changed(&house, bad, |record| {
        record["project_id"] = json!("p2");
        record["protection_plan"]["id"] = json!("../../checkpoints");
    })
    .await;
    changed(&house, bad, |record| {
        record["protection_plan"]["id"] = json!(karbor_model::PlanId::new());
        record["resource_graph"] = json!("[{}, []]");
    })
    .await;
    // Of the forged project: it is not his.
    assert_eq!(
        deleted_by(&running, &of_project("p2"), bad)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Forbidden
    );
    assert_eq!(
        shown(&running, &member(), bad).await.unwrap().status,
        CheckpointStatus::Error
    );
    goes(&house, &running, &member(), bad).await;
    is_whole(&running, good).await;

    // With the id of another: that one is left alone.
    let bad = running.available(1).await;
    changed(&house, bad, |record| record["id"] = json!(good)).await;
    goes(&house, &running, &member(), bad).await;
    is_whole(&running, good).await;
}

/// Without the operation log the names in the index say whose it is, if they agree.
#[tokio::test(flavor = "multi_thread")]
async fn whose_a_damaged_checkpoint_is_has_to_be_known() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let (one, several) = (running.available(1).await, running.available(1).await);
    house
        .database()
        .execute("DELETE FROM operation_logs", [])
        .unwrap();
    for id in [one, several] {
        house.tamper(&index(id), "garbage");
    }
    let forged = format!("indices/by-provider/{}/p2/1@{several}", house.provider);
    house.tamper(&forged, several.to_string());

    assert_eq!(
        deleted_by(&running, &of_project("p2"), one)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Forbidden
    );
    goes(&house, &running, &member(), one).await;
    for project in [PROJECT, "p2"] {
        let refused = deleted_by(&running, &of_project(project), several)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Forbidden);
        assert!(refused.message.contains("administrator"), "{refused}");
        assert_eq!(
            shown(&running, &of_project(project), several)
                .await
                .unwrap()
                .status,
            CheckpointStatus::Error
        );
    }
    assert_eq!(
        shown(&running, &of_project("p3"), several)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Forbidden
    );
    goes(&house, &running, &RequestContext::admin(), several).await;
}

/// Listed for a provider that it is not of, a whole checkpoint stays whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_another_provider_s_index_deletes_nothing() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let mut running = house.open().await;
    let good = running.available(1).await;
    let other: ProviderId = house.other_provider;
    house.tamper(
        &format!("indices/by-provider/{other}/{PROJECT}/1@{good}"),
        good.to_string(),
    );
    let own = std::mem::replace(&mut running.provider, other);
    for gone_log in [false, true] {
        if gone_log {
            house
                .database()
                .execute("DELETE FROM operation_logs", [])
                .unwrap();
        }
        let refused = deleted_by(&running, &RequestContext::admin(), good)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, ErrorKind::NotFound, "{refused}");
    }
    running.provider = own;
    is_whole(&running, good).await;
}

/// A deletion that fails can be asked for again, and what was guessed at is never called available.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_failed_can_be_asked_for_again() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let bad = running.available(1).await;
    house.tamper(&index(bad), "garbage");
    let record = index(bad);
    house.bank.inject(Fault::Full, usize::MAX, move |call| {
        call.verb == Verb::Put && call.key == record
    });
    let full = deleted_by(&running, &member(), bad).await.unwrap_err();
    assert_eq!(full.kind, ErrorKind::Unavailable, "{full}");
    assert_eq!(house.object(&index(bad)).await, "garbage");
    house.bank.heal();

    let data = format!("checkpoints/{bad}/resource-data");
    house
        .bank
        .inject(Fault::FailForGood, usize::MAX, move |call| {
            call.verb == Verb::Delete && call.key.starts_with(&data)
        });
    until(async || deleted_by(&running, &member(), bad).await.ok()).await;
    assert_eq!(running.settled(bad).await, CheckpointStatus::ErrorDeleting);
    house.bank.heal();
    let reset = async |state: &str| {
        let (asker, state) = (member(), state.to_owned());
        running
            .api()
            .reset_state(&asker, running.provider, bad, state)
            .await
    };
    until(async || reset("error").await.ok()).await;
    assert!(reset("available").await.is_err());
    goes(&house, &running, &member(), bad).await;
}

/// The bank fails at the nth write of a deletion and the service dies there: after a restart the checkpoint is gone, or
/// is there and can be deleted, and no other is touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_write_of_a_deletion_leaves_one_that_can_be_deleted() {
    for nth in 1..12 {
        let house = House::new().with_resources(&["one bytes=10"]);
        let first = house.open().await;
        let (good, bad) = (first.available(1).await, first.available(1).await);
        house.tamper(&index(bad), "garbage");
        // A name that the record does not account for goes, too.
        let stray = format!("indices/by-provider/{}/{PROJECT}/7@{bad}", house.provider);
        house.tamper(&stray, bad.to_string());
        house.bank.fail_write(nth, Fault::Fail);
        let _ = deleted_by(&first, &member(), bad).await;
        drop(first);
        house.bank.heal();
        let second = house.open().await;
        until(async || match second.checkpoint(bad).await.status {
            CheckpointStatus::Deleted => Some(()),
            CheckpointStatus::Deleting => None,
            status => {
                let can_be = matches!(
                    status,
                    CheckpointStatus::Error | CheckpointStatus::ErrorDeleting
                );
                assert!(can_be, "write {nth}: {status}");
                let _ = deleted_by(&second, &member(), bad).await;
                None
            }
        })
        .await;
        assert_eq!(left(&house, bad), Vec::<String>::new(), "write {nth}");
        is_whole(&second, good).await;
    }
}
