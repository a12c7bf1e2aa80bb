//! PostgreSQL databases, on a real server.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use karbor_model::{CheckpointId, OperationType};
use karbor_plugins::applications::POSTGRESQL;
use karbor_testkit::PostgresServer;
use serde_json::json;

use super::Lab;

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
    assert_eq!(report["files"], 2, "{report:?}");

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
        let waiting =
            "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'karbor'";
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
