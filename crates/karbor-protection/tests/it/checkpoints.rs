use std::collections::BTreeMap;

use karbor_interfaces::protection::ProtectionApi;
use karbor_model::{CheckpointId, CheckpointStatus, ErrorKind, Parameters, ResourceGraph};

use crate::house::{House, PROJECT, Running, member, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_bank_has_the_original_s_layout() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    let checkpoint = running.checkpoint(id).await;
    let (provider, plan) = (checkpoint.provider_id, checkpoint.protection_plan.id);
    let (day, time) = (checkpoint.created_at.unwrap(), checkpoint.timestamp);
    let resource = crate::house::id(0);
    let mut expected = vec![
        format!("checkpoints/{id}/index.json"),
        format!("checkpoints/{id}/resource-data/{resource}/metadata"),
        format!("indices/by-date/{day}/{PROJECT}/{time}@{id}"),
        format!("indices/by-plan/{plan}/{PROJECT}/{day}/{time}@{id}"),
        format!("indices/by-provider/{provider}/{PROJECT}/{time}@{id}"),
    ];
    expected.sort();
    assert_eq!(house.keys(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_leaves_nothing_behind_but_the_record() {
    let house = House::new().with_resources(&["one", "two bytes=3000000"]);
    let running = house.open().await;
    let id = running.available(2).await;
    running.delete(id).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::Deleted);
    assert_eq!(house.keys(), [format!("checkpoints/{id}/index.json")]);
    assert!(list(&running, &[]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_checkpoint_can_be_neither_deleted_nor_reset() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    running.delete(id).await.unwrap();
    running.settled(id).await;
    assert_eq!(
        running.delete(id).await.unwrap_err().kind,
        ErrorKind::Conflict
    );
    let reset = running
        .api()
        .reset_state(&member(), running.provider, id, "error".to_owned())
        .await
        .unwrap_err();
    assert_eq!(
        reset.message,
        format!("The checkpoint {id} can not be reset.")
    );
}

/// Q26: a deleted checkpoint is shown as deleted to a caller who waits for it, and then no more.
#[tokio::test(flavor = "multi_thread")]
async fn q26_a_deleted_checkpoint_is_not_shown_for_ever() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let id = running.available(1).await;
    until(async || running.delete(id).await.ok()).await;
    assert_eq!(running.settled(id).await, CheckpointStatus::Deleted);
    let log = running.log_of(id).await;
    let update = karbor_db::OperationLogUpdate {
        ended_at: Some(chrono::Utc::now() - chrono::TimeDelta::minutes(11)),
        ..Default::default()
    };
    running
        .db
        .runs()
        .operation_log_update(log.id, &update)
        .await
        .unwrap();
    let (api, provider) = (running.api(), running.provider);
    let error = api
        .show_checkpoint(&member(), provider, id)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.message),
        (
            ErrorKind::NotFound,
            format!("Checkpoint {id} could not be found.")
        )
    );
    // It says nothing to others, as ever.
    let foreign = api
        .show_checkpoint(&crate::house::stranger(), provider, id)
        .await
        .unwrap_err();
    assert_eq!(foreign.kind, ErrorKind::Forbidden);
}

/// Q68: a checkpoint whose deletion failed can be deleted again, or reset first.
#[tokio::test(flavor = "multi_thread")]
async fn q68_error_deleting_is_no_dead_end() {
    let house = House::new().with_resources(&["fail_delete"]);
    let running = house.open().await;
    let id = running.available(1).await;
    running.delete(id).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::ErrorDeleting);
    running.log_of(id).await;
    running.delete(id).await.unwrap();
    assert_eq!(running.settled(id).await, CheckpointStatus::ErrorDeleting);
    running.log_of(id).await;
    crate::house::until(async || {
        running
            .api()
            .reset_state(&member(), running.provider, id, "error".to_owned())
            .await
            .ok()
    })
    .await;
    assert_eq!(running.checkpoint(id).await.status, CheckpointStatus::Error);
}

async fn list(running: &Running, filters: &[(&str, &str)]) -> Vec<CheckpointId> {
    page(running, filters, None, None, "desc").await.unwrap()
}

async fn page(
    running: &Running,
    filters: &[(&str, &str)],
    marker: Option<CheckpointId>,
    limit: Option<usize>,
    direction: &str,
) -> Result<Vec<CheckpointId>, karbor_model::ApiError> {
    let filters: BTreeMap<_, _> = filters
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let keys = vec!["created_at".to_owned()];
    let directions = vec![direction.to_owned()];
    let (api, provider) = (running.api(), running.provider);
    let found = api
        .list_checkpoints(
            &member(),
            provider,
            marker,
            limit,
            keys,
            directions,
            filters,
            false,
        )
        .await?;
    Ok(found.into_iter().map(|checkpoint| checkpoint.id).collect())
}

/// Q22, Q24: pages follow each other, end, and go both ways; an unknown marker is a 400.
#[tokio::test(flavor = "multi_thread")]
async fn q22_pages_follow_each_other() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    for _ in 0..5 {
        running.available(1).await;
    }
    let all = list(&running, &[]).await;
    assert_eq!(all.len(), 5);
    for direction in ["asc", "desc"] {
        let whole = page(&running, &[], None, None, direction).await.unwrap();
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let next = page(&running, &[], marker, Some(2), direction)
                .await
                .unwrap();
            let Some(&last) = next.last() else { break };
            seen.extend(next);
            marker = Some(last);
        }
        assert_eq!(seen, whole);
    }
    let error = page(&running, &[], Some(CheckpointId::new()), None, "desc")
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest);
}

