//! What happens rarely: deaths and cancels at a bad moment, lost packs, two at once.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::Arc,
};

use karbor_plugin::{Bank, BankKey};
use karbor_testkit::{Fault, MemoryBank, Verb};
use karbor_vault::{
    Control, Overwrite, RestoreOptions, SnapshotMeta, TreeOptions, Vault, VaultOptions, VerifyLevel,
};
use tokio_util::sync::CancellationToken;

use crate::support::*;

const ALL: VerifyLevel = VerifyLevel::Data { percent: 100 };

fn keys(bank: &Memory, folder: &str) -> Vec<BankKey> {
    let folder = format!("vaults/p/q/{folder}/");
    let keys = bank.inner().keys().into_iter();
    keys.filter(|key| key.starts_with(&folder))
        .map(|key| BankKey::parse(&key).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cancelled_while_it_writes_the_index_loses_nobody_s_blobs() {
    let (bank, vault) = memory().await;
    let mut other = vault.writer(meta(), Control::default()).await.unwrap();
    let cancel = CancellationToken::new();
    let control = Control {
        cancel: cancel.clone(),
        ..Default::default()
    };
    let data = noise(1, 300_000);
    let mut writer = vault.writer(meta(), control).await.unwrap();
    writer.add_stream("x", &data[..]).await.unwrap();
    other.add_stream("x", &data[..]).await.unwrap();
    // The first attempt fails; it is cancelled in the pause before the next.
    bank.inject(Fault::Fail, 2, |call| {
        call.verb == Verb::Put && call.key.contains("/index/")
    });
    let is_begun = || {
        let calls = bank.calls();
        calls
            .iter()
            .any(|call| call.verb == Verb::Put && call.key.contains("/index/"))
    };
    let at_index = async {
        while !is_begun() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (committed, ()) = tokio::join!(writer.commit(), at_index);
    assert!(committed.is_err());
    let id = other.commit().await.unwrap().id;
    let fresh = vault_of(&bank).await;
    fresh.verify(&id, ALL, Control::default()).await.unwrap();
}

async fn vault_of(bank: &std::sync::Arc<Memory>) -> Vault {
    Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_left_behind_is_passed_over() {
    let (one, _) = memory().await;
    let (other, _) = memory().await;
    let key = |bank: &Memory| keys(bank, "keys").remove(0);
    let (key_one, key_other) = (key(&one), key(&other));
    let data_one = one.inner().get(&key_one).await.unwrap();
    let data_other = other.inner().get(&key_other).await.unwrap();
    one.inner().tamper(&key_other, data_other);
    other.inner().tamper(&key_one, data_one);
    // In one of them the wrong key is listed first.
    vault_of(&one).await;
    vault_of(&other).await;
}

/// NFS asks again by itself when an answer is lost: what is found then is no reason to remove the only key.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_of_one_s_own_that_is_there_already_keeps_its_key() {
    let bank = Arc::new(Memory::new(MemoryBank::new()));
    bank.inject(Fault::FoundAgain, 1, |call| call.verb == Verb::PutNew);
    vault(section(bank.clone())).await;
    assert_eq!(keys(&bank, "keys").len(), 1);
    vault_of(&bank).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_does_not_hide_the_others() {
    let (bank, vault) = memory().await;
    store_stream(&vault, "x", b"one").await;
    let damaged = keys(&bank, "snapshots").remove(0);
    let good = store_stream(&vault, "x", b"two").await;
    bank.inner()
        .tamper(&damaged, bytes::Bytes::from_static(b"x"));
    let found = vault.find(&meta().tags).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, good);
    assert!(vault.snapshots().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_lost_packs_are_stored_again() {
    let (bank, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), noise(1, 400_000)).unwrap();
    let first = store(&vault, dir.path()).await.unwrap().id;
    for pack in keys(&bank, "data") {
        bank.inner().delete(&pack).await.unwrap();
    }
    let meta = SnapshotMeta {
        parent: Some(first),
        time: time(5),
        ..meta()
    };
    let second = store_with(&vault, dir.path(), meta, TreeOptions::default())
        .await
        .unwrap();
    assert!(second.new_data > 300_000, "{second:?}");
    // A process that reads both index files, in whatever order, finds the new places.
    for vault in [vault, vault_of(&bank).await] {
        let target = tempfile::tempdir().unwrap();
        let options = RestoreOptions {
            subpath: subpath(dir.path()),
            ..Default::default()
        };
        vault
            .restore_tree(
                &second.id,
                found_at(target.path()),
                options,
                Control::default(),
            )
            .await
            .unwrap();
        vault
            .verify(&second.id, ALL, Control::default())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_one_blob_is_that_blob() {
    let (_, vault) = memory().await;
    let id = store_stream(&vault, "x", b"text").await;
    let level = VerifyLevel::Data { percent: 1 };
    for _ in 0..5 {
        let summary = vault.verify(&id, level, Control::default()).await.unwrap();
        assert_eq!(summary.blobs_read, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_restores_into_one_place_do_not_harm_each_other() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    for n in 0..40_u64 {
        fs::write(source.path().join(format!("f{n}")), noise(n, 200_000)).unwrap();
    }
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    // One that a dead restore left, one that only looks like it.
    let stale = ".karbor-restore-0123456789abcdef-1f";
    fs::write(target.path().join(stale), "half").unwrap();
    fs::write(target.path().join(".karbor-restore-notes"), "kept").unwrap();
    let restore = || {
        let options = RestoreOptions {
            subpath: subpath(source.path()),
            overwrite: Overwrite::Always,
            ..Default::default()
        };
        vault.restore_tree(&id, found_at(target.path()), options, Control::default())
    };
    let (one, other) = tokio::join!(restore(), restore());
    one.unwrap();
    other.unwrap();
    fs::remove_file(target.path().join(".karbor-restore-notes")).unwrap();
    assert_eq!(names(target.path()), names(source.path()));
    for n in 0..40_u64 {
        assert!(fs::read(target.path().join(format!("f{n}"))).unwrap() == noise(n, 200_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_between_its_names_comes_back_as_two() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let (a, b) = (source.path().join("a"), source.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(a.join("f"), "before").unwrap();
    fs::hard_link(a.join("f"), b.join("f")).unwrap();
    fs::write(a.join("g"), "same").unwrap();
    fs::hard_link(a.join("g"), b.join("g")).unwrap();
    let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
    writer
        .add_tree(&open(&a).unwrap(), TreeOptions::default())
        .await
        .unwrap();
    fs::write(a.join("f"), "after").unwrap();
    writer
        .add_tree(&open(&b).unwrap(), TreeOptions::default())
        .await
        .unwrap();
    let id = writer.commit().await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        subpath: subpath(source.path()),
        ..Default::default()
    };
    vault
        .restore_tree(&id, found_at(target.path()), options, Control::default())
        .await
        .unwrap();
    let at = |name: &str| target.path().join(name);
    assert_eq!(fs::read_to_string(at("a/f")).unwrap(), "before");
    assert_eq!(fs::read_to_string(at("b/f")).unwrap(), "after");
    let inode = |name: &str| fs::metadata(at(name)).unwrap().ino();
    assert_eq!(inode("a/g"), inode("b/g"));
}

/// Where the owner can be set, these bits come back.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_s_special_bits_come_back_with_the_owner() {
    let (_, vault) = memory().await;
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("tool");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let id = store(&vault, source.path()).await.unwrap().id;
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        subpath: subpath(source.path()),
        ..Default::default()
    };
    vault
        .restore_tree(&id, found_at(target.path()), options, Control::default())
        .await
        .unwrap();
    let mode = fs::metadata(target.path().join("tool")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o4755);
}

/// How often packs were looked for one by one, and how often all were listed, since the last time.
fn looked_for(bank: &Memory) -> (usize, usize) {
    let calls = bank.calls();
    bank.forget_calls();
    let of_packs = |verb: Verb| {
        let calls = calls.iter().filter(|call| call.verb == verb);
        calls.filter(|call| call.key.contains("/data")).count()
    };
    (of_packs(Verb::Stat), of_packs(Verb::List))
}

/// What a writer relies on is looked for in the bank, and nothing else of a long history.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_looks_for_the_packs_that_it_relies_on() {
    let (bank, vault) = memory().await;
    for nth in 0..20_u8 {
        store_stream(&vault, "x", &[nth; 5]).await;
    }
    looked_for(&bank);
    store_stream(&vault, "x", b"new").await;
    assert_eq!(looked_for(&bank), (0, 0));
    // Its data and its tree.
    store_stream(&vault, "x", &[7; 5]).await;
    assert_eq!(looked_for(&bank), (2, 0));
    // As soon as nobody writes any more, somebody may have removed one.
    store_stream(&vault, "x", &[7; 5]).await;
    assert_eq!(looked_for(&bank), (2, 0));
}

/// Each of very many would take longer than a listing.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_relies_on_many_packs_lists_them() {
    let bank = std::sync::Arc::new(Memory::new(karbor_testkit::MemoryBank::new()));
    let mut options = VaultOptions::default();
    // A pack for each blob.
    options.pack_size = 1;
    let vault = Vault::open_or_init(section(bank.clone()), &secret(), options)
        .await
        .unwrap();
    let store = async || {
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        for nth in 0..400_u32 {
            let name = format!("x{nth}");
            writer
                .add_stream(&name, &nth.to_le_bytes()[..])
                .await
                .unwrap();
        }
        writer.commit().await.unwrap().id
    };
    store().await;
    looked_for(&bank);
    let again = store().await;
    let (one_by_one, listings) = looked_for(&bank);
    assert!(
        one_by_one <= 256 + 8 && (1..=8).contains(&listings),
        "{one_by_one}, {listings}"
    );
    vault.verify(&again, ALL, Control::default()).await.unwrap();
}
