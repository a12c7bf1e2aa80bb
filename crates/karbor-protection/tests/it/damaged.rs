//! Checkpoints of which the bank has no record that can be believed: shown as failed, refused with what to
//! do, and removed without a hand in the bank.

use std::collections::BTreeMap;

use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    ApiError, Checkpoint, CheckpointId, CheckpointProperties, CheckpointStatus, ErrorKind,
    OperationLogStatus, OperationType, Parameters, Plan, PlanId, ProviderId, RequestContext,
};
use karbor_plugin::{Bank, BankKey};
use karbor_testkit::{Call, Fault, Verb};
use serde_json::{Value, json};

use crate::{
    copies::{is_whole, protected},
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
    let holdings = running.db.runs().holdings(running.provider).await.unwrap();
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
            json!(seen.info())["unreadable"]
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
    let told = running.log_of(several).await.extra_info.unwrap();
    let told = told["warnings"][0].as_str().unwrap();
    assert!(told.ends_with("in the repositories of p2"), "{told}");
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
    let told = running.log_of(bad).await.error_info.unwrap();
    assert!(told.contains("bank is full"), "{told}");
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
        house.bank.fail_write(nth, Fault::FailForGood);
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

async fn gone(house: &House, key: &str) {
    let key = BankKey::parse(key).unwrap();
    house.bank.inner().delete(&key).await.unwrap();
}

/// The names of a checkpoint in an index.
fn names(house: &House, index: &str, id: CheckpointId) -> Vec<String> {
    let (start, end) = (format!("indices/{index}/"), format!("@{id}"));
    let mut keys = house.keys();
    keys.retain(|key| key.starts_with(&start) && key.ends_with(&end));
    keys
}

async fn listed(running: &Running, plan: Option<PlanId>) -> Vec<(CheckpointId, CheckpointStatus)> {
    let plan = plan.map(|plan| ("plan_id".to_owned(), plan.to_string()));
    let (asker, filters) = (member(), BTreeMap::from_iter(plan));
    let (keys, up) = (Vec::new(), vec!["asc".to_owned()]);
    let listed = running.api().list_checkpoints(
        &asker,
        running.provider,
        None,
        None,
        keys,
        up,
        filters,
        false,
    );
    let listed = listed.await.unwrap();
    listed.iter().map(|one| (one.id, one.status)).collect()
}

/// A good checkpoint of the bank, its copy, and the plan of both.
async fn copied(running: &Running) -> (CheckpointId, CheckpointId, Plan) {
    let plan = running.plan(1);
    let source = protected(running, &plan).await;
    let copy = running.copy(&plan).await.unwrap()[0].1;
    assert_eq!(running.settled(copy).await, CheckpointStatus::Available);
    running.log_of(copy).await;
    (source, copy, plan)
}

/// What somebody puts into the first bank under the id of a copy hides the copy nowhere, and gets nothing deleted, also
/// while the copies' disk is away.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_the_id_of_a_copy_hides_nothing() {
    use CheckpointStatus::{Available, Deleted};
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let (source, copy, plan) = copied(&running).await;
    let of_copy = running.checkpoint(copy).await;
    house.tamper(&index(copy), "garbage");
    let (id, time) = (plan.id, of_copy.timestamp + 10);
    let day = of_copy.created_at.unwrap();
    for name in [
        format!("by-provider/{}/{PROJECT}/{time}@{copy}", house.provider),
        format!("by-plan/{id}/{PROJECT}/{day}/{time}@{copy}"),
        // And where the copy is not listed at all.
        format!("by-plan/{}/{PROJECT}/{day}/{time}@{copy}", house.provider),
    ] {
        house.tamper(&format!("indices/{name}"), copy.to_string());
    }
    let both = [(source, Available), (copy, Available)];
    assert_eq!(listed(&running, None).await, both);
    assert_eq!(listed(&running, Some(plan.id)).await, both);
    let other = Some(PlanId(house.provider.0));
    assert_eq!(listed(&running, other).await, []);
    is_whole(&running, copy).await;

    house
        .copies
        .inject(Fault::FailForGood, usize::MAX, |_| true);
    for refused in [
        deleted_by(&running, &member(), copy).await,
        running.restore(copy, Parameters::new()).await.map(|_| ()),
        shown(&running, &member(), copy).await.map(|_| ()),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
        assert!(refused.message.contains("copy bank"), "{refused}");
        assert!(!refused.message.contains("checkpoint delete"), "{refused}");
    }
    assert_eq!(house.object(&index(copy)).await, "garbage");
    house.copies.heal();
    is_whole(&running, copy).await;

    // A record of ours that says that it is deleted, of what is there in the other bank.
    let checkpoints = house.checkpoints(&house.bank);
    let deleted = Checkpoint {
        status: Deleted,
        ..of_copy
    };
    checkpoints.create(&deleted).await.unwrap();
    assert_eq!(running.checkpoint(copy).await.status, Available);
    assert_eq!(listed(&running, None).await, both);
    is_whole(&running, copy).await;
    is_whole(&running, source).await;
}