/// Q20, Q21, Q25: dates and states are filters.
#[tokio::test(flavor = "multi_thread")]
async fn q25_filters_filter() {
    let house = House::new().with_resources(&["one", "fail_protect"]);
    let running = house.open().await;
    let good = running.available(1).await;
    let bad = running.protect(running.plan(2)).await.unwrap();
    assert_eq!(running.settled(bad).await, CheckpointStatus::Error);
    let today = chrono::Utc::now().date_naive().to_string();
    assert_eq!(list(&running, &[("status", "available")]).await, [good]);
    assert_eq!(list(&running, &[("status", "error")]).await, [bad]);
    assert!(list(&running, &[("status", "bogus")]).await.is_empty());
    assert!(list(&running, &[("plan_id", "abc")]).await.is_empty());
    assert!(
        list(&running, &[("end_date", "2000-01-01")])
            .await
            .is_empty()
    );
    assert_eq!(list(&running, &[("start_date", &today)]).await.len(), 2);
    let plan = running
        .checkpoint(good)
        .await
        .protection_plan
        .id
        .to_string();
    assert_eq!(
        list(&running, &[("plan_id", &plan), ("start_date", &today)]).await,
        [good]
    );
    let error = page(&running, &[("start_date", "bad")], None, None, "desc")
        .await
        .unwrap_err();
    assert!(error.message.contains("start_date"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_file_that_cannot_be_read_is_listed_as_an_error() {
    let house = House::new().with_resources(&["one"]);
    let running = house.open().await;
    let (good, bad) = (running.available(1).await, running.available(1).await);
    house.tamper(
        &format!("checkpoints/{bad}/index.json"),
        "{\"version\": \"0.9\"",
    );
    assert_eq!(list(&running, &[("status", "available")]).await, [good]);
    assert_eq!(list(&running, &[("status", "error")]).await, [bad]);
    let restored = running.restore(bad, Parameters::new()).await;
    let refused = restored.unwrap_err();
    assert!(refused.message.contains("damaged"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_is_kept_with_shared_dependents_once() {
    let house = House::new()
        .with_resources(&["app", "web", "db", "disk"])
        .with_edges(&[(0, 1), (0, 2), (1, 3), (2, 3)]);
    let running = house.open().await;
    let id = running.available(1).await;
    let graph =
        ResourceGraph::unpack(&running.checkpoint(id).await.resource_graph.unwrap()).unwrap();
    assert_eq!(graph.nodes().len(), 4);
    assert_eq!(graph.nodes().last().unwrap().name, "app");
}

/// What failed and was undone, or was partly deleted, cannot be called available by hand.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_whole_checkpoint_can_be_reset_to_available() {
    let house = House::new().with_resources(&["one", "fail_protect", "fail_delete"]);
    let running = house.open().await;
    let reset = async |id, state: &str| {
        running
            .api()
            .reset_state(&member(), running.provider, id, state.to_owned())
            .await
    };
    let good = running.available(1).await;
    until(async || reset(good, "error").await.ok()).await;
    reset(good, "available").await.unwrap();
    assert_eq!(
        running.checkpoint(good).await.status,
        CheckpointStatus::Available
    );

    let failed = running.protect(running.plan(2)).await.unwrap();
    running.settled(failed).await;
    running.log_of(failed).await;
    assert_eq!(
        reset(failed, "available").await.unwrap_err().class,
        "CheckpointNotBeReset"
    );

    let resources = vec![running.plan(3).resources[2].clone()];
    let half = running
        .protect(crate::house::plan(running.provider, resources))
        .await
        .unwrap();
    assert_eq!(running.settled(half).await, CheckpointStatus::Available);
    until(async || running.delete(half).await.ok()).await;
    assert_eq!(running.settled(half).await, CheckpointStatus::ErrorDeleting);
    until(async || reset(half, "error").await.ok()).await;
    assert_eq!(
        reset(half, "available").await.unwrap_err().class,
        "CheckpointNotBeReset"
    );
}

/// With a new database nothing is known of how a checkpoint was made: the user's word is not enough.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_operation_log_does_not_know_cannot_be_reset_to_available() {
    let house = House::new().with_resources(&["one", "fail_protect"]);
    let first = house.open().await;
    let failed = first.protect(first.plan(2)).await.unwrap();
    assert_eq!(first.settled(failed).await, CheckpointStatus::Error);
    // Not before its claim is given up.
    until(async || {
        let (context, state) = (member(), "error".to_owned());
        let api = first.api();
        let reset = api.reset_state(&context, first.provider, failed, state);
        reset.await.ok()
    })
    .await;
    drop(first);

    let mut second = House::new();
    second.bank = house.bank.clone();
    second.provider = house.provider;
    second.recovery_key.clone_from(&house.recovery_key);
    let running = second.open().await;
    let refused = running
        .api()
        .reset_state(&member(), running.provider, failed, "available".to_owned())
        .await;
    assert_eq!(refused.unwrap_err().class, "CheckpointNotBeReset");
    assert_eq!(
        running.checkpoint(failed).await.status,
        CheckpointStatus::Error
    );
}
