//! PostgreSQL databases, on a real server.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use karbor_model::{CheckpointId, OperationType};
use karbor_plugins::applications::APPLICATION;
use karbor_testkit::PostgresServer;
use serde_json::json;

use super::{Lab, POSTGRESQL};

fn lab(server: &PostgresServer, more: &str) -> Lab {
    let lab = Lab::new();
    lab.declare(&format!(
        "[[postgresql]]\nname = \"orders\"\ndatabase = \"shop\"\nhost = \"{}\"\nport = {}\n{more}",
        server.socket_dir().display(),
        PostgresServer::PORT,
    ));
    lab
}

fn user() -> String {
    format!("user = \"{}\"\n", PostgresServer::USER)
}

fn fill(server: &PostgresServer) {
    server.sql("postgres", "CREATE ROLE keeper");
    server.sql("postgres", "CREATE DATABASE shop OWNER keeper");
    server.sql(
        "shop",
        "CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL, price numeric(9,2));
         INSERT INTO items (name, price) SELECT 'item ''' || i, i * 1.5 FROM generate_series(1, 1000) i;
         CREATE TABLE orders (id int REFERENCES items, at timestamptz DEFAULT '2026-01-01');
         INSERT INTO orders SELECT id FROM items WHERE id % 2 = 0;
         ALTER TABLE items OWNER TO keeper;
         CREATE VIEW dear AS SELECT * FROM items WHERE price > 1000;
         SELECT lo_from_bytea(4711, 'a large object');",
    );
}

