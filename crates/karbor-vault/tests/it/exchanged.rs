//! A repository that is moved away, or exchanged for another, while a snapshot is written to it.

use std::fs;

use karbor_vault::{Control, Vault, VaultError, VaultOptions};

use crate::support::*;

/// Another repository, with the same password, takes the place of the first.
async fn exchange(disk: &Disk) {
    fs::rename(disk.path(), disk.dir.path().join("aside")).unwrap();
    disk.vault().await;
}

fn snapshots(disk: &Disk) -> usize {
    fs::read_dir(disk.path().join("snapshots")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_repository_was_exchanged_meanwhile_is_not_committed() {
    let disk = Disk::new();
    let first = disk.vault().await;
    store_stream(&first, "before", b"before").await;
    let mut writer = first.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_stream("half", &noise(1, 3 << 20)[..])
        .await
        .unwrap();
    exchange(&disk).await;
    writer
        .add_stream("rest", &noise(2, 3 << 20)[..])
        .await
        .unwrap();
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, VaultError::Exchanged(_)), "{error}");
    assert!(error.to_string().contains("'vaults/p/q'"), "{error}");
    // Nothing of it is in the other, which works.
    assert_eq!(snapshots(&disk), 0);
    let second = Vault::open(disk.section(), &secret(), VaultOptions::default())
        .await
        .unwrap();
    store_stream(&second, "after", b"after").await;
    assert_eq!(second.snapshots().await.unwrap().len(), 1);
    if have_restic() {
        let check = restic(&disk.path(), &["check", "--read-data"]);
        assert!(check.contains("no errors were found"), "{check}");
    }
}

/// Nor is a new folder made for what belongs into the one that was moved: it would be in its way.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_repository_was_moved_away_from_nothing_is_written() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_stream("half", &noise(1, 3 << 20)[..])
        .await
        .unwrap();
    let aside = disk.dir.path().join("aside");
    fs::rename(disk.path(), &aside).unwrap();
    let error = writer.commit().await.unwrap_err();
    assert!(matches!(error, VaultError::Exchanged(_)), "{error}");
    assert!(!disk.path().exists());
    fs::rename(&aside, disk.path()).unwrap();
    store_stream(&vault, "after", b"after").await;
    assert_eq!(vault.snapshots().await.unwrap().len(), 1);
}
