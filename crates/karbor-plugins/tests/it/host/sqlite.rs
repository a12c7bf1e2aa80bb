//! SQLite databases.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{DIRECTORY, SQLITE};
use karbor_model::OperationType;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
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

/// The process of this one that copies a database.
fn copier() -> Option<Pid> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let parent = format!("PPid:\t{}\n", std::process::id());
        let ours = read("cmdline").contains("sqlite-worker") && read("status").contains(&parent);
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        ours.then(|| Pid::from_raw(number?)).flatten()
    })
}

/// The largest file of the copy that is being made.
fn copied(lab: &Lab) -> u64 {
    let cells = lab
        .scratch()
        .into_iter()
        .filter_map(|cell| fs::read_dir(cell).ok());
    let files = cells
        .flatten()
        .flatten()
        .filter_map(|file| file.metadata().ok());
    files.map(|file| file.len()).max().unwrap_or_default()
}

/// Stops the copy half way, does something, and lets the copy go on; `None` if it was done before.
fn half_way<T>(lab: &Lab, size: u64, over: &AtomicBool, action: impl FnOnce() -> T) -> Option<T> {
    while copied(lab) < 1 << 20 {
        if over.load(Ordering::Relaxed) {
            return None;
        }
    }
    let copier = copier()?;
    kill_process(copier, Signal::STOP).ok()?;
    let stopped = || {
        let status = fs::read_to_string(format!("/proc/{}/status", copier.as_raw_nonzero()));
        status.is_ok_and(|status| status.contains("State:\tT"))
    };
    while !stopped() {
        if over.load(Ordering::Relaxed) {
            return None;
        }
    }
    let done = (copied(lab) < size).then(action);
    kill_process(copier, Signal::CONT).unwrap();
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_an_application_opens_while_it_is_copied_is_copied_as_of_one_moment() {
    let lab = lab();
    let path = lab.path("s.db");
    make(&path, "wal")
        .execute_batch(
            "CREATE TABLE filler (x);
             WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 128)
             INSERT INTO filler SELECT randomblob(1 << 20) FROM c;
             CREATE TABLE last (n INTEGER); INSERT INTO last VALUES (0)",
        )
        .unwrap();
    let size = fs::metadata(&path).unwrap().len();
    let resource = lab.resource(SQLITE).await;
    let mut caught = false;
    for _ in 0..20 {
        let over = AtomicBool::new(false);
        let (protected, opened) = thread::scope(|scope| {
            let application = scope.spawn(|| {
                half_way(&lab, size, &over, || {
                    let open = Connection::open(&path).unwrap();
                    open.execute_batch(
                        "BEGIN; UPDATE a SET n = n - 700; UPDATE last SET n = n + 700; COMMIT;
                         PRAGMA wal_checkpoint(PASSIVE)",
                    )
                    .unwrap();
                    open
                })
            });
            let protected = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(lab.protect(&resource))
            });
            over.store(true, Ordering::Relaxed);
            (protected, application.join().unwrap())
        });
        let (checkpoint, _) = protected.unwrap();
        caught = opened.is_some();
        if !caught {
            continue;
        }
        lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
            .await
            .unwrap();
        let copy = lab.path("restore/x/shop/sessions/s.db");
        let (a, ..) = dump(&copy);
        assert_eq!(a + number(&copy, "SELECT n FROM last"), 0, "of two moments");
        assert!(lab.scratch().is_empty());
        break;
    }
    assert!(caught, "every copy was done before it was looked at");
}