/// All that is in the database, in words.
fn content(server: &PostgresServer, database: &str) -> String {
    server.sql(
        database,
        "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM items t;
         SELECT count(*), min(at) FROM orders;
         SELECT count(*) FROM dear;
         SELECT convert_from(lo_get(4711), 'UTF8');
         SELECT tableowner FROM pg_tables WHERE tablename = 'items';
         SELECT last_value FROM items_id_seq;
         SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database();",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_wrecked_restored_and_equal() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &format!("{}globals = true\n", user()));
    let before = content(&server, "shop");
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    // The dump, roles and tablespaces, and what the database is besides its contents.
    assert_eq!(report["files"], 3, "{report:?}");

    // Wrecked: refused at first, then as before.
    server.sql(
        "shop",
        "DROP TABLE orders; DELETE FROM items; SELECT lo_unlink(4711)",
    );
    let error = lab
        .restore(checkpoint, &resource, json!({}))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("'shop' has tables") && error.message.contains("overwrite"),
        "{error}"
    );
    let dry = lab
        .restore(
            checkpoint,
            &resource,
            json!({"dry_run": true, "overwrite": "always"}),
        )
        .await
        .unwrap();
    let listed = dry["changes"].as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|change| change["path"] == "TABLE public items keeper"
                && change["kind"] == "overwrite"),
        "{listed:?}"
    );
    assert_eq!(server.sql("shop", "SELECT count(*) FROM items"), "0");
    let lab = lab.restarted();
    lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap();
    assert_eq!(content(&server, "shop"), before);

    // Gone altogether: made again, and needs no leave.
    server.sql("postgres", "DROP DATABASE shop");
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert_eq!(content(&server, "shop"), before);

    // Under another name, which must be free.
    let name = "shop's \"copy\" $(x)";
    lab.restore(checkpoint, &resource, json!({"database": name}))
        .await
        .unwrap();
    assert_eq!(content(&server, name), before);
    for taken in [name, "postgres", "template1"] {
        let error = lab
            .restore(
                checkpoint,
                &resource,
                json!({"database": taken, "overwrite": "always"}),
            )
            .await
            .unwrap_err();
        assert!(error.message.contains("already a database"), "{error}");
    }
    let error = lab
        .restore(checkpoint, &resource, json!({"database": "x".repeat(64)}))
        .await
        .unwrap_err();
    assert!(error.message.contains("1 to 63 bytes"), "{error}");
    assert!(lab.scratch().is_empty());
    lab.verify(checkpoint, &resource, json!({"level": "data"}))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_leaves_what_was_there() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("postgres", "REASSIGN OWNED BY keeper TO karbor");
    server.sql("shop", "REASSIGN OWNED BY keeper TO karbor");
    server.sql("postgres", "DROP ROLE keeper");
    server.sql("shop", "INSERT INTO items (name) VALUES ('new')");
    let error = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("Make the role first, or restore with 'no_owner'"),
        "{error}"
    );
    assert_eq!(server.sql("shop", "SELECT count(*) FROM items"), "1001");
    // A database that was made for it does not stay.
    lab.restore(checkpoint, &resource, json!({"database": "other"}))
        .await
        .unwrap_err();
    assert_eq!(
        server.sql(
            "postgres",
            "SELECT count(*) FROM pg_database WHERE datname = 'other'"
        ),
        "0"
    );
    let done = json!({"overwrite": "always", "no_owner": true});
    lab.restore(checkpoint, &resource, done).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT count(*) FROM items"), "1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_died_half_way_is_run_again() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    for whole in [false, true] {
        let name = format!("copy-{whole}");
        let context = lab.context(
            OperationType::Restore,
            checkpoint,
            &resource,
            json!({"database": name}),
        );
        lab.operation(OperationType::Restore, &resource)
            .main(&context)
            .await
            .unwrap();
        if !whole {
            // As if only the database had been made when the machine died.
            let sign = server.sql(
                "postgres",
                &format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'"),
            );
            assert!(sign.contains(&context.operation_id.to_string()), "{sign}");
            server.sql("postgres", &format!("DROP DATABASE \"{name}\""));
            server.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
            server.sql(
                "postgres",
                &format!("COMMENT ON DATABASE \"{name}\" IS '{sign}'"),
            );
        }
        lab.run(&context).await.unwrap();
        assert_eq!(
            content(&server, &name).lines().next(),
            before.lines().next()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_connections() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.stop();
    for error in [
        lab.protect(&resource).await.unwrap_err(),
        lab.restore(checkpoint, &resource, json!({"overwrite": "always"}))
            .await
            .unwrap_err(),
    ] {
        assert!(error.message.contains("Is the server running"), "{error}");
        assert!(error.retryable);
    }
    assert_eq!((lab.snapshots(), lab.sections().len()), (1, 1));
    server.run().unwrap();
    lab.protect(&resource).await.unwrap();
    server.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false");
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(
        error
            .message
            .contains("not currently accepting connections"),
        "{error}"
    );
    server.sql("postgres", "DROP DATABASE shop");
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(
        error.message.contains("database \"shop\" does not exist"),
        "{error}"
    );
    assert_eq!((lab.snapshots(), lab.sections().len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_come_from_the_passfile_only() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "postgres",
        "CREATE ROLE teller LOGIN SUPERUSER PASSWORD 'open: \\sesame'",
    );
    let rules = server.data_dir().join("pg_hba.conf");
    fs::write(
        &rules,
        "local all karbor trust\nlocal all teller scram-sha-256\n",
    )
    .unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");
    let without = lab(&server, "user = \"teller\"\n");
    let resource = without.resource(POSTGRESQL).await;
    let error = without.protect(&resource).await.unwrap_err();
    assert!(error.message.contains("Declare a passfile"), "{error}");

    let with = Lab::new();
    let passfile = with.path("pgpass");
    let declared = lab(
        &server,
        &format!("user = \"teller\"\npassfile = \"{}\"\n", passfile.display()),
    );
    let write = |text: &str| {
        fs::write(&passfile, text).unwrap();
        fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("*:*:*:teller:wrong");
    let error = declared.protect(&resource).await.unwrap_err();
    assert!(
        error.message.contains("Look at the declared passfile"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    write("*:*:*:teller:open\\: \\\\sesame");
    declared.protect(&resource).await.unwrap();
}

/// A program in place of PostgreSQL's own: `psql` stays the real one.
fn instead(lab: &Lab, server: &PostgresServer, script: &str) -> String {
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["psql", "pg_restore", "pg_dumpall"] {
        std::os::unix::fs::symlink(server.bin_dir().join(program), bin.join(program)).unwrap();
    }
    let real = server.bin_dir().join("pg_dump");
    let text = script.replace("REAL", &real.display().to_string());
    fs::write(bin.join("pg_dump"), format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(bin.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}bin_dir = \"{}\"\n", user(), bin.display())
}

async fn protect_with(
    server: &PostgresServer,
    script: &str,
) -> (Lab, Result<(), karbor_plugin::PluginError>) {
    let bin = Lab::new();
    let lab = lab(server, &instead(&bin, server, script));
    let resource = lab.resource(POSTGRESQL).await;
    let done = lab.protect(&resource).await.map(|_| ());
    (lab, done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_was_cut_short_is_no_checkpoint() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    for (script, wanted) in [
        (
            "REAL \"$@\" | head -c 3000; echo 'pg_dump: error: lost it' >&2; exit 1",
            "exit status 1): pg_dump: error: lost it",
        ),
        ("REAL \"$@\"; exit 7", "exit status 7"),
        ("REAL \"$@\"; kill -9 $$", "killed by signal 9"),
        (
            "echo 'pg_dump: error: aborting because of server version mismatch' >&2; echo 'pg_dump: detail: server version: 99.1; pg_dump version: 15.1' >&2; exit 1",
            "install client programs of its version",
        ),
    ] {
        let (lab, done) = protect_with(&server, script).await;
        let error = done.unwrap_err();
        assert!(error.message.contains(wanted), "{script}: {error}");
        assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0), "{script}");
    }
    let (lab, done) = protect_with(
        &server,
        "echo 'pg_dump: warning: circular' >&2; exec REAL \"$@\"",
    )
    .await;
    done.unwrap();
    assert_eq!(lab.snapshots(), 1);
}

async fn dumping(path: PathBuf) {
    // The wrapper says that it streams; from then on it waits.
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dump_is_an_error_and_the_next_run_works() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let bin = Lab::new();
    let sign = bin.path("streaming");
    // Half of a dump, and then nothing more, until somebody ends it.
    let script = format!(
        "REAL \"$@\" | head -c 40000; echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 1000",
        sign.display()
    );
    let lab = lab(&server, &instead(&bin, &server, &script));
    let resource = lab.resource(POSTGRESQL).await;
    let kill = async {
        dumping(sign.clone()).await;
        let id = fs::read_to_string(&sign).unwrap().trim().parse().unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    };
    let (done, ()) = tokio::join!(lab.protect(&resource), kill);
    let error = done.unwrap_err();
    assert!(
        error
            .message
            .contains("pg_dump failed (killed by signal 9)"),
        "{error}"
    );
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
    fs::remove_file(bin.path("bin/pg_dump")).unwrap();
    std::os::unix::fs::symlink(server.bin_dir().join("pg_dump"), bin.path("bin/pg_dump")).unwrap();
    lab.protect(&resource).await.unwrap();
    assert_eq!(lab.snapshots(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_a_dump_that_hangs() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let bin = Lab::new();
    let sign = bin.path("streaming");
    let script = format!(
        "echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 1000",
        sign.display()
    );
    let lab = lab(&server, &instead(&bin, &server, &script));
    let resource = lab.resource(POSTGRESQL).await;
    let context = lab.context(
        OperationType::Protect,
        CheckpointId::new(),
        &resource,
        json!({}),
    );
    let stop = async {
        dumping(sign.clone()).await;
        context.cancel.cancel();
    };
    let (done, ()) = tokio::join!(lab.run(&context), stop);
    assert_eq!(done.unwrap_err().message, "cancelled");
    assert_eq!(lab.snapshots(), 0);
    let pid = fs::read_to_string(sign).unwrap();
    let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    while !(state().is_empty() || state().contains(") Z ")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_in_the_middle() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    // The dump waits for a table that somebody holds.
    let mut holder = server
        .psql("shop")
        .args(["-c", "BEGIN; LOCK TABLE items; SELECT pg_sleep(600)"])
        .spawn()
        .unwrap();
    let hang_up = async {
        let waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'karbor %'";
        while server.sql("postgres", &format!("SELECT count(*) {waiting}")) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.sql(
            "postgres",
            &format!("SELECT pg_terminate_backend(pid) {waiting}"),
        );
    };
    let (done, ()) = tokio::join!(lab.protect(&resource), hang_up);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let error = done.unwrap_err();
    assert!(error.message.contains("terminating connection"), "{error}");
    assert!(error.retryable);
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
}

fn databases(server: &PostgresServer) -> String {
    server.sql(
        "postgres",
        "SELECT string_agg(datname, ' ' ORDER BY datname), count(shobj_description(oid, 'pg_database'))
         FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_else_made_meanwhile_is_not_dropped() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let parameters = json!({"database": "copy"});
    let context = || {
        lab.context(
            OperationType::Restore,
            checkpoint,
            &resource,
            parameters.clone(),
        )
    };
    let (ours, theirs) = (context(), context());
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&ours).await.unwrap();
    // A second one at the same time is told who is there, and its undo touches nothing.
    let error = operation.main(&theirs).await.unwrap_err();
    assert!(
        error.message.contains("writing to the database 'copy'"),
        "{error}"
    );
    operation.undo(&theirs).await.unwrap();
    assert_eq!(databases(&server), "copy shop|1");
    // It was noted as missing, and is somebody's now.
    server.sql("postgres", "DROP DATABASE copy");
    server.sql("postgres", "CREATE DATABASE copy");
    let error = operation.main(&ours).await.unwrap_err();
    assert!(error.message.contains("already a database"), "{error}");
    operation.undo(&ours).await.unwrap();
    assert_eq!(databases(&server), "copy shop|0");
    // Given back; and what is complete bears no comment.
    server.sql("postgres", "DROP DATABASE copy");
    lab.run(&theirs).await.unwrap();
    assert_eq!(databases(&server), "copy shop|0");
    operation.undo(&theirs).await.unwrap();
    assert_eq!(databases(&server), "copy shop|0");
    assert!(lab.scratch().is_empty());
}

/// Killed after it noted that the database was empty: the tables there now may be the application's.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_run_again_does_not_replace_tables_made_meanwhile() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let empty = || {
        server.sql("postgres", "DROP DATABASE shop");
        server.sql("postgres", "CREATE DATABASE shop");
    };
    let context = || lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
    let restore = lab.operation(OperationType::Restore, &resource);
    // Done, and not known to be: what the application wrote since stays.
    empty();
    let again = context();
    restore.main(&again).await.unwrap();
    server.sql("shop", "UPDATE items SET price = 7");
    lab.run(&again).await.unwrap();
    assert_eq!(
        server.sql("shop", "SELECT DISTINCT price FROM items"),
        "7.00"
    );
    // Begun, and what is there is not ours.
    empty();
    let context = context();
    let note = format!(
        "restore-{}-{}.json",
        context.operation_id, context.resource.id
    );
    let mark = json!({"target": "shop", "made": false});
    fs::write(lab.path("state/scratch").join(note), mark.to_string()).unwrap();
    server.sql(
        "shop",
        "CREATE TABLE items (mine int); INSERT INTO items VALUES (7)",
    );
    let error = lab.run(&context).await.unwrap_err();
    assert!(error.message.contains("has tables"), "{error}");
    assert_eq!(server.sql("shop", "SELECT mine FROM items"), "7");
    assert!(lab.scratch().is_empty());
}

/// Makes as many large objects as one transaction has no locks for.
fn fill_with_large_objects(server: &PostgresServer) -> String {
    server.sql("postgres", "CREATE DATABASE shop");
    for _ in 0..3 {
        let sql = "SELECT count(lo_from_bytea(0, 'x')) FROM generate_series(1, 3000)";
        server.sql("shop", sql);
    }
    "9000".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_the_server_has_locks_are_restored() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let all = fill_with_large_objects(&server);
    let count =
        |database: &str| server.sql(database, "SELECT count(*) FROM pg_largeobject_metadata");
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    lab.restore(checkpoint, &resource, json!({"database": "copy"}))
        .await
        .unwrap();
    assert_eq!(count("copy"), all);
    // In place it takes a lock each: the server's hint and the way out reach the person.
    let error = lab
        .restore(checkpoint, &resource, json!({"overwrite": "always"}))
        .await
        .unwrap_err();
    for wanted in [
        "out of shared memory",
        "max_locks_per_transaction",
        "'swap'",
    ] {
        assert!(error.message.contains(wanted), "{error}");
    }
    lab.restore(
        checkpoint,
        &resource,
        json!({"swap": true, "drop_old": true}),
    )
    .await
    .unwrap();
    assert_eq!(count("shop"), all);
    assert_eq!(databases(&server), "copy shop|0");
}

/// A session that holds what the SQL locked, until it is dropped.
struct Holder<'a>(&'a PostgresServer, std::process::Child);

impl<'a> Holder<'a> {
    async fn of(server: &'a PostgresServer, database: &str, sql: &str) -> Self {
        let script = format!("BEGIN; {sql}; SET application_name = 'holder'; SELECT pg_sleep(600)");
        let mut psql = server.psql(database);
        let child = psql.args(["-c", &script]).spawn().unwrap();
        let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder'";
        while server.sql("postgres", held) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self(server, child)
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        // The server does not notice that a program is gone.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'";
        let ended = self.0.try_sql("postgres", sql);
        self.1.kill().unwrap();
        self.1.wait().unwrap();
        ended.unwrap();
    }
}

fn our_sessions(server: &PostgresServer) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'karbor%'";
    server.sql("postgres", sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_gives_up_waiting_for_a_lock_and_names_who_holds_it() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &format!("{}lock_timeout = 2\n", user()));
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "INSERT INTO items (name) VALUES ('since')");
    let holder = Holder::of(&server, "shop", "SELECT count(*) FROM items").await;
    let always = json!({"overwrite": "always"});
    let restore = lab.restore(checkpoint, &resource, always.clone());
    let done = tokio::time::timeout(Duration::from_secs(60), restore).await;
    let error = done.unwrap().unwrap_err();
    for wanted in ["items", "of karbor by holder", "active", "before_restore"] {
        assert!(error.message.contains(wanted), "{wanted}: {error}");
    }
    assert_eq!(server.sql("shop", "SELECT count(*) FROM items"), "1001");
    // A cancel leaves no session that waits on, and holds up others, either.
    let context = lab.context(
        OperationType::Restore,
        checkpoint,
        &resource,
        always.clone(),
    );
    let waiting = async {
        let sql = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND application_name LIKE 'karbor %'";
        while server.sql("postgres", sql) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        context.cancel.cancel();
    };
    let (done, ()) = tokio::join!(lab.run(&context), waiting);
    assert_eq!(done.unwrap_err().message, "cancelled");
    while our_sessions(&server) != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(holder);
    lab.restore(checkpoint, &resource, always).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT count(*) FROM items"), "1000");
}

/// `pg_dump` locks tables with a limit of its own, but asks for a view's definition without.
#[tokio::test(flavor = "multi_thread")]
async fn a_protect_gives_up_waiting_for_a_view_and_the_application_is_resumed() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let log = Lab::new();
    let append = |word: &str| {
        format!(
            "[\"/bin/sh\", \"-c\", \"echo {word} >> {}\"]",
            log.path("log").display()
        )
    };
    let lab = Lab::new();
    lab.declare(&format!(
        "quiesce.command = {}\nresume.command = {}\n[[postgresql]]\nname = \"orders\"\ndatabase = \"shop\"\n\
         host = \"{}\"\n{}lock_timeout = 2\n",
        append("quiesce"),
        append("resume"),
        server.socket_dir().display(),
        user()
    ));
    let _holder = Holder::of(&server, "shop", "ALTER VIEW dear RENAME TO cheap").await;
    let application = lab.resource(APPLICATION).await;
    let checkpoint = CheckpointId::new();
    let context = lab.context(OperationType::Protect, checkpoint, &application, json!({}));
    let hooks = lab.operation(OperationType::Protect, &application);
    hooks.prepare_begin(&context).await.unwrap();
    let resource = lab.resource(POSTGRESQL).await;
    let done = tokio::time::timeout(Duration::from_secs(60), lab.protect(&resource)).await;
    let error = done.unwrap().unwrap_err();
    assert!(
        error.message.contains("dear") && error.message.contains("by holder"),
        "{error}"
    );
    assert!(
        !error.retryable,
        "it would keep the application stopped for longer"
    );
    hooks.undo(&context).await.unwrap();
    let told = fs::read_to_string(log.path("log")).unwrap();
    assert_eq!(told, "quiesce\nresume\n");
    assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
}

/// What a database is besides its contents.
fn properties(server: &PostgresServer, database: &str) -> String {
    let sql = "SELECT row_to_json(d)::jsonb - 'oid' - 'datname' - 'datfrozenxid' - 'datminmxid',
            shobj_description(d.oid, 'pg_database'),
            (SELECT json_agg(json_build_object('role', pg_get_userbyid(setrole), 'set', setconfig) ORDER BY setrole)
                FROM pg_db_role_setting WHERE setdatabase = d.oid)
        FROM pg_database d WHERE datname = 'NAME'";
    server.sql("postgres", &sql.replace("NAME", database))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_comes_back_with_all_that_it_was() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    let place = server.data_dir().with_file_name("fast");
    server.sql(
        "postgres",
        &format!("COPY (SELECT 1) TO PROGRAM 'mkdir {}'", place.display()),
    );
    server.sql(
        "postgres",
        &format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()),
    );
    server.sql(
        "postgres",
        "CREATE ROLE keeper; CREATE ROLE reader; CREATE ROLE \"odd \"\" one\"",
    );
    server.sql(
        "postgres",
        "CREATE DATABASE shop OWNER keeper TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' TABLESPACE fast CONNECTION LIMIT 7",
    );
    server.sql("shop", "CREATE TABLE t AS SELECT 1 x");
    for sql in [
        "REVOKE ALL ON DATABASE shop FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO reader WITH GRANT OPTION",
        "GRANT CONNECT, CREATE ON DATABASE shop TO \"odd \"\" one\"",
        "ALTER DATABASE shop SET search_path = \"$user\", \"odd, \"\"schema\", public",
        "ALTER DATABASE shop SET default_transaction_read_only = on",
        "ALTER DATABASE shop SET app.secret = 'sesame: it''s \\ open'",
        "ALTER ROLE reader IN DATABASE shop SET statement_timeout = '5s'",
        "COMMENT ON DATABASE shop IS 'the shop''s own'",
        "ALTER DATABASE shop IS_TEMPLATE true",
    ] {
        server.sql("postgres", sql);
    }
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let before = properties(&server, "shop");
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("postgres", "ALTER DATABASE shop IS_TEMPLATE false");
    server.sql("postgres", "DROP DATABASE shop");
    let report = lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert!(report.get("warnings").is_none(), "{report:?}");
    assert_eq!(properties(&server, "shop"), before);
    assert_eq!(server.sql("shop", "SELECT x FROM t"), "1");
    // A setting may be a secret: it is in the bank, but not for everybody who can read the bank.
    for (key, bytes) in lab.bank.contents() {
        let leaks = bytes.windows(6).any(|part| part == b"sesame");
        assert!(!leaks, "{key}");
    }
    // Without owners it is no more open than it was.
    lab.restore(
        checkpoint,
        &resource,
        json!({"database": "copy", "no_owner": true}),
    )
    .await
    .unwrap();
    let may = "SELECT has_database_privilege('reader', 'copy', 'CONNECT'), pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.sql("postgres", may), "f|karbor");
    // What the server lacks is told before anything is done, with the way on.
    for sql in [
        "ALTER DATABASE shop IS_TEMPLATE false",
        "DROP DATABASE shop",
        "ALTER DATABASE copy IS_TEMPLATE false",
        "DROP DATABASE copy",
        "DROP TABLESPACE fast",
    ] {
        server.sql("postgres", sql);
    }
    let error = lab
        .restore(checkpoint, &resource, json!({}))
        .await
        .unwrap_err();
    assert!(error.message.contains("no tablespace 'fast'"), "{error}");
    assert!(error.message.contains("'no_tablespaces'"), "{error}");
    let there = json!({"no_tablespaces": true});
    lab.restore(checkpoint, &resource, there).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT x FROM t"), "1");
}

