//! MariaDB databases, on a real server.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command},
};

use karbor_model::{OperationType, Resource};
use karbor_plugin::OperationContext;
use karbor_plugins::applications::{Applications, Severity, Surroundings};
use karbor_testkit::MariadbServer;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

use super::{Lab, MARIADB};

fn lab(server: &MariadbServer, more: &str) -> Lab {
    let lab = Lab::new();
    declare(&lab, server, more);
    lab
}

fn declare(lab: &Lab, server: &MariadbServer, more: &str) {
    let user = match more.contains("user = ") {
        true => String::new(),
        false => format!("user = \"{}\"\n", MariadbServer::USER),
    };
    lab.declare(&format!(
        "[[mariadb]]\nname = \"orders\"\ndatabase = \"shop\"\nsocket = \"{}\"\n{user}{more}",
        server.socket().display(),
    ));
}

/// One of everything that a database may have.
fn fill(server: &MariadbServer) {
    server.sql(
        "mysql",
        "CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci COMMENT 'it''s the \\\\shop'",
    );
    server.sql(
        "shop",
        "CREATE TABLE items (id int PRIMARY KEY AUTO_INCREMENT, name varchar(60) NOT NULL, picture blob);
         INSERT INTO items (name, picture) SELECT CONCAT('item ''', seq, '\\n\u{1F600}'), UNHEX(MD5(seq)) FROM seq_1_to_1000;
         CREATE TABLE `or``ders` (id int, sum int, FOREIGN KEY (id) REFERENCES items (id));
         INSERT INTO `or``ders` SELECT id, id FROM items WHERE id % 2 = 0;
         CREATE TABLE prices (x int) WITH SYSTEM VERSIONING;
         INSERT INTO prices VALUES (1); UPDATE prices SET x = 2;
         CREATE TABLE log (line text) ENGINE = MyISAM;
         INSERT INTO log VALUES ('begun');
         CREATE SEQUENCE numbers START WITH 7;
         DO NEXTVAL(numbers);
         DELIMITER //
         CREATE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN 2 * x//
         CREATE PROCEDURE sell(which int) BEGIN INSERT INTO `or``ders` VALUES (which, twice(which)); END//
         CREATE TRIGGER sold AFTER INSERT ON `or``ders` FOR EACH ROW BEGIN INSERT INTO log VALUES ('sold'); END//
         CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO BEGIN DELETE FROM log; END//
         CREATE VIEW dear AS SELECT id, twice(sum) AS twice FROM `or``ders` WHERE sum > 900//
         DELIMITER ;
         ALTER DATABASE shop COLLATE utf8mb4_unicode_520_ci",
    );
}

/// All that is in the database, in words.
fn content(server: &MariadbServer, database: &str) -> String {
    server.sql(
        database,
        "SELECT COUNT(*), MD5(GROUP_CONCAT(id, name, HEX(picture) ORDER BY id)) FROM items;
         SELECT COUNT(*), SUM(sum) FROM `or``ders`;
         SELECT COUNT(*), SUM(twice) FROM dear;
         SELECT x FROM prices FOR SYSTEM_TIME ALL ORDER BY x;
         SELECT line FROM log;
         SHOW CREATE TABLE items; SHOW CREATE TABLE `or``ders`; SHOW CREATE VIEW dear;
         SHOW CREATE FUNCTION twice; SHOW CREATE PROCEDURE sell; SHOW CREATE EVENT nightly;
         SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE();
         SELECT DEFAULT_COLLATION_NAME, SCHEMA_COMMENT FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE();",
    )
}

/// The databases that restores make for themselves.
fn left(server: &MariadbServer) -> String {
    server.sql("mysql", "SHOW DATABASES LIKE 'karbor-%'")
}

fn clean(lab: &Lab, server: &MariadbServer) {
    assert_eq!(left(server), "");
    assert_eq!(lab.scratch(), [] as [PathBuf; 0]);
}

/// A directory with MariaDB's programs, one of which is a script of ours; `REAL` is the true one.
fn instead(lab: &Lab, program: &str, script: &str) -> String {
    let dir = lab.path("bin");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    for name in ["mariadb", "mariadb-dump"] {
        let real = format!("/usr/bin/{name}");
        let text = match name == program {
            true => format!("#!/bin/sh\nREAL={real}\n{script}\n"),
            false => format!("#!/bin/sh\nexec {real} \"$@\"\n"),
        };
        let file = dir.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("bin_dir = \"{}\"\n", dir.display())
}

fn warnings(report: &karbor_plugin::HookReport) -> String {
    report
        .get("warnings")
        .map(Value::to_string)
        .unwrap_or_default()
}

/// A session that holds a lock until it is dropped.
struct Locker(Child);

impl Locker {
    fn new(server: &MariadbServer, lock: &str) -> Self {
        let mut child = server.client(MariadbServer::USER, "shop").spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{lock}; SELECT 'locked';").unwrap();
        child.stdin = Some(input);
        let mut said = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        Self(child)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_wrecked_restored_and_equal() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let before = content(&server, "shop");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    // Tables, code, views, and what the database consists of.
    assert_eq!(report["files"], 4, "{report:?}");
    let warned = warnings(&report);
    assert!(
        warned.contains("log (MyISAM)") && !warned.contains("items"),
        "{warned}"
    );
    lab.verify(checkpoint, &resource, json!({"level": "data"}))
        .await
        .unwrap();

    let wreck = "SET FOREIGN_KEY_CHECKS = 0;
        DELETE FROM items WHERE id > 10; DROP TABLE prices; DROP PROCEDURE sell; DROP TRIGGER sold;
        DROP VIEW dear; CREATE TABLE dear (x int); INSERT INTO log VALUES ('since');
        CREATE OR REPLACE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN 3 * x;
        CREATE TABLE since (x int); INSERT INTO since VALUES (42);
        CREATE TRIGGER of_since BEFORE DELETE ON items FOR EACH ROW SET @x = 1";
    server.sql("shop", wreck);
    let wrecked = server.sql("shop", "SHOW FULL TABLES");
    let refused = lab
        .restore(checkpoint, &resource, json!({}))
        .await
        .unwrap_err();
    assert!(refused.message.contains("is not empty"), "{refused}");
    let dry = lab.restore(
        checkpoint,
        &resource,
        json!({"overwrite": "always", "dry_run": true}),
    );
    let dry = dry.await.unwrap();
    let kind = |path: &str| {
        let changes = dry["changes"].as_array().unwrap();
        let change = changes.iter().find(|change| change["path"] == path);
        change.unwrap()["kind"].clone()
    };
    assert_eq!(kind("table items"), "overwrite");
    assert_eq!(kind("table prices"), "create");
    assert_eq!(kind("trigger sold"), "create");
    assert_eq!(server.sql("shop", "SHOW FULL TABLES"), wrecked);
    clean(&lab, &server);

    let report = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let warned = warnings(&report.await.unwrap());
    assert_eq!(content(&server, "shop"), before);
    // What the checkpoint does not have stays, and is told.
    assert!(warned.contains("table since"), "{warned}");
    assert_eq!(server.sql("shop", "SELECT x FROM since"), "42");
    assert_eq!(server.sql("shop", "SHOW TRIGGERS LIKE 'since'"), "");
    // A sequence goes on after what it has given.
    let next: i64 = server
        .sql("shop", "SELECT NEXTVAL(numbers)")
        .parse()
        .unwrap();
    assert!(next > 7, "{next}");
    clean(&lab, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_or_has_a_new_name_is_made() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let before = content(&server, "shop");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let aside = json!({"database": "shop copy"});
    lab.restore(checkpoint, &resource, aside.clone())
        .await
        .unwrap();
    assert_eq!(content(&server, "shop copy"), before);
    let refused = lab.restore(
        checkpoint,
        &resource,
        json!({"database": "shop copy", "overwrite": "always"}),
    );
    let refused = refused.await.unwrap_err();
    assert!(
        refused.message.contains("not the declared one"),
        "{refused}"
    );
    for name in ["mysql", "karbor-x", "-x", "it's"] {
        let refused = lab.restore(checkpoint, &resource, json!({"database": name}));
        refused.await.unwrap_err();
    }
    server.sql("mysql", "DROP DATABASE shop");
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert_eq!(content(&server, "shop"), before);
    // An empty one is filled without a word.
    server.sql(
        "mysql",
        "DROP DATABASE shop; CREATE DATABASE shop CHARACTER SET latin1",
    );
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    let collation = server.sql("shop", "SELECT @@collation_database");
    assert_eq!(collation, "utf8mb4_unicode_520_ci");
    assert_eq!(server.sql("shop", "SELECT COUNT(*) FROM items"), "1000");
    clean(&lab, &server);
}

/// Neither a program that fails at its end nor one that ends well too early has made a dump.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_dump_is_no_checkpoint() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    for (script, wanted) in [
        (
            "\"$REAL\" \"$@\" | head -c 40000; exit 0",
            "its last line is missing",
        ),
        (
            "\"$REAL\" \"$@\" | head -n -1; exit 0",
            "its last line is missing",
        ),
        ("\"$REAL\" \"$@\"; exit 3", "exit status 3"),
        ("exit 0", "its last line is missing"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        declare(&lab, &server, &instead(&lab, "mariadb-dump", script));
        let failed = lab.protect(&resource).await.unwrap_err();
        assert!(failed.message.contains(wanted), "{script}: {failed}");
        assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0), "{script}");
    }
    declare(&lab, &server, &instead(&lab, "", ""));
    lab.protect(&resource).await.unwrap();
}

