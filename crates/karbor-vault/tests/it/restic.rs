//! The real restic reads what we write, and we read what it writes.

use std::{fs, path::Path};

use karbor_vault::{
    Control, Overwrite, RestoreOptions, SnapshotMeta, Vault, VaultOptions, VerifyLevel,
};

use crate::support::*;

fn restored(target: &Path, source: &Path) -> std::path::PathBuf {
    target.join(source.strip_prefix("/").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_checks_lists_and_restores_what_we_wrote() {
    if !have_restic() {
        return;
    }
    let disk = Disk::new();
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let before = describe(zoo.path());
    let vault = disk.vault().await;
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    let tree = writer
        .add_tree(&open(zoo.path()).unwrap(), Default::default())
        .await
        .unwrap();
    assert_eq!(tree.snapshot_path, zoo.path().to_str().unwrap());
    writer
        .add_stream("dump.sql", &b"CREATE TABLE t;\n".repeat(1000)[..])
        .await
        .unwrap();
    writer.add_stream("nothing", &b""[..]).await.unwrap();
    let summary = writer.commit().await.unwrap();
    assert_eq!(summary.left_out.total, 0);
    assert_same(&before, &describe(zoo.path()));

    let check = restic(&disk.path(), &["check", "--read-data"]);
    assert!(check.contains("no errors were found"), "{check}");
    assert!(!check.contains("not referenced"), "{check}");
    let snapshots = restic(&disk.path(), &["snapshots", "--json"]);
    assert!(snapshots.contains(&summary.id.to_string()), "{snapshots}");
    assert!(snapshots.contains("karbor:checkpoint=1"), "{snapshots}");
    let listed = restic(&disk.path(), &["ls", "latest"]);
    assert!(
        listed.contains("big.bin") && listed.contains("/dump.sql"),
        "{listed}"
    );
    assert_eq!(
        restic(&disk.path(), &["dump", "latest", "/dump.sql"]).trim_end(),
        "CREATE TABLE t;\n".repeat(1000).trim_end()
    );

    let target = tempfile::tempdir().unwrap();
    let to = target.path().to_str().unwrap();
    restic(&disk.path(), &["restore", "latest", "--target", to]);
    // restic 0.14 knows no link targets that are not UTF-8: it makes another link.
    let comparable = |lines: &str| {
        let keep = |line: &&str| !line.starts_with("\"odd link\"");
        without_sockets(lines)
            .lines()
            .filter(keep)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_same(
        &comparable(&before),
        &comparable(&describe(&restored(target.path(), zoo.path()))),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn we_verify_and_restore_what_restic_wrote() {
    if !have_restic() {
        return;
    }
    for compression in ["auto", "off", "max"] {
        let disk = Disk::new();
        let zoo = tempfile::tempdir().unwrap();
        make_zoo(zoo.path());
        // restic 0.14 cannot keep this one.
        fs::remove_file(zoo.path().join("odd link")).unwrap();
        let before = describe(zoo.path());
        let path = disk.path();
        restic(&path, &["init", "--repository-version", "2"]);
        let from = zoo.path().to_str().unwrap();
        let options = [
            "--compression",
            compression,
            "--tag",
            "a,b",
            "--host",
            "elsewhere",
        ];
        restic(&path, &[&["backup", from][..], &options].concat());

        let vault = disk.vault().await;
        let found = vault.find(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        let [snapshot] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(snapshot.hostname, "elsewhere");
        assert_eq!(snapshot.paths, [from]);
        let level = VerifyLevel::Data { percent: 100 };
        let verified = vault
            .verify(&snapshot.id, level, Control::default())
            .await
            .unwrap();
        assert!(
            verified.blobs > 10 && verified.blobs == verified.blobs_read,
            "{verified:?}"
        );
        let target = tempfile::tempdir().unwrap();
        let options = RestoreOptions {
            subpath: subpath(zoo.path()),
            overwrite: Overwrite::Always,
            ..Default::default()
        };
        vault
            .restore_tree(
                &snapshot.id,
                found_at(target.path()),
                options,
                Control::default(),
            )
            .await
            .unwrap();
        assert_same(
            &without_sockets(&before),
            &without_sockets(&describe(target.path())),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_and_we_take_turns_in_one_repository() {
    if !have_restic() {
        return;
    }
    let disk = Disk::new();
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("a"), noise(1, 3_000_000)).unwrap();
    let vault = disk.vault().await;
    let first = store(&vault, data.path()).await.unwrap();
    let from = data.path().to_str().unwrap();
    restic(&disk.path(), &["backup", from, "--force"]);
    fs::write(data.path().join("b"), noise(2, 3_000_000)).unwrap();
    restic(&disk.path(), &["backup", from]);
    // The index that restic wrote is noticed: what restic stored as a whole file is not stored again.
    fs::write(data.path().join("c"), noise(3, 100_000)).unwrap();
    restic(&disk.path(), &["backup", &format!("{from}/c")]);
    let second = store(&vault, data.path()).await.unwrap();
    assert!(second.new_data < 3_100_000, "{second:?}");
    assert_eq!(vault.snapshots().await.unwrap().len(), 5);

    // restic removes our first snapshot and what only it needed; we notice that too.
    vault.forget(&first.id).await.unwrap();
    vault.forget(&first.id).await.unwrap();
    restic(
        &disk.path(),
        &[
            "forget",
            "--keep-tag",
            "karbor:checkpoint=1",
            "--prune",
            "--max-unused",
            "0",
        ],
    );
    let third = store(&vault, data.path()).await.unwrap();
    let level = VerifyLevel::Data { percent: 100 };
    vault
        .verify(&third.id, level, Control::default())
        .await
        .unwrap();
    vault
        .verify(&second.id, level, Control::default())
        .await
        .unwrap();
    let check = restic(&disk.path(), &["check", "--read-data"]);
    assert!(check.contains("no errors were found"), "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_with_a_parent_is_as_good_as_one_without() {
    let disk = Disk::new();
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let vault = disk.vault().await;
    let first = store(&vault, zoo.path()).await.unwrap();
    fs::write(zoo.path().join("dir/new"), b"new").unwrap();
    fs::write(zoo.path().join("small.txt"), b"changed").unwrap();
    let meta = SnapshotMeta {
        parent: Some(first.id),
        time: time(60),
        ..meta()
    };
    let second = store_with(&vault, zoo.path(), meta, Default::default())
        .await
        .unwrap();
    assert!(
        second.unmodified > 5 && second.unmodified < second.files,
        "{second:?}"
    );
    assert_eq!(second.bytes, first.bytes + 3 + 1);
    assert!(second.new_data < 20_000, "{second:?}");
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("new");
    let options = RestoreOptions {
        subpath: subpath(zoo.path()),
        ..Default::default()
    };
    vault
        .restore_tree(&second.id, found_at(&target), options, Control::default())
        .await
        .unwrap();
    assert_same(
        &without_sockets(&describe(zoo.path())),
        &without_sockets(&describe(&target)),
    );
    if have_restic() {
        restic(&disk.path(), &["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_have_changed_unseen_is_read_again() {
    let (_, vault) = memory().await;
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("a"), b"text").unwrap();
    // The parent snapshot claims to be older than the file's time stamps.
    let old = SnapshotMeta {
        time: chrono::DateTime::from_timestamp(1_000_000_000, 0).unwrap(),
        ..meta()
    };
    let first = store_with(&vault, data.path(), old, Default::default())
        .await
        .unwrap();
    let meta = SnapshotMeta {
        parent: Some(first.id),
        ..meta()
    };
    let second = store_with(&vault, data.path(), meta, Default::default())
        .await
        .unwrap();
    assert_eq!(second.unmodified, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_repository_needs_nothing_else() {
    if !have_restic() {
        return;
    }
    let disk = Disk::new();
    disk.vault().await;
    let check = restic(&disk.path(), &["check"]);
    assert!(check.contains("no errors were found"), "{check}");
    let again = Vault::open(disk.section(), &secret(), VaultOptions::default())
        .await
        .unwrap();
    assert!(again.snapshots().await.unwrap().is_empty());
}