/// The databases, and what the shop has.
fn shops(server: &PostgresServer) -> (Vec<String>, String) {
    let sql = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1";
    let names = server.sql("postgres", sql);
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    (
        names.lines().map(str::to_owned).collect(),
        server.sql("shop", tables),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_since_is_told_and_a_swap_goes_back_all_the_same() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "shop",
        "CREATE SCHEMA sales; CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN sales.price AS int CHECK (VALUE > 0);
         CREATE TYPE sales.span AS RANGE (subtype = int4); CREATE TYPE sales.pair AS (a int, b mood);
         CREATE FUNCTION sales.twice(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * x';
         CREATE FUNCTION sales.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TABLE sales.one (x int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, up int REFERENCES sales.one,
            p sales.price DEFAULT sales.twice(1), m mood[], s sales.span, q sales.pair, CHECK (sales.twice(up) > 0));
         CREATE INDEX ON sales.one (sales.twice(up));
         CREATE TRIGGER note BEFORE INSERT ON sales.one FOR EACH ROW WHEN (NEW.up > 0) EXECUTE FUNCTION sales.note();
         CREATE POLICY mine ON sales.one USING (sales.twice(x) > 0);
         CREATE RULE quiet AS ON DELETE TO sales.one DO INSTEAD NOTHING;
         CREATE MATERIALIZED VIEW sales.many AS SELECT count(*) FROM items;
         CREATE VIEW sales.grouped AS SELECT i.* FROM items i GROUP BY i.id;
         CREATE TABLE sales.parts (x int) PARTITION BY LIST (x);
         CREATE TABLE sales.part_1 PARTITION OF sales.parts FOR VALUES IN (1)",
    );
    let lab = lab(&server, &format!("{}lock_timeout = 1\n", user()));
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let always = || json!({"overwrite": "always"});
    let dry = || json!({"overwrite": "always", "dry_run": true});
    // What goes with something that is dropped is in nobody's way.
    server.sql(
        "shop",
        "CREATE INDEX ON items (price); ALTER TABLE orders ADD CHECK (id > 0), ADD COLUMN more serial;
         CREATE TABLE sales.part_2 PARTITION OF sales.parts FOR VALUES IN (2);
         CREATE TRIGGER later BEFORE INSERT ON items EXECUTE FUNCTION sales.note();
         CREATE POLICY later ON sales.one USING (x > 0)",
    );
    let report = lab.restore(checkpoint, &resource, dry()).await.unwrap();
    assert!(report.get("refused").is_none(), "{report:?}");
    lab.restore(checkpoint, &resource, always()).await.unwrap();
    for (since, wanted, undo) in [
        (
            "CREATE TABLE since (id int REFERENCES items)",
            "FK CONSTRAINT public since since_id_fkey was made since and depends on TABLE public items",
            "DROP TABLE since",
        ),
        (
            "ALTER TABLE orders ADD CONSTRAINT since FOREIGN KEY (id) REFERENCES items",
            "FK CONSTRAINT public orders since depends on CONSTRAINT public items items_pkey since",
            "ALTER TABLE orders DROP CONSTRAINT since",
        ),
        (
            "CREATE VIEW since AS SELECT * FROM dear",
            "VIEW public since was made since and depends on VIEW public dear",
            "DROP VIEW since",
        ),
        (
            "CREATE TABLE sales.since (x int)",
            "TABLE sales since was made since and depends on SCHEMA - sales",
            "DROP TABLE sales.since",
        ),
        (
            "CREATE TABLE since (m mood[])",
            "TABLE public since was made since and depends on TYPE public mood",
            "DROP TABLE since",
        ),
        (
            "CREATE TABLE since (x int DEFAULT sales.twice(2))",
            "DEFAULT public since x was made since and depends on FUNCTION sales twice(",
            "DROP TABLE since",
        ),
    ] {
        server.sql("shop", since);
        let report = lab.restore(checkpoint, &resource, dry()).await.unwrap();
        let refused = report["refused"].as_str().unwrap();
        assert!(
            refused.contains(wanted) && refused.contains("'swap'"),
            "{refused}"
        );
        let error = lab
            .restore(checkpoint, &resource, always())
            .await
            .unwrap_err();
        assert!(error.message.contains(wanted), "{error}");
        server.sql("shop", undo);
    }
    server.sql("shop", "CREATE TABLE since (id int REFERENCES items)");

    // In use: who uses it is named, and nothing is changed.
    let holder = Holder::of(&server, "shop", "SELECT 1").await;
    let swap = json!({"swap": true});
    let report = lab
        .restore(
            checkpoint,
            &resource,
            json!({"swap": true, "dry_run": true}),
        )
        .await
        .unwrap();
    assert!(
        report["refused"].as_str().unwrap().contains("by holder"),
        "{report:?}"
    );
    let error = lab
        .restore(checkpoint, &resource, swap.clone())
        .await
        .unwrap_err();
    assert!(
        error.message.contains("by holder") && error.message.contains("'disconnect'"),
        "{error}"
    );
    assert_eq!(
        shops(&server),
        (vec!["shop".to_owned()], "items orders since".to_owned())
    );

    // Undone: as it was.
    let context = lab.context(
        OperationType::Restore,
        checkpoint,
        &resource,
        json!({"swap": true, "disconnect": true, "drop_old": true}),
    );
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    drop(holder);
    let (names, tables) = shops(&server);
    assert_eq!((names.len(), tables.as_str()), (2, "items orders"));
    operation.undo(&context).await.unwrap();
    operation.undo(&context).await.unwrap();
    assert_eq!(
        shops(&server),
        (vec!["shop".to_owned()], "items orders since".to_owned())
    );

    // Done: the old one is kept, and the report says under which name.
    let report = lab.restore(checkpoint, &resource, swap).await.unwrap();
    let (names, tables) = shops(&server);
    assert_eq!((names.len(), tables.as_str()), (2, "items orders"));
    assert!(names[1].starts_with("shop_before_"), "{names:?}");
    assert!(
        report["warnings"][0].as_str().unwrap().contains(&names[1]),
        "{report:?}"
    );
    let old = server.sql(&names[1], "SELECT count(*) FROM since");
    assert_eq!(old, "0");
    // Run twice, as after a crash; then the old one goes when it was asked to.
    let context = lab.context(
        OperationType::Restore,
        checkpoint,
        &resource,
        json!({"swap": true, "drop_old": true}),
    );
    operation.main(&context).await.unwrap();
    lab.run(&context).await.unwrap();
    assert_eq!(shops(&server), (names, "items orders".to_owned()));
    assert!(lab.scratch().is_empty());
    let error = lab
        .restore(
            checkpoint,
            &resource,
            json!({"drop_old": true, "overwrite": "always"}),
        )
        .await
        .unwrap_err();
    assert!(error.message.contains("'swap'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_the_dump_are_given_out_as_files() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &format!("{}globals = true\n", user()));
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "DROP ROLE keeper");
    // The message knows the way to the roles.
    let error = lab
        .restore(checkpoint, &resource, json!({}))
        .await
        .unwrap_err();
    assert!(error.message.contains("no role 'keeper'"), "{error}");
    assert!(
        error.message.contains("globals.sql") && error.message.contains("'restore_to'"),
        "{error}"
    );
    let to = json!({"restore_to": lab.path("restore/today")});
    lab.restore(checkpoint, &resource, to).await.unwrap();
    assert_eq!(databases(&server), "|0");
    let place = lab.path("restore/today/shop/orders");
    let roles = fs::read_to_string(place.join("globals.sql")).unwrap();
    assert!(roles.contains("CREATE ROLE keeper"), "{roles}");
    let mode = fs::metadata(place.join("globals.sql"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "it has passwords in it");
    let dump = fs::read(place.join("orders.dump")).unwrap();
    assert!(dump.starts_with(b"PGDMP"));
    // With 'database' it is about a database, as before.
    server.sql("postgres", "CREATE ROLE keeper");
    let both = json!({"restore_to": lab.path("restore/today"), "database": "copy"});
    lab.restore(checkpoint, &resource, both).await.unwrap();
    assert_eq!(databases(&server), "copy|0");
}

/// A role that is no superuser.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_may_make_databases_restores_its_own() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    server.sql("postgres", "CREATE ROLE clerk LOGIN CREATEDB");
    server.sql(
        "postgres",
        "CREATE DATABASE shop OWNER clerk CONNECTION LIMIT 3",
    );
    server.sql("postgres", "ALTER DATABASE shop SET log_statement = 'all'");
    server.sql("shop", "SET ROLE clerk; CREATE TABLE t AS SELECT 1 x");
    let lab = lab(&server, "user = \"clerk\"\n");
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "UPDATE t SET x = 2");
    lab.restore(
        checkpoint,
        &resource,
        json!({"swap": true, "drop_old": true}),
    )
    .await
    .unwrap();
    assert_eq!(server.sql("shop", "SELECT x FROM t"), "1");
    server.sql("postgres", "DROP DATABASE shop");
    let report = lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains("log_statement"), "{warning}");
    let limit =
        "SELECT datconnlimit, pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(server.sql("postgres", limit), "3|clerk");
}