/// Wherever a restore fails, the database is as it was before.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_half_way_changes_nothing() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let since = "DELETE FROM `or``ders` WHERE id > 10; DROP FUNCTION twice; CREATE TABLE since (x int);
        CREATE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN 4 * x;
        DROP EVENT nightly; CREATE EVENT nightly ON SCHEDULE EVERY 2 DAY STARTS '2037-02-01' DO SET @x = 1;
        DROP PROCEDURE sell; CREATE PROCEDURE sell(which int) SET @y = which;
        ALTER DATABASE shop COLLATE utf8mb4_bin;";
    server.sql("shop", since);
    let before = content(&server, "shop") + &server.sql("shop", "SHOW FULL TABLES");
    // Once: what puts things back comes later.
    let once = |sign: &str, way: &str| {
        let mark = lab.path("once");
        let _ = fs::remove_file(&mark);
        let mark = mark.display();
        format!(
            "case \"$*\" in *{sign}*) [ -e {mark} ] || {{ touch {mark}; {way}; exit 1; }};; esac\nexec \"$REAL\" \"$@\""
        )
    };
    for (sign, way) in [
        // Half of the tables.
        (
            "init-command*--database=karbor-",
            "head -c 30000 | \"$REAL\" \"$@\"",
        ),
        ("init-command*--database=karbor-", "kill -9 $$"),
        // Triggers, routines and events: some, or all; the tables are exchanged already.
        ("init-command*--database=shop", "true"),
        (
            "init-command*--database=shop",
            "head -n 60 | \"$REAL\" \"$@\"",
        ),
        ("init-command*--database=shop", "\"$REAL\" \"$@\""),
    ] {
        declare(&lab, &server, &instead(&lab, "mariadb", &once(sign, way)));
        let failed = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
        failed.await.unwrap_err();
        assert!(lab.path("once").exists(), "{sign} was never asked for");
        let after = content(&server, "shop") + &server.sql("shop", "SHOW FULL TABLES");
        assert_eq!(after, before, "{sign} {way}");
        clean(&lab, &server);
        let failed = {
            fs::remove_file(lab.path("once")).unwrap();
            lab.restore(checkpoint, &resource, json!({"database": "new"}))
        };
        // Under a new name nothing is left, whichever of the loads failed.
        if sign.ends_with("karbor-") {
            failed.await.unwrap_err();
            assert_eq!(server.sql("mysql", "SHOW DATABASES LIKE 'new'"), "");
            clean(&lab, &server);
        }
    }
}

/// As after `kill -9`: nothing was undone, and the run begins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_died_begins_again() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let mut lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    for sign in [
        "init-command*--database=karbor-",
        "init-command*--database=shop",
    ] {
        server.sql(
            "shop",
            "DELETE FROM `or``ders` WHERE id > 20; DROP VIEW dear; DROP TABLE log",
        );
        let script = format!("case \"$*\" in *{sign}*) kill -9 $$;; esac\nexec \"$REAL\" \"$@\"");
        declare(&lab, &server, &instead(&lab, "mariadb", &script));
        let wanted = json!({"overwrite": "always"});
        let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
        let operation = lab.operation(OperationType::Restore, &resource);
        operation.main(&context).await.unwrap_err();
        assert_ne!(left(&server), "");
        lab = lab.restarted();
        declare(&lab, &server, "");
        let operation = lab.operation(OperationType::Restore, &resource);
        operation.main(&context).await.unwrap();
        // Once more: it is complete.
        operation.main(&context).await.unwrap();
        operation.complete(&context).await.unwrap();
        assert_eq!(content(&server, "shop"), before, "{sign}");
        clean(&lab, &server);
    }
}

/// A restore that was killed when its tables were exchanged already. The content is as it was before.
async fn exchanged(server: &MariadbServer, lab: &Lab) -> (Resource, OperationContext, String) {
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        "shop",
        "DELETE FROM `or``ders` WHERE id > 20; DELETE FROM log; INSERT INTO log VALUES ('only copy'); DROP EVENT nightly;
         CREATE EVENT nightly ON SCHEDULE EVERY 3 DAY STARTS '2037-03-01' DO SET @x = 1",
    );
    let before = content(server, "shop");
    let script =
        "case \"$*\" in *init-command*--database=shop*) kill -9 $$;; esac\nexec \"$REAL\" \"$@\"";
    declare(lab, server, &instead(lab, "mariadb", script));
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap_err();
    declare(lab, server, "");
    assert_eq!(server.sql("shop", "SELECT line FROM log"), "begun");
    (resource, context, before)
}

/// The database for the loaded tables, and that for those that gave way.
fn own(server: &MariadbServer) -> (String, String) {
    let names = left(server);
    let (old, new) = names
        .lines()
        .partition::<Vec<_>, _>(|name| name.starts_with("karbor-old-"));
    (new.concat(), old.concat())
}

