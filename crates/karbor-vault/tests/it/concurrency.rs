//! Many writers, and writers that are stopped.

use std::{fs, sync::Arc, time::Duration};

use karbor_plugin::Progress;
use karbor_testkit::{Fault, Verb};
use karbor_vault::{Control, VaultError, VerifyLevel};
use tokio_util::sync::CancellationToken;

use crate::support::*;

const ALL: VerifyLevel = VerifyLevel::Data { percent: 100 };

/// A tree of its own and some files that all have.
fn shared_tree(n: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for shared in 0..20_u64 {
        fs::write(
            dir.path().join(format!("shared{shared}")),
            noise(shared, 700_000),
        )
        .unwrap();
    }
    fs::create_dir(dir.path().join("own")).unwrap();
    for own in 0..30_u64 {
        fs::write(
            dir.path().join(format!("own/{own}")),
            noise(1000 * (n + 1) + own, 20_000),
        )
        .unwrap();
    }
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_writers_share_what_they_have_in_common() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let trees: Vec<_> = (0..8).map(shared_tree).collect();
    let tasks = trees.iter().map(|tree| {
        let (vault, path) = (vault.clone(), tree.path().to_owned());
        tokio::spawn(async move { store(&vault, &path).await })
    });
    let mut new_data = 0;
    let mut ids = Vec::new();
    for done in futures::future::join_all(tasks).await {
        let summary = done.unwrap().unwrap();
        assert_eq!(summary.bytes, 20 * 700_000 + 30 * 20_000);
        new_data += summary.new_data;
        ids.push(summary.id);
    }
    let unique = 20 * 700_000 + 8 * 30 * 20_000;
    assert!((unique..unique + 500_000).contains(&new_data), "{new_data}");
    for id in &ids {
        vault.verify(id, ALL, Control::default()).await.unwrap();
    }
    if have_restic() {
        let check = restic(&disk.path(), &["check", "--read-data"]);
        assert!(check.contains("no errors were found"), "{check}");
        assert!(!check.contains("not referenced"), "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_write_into_one_repository() {
    let disk = Disk::new();
    let (one, other) = (disk.vault().await, disk.vault().await);
    let trees: Vec<_> = (0..4).map(shared_tree).collect();
    let stored = futures::future::join_all(
        trees
            .iter()
            .enumerate()
            .map(|(n, tree)| store(if n % 2 == 0 { &one } else { &other }, tree.path())),
    );
    for summary in stored.await {
        let id = summary.unwrap().id;
        one.verify(&id, ALL, Control::default()).await.unwrap();
        other.verify(&id, ALL, Control::default()).await.unwrap();
    }
    // What the other stored is known by now.
    let again = store(&one, trees[1].path()).await.unwrap();
    assert!(again.new_data < 20_000, "{again:?}");
}

/// Cancels when the first bytes have moved.
struct CancelAtOnce(CancellationToken);

impl Progress for CancelAtOnce {
    fn expect_bytes(&self, _: u64) {}

    fn add_bytes(&self, _: u64) {
        self.0.cancel();
    }
}

fn cancelling() -> Control {
    let cancel = CancellationToken::new();
    Control {
        progress: Arc::new(CancelAtOnce(cancel.clone())),
        cancel,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_writer_makes_no_snapshot_and_harms_nobody() {
    let (bank, vault) = memory().await;
    let tree = shared_tree(0);
    let other = {
        let (vault, path) = (vault.clone(), tree.path().to_owned());
        tokio::spawn(async move { store(&vault, &path).await })
    };
    let mut writer = vault.writer(meta(), cancelling()).await.unwrap();
    let error = writer
        .add_tree(&open(tree.path()).unwrap(), Default::default())
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::Cancelled), "{error:?}");
    assert!(writer.commit().await.is_err());
    let mut writer = vault.writer(meta(), cancelling()).await.unwrap();
    let error = writer
        .add_stream("x", tokio::io::repeat(7))
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::Cancelled), "{error:?}");
    drop(writer);
    let stored = other.await.unwrap().unwrap();
    vault
        .verify(&stored.id, ALL, Control::default())
        .await
        .unwrap();
    assert_eq!(vault.snapshots().await.unwrap().len(), 1);
    let error = vault
        .verify(&stored.id, ALL, cancelling())
        .await
        .unwrap_err();
    assert!(matches!(error, VaultError::Cancelled), "{error:?}");
    until(|| {
        !bank
            .inner()
            .keys()
            .iter()
            .any(|key| key.contains("/locks/"))
    })
    .await;
}