/// The owner of a database decides in which order names are looked up there, and what they mean.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_calls_like_the_catalog_s_functions_is_not_run_by_the_service() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    server.sql(
        "postgres",
        "ALTER DATABASE shop SET search_path = public, pg_catalog",
    );
    server.sql(
        "shop",
        "CREATE TABLE traps (x text); INSERT INTO traps VALUES ('here');
         CREATE FUNCTION pg_get_userbyid(oid) RETURNS name LANGUAGE sql AS
            'INSERT INTO public.traps VALUES (''sprung''); SELECT ''x''::pg_catalog.name';
         CREATE FUNCTION pg_database_size(oid) RETURNS bigint LANGUAGE sql AS
            'INSERT INTO public.traps VALUES (''sprung''); SELECT 1::pg_catalog.int8'",
    );
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let dry = json!({"overwrite": "always", "dry_run": true});
    lab.restore(checkpoint, &resource, dry).await.unwrap();
    assert_eq!(
        server.sql("shop", "SELECT string_agg(x, ' ') FROM traps"),
        "here"
    );
}

/// `psql` speaks the server's encoding where there is no terminal.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_comments_of_a_database_in_another_encoding_come_back() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    for name in ["office", "shop"] {
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1'");
        server.sql("postgres", &sql);
    }
    server.sql("office", r#"CREATE ROLE U&"m\00FCller""#);
    for sql in [
        "CREATE TABLE t AS SELECT 1 x",
        r#"ALTER TABLE t OWNER TO U&"m\00FCller""#,
        r#"ALTER DATABASE shop OWNER TO U&"m\00FCller""#,
        r"COMMENT ON DATABASE shop IS U&'Gr\00F6\00DFe'",
        r"ALTER DATABASE shop SET app.place = U&'K\00F6ln'",
    ] {
        server.sql("shop", sql);
    }
    let lab = lab(
        &server,
        &format!("{}maintenance_database = \"office\"\n", user()),
    );
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, report) = lab.protect(&resource).await.unwrap();
    assert!(report.get("warnings").is_none(), "{report:?}");
    server.sql("postgres", "DROP DATABASE shop");
    lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    let same = r"SELECT shobj_description(oid, 'pg_database') = U&'Gr\00F6\00DFe',
        pg_get_userbyid(datdba) = U&'m\00FCller', current_setting('app.place') = U&'K\00F6ln'
        FROM pg_database WHERE datname = 'shop'";
    assert_eq!(server.sql("shop", same), "t|t|t");
    let owner = r"SELECT tableowner = U&'m\00FCller' FROM pg_tables WHERE tablename = 't'";
    assert_eq!(server.sql("shop", owner), "t");
}

