//! A database that the original made and filled.

use karbor_db::{Db, ListQuery};
use karbor_model::{OperationLogStatus, OperationType, PlanStatus, ReadbackStatus};
use serde_json::json;

async fn adopted() -> (Db, tempfile::TempDir, rusqlite::Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(include_str!("../data/original.sql"))
        .unwrap();
    raw.execute_batch(include_str!("../data/rows.sql")).unwrap();
    let db = Db::open(&path).await.unwrap();
    db.migrate().await.unwrap();
    (db, folder, raw)
}

#[tokio::test]
async fn its_records_are_read_as_they_are() {
    let (db, _folder, _raw) = adopted().await;
    let plans = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    assert_eq!(
        names,
        ["odd", "renamed", "first"],
        "newest first, none deleted"
    );
    let renamed = &plans[1];
    assert_eq!(renamed.status, PlanStatus::Started);
    assert_eq!(renamed.description, None);
    assert_eq!(
        json!(renamed.parameters),
        json!({"OS::Cinder::Volume": {"backup_mode": "full", "force": "True"}})
    );
    assert_eq!(
        renamed.updated_at.unwrap().timestamp_subsec_micros(),
        32_320
    );
    assert_eq!(plans[2].resources.len(), 1, "deleted resources stay away");
    assert_eq!(
        plans[2].resources[0].extra_info,
        Some(json!({"availability_zone": "nova"}))
    );
    assert_eq!(
        plans[0].status,
        PlanStatus::Suspended,
        "Q10: any text was a status"
    );

    let restores = db
        .runs()
        .readback_list(OperationType::Restore, &ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(restores[0].status, ReadbackStatus::Success);
    assert!(restores[0].resources_status.is_empty());

    let logs = db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await
        .unwrap();
    let states: Vec<_> = logs.iter().map(|log| log.status).collect();
    assert_eq!(
        states,
        [
            OperationLogStatus::Failed,
            OperationLogStatus::InProgress,
            OperationLogStatus::Success
        ]
    );
    let succeeded = ListQuery {
        filters: vec![("status".into(), "available".into())],
        ..ListQuery::of_every_project()
    };
    assert_eq!(
        db.runs()
            .operation_log_list(&succeeded)
            .await
            .unwrap()
            .len(),
        1
    );

    let services = db.services().list().await.unwrap();
    assert_eq!(services[0].report_count, 7);
}

#[tokio::test]
async fn its_odd_states_can_be_left() {
    let (db, _folder, _raw) = adopted().await;
    let odd = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap()
        .remove(0);
    let odd = db.plans().update(&odd).await.unwrap();
    db.plans()
        .set_status(odd.id, PlanStatus::Suspended, PlanStatus::Started)
        .await
        .unwrap();
    let logs = db
        .runs()
        .operation_log_list(&ListQuery::of_every_project())
        .await
        .unwrap();
    db.runs()
        .operation_log_set_status(
            logs[1].id,
            OperationLogStatus::InProgress,
            OperationLogStatus::Failed,
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn the_original_is_not_disturbed() {
    let (db, _folder, raw) = adopted().await;
    let plan = crate::support::plan("p", "ours");
    db.plans().create(&plan).await.unwrap();
    // As the original would write: its own columns only.
    raw.execute_batch(
        "INSERT INTO operation_logs (created_at, deleted, id, project_id, operation_type, status) \
         VALUES ('2026-11-22 10:20:37.556548', 0, 'd4c9a732-09d1-4dbd-a59f-16e42fcc56b0', 'p', \
         'protect', 'protecting');
         INSERT INTO resources (created_at, deleted, plan_id, resource_id, resource_type, \
         resource_name) SELECT created_at, deleted, id, 'r', 't', 'n' FROM plans WHERE name = 'ours';
         UPDATE migrate_version SET version = 3;",
    )
    .unwrap();
    assert_eq!(db.plans().get(plan.id).await.unwrap().resources.len(), 3);
}

#[tokio::test]
async fn an_older_schema_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(
        "CREATE TABLE migrate_version (repository_id VARCHAR(250) NOT NULL PRIMARY KEY, \
         repository_path TEXT, version INTEGER);
         INSERT INTO migrate_version VALUES ('karbor', '', 1);
         CREATE TABLE plans (created_at DATETIME, deleted BOOLEAN, \
         id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255), provider_id VARCHAR(36));
         INSERT INTO plans VALUES ('2026-11-22 10:20:28.705829', 0, \
         '222202b5-3786-4959-b6ad-a6150f78f1e1', 'old', 'b766f37c-d011-4026-8228-28730d734a3f');",
    )
    .unwrap();
    let db = Db::open(&path).await.unwrap();
    db.migrate().await.unwrap();
    let plans = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(plans[0].name, "old");
    assert!(plans[0].resources.is_empty());
}