/// The tables that gave way are the only copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_note_drops_nothing() {
    for text in [None, Some("{\"target\"")] {
        let Some(server) = MariadbServer::start() else {
            return;
        };
        fill(&server);
        let lab = lab(&server, "");
        let (resource, context, _) = exchanged(&server, &lab).await;
        let note = lab.scratch();
        let note = note
            .iter()
            .find(|file| file.extension().unwrap() == "json")
            .unwrap();
        match text {
            None => fs::remove_file(note).unwrap(),
            Some(text) => fs::write(note, text).unwrap(),
        }
        let lab = lab.restarted();
        let (new, old) = own(&server);
        let operation = lab.operation(OperationType::Restore, &resource);
        for _ in 0..2 {
            for failed in [
                operation.main(&context).await.unwrap_err(),
                operation.undo(&context).await.unwrap_err(),
            ] {
                for name in [&new, &old, "left in place"] {
                    assert!(failed.message.contains(name), "{failed}");
                }
            }
            let line = server.sql(&old, "SELECT line FROM log");
            assert_eq!(line, "only copy");
        }
        assert!(
            lab.scratch()
                .iter()
                .any(|file| file.extension().unwrap() == "sql")
        );
    }
}

/// As a server before 10.6 leaves them that dies while it moves tables.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_moved_half_way_come_back() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let (resource, context, before) = exchanged(&server, &lab).await;
    let (new, old) = own(&server);
    server.sql(
        "shop",
        &format!("RENAME TABLE items TO `{new}`.items, prices TO `{new}`.prices"),
    );
    let operation = lab.operation(OperationType::Restore, &resource);
    // One too many: nobody knows whose.
    server.sql("shop", &format!("CREATE TABLE `{new}`.log (x int)"));
    let failed = operation.undo(&context).await.unwrap_err();
    assert!(
        failed.message.contains("the table 'log' is there") && failed.message.contains(&old),
        "{failed}"
    );
    assert_eq!(server.sql(&old, "SELECT line FROM log"), "only copy");
    server.sql("shop", &format!("DROP TABLE `{new}`.log"));
    operation.undo(&context).await.unwrap();
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_what_was_loaded_nothing_is_undone() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let (resource, context, _) = exchanged(&server, &lab).await;
    let (new, old) = own(&server);
    server.sql("mysql", &format!("DROP DATABASE `{new}`"));
    let operation = lab.operation(OperationType::Restore, &resource);
    let failed = operation.undo(&context).await.unwrap_err();
    assert!(
        failed.message.contains("what was loaded is gone") && failed.message.contains(&old),
        "{failed}"
    );
    assert_eq!(server.sql(&old, "SELECT line FROM log"), "only copy");
    assert_eq!(lab.scratch().len(), 2);
}

/// A session of a client that was killed still waits, and would move the tables when nobody expects it.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_ends_the_session_that_still_moves_tables() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "lock_timeout = 120\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        "shop",
        "DROP TRIGGER sold; DELETE FROM log; INSERT INTO log VALUES ('only copy')",
    );
    let columns = "SELECT line FROM log; SELECT COUNT(*) FROM items";
    let before = server.sql("shop", columns);
    let locker = Locker::new(&server, "BEGIN; SELECT COUNT(*) INTO @x FROM items");
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'RENAME TABLE%' AND STATE LIKE 'Waiting for%lock%'";
    let moves = async {
        while server.sql("mysql", waiting) != "1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = operation.main(&context) => panic!("{done:?}"),
        () = moves => {}
    }
    operation.undo(&context).await.unwrap();
    assert_eq!(server.sql("mysql", waiting), "0");
    drop(locker);
    assert_eq!(server.sql("shop", columns), before);
    clean(&lab, &server);
}

/// A client that outlives the service goes on with what it has of the dump, and its session would mix that into what the
/// next run loads.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_begins_again_ends_the_session_that_still_loads() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let kept = content(&server, "shop");
    server.sql("shop", SINCE);
    let (died, half, pid) = (lab.path("died"), lab.path("half"), lab.path("pid"));
    let _writer = Ending(pid.clone());
    for file in [&died, &half] {
        let made = Command::new("mkfifo").arg(file).status().unwrap();
        assert!(made.success());
    }
    let script = format!(
        r#"case "$*" in *init-command*--database=karbor-*)
setsid "$REAL" "$@" < {half} > /dev/null 2>&1 &
exec setsid sh -c 'echo $$ > {pid}; exec > {half}; head -c 30000; until [ "$({ask})" = 1 ]; do :; done; echo > {died}; exec sleep 1000' ;;
esac
exec "$REAL" "$@""#,
        half = half.display(),
        pid = pid.display(),
        died = died.display(),
        // The service dies when the session is there: its client learns from the service how to log in.
        ask = format_args!(
            "/usr/bin/mariadb --no-defaults --skip-column-names --batch --socket={} --user={} -e \"SELECT COUNT(*) > 0 FROM information_schema.TABLES WHERE TABLE_SCHEMA LIKE 0x6b6172626f722d25\"",
            server.socket().display(),
            MariadbServer::USER
        ),
    );
    declare(&lab, &server, &instead(&lab, "mariadb", &script));
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    assert!(
        until_death(&lab, operation.main(&context)).await.is_none(),
        "it loaded half of a dump"
    );
    let lab = lab.restarted();
    declare(&lab, &server, "");
    let loads = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB LIKE 'karbor-%'";
    assert_eq!(server.sql("mysql", loads), "1");
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    assert_eq!(server.sql("mysql", loads), "0");
    operation.complete(&context).await.unwrap();
    assert_eq!(content(&server, "shop"), kept);
    clean(&lab, &server);
}

/// A client that logs in when the run that started it is over: the server knows nothing of it before.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_late_does_nothing() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let kept = content(&server, "shop");
    server.sql("shop", SINCE);
    let (died, told) = (lab.path("died"), lab.path("told"));
    let made = Command::new("mkfifo").arg(&died).status().unwrap();
    assert!(made.success());
    let script = format!(
        r#"case "$*" in *init-command*--database=karbor-*)
for one; do case "$one" in --init-command=*|--database=*) echo "$one" ;; esac; done > {told}
echo > {died}; exec cat > /dev/null ;;
esac
exec "$REAL" "$@""#,
        told = told.display(),
        died = died.display(),
    );
    declare(&lab, &server, &instead(&lab, "mariadb", &script));
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    let done = until_death(&lab, operation.main(&context)).await;
    assert!(done.is_none(), "it loaded nothing");
    let lab = lab.restarted();
    declare(&lab, &server, "");
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    let told = fs::read_to_string(told).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    let late = || {
        let mut client = Command::new("/usr/bin/mariadb");
        client.args(["--no-defaults", "--execute=CREATE TABLE late (x int)"]);
        client.arg(format!("--socket={}", server.socket().display()));
        client.arg(format!("--user={}", MariadbServer::USER));
        client.args(&told);
        !client.output().unwrap().status.success()
    };
    assert!(late(), "another try has taken over");
    operation.complete(&context).await.unwrap();
    assert!(late(), "the operation's database is gone");
    assert_eq!(content(&server, "shop"), kept);
    clean(&lab, &server);
}

/// Ends the program whose number is in a file, however a test ends.
struct Ending(PathBuf);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