/// Who may not make databases makes an empty one before a restore.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_that_is_filled_is_no_more_open_than_the_lost_one() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    server.sql(
        "postgres",
        "CREATE ROLE clerk LOGIN; CREATE ROLE stranger; CREATE ROLE reader",
    );
    server.sql("postgres", "CREATE DATABASE shop OWNER clerk");
    for sql in [
        "REVOKE ALL ON DATABASE shop FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO reader",
        "ALTER DATABASE shop CONNECTION LIMIT 7",
        "ALTER DATABASE shop SET work_mem = '9MB'",
        "COMMENT ON DATABASE shop IS 'the shop'",
    ] {
        server.sql("postgres", &format!("SET ROLE clerk; {sql}"));
    }
    server.sql("shop", "SET ROLE clerk; CREATE TABLE t AS SELECT 1 x");
    let before = properties(&server, "shop");
    let lab = lab(&server, "user = \"clerk\"\n");
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "CREATE DATABASE shop OWNER clerk");
    let report = lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert!(report.get("warnings").is_none(), "{report:?}");
    assert_eq!(properties(&server, "shop"), before);
    assert_eq!(server.sql("shop", "SELECT x FROM t"), "1");
    // It is somebody else's: all that the role may not change is named.
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("postgres", "GRANT CREATE ON DATABASE shop TO clerk");
    server.sql("shop", "GRANT CREATE ON SCHEMA public TO clerk");
    let report = lab.restore(checkpoint, &resource, json!({})).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT x FROM t"), "1");
    let told = report["warnings"][0].as_str().unwrap();
    for wanted in [
        "owner was 'clerk'",
        "nobody had given the right CONNECT of everybody",
        "it had the right CONNECT of 'reader'",
        "the setting work_mem",
        "limit of connections was 7",
        "a comment",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
}

