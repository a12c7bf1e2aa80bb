//! Bits that flip in the bank, and sources that cannot be read.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use karbor_model::{CheckpointId, OperationType, Resource};
use karbor_plugin::{Bank, BankKey, BankSection};
use karbor_testkit::{MemoryBank, PostgresServer};
use karbor_vault::{Control, SnapshotMeta, Vault, VaultOptions};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{DIRECTORY, Lab, POSTGRESQL, SQLITE, tree};

/// Does not compress, so its pack is larger than that of trees.
fn noise() -> Vec<u8> {
    let mut noise = vec![0; 100_000];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut noise).unwrap();
    noise
}

async fn flip(bank: &MemoryBank, key: &BankKey, at: usize) {
    let mut data = bank.get(key).await.unwrap().to_vec();
    data[at] ^= 1;
    bank.tamper(key, data.into());
}

fn keys(bank: &MemoryBank, part: &str) -> Vec<BankKey> {
    let keys = bank.contents().into_keys();
    keys.filter(|key| key.as_str().contains(part)).collect()
}

/// The pack of data.
fn data_pack(bank: &MemoryBank) -> BankKey {
    let contents = bank.contents();
    let packs = contents
        .iter()
        .filter(|(key, _)| key.as_str().contains("/data/") && key.as_str().starts_with("vaults/"));
    packs.max_by_key(|(_, data)| data.len()).unwrap().0.clone()
}

/// Flips a bit of what a resource holds: it is found, nothing is restored of it, and protecting again
/// mends this checkpoint too.
async fn flipped(lab: Lab, resource: &Resource, restore: Value, untouched: impl Fn()) -> Lab {
    let (old, _) = lab.protect(resource).await.unwrap();
    let data = json!({"level": "data"});
    lab.verify(old, resource, data.clone()).await.unwrap();
    let pack = data_pack(&lab.bank);
    flip(&lab.bank, &pack, 60).await;
    let lab = lab.restarted();
    lab.verify(old, resource, json!({})).await.unwrap();
    let error = lab.restore(old, resource, restore.clone()).await;
    let error = error.unwrap_err().message;
    assert!(
        error.contains(pack.name()) && error.contains("needs it"),
        "{error}"
    );
    untouched();
    assert!(lab.scratch().is_empty());
    let error = lab.verify(old, resource, data.clone()).await;
    let error = error.unwrap_err().message;
    assert!(
        error.contains(pack.name()) && error.contains("needs it"),
        "{error}"
    );
    let (new, _) = lab.protect(resource).await.unwrap();
    for checkpoint in [old, new] {
        lab.verify(checkpoint, resource, data.clone())
            .await
            .unwrap();
    }
    lab.restore(old, resource, restore).await.unwrap();
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_a_directory_is_named_and_mended() {
    let lab = Lab::new();
    let files = lab.path("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("only"), noise()).unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        files.display()
    ));
    let resource = lab.resource(DIRECTORY).await;
    let before = tree(&files);
    let target = lab.path("restore/copy/shop/files");
    let lab = flipped(lab, &resource, json!({"restore_to": "copy"}), || {
        assert!(!target.exists() || tree(&target).is_empty());
    })
    .await;
    assert_eq!(tree(&lab.path("restore/copy/shop/files")), before);
}

/// A service that has used its vault already.
async fn with_vault() -> (Lab, Resource, CheckpointId) {
    let lab = Lab::new();
    let files = lab.path("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("only"), noise()).unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        files.display()
    ));
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    (lab, resource, checkpoint)
}

