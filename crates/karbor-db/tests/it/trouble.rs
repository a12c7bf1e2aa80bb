//! Bad luck: what the caller gets, and that the next try works.

use std::fs;

use karbor_db::{Db, DbError, ListQuery};
use karbor_model::ApiError;

use crate::support::{child_db, child_on_small_disk, fixture, plan};

#[tokio::test]
async fn a_file_that_is_no_database_is_named_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("karbor.db");
    fs::write(&path, "dear diary, ".repeat(1000)).unwrap();
    let opened = match Db::open(&path).await {
        Ok(db) => db.migrate().await,
        Err(error) => Err(error),
    };
    let error = opened.unwrap_err();
    assert!(error.to_string().contains("is not a database"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_named_so() {
    let fixture = fixture().await;
    fixture.db.plans().create(&plan("p", "n")).await.unwrap();
    fixture.db.close().await;
    let path = fixture.path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = Db::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(error.to_string().contains("karbor.db"), "{error}");
    assert!(matches!(error, DbError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_only_database_says_so_and_can_be_read() {
    let fixture = fixture().await;
    fixture.db.plans().create(&plan("p", "n")).await.unwrap();
    let url = format!("sqlite://{}?mode=ro", fixture.path().display());
    let db = Db::connect(&url).await.unwrap();
    db.migrate().await.unwrap();
    let read = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(read.len(), 1);
    let error = db.plans().create(&plan("p", "m")).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/karbor.db");
    let error = Db::open(&path).await.unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("folder"), "{error}");
}

#[tokio::test]
async fn other_databases_are_refused_without_showing_the_password() {
    let error = Db::connect("postgresql://karbor:hunter2@host/karbor")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("'postgresql:'"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

/// Writing on into a file that was moved away would lose what was written.
#[cfg(unix)]
#[tokio::test]
async fn a_database_that_goes_away_stops_writes_until_it_is_back() {
    let fixture = fixture().await;
    let (path, away) = (fixture.path(), fixture.folder.path().join("away.db"));
    fs::rename(&path, &away).unwrap();
    let error = fixture
        .db
        .plans()
        .create(&plan("p", "n"))
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(ApiError::from(error).kind.is_retryable());

    fs::copy(&away, &path).unwrap();
    let error = fixture
        .db
        .plans()
        .create(&plan("p", "n"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("Another file"), "{error}");

    fs::rename(&away, &path).unwrap();
    fixture.db.plans().create(&plan("p", "n")).await.unwrap();
}

#[tokio::test]
async fn a_row_that_nobody_should_have_written_is_named() {
    let fixture = fixture().await;
    let plan = plan("p", "n");
    fixture.db.plans().create(&plan).await.unwrap();
    fixture
        .raw()
        .execute("UPDATE plans SET parameters = '{'", [])
        .unwrap();
    let error = fixture.db.plans().get(plan.id).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&plan.id.to_string()), "{text}");
    assert!(text.contains("parameters"), "{text}");
    let told = ApiError::from(error);
    assert!(!told.to_string().contains("parameters"), "{told}");
}

/// When the disk takes no more, the writer is told, and what was written before is whole.
#[cfg(unix)]
#[tokio::test]
async fn a_disk_that_takes_no_more_is_named_and_loses_nothing() {
    let fixture = fixture().await;
    let child = child_on_small_disk("trouble::child_writes_until_it_fails", &fixture.path(), 400);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let written: usize = said
        .lines()
        .find_map(|line| line.strip_prefix("written ")?.parse().ok())
        .unwrap();
    assert!(
        said.contains("failed true The disk of the database"),
        "{said}"
    );
    let plans = fixture
        .db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(plans.len(), written);
    assert!(plans.iter().all(|plan| plan.resources.len() == 2));
    fixture.db.plans().create(&plan("p", "next")).await.unwrap();
}

#[tokio::test]
#[ignore = "runs as a child process"]
async fn child_writes_until_it_fails() {
    let db = child_db().await;
    let mut written = 0;
    let error = loop {
        match db.plans().create(&plan("p", "n")).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    println!(
        "\nwritten {written}\nfailed {} {error}",
        error.is_retryable()
    );
}

/// A writer in another process is waited for; readers are not held up.
#[tokio::test(flavor = "multi_thread")]
async fn another_writer_is_waited_for() {
    let fixture = fixture().await;
    let raw = fixture.raw();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    let db = fixture.db.clone();
    let write = tokio::spawn(async move { db.plans().create(&plan("p", "n")).await });
    let read = fixture
        .db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert!(read.is_empty());
    raw.execute_batch("COMMIT").unwrap();
    write.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_write_leaves_nothing_and_blocks_nobody() {
    let fixture = fixture().await;
    for round in 0..50 {
        let (db, abandoned) = (fixture.db.clone(), plan("p", "abandoned"));
        let write = tokio::spawn(async move { db.plans().create(&abandoned).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        write.abort();
        let _ = write.await;
        fixture.db.plans().create(&plan("p", "kept")).await.unwrap();
    }
    let plans = fixture
        .db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    let whole = plans.iter().all(|plan| plan.resources.len() == 2);
    assert!(whole, "whole or not at all");
    assert_eq!(plans.iter().filter(|plan| plan.name == "kept").count(), 50);
}
