//! What was found damaged is stored anew when it comes along again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use karbor_banks::file_system::FileSystemBank;
use karbor_testkit::{Fault, FaultyBank, Verb};
use karbor_vault::{
    Control, RestoreOptions, SnapshotId, SnapshotMeta, SnapshotSummary, TreeOptions, Vault,
    VaultError, VaultOptions, VerifyLevel,
};

use crate::support::*;

async fn verify(vault: &Vault, id: &SnapshotId) -> Result<(), VaultError> {
    let level = VerifyLevel::Data { percent: 100 };
    let verified = vault.verify(id, level, Control::default()).await;
    verified.map(|_| ())
}

/// As after a start of the service.
async fn opened(disk: &Disk) -> Vault {
    Vault::open(disk.section(), &secret(), VaultOptions::default())
        .await
        .unwrap()
}

async fn store_after(vault: &Vault, dir: &Path, parent: SnapshotId) -> SnapshotSummary {
    let meta = SnapshotMeta {
        parent: Some(parent),
        time: time(60),
        ..meta()
    };
    store_with(vault, dir, meta, TreeOptions::default())
        .await
        .unwrap()
}

/// Three files in one pack.
fn three_files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
        fs::write(dir.path().join(name), noise(seed, 300_000)).unwrap();
    }
    dir
}

/// The pack of data, or that of trees.
fn pack(disk: &Disk, of_data: bool) -> PathBuf {
    let mut packs = Vec::new();
    for folder in fs::read_dir(disk.path().join("data")).unwrap() {
        for pack in fs::read_dir(folder.unwrap().path()).unwrap() {
            packs.push(pack.unwrap().path());
        }
    }
    packs.sort_by_key(|pack| fs::metadata(pack).unwrap().len());
    assert_eq!(packs.len(), 2);
    packs.swap_remove(usize::from(of_data))
}

/// Flips a bit of the first blob in a pack.
fn flip_in(pack: &Path) -> String {
    let mut data = fs::read(pack).unwrap();
    data[40] ^= 1;
    fs::write(pack, data).unwrap();
    pack.file_name().unwrap().to_str().unwrap().to_owned()
}

fn flip(disk: &Disk, of_data: bool) -> String {
    flip_in(&pack(disk, of_data))
}

