//! Checkpoints of a source that may be lost.

use chrono::{TimeDelta, Utc};
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{CheckpointId, ErrorKind, PlanId};
use karbor_testkit::FakeClock;

use serde_json::json;

use crate::house::{House, Running, id, member, stranger};

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
