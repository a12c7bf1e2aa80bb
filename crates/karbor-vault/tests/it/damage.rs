//! Repositories that are damaged, banks that fail.

use std::{fs, path::Path};

use bytes::Bytes;
use karbor_plugin::{Bank, BankKey, Secret};
use karbor_testkit::{Fault, Verb};
use karbor_vault::{
    Control, RestoreOptions, SnapshotId, TreeOptions, Vault, VaultError, VaultOptions, VerifyLevel,
};
use tokio::io::AsyncReadExt;

use crate::support::*;

const ALL: VerifyLevel = VerifyLevel::Data { percent: 100 };

async fn verify(vault: &Vault, id: &SnapshotId, level: VerifyLevel) -> Result<(), VaultError> {
    vault
        .verify(id, level, Control::default())
        .await
        .map(|_| ())
}

fn keys(bank: &Memory, folder: &str) -> Vec<BankKey> {
    let folder = format!("vaults/p/q/{folder}/");
    let keys = bank
        .inner()
        .keys()
        .into_iter()
        .filter(|key| key.starts_with(&folder));
    keys.map(|key| BankKey::parse(&key).unwrap()).collect()
}

async fn flip(bank: &Memory, key: &BankKey, at: usize) {
    let mut data = bank.inner().get(key).await.unwrap().to_vec();
    data[at] ^= 0x10;
    bank.inner().tamper(key, Bytes::from(data));
}

fn damage(error: &VaultError) -> (String, Option<String>, u64) {
    match error {
        VaultError::Damaged {
            object,
            file,
            others,
            ..
        } => (object.clone(), file.clone(), *others),
        other => panic!("{other:?}"),
    }
}

async fn contents(bank: &Memory) -> Vec<(BankKey, Bytes)> {
    let mut contents = Vec::new();
    for key in bank.inner().keys() {
        let key = BankKey::parse(&key).unwrap();
        contents.push((key.clone(), bank.inner().get(&key).await.unwrap()));
    }
    contents
}

/// The bank as it was.
async fn put_back(bank: &Memory, contents: &[(BankKey, Bytes)]) {
    for key in bank.inner().keys() {
        let key = BankKey::parse(&key).unwrap();
        bank.inner().delete(&key).await.unwrap();
    }
    for (key, data) in contents {
        bank.inner().tamper(key, data.clone());
    }
}

/// Two files, each in a pack of its own.
async fn two_packs(vault: &Vault) -> (tempfile::TempDir, SnapshotId) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("first"), noise(1, 20_000_000)).unwrap();
    fs::write(dir.path().join("second"), noise(2, 3_000_000)).unwrap();
    let id = store(vault, dir.path()).await.unwrap().id;
    (dir, id)
}