/// Triggers are dropped one by one, and before the tables move.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_stops_the_exchange_does_not_stop_its_undo() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE TRIGGER a_first BEFORE DELETE ON items FOR EACH ROW SET @x = 1",
    );
    let lab = lab(&server, "lock_timeout = 1\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    let _locker = Locker::new(&server, "BEGIN; SELECT COUNT(*) INTO @x FROM `or``ders`");
    let failed = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let failed = failed.await.unwrap_err();
    assert!(failed.message.contains("Lock wait timeout"), "{failed}");
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_the_checkpoint_go_with_an_undo() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "SET sql_mode = 'ORACLE';
         DELIMITER //
         CREATE PACKAGE parcel AS FUNCTION weight RETURN int; END//
         CREATE PACKAGE BODY parcel AS FUNCTION weight RETURN int AS BEGIN RETURN 7; END; END//",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        "shop",
        "SET sql_mode = 'ORACLE'; DROP PACKAGE parcel; DELETE FROM log",
    );
    let before = content(&server, "shop");
    let script = "case \"$*\" in *init-command*--database=shop*) [ -e DONE ] || { touch DONE; \"$REAL\" \"$@\"; exit 1; };; esac\nexec \"$REAL\" \"$@\"";
    let script = script.replace("DONE", &lab.path("once").display().to_string());
    declare(&lab, &server, &instead(&lab, "mariadb", &script));
    let failed = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    failed.await.unwrap_err();
    assert!(lab.path("once").exists());
    assert_eq!(content(&server, "shop"), before);
    let packages =
        "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_TYPE LIKE 'PACKAGE%'";
    assert_eq!(server.sql("shop", packages), "0");
    clean(&lab, &server);
}

/// What an undo could not make again is not dropped.
#[tokio::test(flavor = "multi_thread")]
async fn code_of_others_that_is_there_asks_for_the_right_to_make_it() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    server.sql(
        "mysql",
        "CREATE DATABASE shop; CREATE TABLE shop.items (id int);
         CREATE USER little@localhost; GRANT ALL ON shop.* TO little@localhost;
         GRANT ALL ON `karbor-%`.* TO little@localhost; GRANT SELECT ON mysql.proc TO little@localhost",
    );
    let lab = lab(&server, "user = \"little\"\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        "shop",
        "CREATE TRIGGER since BEFORE INSERT ON items FOR EACH ROW SET @x = 1",
    );
    let refused = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let refused = refused.await.unwrap_err();
    assert!(refused.message.contains("SET USER"), "{refused}");
    let trigger = server.sql(
        "shop",
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'shop'",
    );
    assert_eq!(trigger, "since");
}

