//! Snapshots that are copied from one repository to another.

use std::{fs, path::Path};

use bytes::Bytes;
use karbor_plugin::{Bank, BankKey, Secret};
use karbor_testkit::{Fault, Verb};
use karbor_vault::{
    Control, RestoreOptions, Snapshot, SnapshotId, SnapshotMeta, SnapshotSummary, Vault,
    VaultError, VaultOptions, VerifyLevel,
};

use crate::support::*;

const ALL: VerifyLevel = VerifyLevel::Data { percent: 100 };

async fn copy(from: &Vault, id: &SnapshotId, to: &Vault) -> Result<SnapshotSummary, VaultError> {
    let source = from.snapshot(id).await?;
    let meta = SnapshotMeta {
        hostname: source.hostname,
        username: source.username,
        time: source.time,
        tags: vec!["karbor:checkpoint=2".to_owned()],
        parent: None,
    };
    let mut writer = to.writer(meta, Control::default()).await?;
    writer.add_snapshot(from, id).await?;
    writer.commit().await
}

async fn like(disk: &Disk, source: &Vault) -> Vault {
    Vault::open_or_init_like(disk.section(), &secret(), VaultOptions::default(), source)
        .await
        .unwrap()
}

async fn restore(vault: &Vault, id: &SnapshotId, path: &Path) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        subpath: subpath(path),
        ..Default::default()
    };
    vault
        .restore_tree(
            id,
            found_at(&target.path().join("new")),
            options,
            Control::default(),
        )
        .await
        .unwrap();
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_whole_when_the_first_repository_is_gone() {
    let (first, second) = (Disk::new(), Disk::new());
    let zoo = tempfile::tempdir().unwrap();
    make_zoo(zoo.path());
    let source = first.vault().await;
    let mut writer = source.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_tree(&open(zoo.path()).unwrap(), Default::default())
        .await
        .unwrap();
    let dump = noise(7, 5_000_000);
    writer.add_stream("dump", &dump[..]).await.unwrap();
    let made = writer.commit().await.unwrap();
    let password = Secret::new("another password".to_owned());
    let open = || async {
        let options = VaultOptions::default();
        Vault::open_or_init(second.section(), &password, options).await
    };
    let copied = copy(&source, &made.id, &open().await.unwrap())
        .await
        .unwrap();
    assert_eq!((copied.files, copied.bytes), (made.files, made.bytes));
    let original = source.snapshot(&made.id).await.unwrap();
    drop((source, first));

    let target = open().await.unwrap();
    let snapshot: Snapshot = target.snapshot(&copied.id).await.unwrap();
    assert_eq!(snapshot.paths, original.paths);
    assert_eq!(
        (snapshot.time, snapshot.hostname),
        (original.time, original.hostname)
    );
    assert_eq!(snapshot.tags, ["karbor:checkpoint=2"]);
    target
        .verify(&copied.id, ALL, Control::default())
        .await
        .unwrap();
    let back = restore(&target, &copied.id, zoo.path()).await;
    assert_same(
        &without_sockets(&describe(zoo.path())),
        &without_sockets(&describe(&back.path().join("new"))),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_checks_what_was_copied() {
    if !have_restic() {
        return;
    }
    let (first, second) = (Disk::new(), Disk::new());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), noise(1, 3_000_000)).unwrap();
    let source = first.vault().await;
    let made = store(&source, dir.path()).await.unwrap();
    let copied = copy(&source, &made.id, &like(&second, &source).await)
        .await
        .unwrap();
    let check = restic(&second.path(), &["check", "--read-data"]);
    assert!(check.contains("no errors were found"), "{check}");
    let snapshots = restic(&second.path(), &["snapshots", "--json"]);
    assert!(snapshots.contains(&copied.id.to_string()), "{snapshots}");
    let original = format!("\"original\":\"{}\"", made.id);
    let shown = restic(&second.path(), &["cat", "snapshot", &copied.id.to_string()]);
    assert!(shown.replace(' ', "").contains(&original), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_is_read_and_stored() {
    let (bank, source) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), noise(1, 8_000_000)).unwrap();
    let one = store(&source, dir.path()).await.unwrap();
    let second = Disk::new();
    let target = like(&second, &source).await;
    let first = copy(&source, &one.id, &target).await.unwrap();
    assert!(first.new_data >= 8_000_000, "{first:?}");
    fs::write(dir.path().join("small"), noise(2, 100_000)).unwrap();
    let two = store(&source, dir.path()).await.unwrap();
    bank.forget_calls();
    let again = copy(&source, &two.id, &target).await.unwrap();
    assert!(again.new_data < 200_000, "{again:?}");
    // What is there already is not read: trees and the new file are.
    assert!(
        bank.count(Verb::GetRange) < 10,
        "{}",
        bank.count(Verb::GetRange)
    );
    assert_eq!(copy(&source, &two.id, &target).await.unwrap().new_data, 0);
    // A repository made like the first cuts content as it does.
    let stored = store(&target, dir.path()).await.unwrap();
    assert!(stored.new_data < 100_000, "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_one_repository_stores_nothing_but_itself() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), noise(1, 2_000_000)).unwrap();
    let made = store(&vault, dir.path()).await.unwrap();
    let copied = copy(&vault, &made.id, &vault).await.unwrap();
    assert_eq!(copied.new_data, 0);
    assert_ne!(copied.id, made.id);
    vault.forget(&made.id).await.unwrap();
    let back = restore(&vault, &copied.id, dir.path()).await;
    assert!(fs::read(back.path().join("new/file")).unwrap() == noise(1, 2_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_source_is_named_and_no_copy_is_made() {
    let (bank, source) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), noise(1, 20_000_000)).unwrap();
    let made = store(&source, dir.path()).await.unwrap();
    let packs: Vec<_> = bank.inner().keys().into_iter().collect();
    for key in packs.iter().filter(|key| key.contains("/data/")) {
        let key = BankKey::parse(key).unwrap();
        let mut data = bank.inner().get(&key).await.unwrap().to_vec();
        if data.len() < 1_000_000 {
            continue;
        }
        let at = data.len() / 2;
        data[at] ^= 1;
        bank.inner().tamper(&key, Bytes::from(data.clone()));
        let target = Disk::new();
        let target = like(&target, &source).await;
        let error = copy(&source, &made.id, &target).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(key.name()) && text.contains("precious"),
            "{text}"
        );
        assert!(target.snapshots().await.unwrap().is_empty());
        data[at] ^= 1;
        bank.inner().tamper(&key, Bytes::from(data));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_failed_anywhere_is_made_whole_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let data = noise(3, 20_000_000);
    fs::write(dir.path().join("file"), &data).unwrap();
    let (_, source) = memory().await;
    let made = store(&source, dir.path()).await.unwrap();
    // Each write of a copy in turn: packs, index, snapshot.
    let mut nth = 1;
    loop {
        let (bank, target) = memory().await;
        bank.fail_write(nth, Fault::FailForGood);
        let died = copy(&source, &made.id, &target).await;
        bank.heal();
        let failed = died.is_err();
        if failed {
            assert!(target.snapshots().await.unwrap().is_empty(), "write {nth}");
        }
        let copied = copy(&source, &made.id, &target).await.unwrap();
        target
            .verify(&copied.id, ALL, Control::default())
            .await
            .unwrap();
        if !failed {
            break;
        }
        nth += 1;
    }
    assert!(nth > 4, "only {nth} writes");
}