/// A size is a claim: its owner makes the file as large as he likes, and it takes nothing of his disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_database_takes_no_more_than_its_pages_and_never_all_the_room() {
    let lab = lab();
    let path = lab.path("s.db");
    drop(make(&path, "wal"));
    let before = dump(&path);
    let pages = fs::metadata(&path).unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(256 << 20).unwrap();
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    assert_eq!(report["bytes"], pages);
    lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap();
    assert_eq!(dump(&lab.path("restore/x/shop/sessions/s.db")), before);
    // The database itself says that it has all of these pages.
    for mode in ["wal", "delete"] {
        make_mode(&path, mode);
        file.set_len(8 << 40).unwrap();
        file.write_all_at(&(1_u32 << 31).to_be_bytes(), 28).unwrap();
        let error = lab.protect(&resource).await.unwrap_err();
        assert!(error.message.contains("has room for"), "{mode}: {error}");
        assert!(lab.scratch().is_empty());
        file.write_all_at(&u32::try_from(pages / 4096).unwrap().to_be_bytes(), 28)
            .unwrap();
        file.set_len(pages).unwrap();
    }
}

fn make_mode(path: &Path, mode: &str) {
    let database = Connection::open(path).unwrap();
    let sql = format!("PRAGMA journal_mode={mode}");
    let made: String = database.query_row(&sql, [], |row| row.get(0)).unwrap();
    assert_eq!(made, mode);
}

/// Such as an application that has the database for itself alone, or somebody who wants the run to last.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_changed_all_the_time_is_not_waited_for() {
    let lab = lab();
    let path = lab.path("s.db");
    drop(make(&path, "wal"));
    let before = dump(&path);
    let resource = lab.resource(SQLITE).await;
    let over = Arc::new(AtomicBool::new(false));
    let changes = {
        let (over, file) = (over.clone(), fs::File::open(&path).unwrap());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let now = rustix::fs::Timestamps {
                    last_access: rustix::fs::Timespec {
                        tv_sec: 0,
                        tv_nsec: rustix::fs::UTIME_NOW,
                    },
                    last_modification: rustix::fs::Timespec {
                        tv_sec: 0,
                        tv_nsec: rustix::fs::UTIME_NOW,
                    },
                };
                rustix::fs::futimens(&file, &now).unwrap();
                thread::yield_now();
            }
        })
    };
    let limit = Duration::from_secs(15);
    let protected = tokio::time::timeout(limit, lab.protect(&resource)).await;
    over.store(true, Ordering::Relaxed);
    changes.join().unwrap();
    let (checkpoint, _) = protected.unwrap().unwrap();
    // SQLite read it, and made a log and an index for that.
    for suffix in ["-wal", "-shm"] {
        assert!(!beside(&path, suffix).exists(), "{suffix} is left behind");
    }
    lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap();
    assert_eq!(dump(&lab.path("restore/x/shop/sessions/s.db")), before);
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

/// A person who protects the directory alone would lose it without a word.
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
    assert!(!error.message.contains("'other'"), "{error}");
    // One that the project may see is named.
    let other = fs::read_to_string(lab.path("applications.d/other.toml")).unwrap();
    let other = other.replace("[\"p\"]", "[\"default\"]");
    fs::write(lab.path("applications.d/other.toml"), &other).unwrap();
    let error = lab.protect(&directory).await.unwrap_err();
    assert!(error.message.contains("the application 'other'"), "{error}");
    // The directory itself, declared as a database.
    let same = other.replace("/s.db", "");
    fs::write(lab.path("applications.d/other.toml"), same).unwrap();
    let error = lab.protect(&directory).await.unwrap_err();
    let found = super::validate::validate(&lab).await;
    let told = found.iter().find(|it| it.key == "directory.files").unwrap();
    for message in [&error.message, &told.message] {
        assert!(!message.contains("exclude"), "{message}");
        assert!(message.contains("the application 'other'"), "{message}");
    }
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

/// An account that is nobody's.
const ALICE: u32 = 12_345;

