//! Who records restores and verifications, and who hears of the end of an operation.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use karbor_db::DbError;
use karbor_interfaces::ProtectionApi;
use karbor_manager::Clock as _;
use karbor_model::{
    ApiError, CheckpointId, ErrorKind, OperationLog, OperationLogId, OperationLogStatus,
    OperationType, Parameters, Readback, ReadbackId, ReadbackStatus, RequestContext,
    ScheduledOperationId,
};
use karbor_testkit::{Fault, Verb};
use serde_json::json;

use crate::house::{House, Running, SIMULATED, member, stranger};

const BOTH: [OperationType; 2] = [OperationType::Restore, OperationType::Verify];

fn readback(running: &Running, operation: OperationType, checkpoint_id: CheckpointId) -> Readback {
    Readback {
        id: ReadbackId::new(),
        operation,
        project_id: member().project_id,
        provider_id: running.provider,
        checkpoint_id,
        restore_target: None,
        parameters: Parameters::new(),
        accept_unsealed: false,
        status: ReadbackStatus::InProgress,
        resources_status: BTreeMap::new(),
        resources_reason: BTreeMap::new(),
        created_at: chrono::Utc::now(),
    }
}

async fn ask(
    running: &Running,
    context: &RequestContext,
    asked: &Readback,
) -> Result<(), ApiError> {
    match asked.operation {
        OperationType::Restore => running.api().restore(context, asked.clone(), None).await,
        _ => running.api().verification(context, asked.clone()).await,
    }
}

async fn ended(running: &Running, log: OperationLogId) -> OperationLog {
    crate::house::until(async || {
        let log = running.db.runs().operation_log_get(log).await.ok()?;
        (log.status != OperationLogStatus::InProgress).then_some(log)
    })
    .await
}

/// A person who looks into the operation log for what went wrong finds what never began, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_has_failed_and_is_in_the_operation_log() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    for operation in BOTH {
        let nowhere = CheckpointId::new();
        let asked = readback(&running, operation, nowhere);
        let refused = ask(&running, &member(), &asked).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::NotFound);
        assert!(refused.is_logged);
        let reason = format!("Checkpoint {nowhere} could not be found.");
        let recorded = running
            .db
            .runs()
            .readback_get(operation, asked.id)
            .await
            .unwrap();
        assert_eq!(recorded.status, ReadbackStatus::Fail);
        let about = format!("Checkpoint#{nowhere}");
        assert_eq!(recorded.resources_reason.get(&about), Some(&reason));
        let id = OperationLogId(asked.id.0);
        let log = running.db.runs().operation_log_get(id).await.unwrap();
        assert_eq!(log.operation_type, operation);
        assert_eq!(log.status, OperationLogStatus::Failed);
        assert_eq!(log.checkpoint_id, Some(nowhere));
        assert_eq!(log.error_info, Some(reason));
        assert_eq!(log.ended_at, Some(log.started_at));
        // Asked again, it has ended, and nothing begins.
        ask(&running, &member(), &asked).await.unwrap();
        let again = running
            .db
            .runs()
            .readback_get(operation, asked.id)
            .await
            .unwrap();
        assert_eq!(again, recorded);
    }
}

/// A schedule asks again under the same id when its bank is back: until then nothing has failed. A person does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_schedule_asks_again_has_not_failed() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let scheduled = RequestContext {
        scheduled_operation_id: Some(ScheduledOperationId::new()),
        ..member()
    };
    for operation in BOTH {
        let reads = |call: &karbor_testkit::Call| call.verb == Verb::Get;
        house.bank.inject(Fault::FailForGood, usize::MAX, reads);
        let asked = readback(&running, operation, checkpoint);
        let away = ask(&running, &scheduled, &asked).await.unwrap_err();
        assert!(away.kind.is_retryable(), "{away:?}");
        // A schedule that does not ask again, for there is a newer checkpoint by then, leaves nothing in progress.
        let recorded = running.db.runs().readback_get(operation, asked.id).await;
        assert!(
            matches!(recorded, Err(DbError::NotFound { .. })),
            "{recorded:?}"
        );
        let log = OperationLogId(asked.id.0);
        assert!(running.db.runs().operation_log_get(log).await.is_err());

        let by_hand = readback(&running, operation, checkpoint);
        ask(&running, &member(), &by_hand).await.unwrap_err();
        let recorded = running
            .db
            .runs()
            .readback_get(operation, by_hand.id)
            .await
            .unwrap();
        assert_eq!(recorded.status, ReadbackStatus::Fail);

        house.bank.heal();
        ask(&running, &scheduled, &asked).await.unwrap();
        // Heard twice, begun once.
        ask(&running, &scheduled, &asked).await.unwrap();
        let end = running.api().await_operation(&scheduled, log, 30).await;
        assert_eq!(end.unwrap().status, OperationLogStatus::Success);
    }
}