fn takes_connections(server: &PostgresServer) -> String {
    let sql = "SELECT bool_and(datallowconn) FROM pg_database WHERE datname LIKE 'shop%'";
    server.sql("postgres", sql)
}

/// Connects to the shop by the server's protocol, and stays until the server ends the session.
fn stay_connected(server: &PostgresServer, over: &AtomicBool) {
    let socket = format!(".s.PGSQL.{}", PostgresServer::PORT);
    let Ok(mut session) = UnixStream::connect(server.socket_dir().join(socket)) else {
        return;
    };
    let parameters = format!("user\0{}\0database\0shop\0\0", PostgresServer::USER);
    let mut startup = u32::try_from(8 + parameters.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    startup.extend(0x0003_0000_u32.to_be_bytes());
    startup.extend(parameters.as_bytes());
    let pause = Some(Duration::from_millis(100));
    session.set_read_timeout(pause).unwrap();
    if session.write_all(&startup).is_err() {
        return;
    }
    let mut answer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        match session.read(&mut answer) {
            Ok(0) => return,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// Such as those of a pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_disconnects_wins_against_clients_that_connect_again_at_once() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &format!("{}lock_timeout = 5\n", user()));
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    server.sql("shop", "CREATE TABLE since (x int)");
    let parameters = json!({"swap": true, "disconnect": true, "drop_old": true});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, parameters);
    let operation = lab.operation(OperationType::Restore, &resource);
    let over = AtomicBool::new(false);
    let (swapped, undone) = thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    stay_connected(&server, &over);
                }
            });
        }
        let done = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let swapped = operation.main(&context).await.map(|_| {
                    let (names, tables) = shops(&server);
                    (names.len(), tables, takes_connections(&server))
                });
                (swapped, operation.undo(&context).await)
            })
        });
        over.store(true, Ordering::Relaxed);
        done
    });
    let wanted = (2, "items orders".to_owned(), "t".to_owned());
    assert_eq!(swapped.unwrap(), wanted);
    undone.unwrap();
    let before = (vec!["shop".to_owned()], "items orders since".to_owned());
    assert_eq!(shops(&server), before);
    assert_eq!(takes_connections(&server), "t");

    // Killed while the old one took no connections.
    let note = format!(
        "restore-{}-{}.json",
        context.operation_id, context.resource.id
    );
    let closed = |lab: &Lab| {
        let mark =
            json!({"target": "shop", "made": true, "replaced": "shop_before", "closed": true});
        fs::write(lab.path("state/scratch").join(&note), mark.to_string()).unwrap();
        server.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false");
    };
    closed(&lab);
    operation.undo(&context).await.unwrap();
    assert_eq!(shops(&server), before);
    closed(&lab);
    lab.run(&context).await.unwrap();
    assert_eq!(shops(&server).1, "items orders");
    assert_eq!(takes_connections(&server), "t");
    assert!(lab.scratch().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_complete_restore_could_not_tidy_is_told() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let parameters = json!({"swap": true, "drop_old": true});
    let context = lab.context(OperationType::Restore, checkpoint, &resource, parameters);
    let operation = lab.operation(OperationType::Restore, &resource);
    operation.main(&context).await.unwrap();
    let old = shops(&server).0.remove(1);
    let template = |is: bool| {
        server.sql(
            "postgres",
            &format!("ALTER DATABASE \"{old}\" IS_TEMPLATE {is}"),
        )
    };
    template(true);
    let report = operation.complete(&context).await.unwrap();
    let told = report["warnings"][0].as_str().unwrap();
    assert!(
        told.contains(&format!("still there as '{old}'")) && told.contains("template"),
        "{told}"
    );
    // What is complete bears no sign of one that is not.
    assert!(databases(&server).ends_with("|0"), "{}", databases(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_or_a_certificate_that_others_may_change_is_not_obeyed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let bin = Lab::new();
    let more = instead(&bin, &server, "exec REAL \"$@\"");
    let lab = lab(&server, &more);
    let resource = lab.resource(POSTGRESQL).await;
    lab.protect(&resource).await.unwrap();
    chown(bin.path("bin/pg_dump"), Some(12_345), None).unwrap();
    let error = lab.protect(&resource).await.unwrap_err();
    assert!(
        error.message.contains("would obey others") && error.message.contains("bin/pg_dump"),
        "{error}"
    );
    for key in ["sslrootcert", "sslcert", "sslkey"] {
        let file = bin.path(key);
        fs::write(&file, "").unwrap();
        chown(&file, Some(12_345), None).unwrap();
        let lab = self::lab(
            &server,
            &format!("{}{key} = \"{}\"\n", user(), file.display()),
        );
        let resource = lab.resource(POSTGRESQL).await;
        let error = lab.protect(&resource).await.unwrap_err();
        assert!(
            error.message.contains("would obey others"),
            "{key}: {error}"
        );
    }
}

/// `pg_restore` goes on to its end when the service is killed.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_that_was_filled_after_the_service_died_is_known_for_its_own() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    fill(&server);
    let lab = lab(&server, &user());
    let resource = lab.resource(POSTGRESQL).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    let before = content(&server, "shop");
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "CREATE DATABASE shop OWNER keeper");
    server.sql(
        "shop",
        "CREATE FUNCTION wait() RETURNS event_trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(7); END';
         CREATE EVENT TRIGGER wait ON ddl_command_end EXECUTE FUNCTION wait()",
    );
    let holder = Holder::of(&server, "shop", "SELECT pg_advisory_xact_lock(7)").await;
    let context = lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
    let restore = lab.operation(OperationType::Restore, &resource);
    let note = lab.path("state/scratch").join(format!(
        "restore-{}-{}.json",
        context.operation_id, context.resource.id
    ));
    let noted = async {
        loop {
            let text = fs::read_to_string(&note).unwrap_or_default();
            let read: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if read["transaction"].is_u64() {
                drop(holder);
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = async { tokio::join!(restore.main(&context), noted) };
    let (done, noted) = tokio::time::timeout(Duration::from_secs(60), done)
        .await
        .unwrap();
    done.unwrap();
    // As it was when the service died.
    fs::write(&note, &noted).unwrap();
    let lab = lab.restarted();
    let restore = lab.operation(OperationType::Restore, &resource);
    restore.main(&context).await.unwrap();
    assert_eq!(content(&server, "shop"), before);
    // One that did not come to its end leaves nothing, so what is there is somebody else's.
    let mut other: serde_json::Value = serde_json::from_str(&noted).unwrap();
    let aborted = server.try_sql("shop", "BEGIN; SELECT txid_current(); ROLLBACK");
    let aborted = aborted.unwrap().trim().to_owned();
    other["transaction"] = json!(aborted.parse::<u64>().unwrap());
    fs::write(&note, other.to_string()).unwrap();
    let error = restore.main(&context).await.unwrap_err();
    assert!(error.message.contains("has tables"), "{error}");
}