/// A database of an account of its own, in its directory `home`; none if the test cannot give files away.
fn hers(mode: &str) -> Option<(Lab, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make files of another account");
        return None;
    }
    let lab = Lab::new();
    fs::create_dir(lab.path("home")).unwrap();
    let path = lab.path("home/s.db");
    drop(make(&path, mode));
    for place in [lab.path("home"), path.clone()] {
        chown(place, Some(ALICE), Some(ALICE)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    lab.declare(&format!(
        "[[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n",
        path.display()
    ));
    Some((lab, path))
}

fn names(dir: &Path) -> Vec<String> {
    super::tree(dir).into_keys().collect()
}

/// Whatever the owner of the directory exchanges while the service restores there.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_changes_nothing_but_its_own_file_whatever_is_exchanged() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let secret = lab.path("secret");
    fs::write(&secret, "root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let attack = {
        let (over, home, secret) = (over.clone(), lab.path("home"), secret.clone());
        thread::spawn(move || {
            let mut exchanged = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let entries = fs::read_dir(&home).unwrap().flatten();
                let temporary = entries
                    .map(|entry| entry.path())
                    .find(|path| path.to_string_lossy().contains("/.karbor-restore-"));
                let Some(temporary) = temporary else { continue };
                let link = home.join(format!("link{exchanged}"));
                symlink(&secret, &link).unwrap();
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                match rustix::fs::renameat_with(cwd, &temporary, cwd, &link, exchange) {
                    Ok(()) => exchanged += 1,
                    // It is gone already.
                    Err(_) => fs::remove_file(&link).unwrap(),
                }
            }
            exchanged
        })
    };
    for _ in 0..30 {
        let _ = lab
            .restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await;
        let found = fs::metadata(&secret).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
        assert_eq!(fs::read(&secret).unwrap(), b"root's");
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            fs::remove_file(&path).unwrap();
        }
    }
    over.store(true, Ordering::Relaxed);
    assert!(attack.join().unwrap() > 0, "nothing was exchanged");
}

/// Somebody may have the old file open or mapped, or another name for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_is_a_new_file_with_permissions_only() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    // Root's file, which she moved here.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "root's").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(&path, lab.path("home/kept")).unwrap();
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    let (new, old) = (
        fs::metadata(&path).unwrap(),
        fs::metadata(lab.path("home/kept")).unwrap(),
    );
    assert_ne!(new.ino(), old.ino());
    assert_eq!(new.mode() & 0o7777, 0o755);
    assert_eq!((old.uid(), old.mode() & 0o7777), (0, 0o4755));
    assert_eq!(dump(&path).2, 4001);
}

/// Its application could not make its journal in a folder of root's, and a closed folder would be open.
#[tokio::test(flavor = "multi_thread")]
async fn lost_folders_above_a_database_come_back_with_the_owner_and_mode_that_they_had() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let (home, deep) = (lab.path("home"), lab.path("home/app"));
    fs::create_dir(&deep).unwrap();
    fs::rename(&path, deep.join("s.db")).unwrap();
    lab.declare(&format!(
        "[[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n",
        deep.join("s.db").display()
    ));
    chown(&deep, Some(ALICE), Some(ALICE + 1)).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o2770)).unwrap();
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    fs::remove_dir_all(&home).unwrap();
    let report = lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert!(report.get("warnings").is_none(), "{report:?}");
    for (place, group, mode) in [(home, ALICE, 0o711), (deep, ALICE + 1, 0o2770)] {
        let found = fs::metadata(&place).unwrap();
        let found = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(found, (ALICE, group, mode), "{}", place.display());
    }
}

/// A kill leaves the new database in the application's directory.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_removes_what_a_restore_that_died_left_beside_the_database() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let parameters = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, parameters);
    let operation = lab.operation(OperationType::Restore, &resource);
    let over = Arc::new(AtomicBool::new(false));
    let seen = {
        let (over, home) = (over.clone(), lab.path("home"));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let entries = fs::read_dir(&home).unwrap().flatten();
                let mut names = entries.map(|entry| entry.file_name());
                if let Some(name) = names.find(|name| name != "s.db") {
                    return Some(name);
                }
            }
            None
        })
    };
    operation.main(&context).await.unwrap();
    over.store(true, Ordering::Relaxed);
    let left = seen.join().unwrap().unwrap();
    // As it was in the middle.
    let staging = lab.path("home").join(&left);
    fs::create_dir(&staging).unwrap();
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(&path, staging.join(&left)).unwrap();
    let lab = lab.restarted();
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.undo(&context).await.unwrap();
    assert_eq!(names(&lab.path("home")), ["s.db"]);
    assert!(lab.scratch().is_empty());
}

