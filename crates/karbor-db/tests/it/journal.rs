use std::io::{BufRead, BufReader};

use karbor_db::{Db, DbError};
use karbor_model::FlowStatus;

use crate::support::{at, child, child_db, events, fixture, flow};

#[tokio::test]
async fn events_come_back_in_order() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let flow = flow("h");
    let id = flow.operation_id;
    db.runs().flow_create(&flow).await.unwrap();
    assert_eq!(db.runs().flow_get(id).await.unwrap(), flow);
    db.runs().flow_append(id, &[]).await.unwrap();
    db.runs().flow_append(id, &events(1..3)).await.unwrap();
    db.runs().flow_append(id, &events(3..1700)).await.unwrap();
    assert_eq!(db.runs().flow_events(id).await.unwrap(), events(1..1700));
}

#[tokio::test]
async fn a_second_executor_is_stopped_and_its_whole_batch_left_out() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let flow = flow("h");
    let id = flow.operation_id;
    db.runs().flow_create(&flow).await.unwrap();
    db.runs().flow_append(id, &events(1..700)).await.unwrap();
    let mut batch = events(700..1400);
    batch.extend(events(5..6));
    let error = db.runs().flow_append(id, &batch).await.unwrap_err();
    assert!(matches!(error, DbError::Conflict { .. }), "{error:?}");
    assert!(error.to_string().contains("Another executor"), "{error}");
    assert_eq!(db.runs().flow_events(id).await.unwrap().len(), 699);
    let nobody = flow_append_to_nobody(db).await;
    assert!(
        matches!(nobody, Err(DbError::NotFound { what: "Flow", .. })),
        "{nobody:?}"
    );
    let again = db.runs().flow_create(&flow).await.unwrap_err();
    assert!(matches!(again, DbError::Conflict { .. }), "{again:?}");
}

async fn flow_append_to_nobody(db: &Db) -> Result<(), DbError> {
    let id = karbor_model::OperationId::new();
    db.runs().flow_append(id, &events(1..2)).await
}

#[tokio::test]
async fn unfinished_flows_are_found_and_finished_ones_go() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let (running, done) = (flow("h"), flow("h"));
    for flow in [&running, &done, &flow("elsewhere")] {
        db.runs().flow_create(flow).await.unwrap();
    }
    let id = done.operation_id;
    db.runs().flow_append(id, &events(1..9)).await.unwrap();
    db.runs()
        .flow_set_status(id, FlowStatus::Running, FlowStatus::Success)
        .await
        .unwrap();
    let found = db.runs().flows_unfinished("h").await.unwrap();
    let ids: Vec<_> = found.iter().map(|flow| flow.operation_id).collect();
    assert_eq!(ids, [running.operation_id]);

    let long_ago = at(-1_000_000_000_000_000);
    assert_eq!(db.runs().flow_delete_finished(long_ago).await.unwrap(), 0);
    let tomorrow = chrono::Utc::now() + chrono::TimeDelta::days(1);
    assert_eq!(db.runs().flow_delete_finished(tomorrow).await.unwrap(), 1);
    assert!(db.runs().flow_events(id).await.unwrap().is_empty());
    assert_eq!(db.runs().flows_unfinished("h").await.unwrap().len(), 1);
}

/// What was said to be written is there after `kill -9`, and no batch is there in part.
#[tokio::test]
async fn acknowledged_events_survive_kill_9() {
    let fixture = fixture().await;
    let flow = flow("h");
    let id = flow.operation_id;
    fixture.db.runs().flow_create(&flow).await.unwrap();
    let mut child = child("journal::child_appends_until_killed", &fixture.path());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged: u64 = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("written ")?.parse().ok())
        .nth(40)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let db = Db::open(&fixture.path()).await.unwrap();
    let read = db.runs().flow_events(id).await.unwrap();
    let count = u64::try_from(read.len()).unwrap();
    assert!(count >= acknowledged, "{count} of {acknowledged}");
    assert_eq!(count % 7, 0, "whole batches");
    assert_eq!(read, events(1..count + 1));
    // And it goes on from there.
    let next = events(count + 1..count + 8);
    db.runs().flow_append(id, &next).await.unwrap();
}

#[tokio::test]
#[ignore = "runs as a child process"]
async fn child_appends_until_killed() {
    let db = child_db().await;
    let flow = db.runs().flows_unfinished("h").await.unwrap().remove(0);
    let mut next = 1;
    loop {
        db.runs()
            .flow_append(flow.operation_id, &events(next..next + 7))
            .await
            .unwrap();
        next += 7;
        println!("written {}", next - 1);
    }
}