/// Takes the vault out of the bank, as an operator does who empties or exchanges a disk.
async fn empty(bank: &MemoryBank, part: &str) {
    for key in keys(bank, part) {
        bank.delete(&key).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_was_removed_under_the_service_is_made_anew() {
    let (lab, resource, _) = with_vault().await;
    empty(&lab.bank, "vaults/").await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    // Whether it was really kept, who opens the vault anew finds out.
    let lab = lab.restarted();
    lab.verify(checkpoint, &resource, json!({"level": "data"}))
        .await
        .unwrap();
    lab.restore(checkpoint, &resource, json!({"restore_to": "copy"}))
        .await
        .unwrap();
    let restored = tree(&lab.path("restore/copy/shop/files"));
    assert_eq!(restored, tree(&lab.path("files")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_was_exchanged_under_the_service_is_opened_anew() {
    let (lab, resource, _) = with_vault().await;
    let mut first = lab.bank.contents();
    empty(&lab.bank, "vaults/").await;
    let lab = lab.restarted();
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    // The first disk comes back, which does not know the checkpoint, and then goes again.
    let second = lab.bank.contents();
    for bank in [&mut first, &mut second.clone()] {
        empty(&lab.bank, "vaults/").await;
        bank.retain(|key, _| key.as_str().starts_with("vaults/"));
        for (key, data) in &*bank {
            lab.bank.put(key, data.clone()).await.unwrap();
        }
        let (new, _) = lab.protect(&resource).await.unwrap();
        lab.verify(new, &resource, json!({"level": "data"}))
            .await
            .unwrap();
    }
    lab.restore(checkpoint, &resource, json!({"restore_to": "copy"}))
        .await
        .unwrap();
    let restored = tree(&lab.path("restore/copy/shop/files"));
    assert_eq!(restored, tree(&lab.path("files")));
}

/// `restic copy` into another repository, which then takes the place of the first: the data are the same, the
/// snapshots have other ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_copied_elsewhere_is_found_by_its_tags() {
    let (lab, resource, checkpoint) = with_vault().await;
    let (other, _) = lab.protect(&resource).await.unwrap();
    let context = lab.context(OperationType::Restore, checkpoint, &resource, json!({}));
    let access = &context.vault;
    let options = VaultOptions::default;
    let first = Vault::open(access.section.clone(), &access.password, options());
    let first = first.await.unwrap();
    let bank: Arc<dyn Bank> = lab.bank.clone();
    let elsewhere = BankSection::new(bank, BankKey::parse("elsewhere").unwrap());
    let second = Vault::open_or_init(elsewhere, &access.password, options());
    let second = second.await.unwrap();
    for snapshot in first.snapshots().await.unwrap() {
        let meta = SnapshotMeta {
            hostname: snapshot.hostname.clone(),
            username: snapshot.username.clone(),
            time: snapshot.time,
            tags: snapshot.tags.clone(),
            parent: None,
        };
        let mut writer = second.writer(meta, Control::default()).await.unwrap();
        writer.add_snapshot(&first, &snapshot.id).await.unwrap();
        assert_ne!(writer.commit().await.unwrap().id, snapshot.id);
    }
    let place = access.section.prefix().to_string();
    empty(&lab.bank, "vaults/").await;
    for (key, data) in lab.bank.contents() {
        if let Some(name) = key.as_str().strip_prefix("elsewhere/") {
            let key = BankKey::parse(&format!("{place}/{name}")).unwrap();
            lab.bank.put(&key, data).await.unwrap();
        }
    }
    let lab = lab.restarted();
    for id in [checkpoint, other] {
        lab.verify(id, &resource, json!({"level": "data"}))
            .await
            .unwrap();
    }
    lab.restore(checkpoint, &resource, json!({"restore_to": "copy"}))
        .await
        .unwrap();
    let restored = tree(&lab.path("restore/copy/shop/files"));
    assert_eq!(restored, tree(&lab.path("files")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_protected_into_a_vault_whose_config_or_key_was_removed() {
    for (part, said) in [("/config", "config"), ("/keys/", "key")] {
        let (lab, resource, checkpoint) = with_vault().await;
        empty(&lab.bank, part).await;
        let context = lab.context(
            OperationType::Protect,
            CheckpointId::new(),
            &resource,
            json!({}),
        );
        let protect = lab.operation(OperationType::Protect, &resource);
        let error = protect.main(&context).await.unwrap_err().message;
        assert!(
            error.contains(said) && error.contains("put it back"),
            "{error}"
        );
        // As long as it is open, what was lost need not keep anybody from his data.
        lab.restore(checkpoint, &resource, json!({"restore_to": "copy"}))
            .await
            .unwrap();
        let restored = tree(&lab.path("restore/copy/shop/files"));
        assert_eq!(restored, tree(&lab.path("files")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_an_sqlite_database_is_named_and_mended() {
    let lab = Lab::new();
    let path = lab.path("s.db");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch("CREATE TABLE a (n); INSERT INTO a VALUES (randomblob(100000))")
        .unwrap();
    drop(database);
    lab.declare(&format!(
        "[[sqlite]]\nname = \"sessions\"\npath = \"{}\"\n",
        path.display()
    ));
    let resource = lab.resource(SQLITE).await;
    let blob = |path: &Path| -> Vec<u8> {
        let database = Connection::open(path).unwrap();
        database
            .query_row("SELECT n FROM a", [], |row| row.get(0))
            .unwrap()
    };
    let (before, content) = (fs::read(&path).unwrap(), blob(&path));
    let lab = flipped(lab, &resource, json!({"overwrite": "always"}), || {
        assert_eq!(fs::read(&path).unwrap(), before);
    })
    .await;
    assert_eq!(blob(&lab.path("s.db")), content);
    let left = fs::read_dir(lab.dir.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.contains("karbor-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_of_a_postgresql_database_is_named_and_mended() {
    let Some(server) = PostgresServer::start() else {
        return;
    };
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE a (n int); INSERT INTO a VALUES (1);
         CREATE TABLE b AS SELECT md5(i::text) FROM generate_series(1, 5000) i",
    );
    let lab = Lab::new();
    lab.declare(&format!(
        "[[postgresql]]\nname = \"orders\"\ndatabase = \"shop\"\nhost = \"{}\"\nport = {}\nuser = \"{}\"\n",
        server.socket_dir().display(),
        PostgresServer::PORT,
        PostgresServer::USER,
    ));
    let resource = lab.resource(POSTGRESQL).await;
    let (old, _) = lab.protect(&resource).await.unwrap();
    let pack = data_pack(&lab.bank);
    flip(&lab.bank, &pack, 60).await;
    // Into the database that is there, and into a new one.
    for parameters in [json!({"overwrite": "always"}), json!({"database": "new"})] {
        let error = lab.restore(old, &resource, parameters).await;
        let error = error.unwrap_err().message;
        assert!(
            error.contains(pack.name()) && error.contains("needs it"),
            "{error}"
        );
        assert_eq!(server.sql("shop", "SELECT n FROM a"), "1");
        let databases =
            "SELECT count(*) FROM pg_database WHERE datname LIKE 'new%' OR datname LIKE 'karbor%'";
        assert_eq!(server.sql("postgres", databases), "0");
    }
    let data = json!({"level": "data"});
    let error = lab.verify(old, &resource, data).await.unwrap_err().message;
    assert!(
        error.contains(pack.name()) && error.contains("needs it"),
        "{error}"
    );
    // A dump need not come out the same, byte by byte: what is new is whole at any rate.
    let (new, _) = lab.protect(&resource).await.unwrap();
    let data = json!({"level": "data"});
    lab.verify(new, &resource, data).await.unwrap();
    server.sql("shop", "DROP TABLE a, b");
    lab.restore(new, &resource, json!({})).await.unwrap();
    assert_eq!(server.sql("shop", "SELECT n FROM a"), "1");
}

/// The service has the vault open and could read on without them; after a restart nobody could.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_notices_that_the_vault_s_config_or_key_is_gone_or_damaged() {
    let lab = Lab::new();
    fs::create_dir(lab.path("files")).unwrap();
    fs::write(lab.path("files/a"), "a").unwrap();
    lab.declare(&format!(
        "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
        lab.path("files").display()
    ));
    let resource = lab.resource(DIRECTORY).await;
    let (checkpoint, _) = lab.protect(&resource).await.unwrap();
    for (part, gone, wrong) in [
        ("/config", "'config' there", "config is damaged"),
        ("/keys/", "key is damaged: it is missing", "key keys/"),
    ] {
        let [key] = &keys(&lab.bank, part)[..] else {
            panic!("one {part} was expected");
        };
        let whole = lab.bank.get(key).await.unwrap();
        lab.bank.delete(key).await.unwrap();
        let error = lab.verify(checkpoint, &resource, json!({})).await;
        let error = error.unwrap_err().message;
        assert!(error.contains(gone), "{error}");
        lab.bank.tamper(key, whole.slice(..whole.len() / 2));
        let error = lab.verify(checkpoint, &resource, json!({})).await;
        let error = error.unwrap_err().message;
        assert!(error.contains(wrong), "{error}");
        lab.bank.tamper(key, whole);
        lab.verify(checkpoint, &resource, json!({})).await.unwrap();
    }
}

/// What the child below is told.
const CHILD: &str = "KARBOR_TEST_UNREADABLE";

/// Run by the next test, as somebody who is not root.
#[tokio::test(flavor = "multi_thread")]
async fn child_protects_what_it_may_not_read() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let lab = Lab::new();
    let files = lab.path("files");
    for dir in ["files", "closed"] {
        fs::create_dir(lab.path(dir)).unwrap();
        fs::create_dir(lab.path(dir).join("sub")).unwrap();
        fs::write(lab.path(dir).join("sub/secret"), "secret").unwrap();
    }
    let database = lab.path("s.db");
    let made = Connection::open(&database).unwrap();
    made.execute_batch("CREATE TABLE a (n)").unwrap();
    drop(made);
    let close = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    close(files.join("sub/secret"));
    close(lab.path("closed/sub"));
    close(database.clone());
    for (kind, source, named) in [
        ("directory", &files, "files/sub/secret"),
        ("directory", &lab.path("closed"), "closed/sub"),
        ("sqlite", &database, "s.db"),
    ] {
        let path = source.display();
        lab.declare(&format!("[[{kind}]]\nname = \"x\"\npath = \"{path}\"\n"));
        let resource_type = if kind == "sqlite" { SQLITE } else { DIRECTORY };
        let resource = lab.resource(resource_type).await;
        let error = lab.protect(&resource).await.unwrap_err().message;
        assert!(error.contains(named), "{error}");
        assert_eq!((lab.snapshots(), lab.sections().len()), (0, 0));
    }
    fs::set_permissions(lab.path("closed/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    println!("protected nothing that cannot be read");
}

#[test]
fn a_source_that_cannot_be_read_fails_the_protect_and_is_named() {
    let name = "host::damage::child_protects_what_it_may_not_read";
    let this = std::env::current_exe().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // As /tmp: where everybody may exchange everything, the service obeys no declaration.
    let open = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(scratch.path(), open).unwrap();
    let mut child = match rustix::process::geteuid().is_root() {
        true => {
            // The build's directory may be closed to others.
            let copy = scratch.path().join("tests");
            let worker = scratch.path().join("sqlite-worker");
            for (from, to) in [(this, &copy), (super::sqlite_worker(), &worker)] {
                fs::copy(from, to).unwrap();
                fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
            }
            let mut child = std::process::Command::new("setpriv");
            child.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            child.arg(copy).env(super::WORKER, worker);
            child
        }
        false => std::process::Command::new(this),
    };
    let child = child
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .output();
    let output = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(
                std::env::var_os("KARBOR_REQUIRE_SERVERS").is_none(),
                "setpriv is required and not here"
            );
            eprintln!(
                "SKIPPED: this test is run by root, and there is no setpriv to be nobody with"
            );
            return;
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(
        said.contains("protected nothing that cannot be read"),
        "{said}"
    );
}
