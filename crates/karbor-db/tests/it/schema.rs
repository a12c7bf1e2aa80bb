use std::collections::BTreeMap;

use karbor_db::{Db, DbError};

use crate::support::{child, child_db, fixture};

/// Name, type and "may not be NULL" of every column, by table.
fn columns(connection: &rusqlite::Connection) -> BTreeMap<String, Vec<(String, String, bool)>> {
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        .unwrap();
    let names: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    names
        .into_iter()
        .map(|name| {
            let mut info = connection
                .prepare(&format!("PRAGMA table_info({name})"))
                .unwrap();
            let columns = info
                .query_map([], |row| {
                    let kind: String = row.get(2)?;
                    Ok((row.get(1)?, kind.to_uppercase(), row.get(3)?))
                })
                .unwrap()
                .map(Result::unwrap)
                .collect();
            (name, columns)
        })
        .collect()
}

#[tokio::test]
async fn a_fresh_database_has_the_originals_tables_column_for_column() {
    let fixture = fixture().await;
    let ours = columns(&fixture.raw());
    let original = rusqlite::Connection::open_in_memory().unwrap();
    original
        .execute_batch(include_str!("../data/original.sql"))
        .unwrap();
    for (table, mut expected) in columns(&original) {
        if table == "operation_logs" {
            expected.push(("verification_id".into(), "VARCHAR(36)".into(), false));
        }
        if table == "triggers" {
            expected.push(("exhausted_at".into(), "DATETIME".into(), false));
        }
        if table == "plans" {
            expected.push(("held_at".into(), "DATETIME".into(), false));
        }
        if table == "scheduled_operations" {
            expected.push(("trust_id".into(), "VARCHAR(64)".into(), false));
            expected.push(("enabled_at".into(), "DATETIME".into(), false));
        }
        assert_eq!(ours[&table], expected, "{table}");
    }
    for table in [
        "flows",
        "flow_events",
        "api_tokens",
        "task_reports",
        "scheduled_runs",
        "quota_projects",
        "quota_holdings",
        "notifications",
    ] {
        assert!(ours.contains_key(table), "{table}");
    }
    let version: i64 = fixture
        .raw()
        .query_row(
            "SELECT version FROM migrate_version WHERE repository_id = 'karbor'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(version, 3);
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let fixture = fixture().await;
    let before = columns(&fixture.raw());
    fixture.db.migrate().await.unwrap();
    fixture.other().await.migrate().await.unwrap();
    assert_eq!(columns(&fixture.raw()), before);
}

#[tokio::test]
async fn processes_that_start_at_once_migrate_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let children: Vec<_> = (0..4)
        .map(|_| child("schema::child_migrates", &path))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
    let raw = rusqlite::Connection::open(&path).unwrap();
    let applied: i64 = raw
        .query_row("SELECT count(*) FROM karbor_migrations", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(applied, 8);
}

#[tokio::test]
#[ignore = "runs as a child process"]
async fn child_migrates() {
    let db = child_db().await;
    db.migrate().await.unwrap();
    db.services()
        .register("host", "karbor-protection", "karbor-protection")
        .await
        .unwrap();
    assert_eq!(db.services().list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused() {
    let fixture = fixture().await;
    fixture
        .raw()
        .execute(
            "INSERT INTO karbor_migrations VALUES ('m0099_of_tomorrow', 0)",
            [],
        )
        .unwrap();
    let error = fixture.db.migrate().await.unwrap_err();
    assert!(matches!(&error, DbError::Schema(_)), "{error:?}");
    assert!(error.to_string().contains("m0099_of_tomorrow"), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
async fn a_schema_of_an_unknown_original_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(
        "CREATE TABLE migrate_version (repository_id VARCHAR(250) NOT NULL PRIMARY KEY, \
         repository_path TEXT, version INTEGER);
         INSERT INTO migrate_version VALUES ('karbor', '', 7);",
    )
    .unwrap();
    let db = Db::open(&path).await.unwrap();
    let error = db.migrate().await.unwrap_err();
    assert!(error.to_string().contains("schema 7"), "{error}");
    assert_eq!(columns(&raw).len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture().await;
    for name in ["karbor.db", "karbor.db-wal", "karbor.db-shm"] {
        let metadata = std::fs::metadata(fixture.folder.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn in_memory_works_too() {
    let db = Db::connect("sqlite::memory:").await.unwrap();
    db.migrate().await.unwrap();
    db.migrate().await.unwrap();
    assert!(db.services().list().await.unwrap().is_empty());
}
