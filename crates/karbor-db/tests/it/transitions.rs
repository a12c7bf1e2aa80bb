use karbor_db::{Db, DbError, FlowRecord, Stateful};
use karbor_model::{
    FlowStatus, OperationLog, OperationLogStatus, Plan, PlanStatus, Restore, RestoreId,
    RestoreStatus, State, Verification, VerificationStatus,
};
use proptest::prelude::*;

use crate::support::{Fixture, fixture, flow, operation_log, plan, restore, verification};

#[tokio::test]
async fn every_kind_of_record_goes_its_way_once() {
    let Fixture {
        db,
        folder: _folder,
    } = &fixture().await;
    let (plan, restore, verification) = (plan("p", "n"), restore("p"), verification("p"));
    let (log, flow) = (operation_log("p"), flow("h"));
    db.plan_create(&plan).await.unwrap();
    db.restore_create(&restore).await.unwrap();
    db.verification_create(&verification).await.unwrap();
    db.operation_log_create(&log).await.unwrap();
    db.flow_create(&flow).await.unwrap();
    let (from, to) = (PlanStatus::Suspended, PlanStatus::Started);
    once::<Plan>(db, plan.id, from, to).await;
    let (from, to) = (RestoreStatus::InProgress, RestoreStatus::Success);
    once::<Restore>(db, restore.id, from, to).await;
    let (from, to) = (VerificationStatus::InProgress, VerificationStatus::Fail);
    once::<Verification>(db, verification.id, from, to).await;
    let (from, to) = (OperationLogStatus::InProgress, OperationLogStatus::Failed);
    once::<OperationLog>(db, log.id, from, to).await;
    let (from, to) = (FlowStatus::Running, FlowStatus::Failed);
    once::<FlowRecord>(db, flow.operation_id, from, to).await;
    assert!(db.plan_get(plan.id).await.unwrap().updated_at.is_some());
}

/// Once it goes; the second time the present state is named, or the rules are.
async fn once<R: Stateful>(db: &Db, id: R::Id, from: R::State, to: R::State) {
    db.transition::<R>(id, from, to).await.unwrap();
    let error = db.transition::<R>(id, from, to).await.unwrap_err();
    let DbError::Conflict { present, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(present.as_deref(), Some(to.as_str()));
    let text = error.to_string();
    assert!(text.contains(&id.to_string()), "{text}");
    assert!(text.contains(&format!("'{to}', not '{from}'")), "{text}");
}

#[tokio::test]
async fn what_the_rules_forbid_is_refused() {
    let fixture = fixture().await;
    let restore = restore("p");
    fixture.db.restore_create(&restore).await.unwrap();
    let error = fixture
        .db
        .transition::<Restore>(restore.id, RestoreStatus::Success, RestoreStatus::Fail)
        .await
        .unwrap_err();
    assert!(matches!(error, DbError::Conflict { .. }), "{error:?}");
    let reason = "cannot go from 'success' to 'fail'";
    assert!(error.to_string().contains(reason), "{error}");
}

#[tokio::test]
async fn no_record_no_transition() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (from, to) = (RestoreStatus::InProgress, RestoreStatus::Fail);
    let unknown = db.transition::<Restore>(RestoreId::new(), from, to).await;
    assert!(
        matches!(unknown, Err(DbError::NotFound { .. })),
        "{unknown:?}"
    );
    let plan = plan("p", "n");
    db.plan_create(&plan).await.unwrap();
    db.plan_delete(plan.id).await.unwrap();
    let (from, to) = (PlanStatus::Suspended, PlanStatus::Started);
    let deleted = db.transition::<Plan>(plan.id, from, to).await;
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
    fixture.db.restore_create(&restore).await.unwrap();
    let tasks: Vec<_> = wishes
        .into_iter()
        .enumerate()
        .map(|(number, well)| {
            let (db, id) = (dbs[number % 2].clone(), restore.id);
            let to = if well {
                RestoreStatus::Success
            } else {
                RestoreStatus::Fail
            };
            tokio::spawn(async move {
                let from = RestoreStatus::InProgress;
                (to, db.transition::<Restore>(id, from, to).await)
            })
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
    let stored = fixture.db.restore_get(restore.id).await.unwrap();
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
    fixture.db.plan_create(&plan).await.unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|number| {
            let db = dbs[number % 2].clone();
            let plan = Plan {
                name: format!("n{number}"),
                ..plan.clone()
            };
            tokio::spawn(async move { db.plan_update(&plan).await })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(plan) => won.push(plan.name),
            Err(error) => assert!(matches!(error, DbError::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(won, [fixture.db.plan_get(plan.id).await.unwrap().name]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_registers_many_times_at_once_has_one_row() {
    let fixture = fixture().await;
    let dbs = [fixture.db.clone(), fixture.other().await];
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let db = dbs[number % 2].clone();
            tokio::spawn(async move { db.service_register("h", "b", "t").await.unwrap().id })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1);
    }
}
