//! A checkpoint that is asked for under an id is made once, however often it is asked for.

use karbor_db::{Db, ListQuery};
use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{
    CheckpointProperties, CheckpointStatus, ErrorKind, FlowStatus, OperationId, OperationLog,
    OperationLogId, OperationLogStatus, OperationType, Plan, RequestContext, ScheduledOperationId,
};
use karbor_testkit::Fault;

use crate::house::{House, member, until};

fn under(id: OperationId) -> CheckpointProperties {
    CheckpointProperties {
        operation_id: Some(id),
        ..CheckpointProperties::default()
    }
}

fn scheduled(by: ScheduledOperationId) -> RequestContext {
    RequestContext {
        scheduled_operation_id: Some(by),
        ..member()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_for_again_the_same_checkpoint_is_answered() {
    let house = House::new().with_resources(&["a"]);
    let first = house.open().await;
    let (id, by) = (OperationId::new(), ScheduledOperationId::new());
    let plan = first.plan(1);
    let api = first.api();
    let at_once: Vec<_> = (0..4)
        .map(|_| async { api.protect(&scheduled(by), plan.clone(), under(id)).await })
        .collect();
    let mut made: Vec<_> = futures::future::join_all(at_once)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    made.dedup();
    assert_eq!(made.len(), 1);
    let checkpoint = made[0];
    assert_eq!(first.settled(checkpoint).await, CheckpointStatus::Available);
    let log = first.log_of(checkpoint).await;
    assert_eq!(log.id, OperationLogId(id.0));
    assert_eq!(log.scheduled_operation_id, Some(by.to_string()));
    drop(first);

    let second = house.open().await;
    let again = second
        .api()
        .protect(&member(), plan.clone(), under(id))
        .await;
    assert_eq!(again.unwrap(), checkpoint);
    let other = second.protect(plan).await.unwrap();
    assert_ne!(other, checkpoint, "without an id there is another");
    second.settled(other).await;
    let logs = second
        .db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await;
    assert_eq!(logs.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_makes_no_checkpoint_any_more() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let id = OperationId::new();
    let plan = running.plan(1);
    let missed = missed(id, &plan);
    running
        .db
        .runs()
        .operation_log_create(&missed)
        .await
        .unwrap();
    let refused = running
        .api()
        .protect(&member(), plan.clone(), under(id))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    let log = running
        .db
        .runs()
        .operation_log_get(missed.id)
        .await
        .unwrap();
    assert_eq!(log.error_info.as_deref(), Some("too late"));
    assert!(house.keys().is_empty(), "{:?}", house.keys());
}

/// A run that came to nothing before it was asked for.
fn missed(id: OperationId, plan: &Plan) -> OperationLog {
    OperationLog {
        id: OperationLogId(id.0),
        project_id: plan.project_id.clone(),
        operation_type: karbor_model::OperationType::Protect,
        checkpoint_id: None,
        plan_id: Some(plan.id),
        provider_id: Some(plan.provider_id),
        readback_id: None,
        scheduled_operation_id: None,
        status: OperationLogStatus::Missed,
        started_at: chrono::DateTime::UNIX_EPOCH,
        ended_at: None,
        error_info: Some("too late".to_owned()),
        extra_info: None,
    }
}

/// It was given up while the service was down that had heard of it, and had not entered it in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_not_gone_on_with() {
    let house = House::new().with_resources(&["sleep=600"]);
    let first = house.open().await;
    let id = OperationId::new();
    let plan = first.plan(1);
    house.bank.inject(Fault::Hang, 1, |call| call.verb.writes());
    let heard = async {
        let _ = first
            .api()
            .protect(&member(), plan.clone(), under(id))
            .await;
    };
    let entered = until(async || {
        first
            .db
            .runs()
            .operation_log_get(OperationLogId(id.0))
            .await
            .ok()
    });
    tokio::select! {
        () = heard => unreachable!("it hangs"),
        _ = entered => {}
    }
    drop(first);
    house
        .database()
        .execute("DELETE FROM operation_logs", [])
        .unwrap();
    let second = Db::connect(&house.url()).await.unwrap();
    second
        .runs()
        .operation_log_create(&missed(id, &plan))
        .await
        .unwrap();
    drop(second);
    let third = house.open().await;
    until(async || {
        let flow = third.db.runs().flow_get(id).await.unwrap();
        (flow.status == FlowStatus::Failed).then_some(())
    })
    .await;
    let log = third
        .db
        .runs()
        .operation_log_get(OperationLogId(id.0))
        .await
        .unwrap();
    assert_eq!(
        (log.status, log.error_info.as_deref()),
        (OperationLogStatus::Missed, Some("too late"))
    );
    assert!(house.keys().is_empty(), "{:?}", house.keys());
}

/// A caller that asks for a verification asks again when it is not known that it was heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_asked_for_again_is_not_made_again() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let id = running.verify(&member(), checkpoint).await.unwrap();
    let verification = running
        .db
        .runs()
        .readback_get(OperationType::Verify, id)
        .await
        .unwrap();
    let context = member();
    let again = running.api().verification(&context, verification);
    again.await.unwrap();
    running.verified(id).await;
    let logs = running
        .db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await;
    let of_it = logs.unwrap();
    let of_it: Vec<_> = of_it
        .iter()
        .filter(|log| log.readback_of(OperationType::Verify) == Some(id))
        .collect();
    assert_eq!(of_it.len(), 1);
    assert_eq!(
        of_it[0].id,
        OperationLogId(id.0),
        "known before it is in the log"
    );
}

/// The database fails just when the run is to be entered in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_entered_in_the_log_is_entered_as_failed() {
    let house = House::new().with_resources(&["a"]);
    let running = house.open().await;
    let id = OperationId::new();
    let raw = house.database();
    raw.execute_batch(
        "CREATE TRIGGER away BEFORE INSERT ON operation_logs BEGIN SELECT RAISE(ABORT, 'away'); END",
    )
    .unwrap();
    let refused = running
        .api()
        .protect(&member(), running.plan(1), under(id))
        .await;
    refused.unwrap_err();
    raw.execute_batch("DROP TRIGGER away").unwrap();
    let log = until(async || {
        let log = running
            .db
            .runs()
            .operation_log_get(OperationLogId(id.0))
            .await
            .ok()?;
        (log.status != OperationLogStatus::InProgress).then_some(log)
    })
    .await;
    assert_eq!(log.status, OperationLogStatus::Failed);
    assert!(running.list().await.is_empty());
}