/// The rollback journal of a crash in a transaction over several databases names a file that SQLite removes
/// when it has rolled back.
fn hot_journal(database: &Path, names: &Path) {
    let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let pages = u32::try_from(fs::metadata(database).unwrap().len() / 4096).unwrap();
    let mut journal = magic.to_vec();
    for number in [0, 0, pages, 512, 4096_u32] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(512, 0);
    let name = names.to_str().unwrap().as_bytes();
    let locked_page = 0x4000_0000_u32 / 4096 + 1;
    journal.extend(locked_page.to_be_bytes());
    journal.extend(name);
    journal.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    let sum: u32 = name.iter().map(|byte| u32::from(*byte)).sum();
    journal.extend(sum.to_be_bytes());
    journal.extend(magic);
    fs::write(beside(database, "-journal"), journal).unwrap();
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_names_a_file_elsewhere_has_nothing_removed() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let secret = lab.path("secret");
    fs::write(&secret, "root's").unwrap();
    hot_journal(&path, &secret);
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("a crash left it"), "{error}");
    assert!(beside(&path, "-journal").exists());
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert!(secret.exists());
    assert_eq!(dump(&path).2, 4001);
}

fn fifo(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .expect("it hangs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_or_a_link_among_the_database_s_files_makes_nobody_wait() {
    let Some((lab, path)) = hers("wal") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, _) = soon(lab.protect(&resource)).await.unwrap();
    for suffix in ["-wal", "-journal", "-shm"] {
        for link in [false, true] {
            match link {
                false => fifo(&beside(&path, suffix)),
                true => symlink("/etc/passwd", beside(&path, suffix)).unwrap(),
            }
            let error = soon(lab.protect(&resource)).await.unwrap_err();
            assert!(error.message.contains("is not a file but"), "{error}");
            let found = soon(super::validate::validate(&lab)).await;
            assert!(found[0].message.contains("is not a file but"), "{found:?}");
            soon(lab.restore(checkpoint, &resource, json!({"overwrite": "always"})))
                .await
                .unwrap();
            assert_eq!(dump(&path).2, 4001);
        }
    }
    fs::remove_file(&path).unwrap();
    fifo(&path);
    let error = soon(lab.protect(&resource)).await.unwrap_err();
    assert!(error.message.contains("it is not a file"), "{error}");
    let found = soon(super::validate::validate(&lab)).await;
    assert!(found[0].message.contains("is not a file"), "{found:?}");
    let error = soon(lab.restore(checkpoint, &resource, json!({"overwrite": "always"})))
        .await
        .unwrap_err();
    assert!(error.message.contains("is not a file"), "{error}");
}

/// What she could not read she does not get by way of a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_became_root_s_is_not_read_for_the_owner_of_the_directory() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    let secret = lab.path("secret.db");
    drop(make(&secret, "delete"));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = async |wanted: &str| {
        let error = lab.protect(&resource).await.unwrap_err();
        assert!(error.message.contains(wanted), "{error}");
        assert_eq!(lab.snapshots(), 0);
    };
    fs::remove_file(&path).unwrap();
    symlink(&secret, &path).unwrap();
    refused("a symbolic link that other accounts could have put there").await;
    fs::remove_file(&path).unwrap();
    fs::hard_link(&secret, &path).unwrap();
    refused("its owner (the service's account, if the service is not root) may not").await;
    fs::remove_file(&path).unwrap();
    // The directory itself, by the owner of the one above.
    chown(lab.dir.path(), Some(ALICE), Some(ALICE)).unwrap();
    fs::create_dir(lab.path("elsewhere")).unwrap();
    fs::rename(&secret, lab.path("elsewhere/s.db")).unwrap();
    fs::remove_dir(lab.path("home")).unwrap();
    symlink("elsewhere", lab.path("home")).unwrap();
    let error = lab.protect(&resource).await.unwrap_err();
    assert_eq!(lab.snapshots(), 0, "{error}");
}

