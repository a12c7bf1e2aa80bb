//! What is known of snapshots without opening them again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use karbor_plugin::BankKey;
use karbor_testkit::{Fault, Verb};
use karbor_vault::{
    Control, SnapshotId, SnapshotMeta, Vault, VaultError, VaultOptions, VerifyLevel,
};

use crate::support::{Memory, memory, meta, secret, section, store_stream, time};

/// Stores a stream as the `nth` snapshot, with these tags.
async fn store(vault: &Vault, nth: i64, tags: &[&str]) -> SnapshotId {
    let meta = SnapshotMeta {
        time: time(nth),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        ..meta()
    };
    let mut writer = vault.writer(meta, Control::default()).await.unwrap();
    writer
        .add_stream("x", &nth.to_le_bytes()[..])
        .await
        .unwrap();
    writer.commit().await.unwrap().id
}

/// Another vault of the same repository.
async fn opened(bank: &Arc<Memory>) -> Vault {
    Vault::open(section(bank.clone()), &secret(), VaultOptions::default())
        .await
        .unwrap()
}

/// How often snapshots were read and listed since the last time.
fn looked(bank: &Memory) -> (usize, usize) {
    let calls = bank.calls();
    bank.forget_calls();
    let count = |verb: Verb, prefix: &str| {
        let of_snapshots = calls.iter().filter(|call| call.verb == verb);
        of_snapshots
            .filter(|call| call.key.contains(prefix))
            .count()
    };
    (
        count(Verb::Get, "/snapshots/"),
        count(Verb::List, "/snapshots"),
    )
}

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|&tag| tag.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_opened_once_however_often_one_is_looked_for() {
    let (bank, vault) = memory().await;
    for nth in 0..5 {
        store(&vault, nth, &["all", &format!("one={nth}")]).await;
    }
    looked(&bank);
    let newest = vault.catalog().await.unwrap().with_tags(&tags(&["all"]));
    assert_eq!(newest.len(), 5);
    assert_eq!(looked(&bank), (5, 1));
    // What is found is read from the bank, the others are not.
    let found = vault.find(&tags(&["one=3", "all"])).await.unwrap();
    assert_eq!(found[0].id, newest[1].id);
    assert_eq!(looked(&bank), (1, 1));
    // What came since is opened, and what is gone is gone.
    let another = store(&vault, 9, &["all"]).await;
    vault.forget(&newest[0].id).await.unwrap();
    looked(&bank);
    let now = vault.catalog().await.unwrap().with_tags(&tags(&["all"]));
    assert_eq!(looked(&bank), (1, 1));
    let ids: Vec<_> = now.iter().map(|brief| brief.id).collect();
    assert_eq!(ids[..2], [another, newest[1].id]);
    assert_eq!(ids.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_stores_or_forgets_is_noticed() {
    let (bank, vault) = memory().await;
    let other = opened(&bank).await;
    let first = store(&vault, 1, &["a"]).await;
    let count = async |vault: &Vault| vault.catalog().await.unwrap().with_tags(&[]).len();
    assert_eq!(count(&other).await, 1);
    store(&vault, 2, &["a"]).await;
    vault.forget(&first).await.unwrap();
    store(&vault, 3, &["a"]).await;
    assert_eq!(count(&other).await, 2);
}

/// What is known of a snapshot is no reason to believe that it is whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_after_it_was_opened_is_found_damaged() {
    let (bank, vault) = memory().await;
    let id = store_stream(&vault, "x", b"one").await;
    assert_eq!(vault.find(&meta().tags).await.unwrap().len(), 1);
    let key = BankKey::parse(&format!("vaults/p/q/snapshots/{id}")).unwrap();
    bank.inner().tamper(&key, Bytes::from_static(b"rotten"));
    assert!(vault.find(&meta().tags).await.unwrap().is_empty());
    let is_damage = |error: &VaultError| matches!(error, VaultError::Damaged { object, .. } if object.contains("snapshot"));
    assert!(is_damage(&vault.snapshot(&id).await.unwrap_err()));
    assert!(is_damage(&vault.snapshots().await.unwrap_err()));
    let verified = vault
        .verify(&id, VerifyLevel::Metadata, Control::default())
        .await;
    assert!(is_damage(&verified.unwrap_err()));
}

/// Neither one at a time nor all at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_unknown_snapshots_are_opened_a_few_at_a_time() {
    let (bank, vault) = memory().await;
    for nth in 0..40 {
        store(&vault, nth, &["a"]).await;
    }
    let vault = opened(&bank).await;
    looked(&bank);
    let is_of_snapshot =
        |call: &karbor_testkit::Call| call.verb == Verb::Get && call.key.contains("/snapshots/");
    bank.inject(Fault::Hang, usize::MAX, is_of_snapshot);
    {
        let looking = vault.catalog();
        tokio::pin!(looking);
        assert!(futures::poll!(&mut looking).is_pending());
    }
    assert_eq!(looked(&bank), (16, 1));
    bank.heal();
    assert_eq!(vault.catalog().await.unwrap().with_tags(&[]).len(), 40);
    assert_eq!(looked(&bank), (40, 1));
}

/// What could be opened before the bank failed is not opened again.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_failed_in_the_middle_is_gone_on_with() {
    let (bank, vault) = memory().await;
    for nth in 0..40 {
        store(&vault, nth, &["a"]).await;
    }
    looked(&bank);
    let seen = AtomicUsize::new(0);
    bank.inject(Fault::FailForGood, 1, move |call| {
        let is_of_snapshot = call.verb == Verb::Get && call.key.contains("/snapshots/");
        is_of_snapshot && seen.fetch_add(1, SeqCst) == 30
    });
    vault.catalog().await.unwrap_err();
    looked(&bank);
    assert_eq!(vault.catalog().await.unwrap().with_tags(&[]).len(), 40);
    let (read, _) = looked(&bank);
    assert!(read <= 25, "{read} were read");
}
