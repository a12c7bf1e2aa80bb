//! How often the record of a checkpoint is read: when it is asked for, once under the lease, which guards against a
//! change by another host, and once to conclude, which may be hours later or after a crash.

use std::collections::BTreeMap;

use karbor_model::{CheckpointId, CheckpointStatus, Parameters};
use karbor_testkit::{FaultyBank, MemoryBank, Verb};

use crate::{
    copies::protected,
    house::{House, Running, member, until},
};

/// How many records were read, by checkpoint, and how many names of the index were listed, since the last time.
fn looked(bank: &FaultyBank<MemoryBank>) -> (BTreeMap<CheckpointId, usize>, Vec<String>) {
    let (mut records, mut listed) = (BTreeMap::new(), Vec::new());
    for call in bank.calls() {
        match call.verb {
            Verb::Get if call.key.ends_with("/index.json") => {
                let id = call.key.split('/').nth(1).unwrap().parse().unwrap();
                *records.entry(id).or_default() += 1;
            }
            Verb::List if call.key.starts_with("indices") => listed.push(call.key),
            _ => {}
        }
    }
    bank.forget_calls();
    (records, listed)
}

/// Waits for the end of everything by the database alone.
async fn ended(running: &Running, operations: usize) {
    use karbor_model::OperationLogStatus::InProgress;
    let all = karbor_db::ListQuery::of_every_project();
    until(async || {
        let logs = running.db.runs().operation_log_list(&all).await.unwrap();
        let ended = logs.iter().filter(|log| log.status != InProgress).count();
        (ended == operations).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_read_when_it_is_asked_for_begun_and_concluded() {
    let house = House::new().with_resources(&["bytes=10"]);
    let running = house.open().await;
    let plan = running.plan(1);
    let first = running.protect(plan.clone()).await.unwrap();
    ended(&running, 1).await;
    // There is none when it is begun.
    assert_eq!(looked(&house.bank).0, BTreeMap::from([(first, 2)]));
    let second = running.protect(plan.clone()).await.unwrap();
    ended(&running, 2).await;
    // The first is the measure.
    assert_eq!(
        looked(&house.bank).0,
        BTreeMap::from([(first, 1), (second, 2)])
    );

    running.restore(second, Parameters::new()).await.unwrap();
    ended(&running, 3).await;
    assert_eq!(
        looked(&house.bank),
        (BTreeMap::from([(second, 2)]), Vec::new())
    );
    running.verify(&member(), second).await.unwrap();
    ended(&running, 4).await;
    assert_eq!(
        looked(&house.bank),
        (BTreeMap::from([(second, 2)]), Vec::new())
    );
    running.checkpoint(second).await;
    assert_eq!(
        looked(&house.bank),
        (BTreeMap::from([(second, 1)]), Vec::new())
    );
    // No name of the index is looked for: its record says which there are.
    running.delete(second).await.unwrap();
    ended(&running, 5).await;
    assert_eq!(
        looked(&house.bank),
        (BTreeMap::from([(second, 3)]), Vec::new())
    );
    assert_eq!(
        running.checkpoint(second).await.status,
        CheckpointStatus::Deleted
    );
}

/// However many there are, both banks are listed once.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_planned_with_one_listing() {
    const MANY: usize = 5;
    let house = House::new().with_resources(&["bytes=10"]).with_copy_bank();
    let running = house.open().await;
    let plan = running.plan(1);
    for _ in 0..MANY {
        protected(&running, &plan).await;
    }
    looked(&house.bank);
    let copies = running.copy(&plan).await.unwrap();
    assert_eq!(copies.len(), MANY);
    ended(&running, 2 * MANY).await;
    let whole_plan = format!("indices/by-plan/{}/p1", plan.id);
    let of_plan = |listed: &[String]| {
        listed
            .iter()
            .filter(|prefix| **prefix == whole_plan)
            .count()
    };
    let (sources, listed) = looked(&house.bank);
    assert_eq!(of_plan(&listed), 1, "{listed:?}");
    // For the list, and under the lease.
    let reads: Vec<_> = copies.iter().map(|(source, _)| sources[source]).collect();
    assert_eq!(reads, [2; MANY]);
    let (targets, listed) = looked(&house.copies);
    assert_eq!(of_plan(&listed), 1, "{listed:?}");
    // Those of the same second are looked at; its own: begun, its turn, concluded.
    assert!(
        listed.iter().all(|prefix| prefix.starts_with(&whole_plan)),
        "{listed:?}"
    );
    let newest = copies.last().unwrap().1;
    assert_eq!(targets[&newest], 3);
}

/// The order is that of the records: they are read for it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_checkpoints_reads_what_it_shows() {
    let house = House::new().with_resources(&["bytes=10"]);
    let running = house.open().await;
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(running.available(1).await);
    }
    ended(&running, 6).await;
    house.bank.forget_calls();
    let each = |ids: &[CheckpointId]| ids.iter().map(|id| (*id, 1)).collect::<BTreeMap<_, _>>();
    // Whole, it is what it shows from the first time on.
    assert_eq!(running.list().await.len(), 6);
    assert_eq!(looked(&house.bank).0, each(&made));
    let shown = running.page(None, 2).await;
    assert_eq!(shown.len(), 2);
    assert_eq!(looked(&house.bank).0, each(&shown));
    let next = running.page(shown.last().copied(), 2).await;
    assert_eq!(looked(&house.bank).0, each(&next));
    // What is gone meanwhile is not shown, and its place goes to the next.
    let gone = next[0];
    running.delete(gone).await.unwrap();
    ended(&running, 7).await;
    house.bank.forget_calls();
    let again = running.page(shown.last().copied(), 2).await;
    assert!(!again.contains(&gone), "{again:?}");
    assert_eq!(again[0], next[1]);
    assert_eq!(looked(&house.bank).0, each(&again));
    // One that is there anew is looked at.
    let newest = running.available(1).await;
    house.bank.forget_calls();
    assert!(running.page(None, 2).await.contains(&newest));
    assert_eq!(looked(&house.bank).0.get(&newest), Some(&2));
}