/// Damaged in both banks: what made it says where it belongs.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_deleted_where_copies_are() {
    let house = House::new()
        .with_resources(&["one bytes=10"])
        .with_copy_bank();
    let running = house.open().await;
    let (source, copy, _) = copied(&running).await;
    house.tamper(&index(copy), "garbage");
    let key = BankKey::parse(&index(copy)).unwrap();
    house.copies.inner().tamper(&key, "garbage".into());
    deleted_by(&running, &member(), copy).await.unwrap();
    assert_eq!(running.settled(copy).await, CheckpointStatus::Deleted);
    running.log_of(copy).await;
    assert_eq!(house.object(&index(copy)).await, "garbage");
    let there = house.checkpoints(&house.copies).get(copy).await.unwrap();
    assert_eq!(there.status, CheckpointStatus::Deleted);
    is_whole(&running, source).await;
}

/// With another master key no seal fits: nothing goes, and with the right one all is whole.
#[tokio::test(flavor = "multi_thread")]
async fn with_another_master_key_nothing_is_deleted() {
    let mut house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let id = running.available(1).await;
    let (whole, there) = (house.object(&index(id)).await, left(&house, id));
    // Nothing but the record says of which plan it is.
    let database = house.database();
    database.execute("DELETE FROM operation_logs", []).unwrap();
    drop(running);
    let wrong = House::new().recovery_key;
    let right = std::mem::replace(&mut house.recovery_key, wrong);
    let running = house.open().await;
    let refused = running.restore(id, Parameters::new()).await.unwrap_err();
    assert_eq!(refused.class, "CheckpointTampered");
    let at = |words: &str| refused.message.find(words).unwrap();
    assert!(at("master key") < at("checkpoint delete"), "{refused}");
    for as_whom in [member(), RequestContext::admin()] {
        let refused = deleted_by(&running, &as_whom, id).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Conflict, "{refused}");
        assert!(refused.message.contains("right master key"), "{refused}");
    }
    assert_eq!(house.object(&index(id)).await, whole);
    assert_eq!(left(&house, id), there);
    drop(running);
    house.recovery_key = right;
    let running = house.open().await;
    is_whole(&running, id).await;
}

/// A deletion that fails puts back the record that it could not believe.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_deletion_puts_the_record_back() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    changed(&house, bad, |record| record["timestamp"] = json!(7)).await;
    let (record, names) = (house.object(&index(bad)).await, left(&house, bad));
    let data = format!("checkpoints/{bad}/resource-data");
    house
        .bank
        .inject(Fault::FailForGood, usize::MAX, move |call| {
            call.verb == Verb::Delete && call.key.starts_with(&data)
        });
    deleted_by(&running, &member(), bad).await.unwrap();
    let log = running.log_of(bad).await;
    assert_eq!(
        (log.operation_type, log.status),
        (OperationType::Delete, OperationLogStatus::Failed)
    );
    assert_eq!(house.object(&index(bad)).await, record);
    let there = left(&house, bad);
    assert!(names.iter().all(|name| there.contains(name)), "{there:?}");
    assert!(there.iter().all(|key| !key.contains("kept")), "{there:?}");
    house.bank.heal();
    goes(&house, &running, &member(), bad).await;
    is_whole(&running, good).await;
}

/// A name that does not fit a good checkpoint is a wrong name, and no damaged checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_name_in_an_index_makes_no_checkpoint_look_damaged() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let mut running = house.open().await;
    let (good, other) = (running.available(1).await, running.available(1).await);
    let plan = running.checkpoint(other).await.protection_plan.id;
    let mut wrong = [
        format!("indices/by-plan/{plan}/{PROJECT}/2026-11-30/7@{good}"),
        format!("indices/by-provider/{}/p2/7@{good}", house.provider),
        format!(
            "indices/by-provider/{}/{PROJECT}/7@{good}",
            house.other_provider
        ),
    ];
    wrong.sort();
    for name in &wrong {
        house.tamper(name, good.to_string());
    }
    let expected = [(other, CheckpointStatus::Available)];
    assert_eq!(listed(&running, Some(plan)).await, expected);
    let own = std::mem::replace(&mut running.provider, house.other_provider);
    assert_eq!(listed(&running, None).await, []);
    running.provider = own;
    is_whole(&running, good).await;
    running.delete(good).await.unwrap();
    assert_eq!(running.settled(good).await, CheckpointStatus::Deleted);
    running.log_of(good).await;
    // Nobody looks through the whole index for them, and nothing goes by them.
    assert_eq!(left(&house, good), wrong);
    assert_eq!(listed(&running, None).await, expected);
    assert_eq!(running.api().recount_quotas().await.unwrap().added, 0);
    is_whole(&running, other).await;
}

