//! Checkpoints of a source that may be lost.

use chrono::{TimeDelta, Utc};
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{CheckpointId, CheckpointStatus, ErrorKind, PlanId};
use karbor_testkit::{FakeClock, Verb};

use serde_json::json;

use crate::house::{House, PROJECT, Running, id, member, stranger};

const MIB: u64 = 1 << 20;

/// A checkpoint of one resource, in the same plan each time, that holds so many bytes.
async fn holding(running: &Running, plan: PlanId, bytes: u64) -> CheckpointId {
    running.inventory.lock().unwrap().resources[0].name = format!("bytes={bytes}");
    let mut wanted = running.plan(1);
    wanted.id = plan;
    let id = running.protect(wanted).await.unwrap();
    running.settled(id).await;
    running.log_of(id).await;
    id
}

async fn suspicion(running: &Running, id: CheckpointId) -> Option<String> {
    let info = running.checkpoint(id).await.info();
    let key = format!("{}#{}", crate::house::SIMULATED, crate::house::id(0));
    Some(info.suspicious()?.resources[&key].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_shrank_is_suspicious_each_time_until_it_is_accepted() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let (plan, api) = (PlanId::new(), running.api());
    let good = holding(&running, plan, 4 * MIB).await;
    assert_eq!(suspicion(&running, good).await, None);
    // Half of it is not more than half.
    let half = holding(&running, plan, 2 * MIB).await;
    assert_eq!(suspicion(&running, half).await, None);
    let mut last = half;
    for _ in 0..2 {
        last = holding(&running, plan, MIB / 2).await;
        let reason = suspicion(&running, last).await.unwrap();
        // It is measured against the last good one, not against its like.
        assert!(reason.contains(&half.to_string()), "{reason}");
        assert!(running.checkpoint(last).await.info().is_flawed());
        let log = running.log_of(last).await;
        let told = log.extra_info.unwrap();
        assert!(told["suspicious"].is_object(), "{told}");
        let key = format!("{}#{}", crate::house::SIMULATED, id(0));
        let warning = told["resources"][&key]["warnings"][0].as_str().unwrap();
        assert!(warning.contains("suspicious"), "{warning}");
    }
    // And it is announced, louder than what went well.
    let told: Vec<String> = {
        let database = house.database();
        let sql = "SELECT payload FROM notifications WHERE event_type = 'karbor.checkpoint_create.end' \
                   AND priority = 'warn'";
        let mut asked = database.prepare(sql).unwrap();
        let rows = asked.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("suspicious"), "{told:?}");
    // Another plan has its own measure.
    let other = holding(&running, PlanId::new(), MIB / 2).await;
    assert_eq!(suspicion(&running, other).await, None);

    let provider = running.provider;
    let refused = api.accept_checkpoint(&stranger(), provider, last).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Forbidden);
    api.accept_checkpoint(&member(), provider, last)
        .await
        .unwrap();
    let accepted = running.checkpoint(last).await;
    assert!(!accepted.info().is_flawed());
    assert!(json!(accepted.info())["accepted"]["at"].is_string());
    let again = api.accept_checkpoint(&member(), provider, last).await;
    assert_eq!(again.unwrap_err().kind, ErrorKind::Conflict);
    let next = holding(&running, plan, MIB / 2).await;
    assert_eq!(suspicion(&running, next).await, None);
}

/// It is what will be, by a clock that nobody should have believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_the_future_is_no_measure() {
    let clock = FakeClock::new();
    let now = Utc::now();
    clock.set_time_of_day(now);
    let house = House::new().with_resources(&["a"]).with_clock(&clock);
    let running = house.open().await;
    let plan = PlanId::new();
    let good = holding(&running, plan, 4 * MIB).await;
    clock.set_time_of_day(now + TimeDelta::days(365));
    let future = holding(&running, plan, 9 * MIB).await;
    assert_eq!(suspicion(&running, future).await, None);
    clock.set_time_of_day(now + TimeDelta::minutes(1));
    let half = holding(&running, plan, 2 * MIB).await;
    assert_eq!(suspicion(&running, half).await, None);
    let less = holding(&running, plan, MIB / 2).await;
    let reason = suspicion(&running, less).await.unwrap();
    assert!(!reason.contains(&future.to_string()), "{reason}");
    assert_ne!(good, half);
}