/// The pack that holds trees.
async fn is_tree_pack(bank: &Memory, key: &BankKey) -> bool {
    bank.inner().get(key).await.unwrap().len() < 100_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_pack_is_found_and_named() {
    let (bank, vault) = memory().await;
    let (dir, id) = two_packs(&vault).await;
    verify(&vault, &id, ALL).await.unwrap();
    let packs = keys(&bank, "data");
    assert_eq!(packs.len(), 3);
    let whole = contents(&bank).await;
    for pack in packs {
        let size = bank.inner().get(&pack).await.unwrap().len();
        for at in [20, size / 2, size - 10] {
            flip(&bank, &pack, at).await;
            let fresh = Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
                .await
                .unwrap();
            let target = tempfile::tempdir().unwrap();
            let options = RestoreOptions {
                subpath: subpath(dir.path()),
                ..Default::default()
            };
            let restored = fresh
                .restore_tree(&id, found_at(target.path()), options, Control::default())
                .await;
            // The header (at the end) is not needed to restore.
            if at < size / 2 + 1 {
                let (object, file, _) = damage(&restored.unwrap_err());
                assert!(object.contains(pack.name()));
                assert!(file.is_some());
            }
            for name in names(target.path()) {
                let name = name.into_string().unwrap();
                assert!(
                    fs::read(target.path().join(&name)).unwrap()
                        == fs::read(dir.path().join(&name)).unwrap()
                );
            }
            let error = verify(&fresh, &id, ALL).await.unwrap_err();
            let (object, file, _) = damage(&error);
            assert!(object.contains(pack.name()), "{error}");
            assert!(file.is_some(), "{error}");
            put_back(&bank, &whole).await;
        }
    }
    verify(&vault, &id, ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_short_packs_are_found_without_reading_data() {
    let (bank, vault) = memory().await;
    let (dir, id) = two_packs(&vault).await;
    verify(&vault, &id, VerifyLevel::Metadata).await.unwrap();
    for pack in keys(&bank, "data") {
        let data = bank.inner().get(&pack).await.unwrap();
        bank.inner().tamper(&pack, data.slice(..data.len() - 40));
        let error = verify(&vault, &id, VerifyLevel::Metadata)
            .await
            .unwrap_err();
        assert!(damage(&error).0.contains(pack.name()), "{error}");
        bank.inner().delete(&pack).await.unwrap();
        let error = verify(&vault, &id, VerifyLevel::Metadata)
            .await
            .unwrap_err();
        let (object, file, _) = damage(&error);
        assert!(object.contains(pack.name()), "{error}");
        assert!(file.unwrap().starts_with('/'));
        assert!(
            error.to_string().contains("missing from the bank"),
            "{error}"
        );
        bank.inner().tamper(&pack, data);
    }
    // Every damaged object is counted.
    for pack in keys(&bank, "data") {
        if !is_tree_pack(&bank, &pack).await {
            bank.inner().delete(&pack).await.unwrap();
        }
    }
    let error = verify(&vault, &id, VerifyLevel::Metadata)
        .await
        .unwrap_err();
    assert_eq!(damage(&error).2, 1, "{error}");
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        subpath: subpath(dir.path()),
        ..Default::default()
    };
    let error = vault
        .restore_tree(&id, found_at(target.path()), options, Control::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("missing from the bank"),
        "{error}"
    );
    assert!(names(target.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_damaged_index_files_and_snapshots_are_named() {
    let (bank, vault) = memory().await;
    let (_dir, id) = two_packs(&vault).await;
    for folder in ["index", "snapshots"] {
        let [key] = &keys(&bank, folder)[..] else {
            panic!("one {folder} file was expected");
        };
        flip(&bank, key, 30).await;
        let fresh = Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
            .await
            .unwrap();
        let error = verify(&fresh, &id, VerifyLevel::Metadata)
            .await
            .unwrap_err();
        assert!(damage(&error).0.contains(key.name()), "{error}");
        flip(&bank, key, 30).await;
    }
    let index = keys(&bank, "index").remove(0);
    let data = bank.inner().get(&index).await.unwrap();
    bank.inner().delete(&index).await.unwrap();
    let error = verify(&vault, &id, VerifyLevel::Metadata)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("no index file knows it"),
        "{error}"
    );
    bank.inner().tamper(&index, data);
    verify(&vault, &id, ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_stream_ends_in_an_error() {
    let (bank, vault) = memory().await;
    let data = noise(1, 5_000_000);
    let id = store_stream(&vault, "dump", &data).await;
    for pack in keys(&bank, "data") {
        if !is_tree_pack(&bank, &pack).await {
            flip(&bank, &pack, 4_000_000).await;
        }
    }
    let stream = vault
        .read_stream(&id, "dump", Control::default())
        .await
        .unwrap();
    let mut found = Vec::new();
    let error = stream
        .into_async_read()
        .read_to_end(&mut found)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("'dump' needs it"), "{error}");
    assert!(data.starts_with(&found) && found.len() < data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_the_data_is_a_sample() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    for n in 0..400_u64 {
        fs::write(dir.path().join(format!("{n}")), noise(n, 300)).unwrap();
    }
    let id = store(&vault, dir.path()).await.unwrap().id;
    let level = VerifyLevel::Data { percent: 10 };
    let summary = vault.verify(&id, level, Control::default()).await.unwrap();
    assert_eq!((summary.files, summary.blobs), (400, 400));
    assert!((5..120).contains(&summary.blobs_read), "{summary:?}");
    for percent in [0, 101] {
        let error = verify(&vault, &id, VerifyLevel::Data { percent }).await;
        assert!(matches!(error, Err(VaultError::Invalid(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_repository_of_ours_is_told_apart() {
    let (bank, vault) = memory().await;
    drop(vault);
    let options = VaultOptions::default();
    let wrong = Secret::new("wrong".to_owned());
    for error in [
        Vault::open(section(bank.clone()), &wrong, options).await,
        Vault::open_or_init(section(bank.clone()), &wrong, options).await,
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, VaultError::WrongPassword(_)), "{error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let elsewhere = section(bank.clone()).sub_section("elsewhere").unwrap();
    let error = Vault::open(elsewhere, &secret(), options)
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::NotARepository(_)), "{error:?}");
    let key = keys(&bank, "keys").remove(0);
    bank.inner()
        .tamper(&key, Bytes::from_static(b"{\"kdf\":1}"));
    let error = Vault::open(section(bank.clone()), &secret(), options)
        .await
        .unwrap_err();
    assert!(damage(&error).0.contains(key.name()), "{error}");
    let config = BankKey::parse("vaults/p/q/config").unwrap();
    let (bank, _) = memory().await;
    flip(&bank, &config, 40).await;
    let error = Vault::open(section(bank.clone()), &secret(), options)
        .await
        .unwrap_err();
    assert!(damage(&error).0.contains("config"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_make_one_repository_at_once_both_get_it() {
    let bank = std::sync::Arc::new(karbor_testkit::FaultyBank::new(
        karbor_testkit::MemoryBank::new(),
    ));
    let opened = futures::future::join_all((0..4).map(|_| vault(section(bank.clone())))).await;
    for (n, vault) in opened.iter().enumerate() {
        store_stream(vault, "x", &noise(n as u64, 1000)).await;
    }
    assert_eq!(opened[0].snapshots().await.unwrap().len(), 4);
    assert_eq!(keys(&bank, "keys").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_bank_makes_no_snapshot_and_the_next_run_works() {
    for folder in ["data", "index", "snapshots", "locks"] {
        let (bank, vault) = memory().await;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), noise(1, 40_000_000)).unwrap();
        bank.inject(Fault::Full, usize::MAX, move |call| {
            matches!(call.verb, Verb::Put | Verb::PutNew) && call.key.contains(folder)
        });
        let error = store(&vault, dir.path()).await.unwrap_err();
        assert!(
            error.to_string().contains("bank is full"),
            "{folder}: {error:?}"
        );
        assert!(keys(&bank, "snapshots").is_empty());
        bank.heal();
        let stored = store(&vault, dir.path()).await.unwrap();
        verify(&vault, &stored.id, ALL).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_write_fails_there_is_a_whole_snapshot_or_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), noise(1, 20_000_000)).unwrap();
    fs::write(dir.path().join("b"), noise(2, 100)).unwrap();
    for fault in [Fault::FailForGood, Fault::AnswerLost] {
        for nth in 1.. {
            let (bank, vault) = memory().await;
            let writes_before = bank
                .calls()
                .iter()
                .filter(|call| call.verb.writes())
                .count();
            bank.fail_write(nth, fault);
            let stored = store(&vault, dir.path()).await;
            let writes = bank
                .calls()
                .iter()
                .filter(|call| call.verb.writes())
                .count();
            bank.heal();
            for snapshot in vault.snapshots().await.unwrap() {
                verify(&vault, &snapshot.id, ALL).await.unwrap();
            }
            if let Ok(stored) = &stored {
                verify(&vault, &stored.id, ALL).await.unwrap();
            }
            let again = store(&vault, dir.path()).await.unwrap();
            verify(&vault, &again.id, ALL).await.unwrap();
            if stored.is_ok() && nth > writes - writes_before {
                // It was never reached: all writes had their turn.
                assert!(nth > 6);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_stumbles_is_asked_again() {
    let (bank, vault) = memory().await;
    bank.inject(Fault::Fail, 2, |call| {
        call.verb == Verb::Put && call.key.contains("/data/")
    });
    let id = store_stream(&vault, "x", b"text").await;
    bank.inject(Fault::Fail, 1, |call| matches!(call.verb, Verb::GetRange));
    verify(&vault, &id, ALL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_parent_only_costs_time() {
    let (bank, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "text").unwrap();
    let first = store(&vault, dir.path()).await.unwrap();
    let data = keys(&bank, "data");
    for pack in &data {
        flip(&bank, pack, 25).await;
    }
    let meta = karbor_vault::SnapshotMeta {
        parent: Some(first.id),
        time: time(5),
        ..meta()
    };
    let second = store_with(&vault, dir.path(), meta, TreeOptions::default())
        .await
        .unwrap();
    assert_eq!(second.unmodified, 0);
    let unknown: SnapshotId = "ab".repeat(32).parse().unwrap();
    let meta = karbor_vault::SnapshotMeta {
        parent: Some(unknown),
        ..crate::support::meta()
    };
    store_with(&vault, Path::new(dir.path()), meta, TreeOptions::default())
        .await
        .unwrap();
}

/// A directory that was changed just before it was read is looked at again, and so is what is stored of it: by a
/// snapshot of before, in a pack that was damaged since.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_stored_tree_is_damaged_is_read_and_stored_once_more() {
    let (bank, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    for at in ["a/inner", "b"] {
        fs::create_dir_all(dir.path().join(at)).unwrap();
        fs::write(dir.path().join(at).join("file"), at).unwrap();
    }
    let first = store(&vault, dir.path()).await.unwrap();
    for pack in keys(&bank, "data") {
        let is_trees = bank.inner().get(&pack).await.unwrap().len();
        for at in [20, is_trees / 2] {
            let whole = contents(&bank).await;
            flip(&bank, &pack, at).await;
            // Nothing of it is known as damaged.
            let fresh = Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
                .await
                .unwrap();
            let second = store(&fresh, dir.path()).await.unwrap();
            let numbers =
                |done: &karbor_vault::SnapshotSummary| (done.files, done.dirs, done.bytes);
            assert_eq!(numbers(&second), numbers(&first));
            assert_eq!(second.left_out.total, 0);
            put_back(&bank, &whole).await;
        }
    }
    let trees = keys(&bank, "data");
    for pack in trees {
        flip(&bank, &pack, 20).await;
        let fresh = Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
            .await
            .unwrap();
        let _ = verify(&fresh, &first.id, ALL).await;
        let again = store(&fresh, dir.path()).await.unwrap();
        verify(&fresh, &again.id, ALL).await.unwrap();
    }
}

/// A new config would come with a new key: what is there could never be read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_repository_without_its_config_is_not_made_anew() {
    let (bank, vault) = memory().await;
    store_stream(&vault, "s", b"content").await;
    let config = BankKey::parse("vaults/p/q/config").unwrap();
    bank.inner().delete(&config).await.unwrap();
    let error = Vault::open_or_init(section(bank.clone()), &secret(), VaultOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("its config is missing"),
        "{error}"
    );
    assert!(bank.inner().get(&config).await.is_err());
}
