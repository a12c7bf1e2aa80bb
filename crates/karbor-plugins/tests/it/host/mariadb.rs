//! MariaDB databases, on a real server.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Child,
};

use karbor_model::OperationType;
use karbor_plugins::applications::{Applications, Severity, Surroundings};
use karbor_testkit::MariadbServer;
use serde_json::{Value, json};

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
    for name in ["mysql", "karbor-x", "-x"] {
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