/// Makes a checkpoint that holds so many bytes; answers with how many records of checkpoints were read for it.
async fn records_read(
    house: &House,
    running: &Running,
    plan: PlanId,
    bytes: u64,
) -> (CheckpointId, usize) {
    running.inventory.lock().unwrap().resources[0].name = format!("bytes={bytes}");
    let mut wanted = running.plan(1);
    wanted.id = plan;
    house.bank.forget_calls();
    let id = running.protect(wanted).await.unwrap();
    // Asks the database alone.
    running.log_of(id).await;
    let is_record =
        |call: &karbor_testkit::Call| call.verb == Verb::Get && call.key.ends_with("/index.json");
    (
        id,
        house
            .bank
            .calls()
            .iter()
            .filter(|call| is_record(call))
            .count(),
    )
}

/// However many checkpoints there are, and however long the source has been away.
#[tokio::test(flavor = "multi_thread")]
async fn the_measure_is_found_without_reading_the_history() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let plan = PlanId::new();
    let make = |bytes| records_read(&house, &running, plan, bytes);
    let (mut good, first) = make(4 * MIB).await;
    for _ in 0..9 {
        let (id, read) = make(4 * MIB).await;
        assert_eq!(read, first + 1);
        good = id;
    }
    // Longer than is looked back: what one was measured against, it hands on.
    let mut last = good;
    for _ in 0..80 {
        let (id, read) = make(MIB).await;
        assert!(read <= first + 64, "{read} records were read");
        last = id;
    }
    let reason = suspicion(&running, last).await.unwrap();
    assert!(reason.contains(&good.to_string()), "{reason}");
    running
        .api()
        .accept_checkpoint(&member(), running.provider, last)
        .await
        .unwrap();
    let (next, read) = make(MIB).await;
    assert_eq!((suspicion(&running, next).await, read), (None, first + 1));
}

/// Versions before did not keep what a suspicious checkpoint was measured against.
#[tokio::test(flavor = "multi_thread")]
async fn behind_many_suspicious_ones_of_a_version_before_the_good_one_is_found() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let plan = PlanId::new();
    let good = holding(&running, plan, 4 * MIB).await;
    for _ in 0..66 {
        let id = holding(&running, plan, MIB).await;
        let mut checkpoint = running.checkpoint(id).await;
        let mut info = json!(checkpoint.info());
        info["suspicious"]
            .as_object_mut()
            .unwrap()
            .shift_remove("measured")
            .unwrap();
        checkpoint.extra_info = Some(info.to_string().into());
        let checkpoints = house.checkpoints(&house.bank);
        checkpoints.create(&checkpoint).await.unwrap();
    }
    let last = holding(&running, plan, MIB).await;
    let reason = suspicion(&running, last).await.unwrap();
    assert!(reason.contains(&good.to_string()), "{reason}");
}

/// A name that does not fit what its record says.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_checkpoint_under_a_newer_name_is_no_measure() {
    let clock = FakeClock::new();
    let now = Utc::now();
    clock.set_time_of_day(now);
    let house = House::new().with_resources(&["a"]).with_clock(&clock);
    let running = house.open().await;
    let plan = PlanId::new();
    let old = holding(&running, plan, 9 * MIB).await;
    clock.set_time_of_day(now + TimeDelta::seconds(1));
    holding(&running, plan, 5 * MIB).await;
    holding(&running, plan, 3 * MIB).await;
    let record = running.checkpoint(old).await;
    let (day, later) = (record.created_at.unwrap(), record.timestamp + 3);
    let name = format!("indices/by-plan/{plan}/{PROJECT}/{day}/{later}@{old}");
    house.tamper(&name, old.to_string());
    clock.set_time_of_day(now + TimeDelta::seconds(9));
    let less = holding(&running, plan, 2 * MIB).await;
    assert_eq!(suspicion(&running, less).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_failed_is_no_measure() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let plan = PlanId::new();
    let good = holding(&running, plan, 4 * MIB).await;
    running.inventory.lock().unwrap().resources[0].name = "bytes=1 fail_protect".to_owned();
    let mut failing = running.plan(1);
    failing.id = plan;
    let failed = running.protect(failing).await.unwrap();
    assert_eq!(running.settled(failed).await, CheckpointStatus::Error);
    running.log_of(failed).await;
    let less = holding(&running, plan, MIB).await;
    let reason = suspicion(&running, less).await.unwrap();
    assert!(reason.contains(&good.to_string()), "{reason}");
}