/// Her schema's expressions run when SQLite looks through the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_schema_costs_the_service_no_memory_and_is_told_of() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "PRAGMA ignore_check_constraints=ON;
             CREATE TABLE c (x, CHECK (length(hex(zeroblob(x))) > 0));
             INSERT INTO c VALUES (400000000);
             CREATE TABLE g (x);
             INSERT INTO g VALUES (400000000);
             PRAGMA writable_schema=ON;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE g (x, y NOT NULL AS (hex(zeroblob(x))))'
             WHERE name = 'g';",
        )
        .unwrap();
    drop(database);
    let resource = lab.resource(SQLITE).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    let told = report["warnings"][0].as_str().unwrap();
    assert!(
        told.contains("its check takes more than 64 MiB of memory"),
        "{told}"
    );
    let report = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert!(report["warnings"][0].as_str().unwrap().contains("64 MiB"));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    assert!(peak.unwrap() < 512 << 10, "{peak:?} kB");
}

/// A protect leaves nothing beside a database in WAL mode that nobody has open: what another account
/// leaves there locks its owner out.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_beside_a_database_in_wal_mode() {
    let Some((lab, _)) = hers("wal") else {
        return;
    };
    let resource = lab.resource(SQLITE).await;
    assert_eq!(names(&lab.path("home")), ["s.db"]);
    let found = super::validate::validate(&lab).await;
    assert!(found.is_empty(), "{found:?}");
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    assert_eq!(names(&lab.path("home")), ["s.db"]);
    lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap();
    assert_eq!(dump(&lab.path("restore/x/shop/sessions/s.db")).2, 4001);
}

/// A crash leaves the last transactions in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_in_the_log_of_a_crash_is_in_the_checkpoint() {
    let Some((lab, path)) = hers("delete") else {
        return;
    };
    let other = lab.path("other.db");
    let open = make(&other, "wal");
    open.execute_batch("DELETE FROM b WHERE rowid > 1; INSERT INTO a VALUES (41)")
        .unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(beside(&other, suffix), beside(&path, suffix)).unwrap();
        chown(beside(&path, suffix), Some(ALICE), Some(ALICE)).unwrap();
    }
    drop(open);
    let resource = lab.resource(SQLITE).await;
    let before = super::tree(&lab.path("home"));
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    assert_eq!(super::tree(&lab.path("home")), before);
    assert!(lab.scratch().is_empty());
    lab.restore(checkpoint, &resource, json!({"restore_to": "x"}))
        .await
        .unwrap();
    assert_eq!(dump(&lab.path("restore/x/shop/sessions/s.db")), (41, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_a_protected_directory_that_nobody_declared_is_named() {
    let lab = Lab::new();
    let dir = lab.path("files");
    fs::create_dir_all(dir.join("deep")).unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{0}\"\nexclude = [\"*.old\"]\n\
         [[sqlite]]\nname = \"sessions\"\npath = \"{0}/declared.db\"\n",
        dir.display()
    ));
    for name in ["declared.db", "deep/forgotten", "excluded.old"] {
        drop(make(&dir.join(name), "delete"));
    }
    fs::write(dir.join("text"), "SQLite format 3\0 is how it begins").unwrap();
    fs::write(dir.join("zeros"), vec![0; 4096]).unwrap();
    fifo(&dir.join("fifo"));
    let resource = lab.resource(DIRECTORY).await;
    // The second time nothing has changed, and nothing is read.
    for _ in 0..2 {
        let (_, report) = soon(lab.protect(&resource)).await.unwrap();
        let told: Vec<_> = report["warnings"].as_array().unwrap().iter().collect();
        assert_eq!(told.len(), 2, "{told:?}");
        let forgotten = told[1].as_str().unwrap();
        assert!(
            forgotten.starts_with("'deep/forgotten': an SQLite database"),
            "{forgotten}"
        );
        assert!(
            forgotten.contains("declare it as [[sqlite]]"),
            "{forgotten}"
        );
    }
}