/// Rights, a disk that fails, a link: what cannot be read now may be whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_now_is_not_deleted_as_damaged() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    let (whole, record) = (house.object(&index(bad)).await, index(bad));
    house
        .bank
        .inject(Fault::FailForGood, usize::MAX, move |call| {
            call.verb == Verb::Get && call.key == record
        });
    let expected = [
        (good, CheckpointStatus::Available),
        (bad, CheckpointStatus::Error),
    ];
    assert_eq!(listed(&running, None).await, expected);
    for refused in [
        deleted_by(&running, &member(), bad).await,
        running.restore(bad, Parameters::new()).await.map(|_| ()),
        shown(&running, &member(), bad).await.map(|_| ()),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
        // The bank's own words.
        assert!(refused.message.contains("injected failure"), "{refused}");
        assert!(!refused.message.contains("checkpoint delete"), "{refused}");
    }
    assert_eq!(house.object(&index(bad)).await, whole);
    house.bank.heal();
    is_whole(&running, bad).await;
}

/// Whichever of its names is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_which_one_name_is_left_can_be_deleted() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    for (kept, with_log) in [
        ("by-plan", true),
        ("by-date", true),
        ("by-date", false),
        ("by-provider", false),
    ] {
        let bad = running.available(1).await;
        gone(&house, &index(bad)).await;
        for other in ["by-provider", "by-plan", "by-date"] {
            for name in names(&house, other, bad) {
                if other != kept {
                    gone(&house, &name).await;
                }
            }
        }
        if !with_log {
            let database = house.database();
            database.execute("DELETE FROM operation_logs", []).unwrap();
        }
        let seen = shown(&running, &member(), bad).await.unwrap();
        assert_eq!(seen.status, CheckpointStatus::Error, "{kept}");
        goes(&house, &running, &member(), bad).await;
    }
}

/// However many checkpoints there are.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_knows_costs_little() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let mut costs = Vec::new();
    for many in [0, 3000] {
        for at in 0..many {
            let key = format!("by-provider/{}/{PROJECT}/{at}@x", house.provider);
            house.tamper(&format!("indices/{key}"), "x");
        }
        for unknown in [CheckpointId::next(), CheckpointId::new()] {
            house.bank.forget_calls();
            let refused = shown(&running, &member(), unknown).await.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::NotFound);
            let calls = house.bank.calls();
            let provider = house.provider.to_string();
            let all_names = |call: &&Call| call.verb == Verb::List && call.key.ends_with(&provider);
            assert_eq!(calls.iter().find(all_names), None);
            costs.push(calls.len());
        }
    }
    assert_eq!(costs[..2], costs[2..]);
    assert!(costs.iter().all(|calls| *calls <= 8), "{costs:?}");
}

/// What stands in the way of the record is named, and whose hand it needs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_deletion_is_named() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let bad = running.available(1).await;
    gone(&house, &index(bad)).await;
    let record = index(bad);
    house
        .bank
        .inject(Fault::FailForGood, usize::MAX, move |call| {
            call.verb == Verb::Put && call.key == record
        });
    let refused = deleted_by(&running, &member(), bad).await.unwrap_err();
    for words in ["injected failure", &index(bad), "operator"] {
        assert!(refused.message.contains(words), "{refused}");
    }
    assert!(!refused.message.contains("later"), "{refused}");
    let told = running.log_of(bad).await.error_info.unwrap();
    assert!(told.contains("injected failure"), "{told}");
}

/// What a user says of a checkpoint does not make it one that cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_words_make_nothing_unreadable() {
    let house = House::new().with_resources(&["one bytes=10"]);
    let running = house.open().await;
    let properties = CheckpointProperties {
        extra_info: Some(json!({"unreadable": "so I say"})),
        ..CheckpointProperties::default()
    };
    let (asker, plan) = (member(), running.plan(1));
    let made = running.api().protect(&asker, plan, properties);
    let made = made.await.unwrap();
    assert_eq!(running.settled(made).await, CheckpointStatus::Available);
    running.log_of(made).await;
    for state in ["error", "available"] {
        until(async || {
            let (asker, state) = (member(), state.to_owned());
            let reset = running
                .api()
                .reset_state(&asker, running.provider, made, state);
            reset.await.ok()
        })
        .await;
    }
    running.delete(made).await.unwrap();
    assert_eq!(running.settled(made).await, CheckpointStatus::Deleted);
    let log = running.log_of(made).await;
    assert_eq!(log.operation_type, OperationType::Delete);
    assert_eq!(log.extra_info.unwrap().get("warnings"), None);
}