/// The bank goes away between the answer to "may it?" and the claim: what is recorded is carried out when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_schedule_asks_waits_for_a_bank_that_goes_away_while_it_begins() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let scheduled = RequestContext {
        scheduled_operation_id: Some(ScheduledOperationId::new()),
        ..member()
    };
    for operation in BOTH {
        let claims = AtomicBool::new(false);
        let away = move |call: &karbor_testkit::Call| {
            let begins = call.verb == Verb::AcquireLease;
            claims.fetch_or(begins, Ordering::Relaxed) && call.verb == Verb::Get
        };
        house.bank.inject(Fault::FailForGood, usize::MAX, away);
        let asked = readback(&running, operation, checkpoint);
        ask(&running, &scheduled, &asked).await.unwrap();
        let recorded = running
            .db
            .runs()
            .readback_get(operation, asked.id)
            .await
            .unwrap();
        assert_eq!(recorded.status, ReadbackStatus::InProgress);
        house.bank.heal();
        let log = OperationLogId(asked.id.0);
        let end = ended(&running, log).await;
        assert_eq!(end.status, OperationLogStatus::Success);
    }
}

/// A service of a version before recorded first and began then, as the original's API does; if it died between the two,
/// nobody carries the record out.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_carries_out_is_closed_at_the_next_start() {
    let clock = karbor_testkit::FakeClock::new();
    let house = House::new().with_resources(&["one"]).with_clock(&clock);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let records = BOTH.map(|operation| Readback {
        created_at: clock.now(),
        ..readback(&running, operation, checkpoint)
    });
    for record in &records {
        house.record_without_run(record);
    }
    drop(running);
    let running = house.open().await;
    for record in &records {
        let there = running
            .db
            .runs()
            .readback_get(record.operation, record.id)
            .await;
        let status = there.unwrap().status;
        assert_eq!(
            status,
            ReadbackStatus::InProgress,
            "its call may be under way"
        );
    }
    clock.turn(Duration::from_secs(2 * 3600));
    drop(running);
    let running = house.open().await;
    for record in &records {
        let there = running
            .db
            .runs()
            .readback_get(record.operation, record.id)
            .await;
        let there = there.unwrap();
        assert_eq!(there.status, ReadbackStatus::Fail);
        assert!(!there.resources_reason.is_empty());
        let log = running
            .db
            .runs()
            .operation_log_get(OperationLogId(record.id.0))
            .await;
        assert_eq!(log.unwrap().status, OperationLogStatus::Failed);
        // Asked for once more, it stays what it is.
        ask(&running, &member(), record).await.unwrap();
    }
}

/// The original's API service records what it asks for; it is carried out under that record.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_has_recorded_is_carried_out() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    for operation in BOTH {
        let asked = readback(&running, operation, checkpoint);
        house.record_without_run(&asked);
        ask(&running, &member(), &asked).await.unwrap();
        let end = ended(&running, OperationLogId(asked.id.0)).await;
        assert_eq!(end.status, OperationLogStatus::Success);
        let there = running
            .db
            .runs()
            .readback_get(operation, asked.id)
            .await
            .unwrap();
        assert_eq!(there.status, ReadbackStatus::Success);
    }
}

/// The clock stands still: the answer can only come from the end itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_operation_is_told_to_the_one_who_waits() {
    let clock = karbor_testkit::FakeClock::new();
    let house = House::new().with_resources(&["one"]).with_clock(&clock);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let slow = json!({"sleep": "600"}).as_object().unwrap().clone();
    let slow = Parameters::from([(SIMULATED.to_owned(), slow)]);
    let restore = running.restore(checkpoint, slow).await.unwrap();
    let log = OperationLogId(restore.0);
    let (api, asker) = (running.api(), member());
    let waiting = api.await_operation(&asker, log, 30);
    let stopping = async {
        // The one who waits is asked first: it waits by now.
        tokio::task::yield_now().await;
        api.cancel_operation(&asker, log).await
    };
    let bound = Duration::from_secs(120);
    let (ended, stopped) = tokio::time::timeout(bound, async { tokio::join!(waiting, stopping) })
        .await
        .expect("the end was not told");
    stopped.unwrap();
    assert_eq!(ended.unwrap().status, OperationLogStatus::Failed);
    // What has ended is told at once, and only to its project.
    let again = api.await_operation(&asker, log, 30).await.unwrap();
    assert_eq!(again.status, OperationLogStatus::Failed);
    let foreign = api.await_operation(&stranger(), log, 30).await;
    assert_eq!(foreign.unwrap_err().kind, ErrorKind::NotFound);
}