/// Of a database that the account does not see.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_hidden_databases_are_kept() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    server.sql(
        "mysql",
        "CREATE DATABASE shop; CREATE TABLE shop.items (id int PRIMARY KEY); INSERT INTO shop.items VALUES (1);
         CREATE DATABASE hidden; CREATE TABLE hidden.child (id int, FOREIGN KEY (id) REFERENCES shop.items (id));
         CREATE USER little@localhost; GRANT ALL ON shop.* TO little@localhost;
         GRANT ALL ON `karbor-%`.* TO little@localhost; GRANT SELECT ON mysql.proc TO little@localhost",
    );
    let lab = lab(&server, "user = \"little\"\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let always = json!({"overwrite": "always"});
    let key = "SELECT REF_NAME FROM information_schema.INNODB_SYS_FOREIGN";
    server.sql("mysql", "GRANT PROCESS ON *.* TO little@localhost");
    let refused = lab.restore(checkpoint, &resource, always.clone()).await;
    let refused = refused.unwrap_err();
    assert!(refused.message.contains("hidden/child"), "{refused}");
    assert_eq!(server.sql("mysql", key), "shop/items");
    clean(&lab, &server);
    // Nothing tells of it; the server does not drop what a key leads to.
    server.sql("mysql", "REVOKE PROCESS ON *.* FROM little@localhost");
    let context = lab.context(OperationType::Restore, checkpoint, &resource, always);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    let report = operation.complete(&context).await.unwrap();
    let (_, old) = own(&server);
    assert!(warnings(&report).contains(&old), "{report:?}");
    assert_eq!(server.sql(&old, "SELECT id FROM items"), "1");
    assert!(server.sql("mysql", key).starts_with("karbor@002dold"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tidied_up_in_part_is_not_undone() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let before = content(&server, "shop");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "DELETE FROM `or``ders`");
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    let file = lab
        .scratch()
        .into_iter()
        .find(|file| file.extension().unwrap() == "json");
    // The first of the two databases goes, then the host loses its power.
    let script = "text=$(cat)\ncase \"$text\" in *'DROP DATABASE `karbor-old-'*) exit 1;; esac\nprintf '%s\\n' \"$text\" | \"$REAL\" \"$@\"";
    declare(&lab, &server, &instead(&lab, "mariadb", script));
    let kept = fs::read(file.as_ref().unwrap()).unwrap();
    let report = operation.complete(&context).await.unwrap();
    assert!(warnings(&report).contains("karbor-old-"), "{report:?}");
    // It said so before it dropped anything; the note went with the end.
    let text = String::from_utf8(kept)
        .unwrap()
        .replace("\"Complete\"", "\"Kept\"");
    fs::write(file.unwrap(), text).unwrap();
    declare(&lab, &server, "");
    let late = operation.undo(&context).await.unwrap_err();
    assert!(late.message.contains("cannot be undone"), "{late}");
    operation.main(&context).await.unwrap();
    operation.complete(&context).await.unwrap();
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
}

/// What a program is called with, all may read who are on the host.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_in_no_argument_variable_or_file() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let secret = "s3\"cr\\et #'x";
    server.sql(
        "mysql",
        "CREATE USER keeper@localhost IDENTIFIED BY 's3\"cr\\\\et #''x'; GRANT ALL ON *.* TO keeper@localhost",
    );
    let lab = lab(&server, "");
    let file = lab.path("password");
    fs::write(&file, format!("{secret}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let seen = lab.path("seen");
    let script = format!(
        "cat /proc/$$/cmdline /proc/$$/environ >> {0}; echo >> {0}\nexec \"$REAL\" \"$@\"",
        seen.display()
    );
    let login = format!(
        "user = \"keeper\"\npassword_file = \"{}\"\n",
        file.display()
    );
    let resource = lab.resource(MARIADB).await;
    for program in ["mariadb-dump", "mariadb"] {
        let more = format!("{login}{}", instead(&lab, program, &script));
        declare(&lab, &server, &more);
        let (checkpoint, _) = lab.protect(&resource).await.unwrap();
        lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await
            .unwrap();
        let seen = fs::read(&seen).unwrap();
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains("--defaults-file=/proc/"), "{seen}");
        assert!(!seen.contains("s3") && !seen.contains("cr\\et"), "{seen}");
        clean(&lab, &server);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = lab.protect(&resource).await.unwrap_err();
    assert!(refused.message.contains("chmod it to 600"), "{refused}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "wrong").unwrap();
    let refused = lab.protect(&resource).await.unwrap_err();
    assert!(
        refused.message.contains("Look at the declared user"),
        "{refused}"
    );
}

/// MariaDB shows an account only what it has rights on.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_see_all_is_refused() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "mysql",
        "CREATE USER little@localhost; GRANT SELECT, SHOW VIEW ON shop.* TO little@localhost",
    );
    let lab = lab(&server, "user = \"little\"\n");
    let resource = lab.resource(MARIADB).await;
    let refused = lab.protect(&resource).await.unwrap_err();
    for right in [
        "TRIGGER on shop.*",
        "EVENT on shop.*",
        "SELECT on mysql.proc",
    ] {
        assert!(refused.message.contains(right), "{refused}");
    }
    assert_eq!(lab.snapshots(), 0);
    server.sql("mysql", "GRANT TRIGGER, EVENT, EXECUTE ON shop.* TO little@localhost; GRANT SELECT ON mysql.proc TO little@localhost");
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let refused = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let refused = refused.await.unwrap_err();
    assert!(
        refused.message.contains("`karbor-%`.*") && refused.message.contains("SET USER"),
        "{refused}"
    );
    // That is told beforehand.
    let surroundings = Surroundings::default();
    let applications = Applications::load(&lab.path("applications.d")).unwrap();
    let found = applications.validate(&surroundings).await;
    let of_user = found.iter().filter(|one| one.key == "mariadb.orders.user");
    let of_user: Vec<_> = of_user
        .map(|one| (one.severity, one.message.as_str()))
        .collect();
    assert_eq!(of_user.len(), 2, "{found:#?}");
    assert!(
        of_user
            .iter()
            .all(|one| one.0 == Severity::Warning && one.1.contains("not restored")),
        "{of_user:?}"
    );
    assert!(
        found.iter().any(|one| one.message.contains("log (MyISAM)")),
        "{found:#?}"
    );
    // With what the guide says it takes, everything works.
    server.sql(
        "mysql",
        "GRANT ALL ON shop.* TO little@localhost; GRANT ALL ON `karbor-%`.* TO little@localhost; GRANT SET USER ON *.* TO little@localhost",
    );
    let before = content(&server, "shop");
    server.sql("shop", "DELETE FROM `or``ders`");
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn definers_that_are_gone_are_told() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE USER clerk@localhost; CREATE DEFINER = clerk@localhost VIEW of_clerk AS SELECT 1 AS one",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("mysql", "DROP USER clerk@localhost");
    let refused = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let refused = refused.await.unwrap_err();
    assert!(
        refused
            .message
            .contains("'clerk@localhost', which the server does not have"),
        "{refused}"
    );
    let kept = json!({"overwrite": "always", "keep_missing_definers": true});
    let report = lab.restore(checkpoint, &resource, kept).await.unwrap();
    assert!(warnings(&report).contains("clerk@localhost"), "{report:?}");
    assert!(
        server
            .sql("shop", "SHOW CREATE VIEW of_clerk")
            .contains("clerk")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_locks_end() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "lock_timeout = 1\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    let locker = Locker::new(&server, "LOCK TABLES items WRITE");
    let failed = lab.protect(&resource).await.unwrap_err();
    assert!(failed.message.contains("holds a lock"), "{failed}");
    drop(locker);
    let locker = Locker::new(&server, "BEGIN; SELECT COUNT(*) INTO @x FROM items");
    let failed = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let failed = failed.await.unwrap_err();
    assert!(
        failed.message.contains("Lock wait timeout") && failed.retryable,
        "{failed}"
    );
    drop(locker);
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_to_what_is_replaced_is_in_the_way() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        "shop",
        "CREATE TABLE since (x int, FOREIGN KEY (x) REFERENCES items (id))",
    );
    let refused = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let refused = refused.await.unwrap_err();
    assert!(
        refused.message.contains("shop.since refers to items"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_and_accounts_are_given_out_as_files() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let mut server = server;
    let lab = lab(&server, "accounts = true\n");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    server.stop();
    let failed = lab.protect(&resource).await.unwrap_err();
    assert!(
        failed.message.contains("Is the server running") && failed.retryable,
        "{failed}"
    );
    // No server is asked.
    lab.restore(checkpoint, &resource, json!({"restore_to": "out"}))
        .await
        .unwrap();
    let out = lab.path("restore/out/shop/orders");
    let text = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(text("accounts.sql").contains("CREATE USER `karbor`@`localhost`"));
    // They make the database again with MariaDB's own client.
    server.run().unwrap();
    server.sql(
        "mysql",
        "SET foreign_key_checks = 0; DROP DATABASE shop; CREATE DATABASE shop COLLATE utf8mb4_unicode_520_ci COMMENT 'it''s the \\\\shop'",
    );
    for name in ["orders.dump.sql", "code.sql", "views.sql"] {
        server.sql("shop", &text(name));
    }
    assert_eq!(content(&server, "shop"), before);
}

/// The server drops an event at once whose time is over.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_time_is_over_does_not_stop_a_restore() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "SET GLOBAL event_scheduler = OFF; SET TIMESTAMP = 1000000000;
         CREATE EVENT once ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 1 DAY DO SET @x = 1",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    let report = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let warned = warnings(&report.await.unwrap());
    assert!(warned.contains("event once"), "{warned}");
    assert_eq!(content(&server, "shop"), before);
    // One that is gone before it is dumped is in no checkpoint.
    let script = format!(
        "case \"$*\" in *--routines*) /usr/bin/mariadb --no-defaults --socket={} --user={} shop -e 'DROP PROCEDURE sell';; esac\nexec \"$REAL\" \"$@\"",
        server.socket().display(),
        MariadbServer::USER
    );
    declare(&lab, &server, &instead(&lab, "mariadb-dump", &script));
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    declare(&lab, &server, "");
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    clean(&lab, &server);
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_from_sequences_are_refused() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE TABLE told (x varchar(40) DEFAULT 'nextval(`a`)', y varchar(40) DEFAULT (CONCAT('it''s nextval(`a`)', '\\\\')));
         CREATE TABLE drawn (id int DEFAULT NEXTVAL(numbers), x int);
         CREATE VIEW seen AS SELECT id FROM drawn",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let refused = lab.protect(&resource).await.unwrap_err();
    assert!(
        refused.message.contains("'drawn.id'")
            && !refused.message.contains("told")
            && !refused.message.contains("seen"),
        "{refused}"
    );
    let applications = Applications::load(&lab.path("applications.d")).unwrap();
    let found = applications.validate(&Surroundings::default()).await;
    assert!(
        found.iter().any(|one| one.message.contains("'drawn.id'")),
        "{found:#?}"
    );
    // What it advises can be restored.
    server.sql(
        "shop",
        "ALTER TABLE drawn ALTER id DROP DEFAULT;
         CREATE TRIGGER draws BEFORE INSERT ON drawn FOR EACH ROW SET NEW.id = COALESCE(NEW.id, NEXTVAL(numbers));
         INSERT INTO drawn (x) VALUES (1)",
    );
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("mysql", "DROP DATABASE shop");
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    server.sql("shop", "INSERT INTO drawn (x) VALUES (2)");
    let drawn = server.sql("shop", "SELECT COUNT(DISTINCT id), COUNT(*) FROM drawn");
    assert_eq!(drawn, "2\t2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_server_would_not_take_back_are_told() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE TABLE films (film longblob); INSERT INTO films VALUES (REPEAT('x', 3000000));
         SET GLOBAL max_allowed_packet = 5242880",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    let warned = warnings(&report);
    assert!(
        warned.contains("takes less than 5242880") && warned.contains("statement of 6000"),
        "{warned}"
    );
    let wanted = json!({"overwrite": "always"});
    let failed = lab.restore(checkpoint, &resource, wanted.clone());
    let failed = failed.await.unwrap_err();
    assert!(
        failed.message.contains("raise its max_allowed_packet") && !failed.retryable,
        "{failed}"
    );
    clean(&lab, &server);
    server.sql("mysql", "SET GLOBAL max_allowed_packet = 7340032");
    lab.restore(checkpoint, &resource, wanted).await.unwrap();
}

/// A dump that somebody changed reads no file of this host.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_reads_no_files() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let secret = lab.path("secret");
    fs::write(&secret, "secret\n").unwrap();
    let hostile = format!(
        "LOAD DATA LOCAL INFILE '{}' INTO TABLE log;",
        secret.display()
    );
    let resource = lab.resource(MARIADB).await;
    let script = format!(
        "case \"$*\" in *--routines*) exec \"$REAL\" \"$@\";; esac\n\"$REAL\" \"$@\" | sed \"\\$i {hostile}\""
    );
    declare(&lab, &server, &instead(&lab, "mariadb-dump", &script));
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    declare(&lab, &server, "");
    let failed = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let failed = failed.await.unwrap_err();
    assert!(failed.message.contains("local infile"), "{failed}");
    assert_eq!(server.sql("shop", "SELECT line FROM log"), "begun");
    clean(&lab, &server);
}

/// A table was dropped, and with it a view broke: that is what a restore is for.
#[tokio::test(flavor = "multi_thread")]
async fn broken_views_are_no_obstacle() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    server.sql(
        "shop",
        "DROP TABLE `or``ders`; CREATE TABLE t (x int); CREATE VIEW since AS SELECT x FROM t;
         CREATE VIEW whole AS SELECT 1 AS one; DROP TABLE t",
    );
    let report = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let warned = warnings(&report.await.unwrap());
    assert!(
        warned.contains("could not be read before") && warned.contains("'dear', 'since'"),
        "{warned}"
    );
    assert_eq!(content(&server, "shop"), before);
    let views = server.sql("shop", "SHOW FULL TABLES WHERE Table_type = 'VIEW'");
    assert_eq!(views, "dear\tVIEW\nsince\tVIEW\nwhole\tVIEW");
    clean(&lab, &server);
}

/// A script that counts the changes on the server that are asked for, tables that are filled among them. At one of
/// them the host dies: it says so and waits until it is killed. `kills` is what else dies.
fn dies_at(lab: &Lab, step: usize, is_done: bool, kills: &str) -> String {
    let (count, died) = (lab.path("count"), lab.path("died"));
    let _ = fs::remove_file(&count);
    if !died.exists() {
        let made = Command::new("mkfifo").arg(&died).status().unwrap();
        assert!(made.success());
    }
    let done = if is_done { "go; " } else { "" };
    let script = format!(
        r#"case "$*" in
*init-command*) go() {{ "$REAL" "$@"; }}; text= ;;
*) text=$(cat); go() {{ printf '%s\n' "$text" | "$REAL" "$@"; }}
   case "$text" in *'CREATE DATABASE '*|*'ALTER DATABASE '*|*'DROP '*|*'RENAME TABLE '*) ;; *) go "$@"; exit;; esac ;;