fn check_by_restic(disk: &Disk) {
    if have_restic() {
        let check = restic(&disk.path(), &["check", "--read-data"]);
        assert!(check.contains("no errors were found"), "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_verification_found_damaged_is_stored_anew() {
    let disk = Disk::new();
    let service = disk.vault().await;
    let dir = three_files();
    let old = store(&service, dir.path()).await.unwrap().id;
    let pack = flip(&disk, true);
    let error = verify(&opened(&disk).await, &old).await.unwrap_err();
    let VaultError::Damaged { file, others, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains(&pack), "{error}");
    assert_eq!(*others, 0, "only one blob is damaged: {error}");
    let damaged = file.clone().unwrap();
    // What is whole in the damaged pack outlives its source.
    let whole = ["a", "b", "c"]
        .iter()
        .find(|name| !damaged.ends_with(*name));
    fs::remove_file(dir.path().join(whole.unwrap())).unwrap();
    // Found by another process, heeded by the service and after a start of it.
    let error = verify(&opened(&disk).await, &old).await.unwrap_err();
    assert!(error.to_string().contains(&damaged), "{error}");
    let new = store_after(&service, dir.path(), old).await;
    assert_eq!(new.unmodified, 1, "{new:?}");
    for id in [&new.id, &old] {
        verify(&service, id).await.unwrap();
        verify(&opened(&disk).await, id).await.unwrap();
    }
    check_by_restic(&disk);
    // The damaged pack stays, for a person who wants to look into it.
    assert!(
        disk.path()
            .join("data")
            .join(&pack[..2])
            .join(&pack)
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_found_damaged_is_stored_anew() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let dir = three_files();
    let old = store(&vault, dir.path()).await.unwrap().id;
    flip(&disk, true);
    let target = tempfile::tempdir().unwrap();
    vault
        .restore_tree(
            &old,
            found_at(target.path()),
            RestoreOptions::default(),
            Control::default(),
        )
        .await
        .unwrap_err();
    let new = store_after(&vault, dir.path(), old).await;
    assert_eq!(new.unmodified, 2, "{new:?}");
    for id in [&new.id, &old] {
        verify(&opened(&disk).await, id).await.unwrap();
    }
    check_by_restic(&disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_its_own_successor_found_damaged_is_stored_anew() {
    let disk = Disk::new();
    let dir = three_files();
    let old = store(&disk.vault().await, dir.path()).await.unwrap().id;
    flip(&disk, false);
    let vault = opened(&disk).await;
    let new = store_after(&vault, dir.path(), old).await;
    for id in [&new.id, &old] {
        verify(&opened(&disk).await, id).await.unwrap();
    }
    verify(&vault, &new.id).await.unwrap();
}

/// Bits that flip on the way from the bank are no damage in the bank.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_whole_after_all_stays_in_the_index() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let dir = three_files();
    let old = store(&vault, dir.path()).await.unwrap().id;
    let pack = flip(&disk, true);
    let target = tempfile::tempdir().unwrap();
    vault
        .restore_tree(
            &old,
            found_at(target.path()),
            RestoreOptions::default(),
            Control::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(flip(&disk, true), pack);
    let new = store_after(&vault, dir.path(), old).await;
    assert_eq!(new.unmodified, 3, "{new:?}");
    verify(&vault, &old).await.unwrap();
}

/// One of two who mend knows of two damaged packs, the other of one of them. The other comes in between
/// when the first has listed the index files: to see what is in the packs, and to take them out.
#[tokio::test(flavor = "multi_thread")]
async fn two_who_mend_at_once_lose_nothing_that_is_whole() {
    for moment in [2, 3] {
        let disk = Disk::new();
        let dir = three_files();
        // Its tree is the first in the pack.
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/empty"), "").unwrap();
        let old = store(&disk.vault().await, dir.path()).await.unwrap().id;
        let [data, trees] = [true, false].map(|of_data| pack(&disk, of_data));
        flip_in(&data);
        let damaged = unreadable(&opened(&disk).await, &old).await;
        let trees = flip_in(&trees);

        let bank = FileSystemBank::open(disk.dir.path()).unwrap();
        let bank = Arc::new(FaultyBank::new(bank));
        let (reads, other) = (AtomicUsize::new(0), opened(&disk).await);
        bank.inject(Fault::Fail, 1, move |call| {
            let is_read = call.verb == Verb::Get && call.key.contains("/index/");
            if is_read && reads.fetch_add(1, Ordering::SeqCst) + 1 == moment {
                flip_in(&data);
                let error = tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(verify(&other, &old))
                });
                assert!(error.unwrap_err().to_string().contains(&trees));
                flip_in(&data);
            }
            false
        });
        let one = vault(section(bank.clone())).await;
        let error = verify(&one, &old).await.unwrap_err();
        let VaultError::Damaged { others: 1, .. } = &error else {
            panic!("a blob of each pack is damaged: {error:?}");
        };
        assert!(bank.count(Verb::Get) > moment, "nobody came in between");
        // What is whole outlives its source.
        for name in ["a", "b", "c"]
            .iter()
            .filter(|name| !damaged.ends_with(**name))
        {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let new = store_after(&one, dir.path(), old).await;
        for id in [&new.id, &old] {
            verify(&opened(&disk).await, id).await.unwrap();
        }
        check_by_restic(&disk);
    }
}

/// The file that a restore cannot read.
async fn unreadable(vault: &Vault, id: &SnapshotId) -> String {
    let target = tempfile::tempdir().unwrap();
    let restored = vault
        .restore_tree(
            id,
            found_at(target.path()),
            RestoreOptions::default(),
            Control::default(),
        )
        .await;
    match restored.unwrap_err() {
        VaultError::Damaged {
            file: Some(file), ..
        } => file,
        error => panic!("{error:?}"),
    }
}
