//! SQLite databases.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use karbor_model::OperationType;
use karbor_plugins::applications::{DIRECTORY, SQLITE};
use rusqlite::Connection;
use serde_json::json;

use super::Lab;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.declare(&format!(
        "[[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n",
        lab.path("s.db").display()
    ));
    lab
}

fn make(path: &Path, mode: &str) -> Connection {
    let database = Connection::open(path).unwrap();
    database.busy_timeout(Duration::from_secs(30)).unwrap();
    let _: String = database
        .pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
        .unwrap();
    database
        .execute_batch(
            "PRAGMA synchronous=OFF;
             CREATE TABLE a (n INTEGER); CREATE TABLE b (n INTEGER, filler BLOB);
             INSERT INTO a VALUES (0); INSERT INTO b VALUES (0, NULL);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 4000)
             INSERT INTO b SELECT 0, randomblob(1000) FROM c;",
        )
        .unwrap();
    database
}

fn dump(path: &Path) -> (i64, i64, i64) {
    let database = Connection::open(path).unwrap();
    let one = |sql: &str| database.query_row(sql, [], |row| row.get(0)).unwrap();
    let check: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    (
        one("SELECT sum(n) FROM a"),
        one("SELECT sum(n) FROM b"),
        one("SELECT count(*) FROM b"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_wrecked_restored_and_equal() {
    for mode in ["delete", "wal"] {
        let lab = lab();
        let path = lab.path("s.db");
        drop(make(&path, mode));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = dump(&path);
        let resource = lab.resource(SQLITE).await;
        let (checkpoint, report) = lab.protect(&resource).await.unwrap();
        assert!(report["bytes"].as_u64().unwrap() > 4_000_000);
        assert!(lab.scratch().is_empty());
        Connection::open(&path)
            .unwrap()
            .execute_batch("DELETE FROM b")
            .unwrap();
        let error = lab
            .restore(checkpoint, &resource, json!({}))
            .await
            .unwrap_err();
        assert!(error.message.contains("there is a database"), "{error}");
        lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await
            .unwrap();
        assert_eq!(dump(&path), before);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        // The same again changes nothing; gone, it comes back with its mode.
        let same = lab
            .restore(checkpoint, &resource, json!({"overwrite": "if-changed"}))
            .await
            .unwrap();
        assert_eq!(
            (&same["files"], &same["unchanged"]),
            (&json!(0), &json!(1)),
            "{mode}"
        );
        fs::remove_file(&path).unwrap();
        lab.restore(checkpoint, &resource, json!({})).await.unwrap();
        assert_eq!(dump(&path), before);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
            .await
            .unwrap();
        assert_eq!(dump(&lab.path("restore/x/shop/sessions/s.db")), before);
        // What is no database any more is replaced too, and its old log is not played into the new.
        fs::write(&path, "wrecked").unwrap();
        fs::write(lab.path("s.db-wal"), "old").unwrap();
        fs::write(lab.path("s.db-journal"), "old").unwrap();
        lab.restore(checkpoint, &resource, json!({"overwrite": "if-changed"}))
            .await
            .unwrap();
        assert!(!lab.path("s.db-journal").exists());
        assert_eq!(dump(&path), before);
        let left: Vec<_> = fs::read_dir(lab.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("karbor"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(lab.scratch().is_empty());
    }
}

/// A writer moves one from `a` to `b` all the time: in a consistent copy they add up.
const CHILD: &str = "KARBOR_TEST_SQLITE_WRITER";

/// A process of its own, as an application is: SQLite's locks are the process's (POSIX), and one that
/// opens and closes the file for another reason lets go of them.
#[test]
#[ignore = "a child of other tests"]
fn child_writes() {
    let path = std::env::var_os(CHILD).unwrap();
    let database = Connection::open(&path).unwrap();
    database.busy_timeout(Duration::from_secs(60)).unwrap();
    database.execute_batch("PRAGMA synchronous=OFF").unwrap();
    for written in 0.. {
        if written == 10 {
            fs::write(begun(Path::new(&path)), "").unwrap();
        }
        database
            .execute_batch(
                "BEGIN IMMEDIATE; UPDATE a SET n = n - 1;
                 UPDATE b SET n = n + 1 WHERE rowid = 1; COMMIT",
            )
            .unwrap();
    }
}

/// The process that writes; it goes with the test, also with one that fails.
struct Writer(std::process::Child);

impl Writer {
    fn start(path: &Path) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "host::sqlite::child_writes"])
            .env(CHILD, path)
            .stdout(std::process::Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(path: &Path, sql: &str) -> i64 {
    let database = Connection::open(path).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Is there once the writer has written ten times.
fn begun(path: &Path) -> PathBuf {
    path.with_extension("begun")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_is_consistent_while_somebody_writes() {
    for mode in ["wal", "delete"] {
        let lab = lab();
        let path = lab.path("s.db");
        drop(make(&path, mode));
        let writer = Writer::start(&path);
        while !begun(&path).exists() {
            thread::yield_now();
        }
        let resource = lab.resource(SQLITE).await;
        let (checkpoint, _) = lab.protect(&resource).await.unwrap();
        drop(writer);
        lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
            .await
            .unwrap();
        let (a, b, rows) = dump(&lab.path("restore/x/shop/sessions/s.db"));
        assert!(a <= -10, "{mode}: {a}");
        assert_eq!(a + b, 0, "{mode}: the copy is of two moments");
        assert_eq!(rows, 4001);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_says_why() {
    let lab = lab();
    let (path, resource) = (lab.path("s.db"), lab.resource(SQLITE).await);
    let wrong = async |wanted: &str| {
        let error = lab.protect(&resource).await.unwrap_err();
        assert!(error.message.contains(wanted), "{error}");
        assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
        assert!(lab.scratch().is_empty());
    };
    wrong("it is not there").await;
    fs::create_dir(&path).unwrap();
    wrong("it is not a file").await;
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "certainly not a database, whatever it is called").unwrap();
    wrong("it is not an SQLite database").await;
    fs::remove_file(&path).unwrap();
    drop(make(&path, "delete"));
    let mut bytes = fs::read(&path).unwrap();
    let at = 4096 * 20;
    bytes[at..at + 4096 * 4].fill(0xEE);
    fs::write(&path, bytes).unwrap();
    wrong("the database is damaged (quick_check:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_in_use_is_not_replaced() {
    for mode in ["delete", "wal"] {
        let lab = lab();
        let path = lab.path("s.db");
        let open = make(&path, mode);
        let resource = lab.resource(SQLITE).await;
        let (checkpoint, _) = lab.protect(&resource).await.unwrap();
        open.execute_batch("DELETE FROM b").unwrap();
        let error = lab
            .restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await
            .unwrap_err();
        assert!(
            error
                .message
                .contains(&format!("in use by process {}", std::process::id())),
            "{error}"
        );
        drop(open);
        lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await
            .unwrap();
        assert_eq!(dump(&path).2, 4001, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_leaves_nothing() {
    let lab = lab();
    drop(make(&lab.path("s.db"), "delete"));
    let resource = lab.resource(SQLITE).await;
    let context = lab.context(
        OperationType::Protect,
        karbor_model::CheckpointId::new(),
        &resource,
        json!({}),
    );
    context.cancel.cancel();
    let error = lab.run(&context).await.unwrap_err();
    assert_eq!(error.message, "cancelled");
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
    assert!(lab.scratch().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_and_changes_nothing() {
    let lab = lab();
    let path = lab.path("s.db");
    drop(make(&path, "delete"));
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = fs::read(&path).unwrap();
    for (parameters, kind) in [
        (json!({"dry_run": true}), "skip"),
        (json!({"dry_run": true, "overwrite": "always"}), "overwrite"),
        (json!({"dry_run": true, "restore_to": "x"}), "create"),
    ] {
        let report = lab
            .restore(checkpoint, &resource, parameters)
            .await
            .unwrap();
        assert_eq!(report["changes"], json!([{"path": "s.db", "kind": kind}]));
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!lab.path("restore/x").exists());
}

/// A torn copy of the database among the directory's files would be restored over the good one, and
/// reading it there lets go of the locks of the online backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_a_protected_directory_is_read_by_its_own_component_only() {
    for mode in ["delete", "wal"] {
        let lab = Lab::new();
        let dir = lab.path("files");
        fs::create_dir(&dir).unwrap();
        lab.declare(&format!(
            "[[directory]]\nname = \"files\"\npath = \"{0}\"\n\
             [[sqlite]]\nname = \"sessions\"\npath = \"{0}/s.db\"\n",
            dir.display()
        ));
        let path = dir.join("s.db");
        let open = make(&path, mode);
        let before = dump(&path);
        fs::write(dir.join("s.db-not"), "an ordinary file").unwrap();
        let directory = lab.resource(DIRECTORY).await;
        let (checkpoint, report) = lab.protect(&directory).await.unwrap();
        let told = report["warnings"][0].as_str().unwrap();
        assert_eq!(told, "'s.db' is left to the component 'sessions'");
        let database = lab.resource(SQLITE).await;
        let (of_database, _) = lab.protect(&database).await.unwrap();
        drop(open);
        fs::remove_dir_all(&dir).unwrap();
        let overwrite = || json!({"overwrite": "if-changed"});
        lab.restore(of_database, &database, overwrite())
            .await
            .unwrap();
        lab.restore(checkpoint, &directory, overwrite())
            .await
            .unwrap();
        assert_eq!(dump(&path), before, "{mode}");
        let names = super::tree(&dir).into_keys().collect::<Vec<_>>();
        assert_eq!(names, ["s.db", "s.db-not"]);
    }
}

/// Whoever protects the directory alone would lose it without a word.
#[tokio::test]
async fn a_database_of_another_application_in_a_protected_directory_is_refused() {
    let lab = Lab::new();
    let dir = lab.path("files");
    fs::create_dir(&dir).unwrap();
    drop(make(&dir.join("s.db"), "delete"));
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        dir.display()
    ));
    let other = format!(
        "name = \"other\"\nprojects = [\"p\"]\n[[sqlite]]\nname = \"s\"\npath = \"{}/s.db\"\n",
        dir.display()
    );
    fs::write(lab.path("applications.d/other.toml"), other).unwrap();
    let directory = lab.resource(DIRECTORY).await;
    let error = lab.protect(&directory).await.unwrap_err();
    assert!(error.message.contains("exclude '/s.db*'"), "{error}");
}

/// Killed after it noted that nothing was there: what is there now may be the application's.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_run_again_does_not_replace_a_database_made_meanwhile() {
    for mode in ["delete", "wal"] {
        let lab = lab();
        let path = lab.path("s.db");
        drop(make(&path, mode));
        let before = dump(&path);
        let resource = lab.resource(SQLITE).await;
        let (checkpoint, _) = lab.protect(&resource).await.unwrap();
        fs::remove_file(&path).unwrap();
        let context = lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
        let restore = lab.operation(OperationType::Restore, &resource);
        restore.main(&context).await.unwrap();
        let report = restore.main(&context).await.unwrap();
        assert_eq!(
            (&report["files"], &report["unchanged"]),
            (&json!(0), &json!(1))
        );
        assert_eq!(dump(&path), before);

        fs::remove_file(&path).unwrap();
        let meanwhile = Connection::open(&path).unwrap();
        let sql = format!(
            "PRAGMA journal_mode={mode}; CREATE TABLE mine (n); INSERT INTO mine VALUES (7)"
        );
        meanwhile.execute_batch(&sql).unwrap();
        for open in [Some(meanwhile), None] {
            let error = restore.main(&context).await.unwrap_err();
            assert!(
                error.message.contains("there is a database at the place"),
                "{error}"
            );
            assert_eq!(number(&path, "SELECT n FROM mine"), 7, "{mode}");
            drop(open);
        }
        restore.undo(&context).await.unwrap();
        assert_eq!(number(&path, "SELECT n FROM mine"), 7, "{mode}");
        let names = super::tree(&lab.dir.path().join("restore"));
        assert!(names.is_empty(), "{names:?}");
    }
}