esac
echo >> {count}
[ "$(wc -l < {count})" = {step} ] || {{ go "$@"; exit; }}
set -- "$@"
{done}
{kills}
echo > {died}
exec sleep 1000"#,
        count = count.display(),
        died = died.display(),
        done = done.replace("go;", "go \"$@\" || exit;"),
    );
    instead(lab, "mariadb", &script)
}

/// Runs a hook until the host dies, or to its end. Answers what it ended with, unless it died.
async fn until_death<T>(lab: &Lab, hook: impl Future<Output = T>) -> Option<T> {
    let mut options = pipe::OpenOptions::new();
    // Open for writing too: with no writer, it would be at its end.
    let mut died = options
        .read_write(true)
        .open_receiver(lab.path("died"))
        .unwrap();
    let death = async { died.read_u8().await.unwrap() };
    tokio::select! {
        done = hook => Some(done),
        _ = death => None,
    }
}

const SINCE: &str = "SET FOREIGN_KEY_CHECKS = 0;
    DELETE FROM `or``ders` WHERE id > 20; DELETE FROM log; INSERT INTO log VALUES ('only copy');
    DROP TABLE prices; CREATE TABLE prices (x int) WITH SYSTEM VERSIONING; INSERT INTO prices VALUES (77);
    DROP EVENT nightly; CREATE EVENT nightly ON SCHEDULE EVERY 3 DAY STARTS '2037-03-01' DO SET @x = 1;
    CREATE OR REPLACE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN 3 * x";

