use std::collections::BTreeMap;

use karbor_db::{Db, DbError};
use karbor_model::{
    FlowStatus, OperationLogStatus, OperationType, Plan, PlanStatus, Readback, ReadbackStatus,
    State,
};
use proptest::prelude::*;

use crate::support::{Fixture, begin, fixture, flow, operation_log, plan, restore, verification};

#[tokio::test]
async fn every_kind_of_record_goes_its_way_once() {
    let Fixture {
        db,
        folder: _folder,
    } = &fixture().await;
    let (plan, restore, verification) = (plan("p", "n"), restore("p"), verification("p"));
    let (log, flow) = (operation_log("p"), flow("h"));
    db.plans().create(&plan).await.unwrap();
    begin(db, &restore).await;
    begin(db, &verification).await;
    db.runs().operation_log_create(&log).await.unwrap();
    db.runs().flow_create(&flow).await.unwrap();
    let (from, to) = (PlanStatus::Suspended, PlanStatus::Started);
    assert_once(&plan.id.to_string(), (from, to), async || {
        db.plans().set_status(plan.id, from, to).await
    })
    .await;
    let (from, to) = (ReadbackStatus::InProgress, ReadbackStatus::Success);
    assert_once(&restore.id.to_string(), (from, to), async || {
        end(db, &restore, to).await
    })
    .await;
    let (from, to) = (ReadbackStatus::InProgress, ReadbackStatus::Fail);
    let id = verification.id.to_string();
    assert_once(&id, (from, to), async || end(db, &verification, to).await).await;
    let (from, to) = (OperationLogStatus::InProgress, OperationLogStatus::Failed);
    assert_once(&log.id.to_string(), (from, to), async || {
        db.runs().operation_log_set_status(log.id, from, to).await
    })
    .await;
    let (from, to) = (FlowStatus::Running, FlowStatus::Failed);
    let id = flow.operation_id;
    assert_once(&id.to_string(), (from, to), async || {
        db.runs().flow_set_status(id, from, to).await
    })
    .await;
    assert!(db.plans().get(plan.id).await.unwrap().updated_at.is_some());
}

/// How a readback ends, without a word of its resources.
async fn end(db: &Db, readback: &Readback, to: ReadbackStatus) -> Result<(), DbError> {
    let none = BTreeMap::new();
    db.runs()
        .readback_end(readback.operation, readback.id, to, &none, &none)
        .await
}

/// Once it goes; the second time the present state is named, or the rules are.
async fn assert_once<S: State>(
    id: &str,
    (from, to): (S, S),
    change: impl AsyncFn() -> Result<(), DbError>,
) {
    change().await.unwrap();
    let error = change().await.unwrap_err();
    let DbError::Conflict { present, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(present.as_deref(), Some(to.as_str()));
    let text = error.to_string();
    assert!(text.contains(id), "{text}");
    assert!(text.contains(&format!("'{to}', not '{from}'")), "{text}");
}

#[tokio::test]
async fn what_the_rules_forbid_is_refused() {
    let fixture = fixture().await;
    let restore = restore("p");
    begin(&fixture.db, &restore).await;
    let error = end(&fixture.db, &restore, ReadbackStatus::InProgress)
        .await
        .unwrap_err();
    assert!(matches!(error, DbError::Conflict { .. }), "{error:?}");
    let reason = "cannot go from 'in_progress' to 'in_progress'";
    assert!(error.to_string().contains(reason), "{error}");
    let log = operation_log("p");
    fixture.db.runs().operation_log_create(&log).await.unwrap();
    let (from, to) = (OperationLogStatus::Success, OperationLogStatus::Failed);
    let error = fixture
        .db
        .runs()
        .operation_log_set_status(log.id, from, to)
        .await;
    let error = error.unwrap_err();
    assert!(matches!(error, DbError::Conflict { .. }), "{error:?}");
    let reason = "cannot go from 'success' to 'failed'";
    assert!(error.to_string().contains(reason), "{error}");
}

#[tokio::test]
async fn no_record_no_transition() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let unknown = end(db, &restore("p"), ReadbackStatus::Fail).await;
    assert!(
        matches!(unknown, Err(DbError::NotFound { .. })),
        "{unknown:?}"
    );
    let plan = plan("p", "n");
    db.plans().create(&plan).await.unwrap();
    db.plans().delete(plan.id).await.unwrap();
    let (from, to) = (PlanStatus::Suspended, PlanStatus::Started);
    let deleted = db.plans().set_status(plan.id, from, to).await;
    assert!(
        matches!(deleted, Err(DbError::NotFound { .. })),
        "{deleted:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many at once, through two sets of connections: one wins, and the others learn who.
    #[test]
    fn exactly_one_wins(wishes in proptest::collection::vec(any::<bool>(), 2..16)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(race(wishes));
    }
}

async fn race(wishes: Vec<bool>) {
    let fixture = fixture().await;
    let dbs = [fixture.db.clone(), fixture.other().await];
    let restore = restore("p");
    begin(&fixture.db, &restore).await;
    let tasks: Vec<_> = wishes
        .into_iter()
        .enumerate()
        .map(|(number, well)| {
            let (db, restore) = (dbs[number % 2].clone(), restore.clone());
            let to = if well {
                ReadbackStatus::Success
            } else {
                ReadbackStatus::Fail
            };
            tokio::spawn(async move { (to, end(&db, &restore, to).await) })
        })
        .collect();
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (to, Ok(())) => winners.push(to),
            (_, Err(error)) => losers.push(error),
        }
    }
    assert_eq!(winners.len(), 1);
    let stored = fixture
        .db
        .runs()
        .readback_get(OperationType::Restore, restore.id)
        .await
        .unwrap();
    assert_eq!(stored.status, winners[0]);
    for error in losers {
        let DbError::Conflict { present, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(present.as_deref(), Some(winners[0].as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_updates_of_one_plan_one_wins() {
    let fixture = fixture().await;
    let dbs = [fixture.db.clone(), fixture.other().await];
    let plan = plan("p", "n");
    fixture.db.plans().create(&plan).await.unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let db = dbs[number % 2].clone();
            let plan = Plan {
                name: format!("n{number}"),
                ..plan.clone()
            };
            tokio::spawn(async move { db.plans().update(&plan).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(plan) => won.push(plan.name),
            Err(error) => assert!(matches!(error, DbError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(won, [fixture.db.plans().get(plan.id).await.unwrap().name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_registers_many_times_at_once_has_one_row() {
    let fixture = fixture().await;
    let dbs = [fixture.db.clone(), fixture.other().await];
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let db = dbs[number % 2].clone();
            tokio::spawn(async move { db.services().register("h", "b", "t").await.unwrap().id })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
}
