//! How a bank leases.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{LONG, bytes, key, missing};
use crate::{Bank, BankError, Lease, ListRequest};

pub(super) fn assert_held(answer: Result<Lease, BankError>, by: &str) {
    match answer {
        Err(BankError::LeaseHeld { owner, .. }) => assert_eq!(owner, by),
        other => panic!("not refused: {other:?}"),
    }
}

/// One owner at a time, who may claim again; the other is told who it is.
pub async fn leases_exclude(bank: &dyn Bank) {
    let name = key("leases/thing");
    let lease = bank.acquire_lease(&name, "one", LONG).await.unwrap();
    assert_eq!(
        (lease.name.as_str(), lease.owner.as_str()),
        ("leases/thing", "one")
    );
    assert_held(bank.acquire_lease(&name, "two", LONG).await, "one");
    let again = bank.acquire_lease(&name, "one", LONG * 2).await.unwrap();
    assert!(again.expires_at > lease.expires_at);
    let renewed = bank.renew_lease(&lease, LONG * 3).await.unwrap();
    assert!(renewed.expires_at > again.expires_at);
    assert_held(bank.acquire_lease(&name, "two", LONG).await, "one");
    // A lease is no object, and an object is no lease.
    missing(bank, "leases/thing").await;
    assert!(bank.list(&ListRequest::default()).await.unwrap().is_empty());
    bank.put(&name, bytes("object")).await.unwrap();
    assert_held(bank.acquire_lease(&name, "two", LONG).await, "one");
    // Names below and beside it are others.
    for other in ["leases/thing/below", "leases", "leases/thing2"] {
        bank.acquire_lease(&key(other), "two", LONG).await.unwrap();
    }
}

/// A lease that has ended may be taken over, and its owner learns of it.
pub async fn leases_end(bank: &dyn Bank) {
    let name = key("ends");
    let dead = bank
        .acquire_lease(&name, "one", Duration::ZERO)
        .await
        .unwrap();
    // Nobody took it yet: its owner may go on.
    bank.renew_lease(&dead, Duration::ZERO).await.unwrap();
    let taken = bank.acquire_lease(&name, "two", LONG).await.unwrap();
    let error = bank.renew_lease(&dead, LONG).await.unwrap_err();
    assert!(
        matches!(&error, BankError::LeaseLost(named) if named == "ends"),
        "{error}"
    );
    // What was lost gives up nothing of the new owner's.
    bank.release_lease(&dead).await.unwrap();
    assert_held(bank.acquire_lease(&name, "one", LONG).await, "two");
    bank.renew_lease(&taken, LONG).await.unwrap();
    // For ever is a time, too.
    bank.acquire_lease(&key("ever"), "one", Duration::MAX)
        .await
        .unwrap();
    assert_held(bank.acquire_lease(&key("ever"), "two", LONG).await, "one");
}

/// A lease that was given up is free, and gone for its owner.
pub async fn leases_are_released(bank: &dyn Bank) {
    let name = key("freed");
    let lease = bank.acquire_lease(&name, "one", LONG).await.unwrap();
    bank.release_lease(&lease).await.unwrap();
    bank.release_lease(&lease).await.unwrap();
    let error = bank.renew_lease(&lease, LONG).await.unwrap_err();
    assert!(matches!(error, BankError::LeaseLost(_)), "{error}");
    bank.acquire_lease(&name, "two", LONG).await.unwrap();
}

/// The live ones at and below a name.
pub async fn leases_are_listed(bank: &dyn Bank) {
    assert!(bank.leases(&key("l")).await.unwrap().is_empty());
    for name in ["l", "l/a", "l/b/c", "l-d", "la"] {
        bank.acquire_lease(&key(name), "one", LONG).await.unwrap();
    }
    bank.acquire_lease(&key("l/dead"), "one", Duration::ZERO)
        .await
        .unwrap();
    let listed = bank.leases(&key("l")).await.unwrap();
    let mut names: Vec<_> = listed.iter().map(|lease| lease.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["l", "l/a", "l/b/c"]);
    assert_eq!(bank.leases(&key("l/b")).await.unwrap().len(), 1);
}

/// Of many that claim at once exactly one gets it.
pub async fn leases_have_one_winner(bank: Arc<dyn Bank>) {
    for round in 0..10 {
        let name = key(&format!("race/{round}"));
        // Half of the rounds take over one that has ended.
        if round % 2 == 0 {
            bank.acquire_lease(&name, "dead", Duration::ZERO)
                .await
                .unwrap();
        }
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let (bank, name) = (bank.clone(), name.clone());
            racers.spawn(async move {
                match bank.acquire_lease(&name, &format!("{racer}"), LONG).await {
                    Ok(lease) => Some(lease.owner),
                    Err(BankError::LeaseHeld { .. }) => None,
                    Err(other) => panic!("{other}"),
                }
            });
        }
        let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_held(bank.acquire_lease(&name, "late", LONG).await, &winners[0]);
    }
}