/// The host dies before and after each change on the server; then `end`.
async fn dies_everywhere(is_undone: bool) {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let mut lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let kept = content(&server, "shop");
    let (mut step, mut deaths) = (0, 0);
    loop {
        step += 1;
        let mut survived = false;
        for is_done in [false, true] {
            server.sql("shop", SINCE);
            let before = content(&server, "shop");
            assert_ne!(before, kept);
            declare(&lab, &server, &dies_at(&lab, step, is_done, ""));
            let wanted = json!({"overwrite": "always"});
            let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
            let operation = lab.operation(OperationType::Restore, &resource);
            let done = until_death(&lab, operation.main(&context)).await;
            survived = done.is_some();
            if let Some(done) = done {
                done.unwrap();
            } else {
                deaths += 1;
            }
            lab = lab.restarted();
            declare(&lab, &server, "");
            let operation = lab.operation(OperationType::Restore, &resource);
            if is_undone {
                operation.undo(&context).await.unwrap();
                assert_eq!(content(&server, "shop"), before, "{step} {is_done}");
            } else {
                operation.main(&context).await.unwrap();
                operation.complete(&context).await.unwrap();
                assert_eq!(content(&server, "shop"), kept, "{step} {is_done}");
            }
            clean(&lab, &server);
        }
        if survived {
            break;
        }
    }
    assert!(deaths >= 14, "{deaths}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_dies_anywhere_is_undone() {
    dies_everywhere(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_dies_anywhere_begins_again() {
    dies_everywhere(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_or_an_end_that_dies_anywhere_is_taken_up() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let mut lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let kept = content(&server, "shop");
    for is_undone in [true, false] {
        let (mut step, mut deaths) = (0, 0);
        loop {
            step += 1;
            let mut survived = false;
            for is_done in [false, true] {
                server.sql("shop", SINCE);
                let before = content(&server, "shop");
                declare(&lab, &server, "");
                let wanted = json!({"overwrite": "always"});
                let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
                let operation = lab.operation(OperationType::Restore, &resource);
                operation.main(&context).await.unwrap();
                declare(&lab, &server, &dies_at(&lab, step, is_done, ""));
                let end = async {
                    match is_undone {
                        true => operation.undo(&context).await,
                        false => operation.complete(&context).await.map(|_| ()),
                    }
                };
                let done = until_death(&lab, end).await;
                survived = done.is_some();
                deaths += usize::from(!survived);
                lab = lab.restarted();
                declare(&lab, &server, "");
                let operation = lab.operation(OperationType::Restore, &resource);
                if is_undone {
                    operation.undo(&context).await.unwrap();
                    assert_eq!(content(&server, "shop"), before, "{step} {is_done}");
                } else {
                    // A flow that is taken up may repeat both.
                    if !survived {
                        operation.main(&context).await.unwrap();
                    }
                    operation.complete(&context).await.unwrap();
                    assert_eq!(content(&server, "shop"), kept, "{step} {is_done}");
                }
                clean(&lab, &server);
            }
            if survived {
                break;
            }
        }
        assert!(deaths >= 4, "{is_undone} {deaths}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_anywhere_has_what_it_had() {
    let durable = [
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-doublewrite=1",
        "--innodb-flush-method=fsync",
        "--sync-frm=1",
    ];
    let Some(mut server) = MariadbServer::start_with(&durable) else {
        return;
    };
    fill(&server);
    // Tables that a server repairs after its death are not what this is about.
    server.sql("shop", "ALTER TABLE log ENGINE = InnoDB");
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", SINCE);
    // A server that starts counts the numbers of AUTO_INCREMENT anew.
    server.stop();
    server.run().unwrap();
    let before = content(&server, "shop");
    let (mut step, mut deaths) = (0, 0);
    loop {
        step += 1;
        let kills = format!("kill -9 $(cat {})", server.pid_file().display());
        declare(&lab, &server, &dies_at(&lab, step, true, &kills));
        let wanted = json!({"overwrite": "always"});
        let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
        let operation = lab.operation(OperationType::Restore, &resource);
        let done = until_death(&lab, operation.main(&context)).await;
        declare(&lab, &server, "");
        if let Some(done) = done {
            done.unwrap();
            operation.undo(&context).await.unwrap();
            break;
        }
        deaths += 1;
        server.ended().unwrap();
        let failed = operation.undo(&context).await.unwrap_err();
        assert!(failed.retryable, "{failed}");
        server.run().unwrap();
        operation.undo(&context).await.unwrap();
        assert_eq!(content(&server, "shop"), before, "{step}");
        clean(&lab, &server);
    }
    assert!(deaths >= 7, "{deaths}");
}

/// As the server says it where no table has more room.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_has_what_it_had() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE TABLE visits (page char(200)) ENGINE = MEMORY; INSERT INTO visits SELECT seq FROM seq_1_to_5000",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", SINCE);
    let before = content(&server, "shop");
    server.sql("mysql", "SET GLOBAL max_heap_table_size = 65536");
    let wanted = json!({"overwrite": "always"});
    let failed = lab.restore(checkpoint, &resource, wanted.clone()).await;
    let failed = failed.unwrap_err();
    assert!(
        failed.message.contains("room for the database twice"),
        "{failed}"
    );
    assert_eq!(content(&server, "shop"), before);
    assert_eq!(server.sql("shop", "SELECT COUNT(*) FROM visits"), "5000");
    clean(&lab, &server);
    server.sql("mysql", "SET GLOBAL max_heap_table_size = 16777216");
    lab.restore(checkpoint, &resource, wanted).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT COUNT(*) FROM visits"), "5000");
}

/// What nobody put back is not touched by the restores that follow.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_after_one_that_failed_leaves_and_names_its_tables() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let (resource, context, _) = exchanged(&server, &lab).await;
    for note in lab.scratch() {
        fs::remove_file(note).unwrap();
    }
    let lab = lab.restarted();
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.undo(&context).await.unwrap_err();
    let (_, old) = own(&server);
    let wanted = json!({"overwrite": "always"});
    let report = lab.restore(context.checkpoint_id, &resource, wanted).await;
    let warned = warnings(&report.unwrap());
    assert!(
        warned.contains(&old) && warned.contains("only copy"),
        "{warned}"
    );
    assert_eq!(server.sql(&old, "SELECT line FROM log"), "only copy");
    // Nor does the one before touch what came since.
    let content = content(&server, "shop");
    operation.undo(&context).await.unwrap_err();
    assert_eq!(self::content(&server, "shop"), content);
}

/// One that made its database and died leaves its comment there.
#[tokio::test(flavor = "multi_thread")]
async fn a_comment_of_an_earlier_restore_gives_way() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    server.sql("mysql", "DROP DATABASE shop");
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(
        OperationType::Restore,
        checkpoint,
        &resource,
        wanted.clone(),
    );
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    for note in lab.scratch() {
        fs::remove_file(note).unwrap();
    }
    let lab = lab.restarted();
    lab.restore(checkpoint, &resource, wanted).await.unwrap();
    let operation = lab.operation(OperationType::Restore, &resource);
    let _ = operation.undo(&context).await;
    assert_eq!(content(&server, "shop"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_a_views_name_meanwhile_is_not_dropped() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "DROP VIEW dear");
    let made = format!(
        "/usr/bin/mariadb --no-defaults --socket={} --user={} shop -e \"CREATE TABLE dear (x int); INSERT INTO dear VALUES (42)\"",
        server.socket().display(),
        MariadbServer::USER
    );
    // During the load, then it gives way; and at the last moment.
    for sign in ["--database=karbor-", "--database=shop"] {
        let script = format!(
            "case \"$*\" in *init-command*{sign}*) [ -e DONE ] || {{ : > DONE; {made}; }};; esac\nexec \"$REAL\" \"$@\""
        );
        let _ = fs::remove_file(lab.path("once"));
        let script = script.replace("DONE", &lab.path("once").display().to_string());
        declare(&lab, &server, &instead(&lab, "mariadb", &script));
        let wanted = json!({"overwrite": "always"});
        let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
        let operation = lab.operation(OperationType::Restore, &resource);
        let done = operation.main(&context).await;
        assert!(lab.path("once").exists());
        assert_eq!(done.is_ok(), sign.ends_with("karbor-"), "{done:?}");
        operation.undo(&context).await.unwrap();
        assert_eq!(server.sql("shop", "SELECT x FROM dear"), "42", "{sign}");
        clean(&lab, &server);
        server.sql("shop", "DROP TABLE dear");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_columns_of_any_sort_come_back() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    let name = "its-a`b.%_ü\u{20ac}";
    let lab = Lab::new();
    lab.declare(&format!(
        "[[mariadb]]\nname = \"orders\"\ndatabase = \"{name}\"\nsocket = \"{}\"\nuser = \"{}\"\n",
        server.socket().display(),
        MariadbServer::USER
    ));
    server.sql(
        "mysql",
        &format!("CREATE DATABASE `{}`", name.replace('`', "``")),
    );
    server.sql(
        name,
        "CREATE TABLE `ta``b.l e-ü%_` (a int PRIMARY KEY, b int AS (a + 1) STORED, c int AS (a * 2) VIRTUAL,
            d int INVISIBLE DEFAULT 5, e bit(9), f geometry, g json, h varbinary(20), i timestamp(6) NULL,
            j enum('x''', 'y\\\\'), UNIQUE (b), CHECK (a > 0));
         INSERT INTO `ta``b.l e-ü%_` (a, d, e, f, g, h, i, j) VALUES
            (1, 9, b'101', POINT(1, 2), '{\"a\": 1}', X'00FF0A27', '2026-03-29 02:30:00.5', 'x\\''), (2, 8, NULL, NULL, NULL, '', NULL, 'y\\\\');
         CREATE TABLE parts (x int, y date) PARTITION BY HASH (x) PARTITIONS 3;
         INSERT INTO parts SELECT seq, '2026-01-01' FROM seq_1_to_10;
         CREATE TABLE all_of_a (x int) ENGINE = MyISAM; CREATE TABLE all_of_b LIKE all_of_a;
         INSERT INTO all_of_a VALUES (1); INSERT INTO all_of_b VALUES (2);
         CREATE TABLE merged (x int) ENGINE = MERGE UNION = (all_of_a, all_of_b);
         CREATE VIEW `v``i'-ew` AS SELECT a, d FROM `ta``b.l e-ü%_`;
         CREATE TRIGGER `tr``ig` BEFORE INSERT ON `ta``b.l e-ü%_` FOR EACH ROW SET NEW.d = 1;
         CREATE PROCEDURE `pro``c` () SELECT 1;
         CREATE EVENT `ev``e-nt` ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SET @x = 1",
    );
    let state = |database: &str| {
        server.sql(
            database,
            "SELECT a, b, c, d, HEX(e), ST_AsText(f), g, HEX(h), i, j FROM `ta``b.l e-ü%_` ORDER BY a;
             SELECT COUNT(*) FROM parts PARTITION (p1); SELECT x FROM merged ORDER BY x; SELECT * FROM `v``i'-ew`;
             SHOW CREATE TABLE `ta``b.l e-ü%_`; SHOW CREATE TABLE parts; SHOW CREATE TABLE merged;
             SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE();
             CALL `pro``c`(); SHOW CREATE EVENT `ev``e-nt`",
        )
    };
    let before = state(name);
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql(
        name,
        "DELETE FROM `ta``b.l e-ü%_`; DROP VIEW `v``i'-ew`; DROP TRIGGER `tr``ig`; DROP PROCEDURE `pro``c`; DROP EVENT `ev``e-nt`; DROP TABLE all_of_b",
    );
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert_eq!(state(name), before);
    lab.restore(checkpoint, &resource, json!({"database": "a`n-other"}))
        .await
        .unwrap();
    assert_eq!(state("a`n-other"), before);
    clean(&lab, &server);
}

/// The program ends well, its last line comes, and a table is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_without_a_table_is_no_checkpoint() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let script = "first=$1; shift; exec \"$REAL\" \"$first\" --ignore-table=shop.log \"$@\"";
    declare(&lab, &server, &instead(&lab, "mariadb-dump", script));
    let failed = lab.protect(&resource).await.unwrap_err();
    assert!(
        failed.message.contains("left out tables: 'log'"),
        "{failed}"
    );
    declare(&lab, &server, "");
    // `mariadb-dump` is told to leave out the view, and leaves out the table.
    server.sql("shop", "CREATE VIEW `LOG` AS SELECT 1 AS one");
    let refused = lab.protect(&resource).await.unwrap_err();
    assert!(refused.message.contains("'LOG'. Rename"), "{refused}");
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
    server.sql("shop", "DROP VIEW `LOG`");
    lab.protect(&resource).await.unwrap();
}

/// With nothing but its rows as they are, a table would come back without its history.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_by_transactions_is_refused() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE TABLE precise (x int, s bigint unsigned GENERATED ALWAYS AS ROW START, e bigint unsigned GENERATED ALWAYS AS ROW END,
            PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
    );
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let failed = lab.protect(&resource).await.unwrap_err();
    assert!(
        failed.message.contains("give the table one by time"),
        "{failed}"
    );
    assert_eq!(lab.snapshots(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_leaves_something_says_that_the_database_is_as_it_was() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", SINCE);
    let before = content(&server, "shop");
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    let script = "text=$(cat)\ncase \"$text\" in *'DROP DATABASE `karbor-'[!o]*) exit 1;; esac\nprintf '%s\\n' \"$text\" | \"$REAL\" \"$@\"";
    declare(&lab, &server, &instead(&lab, "mariadb", script));
    let failed = operation.undo(&context).await.unwrap_err();
    let (new, _) = own(&server);
    assert!(
        failed.message.contains("'shop' is as it was") && failed.message.contains(&new),
        "{failed}"
    );
    assert_eq!(content(&server, "shop"), before);
    declare(&lab, &server, "");
    operation.undo(&context).await.unwrap();
    assert_eq!(content(&server, "shop"), before);
    clean(&lab, &server);
}

/// Tables that were restored are gone before the restore's end: what gave way to them is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_gave_way_is_kept_when_what_came_is_gone() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "INSERT INTO log VALUES ('only copy')");
    let wanted = json!({"overwrite": "always"});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, wanted);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    server.sql("shop", "DROP TABLE log");
    let report = operation.complete(&context).await.unwrap();
    let (_, old) = own(&server);
    let warned = warnings(&report);
    assert!(
        warned.contains("'log'") && warned.contains(&old),
        "{warned}"
    );
    assert!(
        server
            .sql(&old, "SELECT line FROM log")
            .contains("only copy")
    );
}

/// Nobody can dump a view that calls a function with the rights of an account that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn views_of_definers_that_are_gone_are_refused_or_replaced() {
    let Some(server) = MariadbServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, "");
    let resource = lab.resource(MARIADB).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    server.sql(
        "shop",
        "CREATE USER clerk@localhost; GRANT ALL ON *.* TO clerk@localhost;
         CREATE DEFINER = clerk@localhost FUNCTION of_clerk() RETURNS int DETERMINISTIC RETURN 1;
         CREATE DEFINER = clerk@localhost VIEW seen AS SELECT of_clerk() AS one FROM items;
         DROP USER clerk@localhost; DELETE FROM `or``ders`",
    );
    let refused = lab.protect(&resource).await.unwrap_err();
    assert!(refused.message.contains("Make that account"), "{refused}");
    let report = lab.restore(checkpoint, &resource, json!({"overwrite": "always"}));
    let warned = warnings(&report.await.unwrap());
    assert!(warned.contains("'seen'"), "{warned}");
    assert_eq!(content(&server, "shop"), before);
    assert!(
        server
            .sql("shop", "SHOW CREATE VIEW seen")
            .contains("clerk")
    );
    clean(&lab, &server);
}