/// Waits for something that happens in the background.
async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect("it never happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_hangs_does_not_keep_a_cancelled_writer() {
    let (bank, vault) = memory().await;
    bank.inject(Fault::Hang, usize::MAX, |call| {
        call.verb == Verb::Put && call.key.contains("/data/")
    });
    let cancel = CancellationToken::new();
    let control = Control {
        cancel: cancel.clone(),
        ..Default::default()
    };
    let mut writer = vault.writer(meta(), control).await.unwrap();
    // More than the queue, the packs and the uploads hold.
    let (source, mut sink) = tokio::io::duplex(1 << 20);
    let feeder = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let mut seed = 0;
        while sink.write_all(&noise(seed, 1 << 20)).await.is_ok() {
            seed += 1;
        }
    });
    let stuck = async {
        until(|| bank.count(Verb::Put) >= 3).await;
        cancel.cancel();
    };
    let (added, ()) = tokio::join!(writer.add_stream("x", source), stuck);
    assert!(matches!(added, Err(VaultError::Cancelled)), "{added:?}");
    assert!(writer.commit().await.is_err());
    feeder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_relied_on_a_pack_that_was_lost_does_not_commit() {
    let trees: Vec<_> = (0..4).map(shared_tree).collect();
    for round in 0..12_usize {
        let (bank, vault) = memory().await;
        let nth = std::sync::atomic::AtomicUsize::new(0);
        bank.inject(Fault::FailForGood, 1, move |call| {
            let hit = call.verb == Verb::Put && call.key.contains("/data/");
            hit && nth.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == round % 3
        });
        let stored = futures::future::join_all(trees.iter().map(|tree| {
            let (vault, path) = (vault.clone(), tree.path().to_owned());
            async move {
                tokio::spawn(async move { store(&vault, &path).await })
                    .await
                    .unwrap()
            }
        }))
        .await;
        assert!(stored.iter().any(Result::is_err));
        for summary in stored.into_iter().flatten() {
            vault
                .verify(&summary.id, ALL, Control::default())
                .await
                .unwrap();
        }
        // A writer that comes now does not believe that the lost blobs are there.
        let again = store(&vault, trees[0].path()).await.unwrap();
        vault
            .verify(&again.id, ALL, Control::default())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_writer_leaves_a_repository_that_works() {
    let disk = Disk::new();
    let vault = disk.vault().await;
    let tree = shared_tree(0);
    for _ in 0..3 {
        let mut writer = vault.writer(meta(), Control::default()).await.unwrap();
        writer
            .add_tree(&open(tree.path()).unwrap(), Default::default())
            .await
            .unwrap();
        drop(writer);
        let writer = vault.writer(meta(), Control::default()).await.unwrap();
        // The future is dropped in the middle of it.
        let path = tree.path().to_owned();
        let task = tokio::spawn(async move {
            let mut writer = writer;
            writer
                .add_tree(&open(&path).unwrap(), Default::default())
                .await
        });
        tokio::task::yield_now().await;
        task.abort();
        task.await.ok();
    }
    assert!(vault.snapshots().await.unwrap().is_empty());
    let stored = store(&vault, tree.path()).await.unwrap();
    vault
        .verify(&stored.id, ALL, Control::default())
        .await
        .unwrap();
    if have_restic() {
        let check = restic(&disk.path(), &["check", "--read-data"]);
        assert!(check.contains("no errors were found"), "{check}");
    }
}