/// What goes on is told, too, when the patience is over.
#[tokio::test(flavor = "multi_thread")]
async fn one_who_waits_waits_no_longer_than_asked() {
    let house = House::new().with_resources(&["sleep=600"]);
    let running = house.open().await;
    let checkpoint = running.protect(running.plan(1)).await.unwrap();
    let filter = karbor_db::ListQuery::of_every_project();
    let logs = running.db.runs().operation_log_list(&filter).await.unwrap();
    let log = logs
        .iter()
        .find(|log| log.checkpoint_id == Some(checkpoint));
    let waiting = running.api();
    let told = waiting.await_operation(&member(), log.unwrap().id, 0).await;
    assert_eq!(told.unwrap().status, OperationLogStatus::InProgress);
}

/// A record that is there stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_its_end_without_a_run_is_recorded_once() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let made = running.log_of(checkpoint).await;
    let missed = karbor_model::OperationLog {
        id: OperationLogId::new(),
        status: OperationLogStatus::Missed,
        error_info: Some("missed".to_owned()),
        ..made.clone()
    };
    let (api, admin) = (running.api(), RequestContext::admin());
    assert!(api.record_operation(&admin, missed.clone()).await.unwrap());
    assert!(!api.record_operation(&admin, missed.clone()).await.unwrap());
    let of_the_run = karbor_model::OperationLog {
        id: made.id,
        ..missed
    };
    assert!(!api.record_operation(&admin, of_the_run).await.unwrap());
    assert_eq!(
        running.db.runs().operation_log_get(made.id).await.unwrap(),
        made
    );
}

/// The run overwrites data: its record must not say meanwhile that it failed.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_not_called_failed_because_it_is_asked_for_again_while_the_bank_is_away() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    for operation in BOTH {
        let mut asked = readback(&running, operation, checkpoint);
        let slow = json!({"sleep": "600"}).as_object().unwrap().clone();
        asked.parameters = Parameters::from([(SIMULATED.to_owned(), slow)]);
        ask(&running, &member(), &asked).await.unwrap();
        let reads = |call: &karbor_testkit::Call| call.verb == Verb::Get;
        house.bank.inject(Fault::FailForGood, usize::MAX, reads);
        ask(&running, &member(), &asked).await.unwrap();
        house.bank.heal();
        let recorded = running
            .db
            .runs()
            .readback_get(operation, asked.id)
            .await
            .unwrap();
        assert_eq!(recorded.status, ReadbackStatus::InProgress);
        let log = OperationLogId(asked.id.0);
        let log = running.db.runs().operation_log_get(log).await.unwrap();
        assert_eq!(log.status, OperationLogStatus::InProgress);
        running
            .api()
            .cancel_operation(&member(), log.id)
            .await
            .unwrap();
        running
            .api()
            .await_operation(&member(), log.id, 30)
            .await
            .unwrap();
    }
}

/// Nobody learns, or begins, anything under an id that is somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_another_project_s_record_is_refused() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let own = readback(&running, OperationType::Verify, checkpoint);
    ask(&running, &member(), &own).await.unwrap();
    let taken = Readback {
        project_id: stranger().project_id,
        ..own.clone()
    };
    let refused = ask(&running, &stranger(), &taken).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    let foreign = ask(&running, &stranger(), &own).await.unwrap_err();
    assert_eq!(foreign.kind, ErrorKind::NotFound);
    let log = OperationLogId(own.id.0);
    running
        .api()
        .await_operation(&member(), log, 30)
        .await
        .unwrap();
}

/// What is entered without a run is of the one who enters it, and has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_a_run_is_the_asker_s_and_has_ended() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let checkpoint = running.available(1).await;
    let made = running.log_of(checkpoint).await;
    let log = karbor_model::OperationLog {
        id: OperationLogId::new(),
        ..made
    };
    let api = running.api();
    let foreign = api.record_operation(&stranger(), log.clone()).await;
    assert_eq!(foreign.unwrap_err().kind, ErrorKind::NotFound);
    let unended = karbor_model::OperationLog {
        status: OperationLogStatus::InProgress,
        ..log
    };
    let refused = api.record_operation(&member(), unended).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::BadRequest);
}