#[test]
fn what_is_wrong_with_a_declaration_is_named() {
    let lab = Lab::new();
    lab.declare(
        "[[mariadb]]\nname = \"orders\"\ndatabase = \"mysql\"\nsocket = \"s\"\nhost = \"h\"\nport = 0\nuser = \"\"\n\
         password_file = \"p\"\nbin_dir = \"b\"\nssl_ca = \"c\"\nlock_timeout = 0\n",
    );
    let applications = Applications::load(&lab.path("applications.d")).unwrap();
    let found: Vec<_> = applications.problems().map(ToString::to_string).collect();
    for wanted in [
        "mariadb.orders.database: 'mysql' is the server's own",
        "mariadb.orders.host: it is reached by a socket or by a host",
        "mariadb.orders.socket: 's' is not an absolute path",
        "mariadb.orders.port: a port is 1 to 65535",
        "mariadb.orders.user: it must be a text",
        "mariadb.orders.password_file: 'p' is not an absolute path",
        "mariadb.orders.bin_dir: 'b' is not an absolute path",
        "mariadb.orders.ssl_ca: 'c' is not an absolute path",
        "mariadb.orders.lock_timeout: a timeout is 1 to 86400 seconds",
    ] {
        assert!(
            found.iter().any(|one| one.contains(wanted)),
            "{wanted}: {found:#?}"
        );
    }
    assert_eq!(found.len(), 9, "{found:#?}");
    // A password has no place in a declaration.
    lab.declare("[[mariadb]]\nname = \"orders\"\ndatabase = \"shop\"\npassword = \"secret\"\n");
    let applications = Applications::load(&lab.path("applications.d")).unwrap();
    let found: Vec<_> = applications.problems().map(ToString::to_string).collect();
    assert!(found[0].contains("unknown field `password`"), "{found:#?}");
}
