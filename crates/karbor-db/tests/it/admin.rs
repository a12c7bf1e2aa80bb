//! What an administrator does with the database.

use chrono::TimeDelta;
use karbor_db::Db;

use crate::support::fixture;

/// Deleted long ago, deleted just now, not deleted: of each a plan, a schedule and what belongs to it.
const ROWS: &str = "
INSERT INTO plans (id, name, deleted, deleted_at) VALUES
  ('old', 'old', 1, '2020-01-01 00:00:00.000000'),
  ('new', 'new', 1, '2999-01-01 00:00:00.000000'),
  ('live', 'live', 0, NULL);
INSERT INTO resources (plan_id, resource_id, deleted, deleted_at) VALUES
  ('old', 'marked', 1, '2020-01-01 00:00:00.000000'),
  ('old', 'not marked', 0, NULL),
  ('live', 'replaced', 1, '2020-01-01 00:00:00.000000'),
  ('live', 'kept', 0, NULL);
INSERT INTO services (id, host, binary, topic, report_count, deleted, deleted_at) VALUES
  (7, 'gone', 'b', 't', 1, 1, '2020-01-01 00:00:00.000000'),
  (8, 'used', 'b', 't', 1, 1, '2020-01-01 00:00:00.000000');
INSERT INTO triggers (id, name, project_id, type, properties, deleted, deleted_at) VALUES
  ('t-old', 't', 'p', 'time', '{}', 1, '2020-01-01 00:00:00.000000'),
  ('t-used', 't', 'p', 'time', '{}', 1, '2020-01-01 00:00:00.000000');
INSERT INTO trigger_executions (id, trigger_id, execution_time, deleted) VALUES
  ('e', 't-old', '2020-01-01 00:00:00.000000', 0);
INSERT INTO scheduled_operations
  (id, name, operation_type, user_id, project_id, trigger_id, operation_definition, enabled, deleted, deleted_at) VALUES
  ('o-old', 'o', 'protect', 'u', 'p', 't-old', '{}', 1, 1, '2020-01-01 00:00:00.000000'),
  ('o-live', 'o', 'protect', 'u', 'p', 't-used', '{}', 1, 0, NULL);
INSERT INTO scheduled_operation_states (operation_id, service_id, trust_id, state, deleted) VALUES
  ('o-old', 7, '', 'deleted', 0), ('o-live', 8, '', 'registered', 0);
INSERT INTO scheduled_operation_logs (operation_id, state, deleted) VALUES
  ('o-old', 'success', 0), ('o-live', 'success', 0);
";

fn left(raw: &rusqlite::Connection, table: &str) -> i64 {
    raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
        row.get(0)
    })
    .unwrap()
}

#[tokio::test]
async fn purge_removes_what_was_deleted_long_ago_and_what_belongs_to_it() {
    let fixture = fixture().await;
    let raw = fixture.raw();
    raw.execute_batch(ROWS).unwrap();
    let would = fixture.db.purge(TimeDelta::days(30), true).await.unwrap();
    assert_eq!(left(&raw, "plans"), 3, "a dry run changes nothing");
    let purged = fixture.db.purge(TimeDelta::days(30), false).await.unwrap();
    assert_eq!(would, purged);
    let counts: Vec<_> = purged.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(
        counts,
        [
            ("resources", 3),
            ("scheduled_operation_states", 1),
            ("scheduled_operation_logs", 1),
            ("trigger_executions", 1),
            ("scheduled_operations", 1),
            ("triggers", 1),
            ("plans", 1),
            ("services", 1),
        ]
    );
    for (table, count) in [
        ("plans", 2),
        ("resources", 1),
        ("triggers", 1),
        ("scheduled_operations", 1),
        ("services", 1),
    ] {
        assert_eq!(left(&raw, table), count, "{table}");
    }
    let again = fixture.db.purge(TimeDelta::days(30), false).await.unwrap();
    assert!(again.iter().all(|(_, count)| *count == 0));
}

#[tokio::test]
async fn an_age_before_all_time_is_refused() {
    let fixture = fixture().await;
    assert!(fixture.db.purge(TimeDelta::MAX, false).await.is_err());
}

#[tokio::test]
async fn a_schema_is_looked_at_without_touching_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    let url = format!("sqlite://{}", path.display());
    assert_eq!(Db::inspect(&url).await.unwrap(), None);
    assert!(!path.exists());

    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(include_str!("../data/original.sql"))
        .unwrap();
    raw.execute_batch(include_str!("../data/rows.sql")).unwrap();
    let adopted = Db::inspect(&url).await.unwrap().unwrap();
    assert_eq!(adopted.original, Some(3));
    assert!(adopted.applied.is_empty() && !adopted.pending.is_empty());
    let ours = "SELECT count(*) FROM sqlite_master WHERE name = 'flows'";
    assert_eq!(raw.query_row(ours, [], |row| row.get::<_, i64>(0)), Ok(0));

    let db = Db::open(&path).await.unwrap();
    db.migrate().await.unwrap();
    let current = Db::inspect(&url).await.unwrap().unwrap();
    assert_eq!(current.applied, adopted.pending);
    assert!(current.pending.is_empty());

    std::fs::write(&path, "this is no database").unwrap();
    assert!(Db::inspect(&url).await.is_err());
}
