//! What every [`Bank`] must do.

mod leases;
mod listing;

pub use leases::{
    leases_are_listed, leases_are_released, leases_end, leases_exclude, leases_have_one_winner,
};
pub use listing::{
    listing_all_pages_through, listing_is_sorted_by_byte, listing_pages_do_not_skip_or_repeat,
    listing_prefixes_are_whole_parts,
};

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use self::leases::assert_held;
use crate::{Bank, BankError, BankKey, BankSection, ListRequest, ReadSection};

const LONG: Duration = Duration::from_secs(3600);

fn key(text: &str) -> BankKey {
    BankKey::parse(text).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Runs every clause, each on a bank that `fresh` makes: an empty one.
pub async fn suite(fresh: impl AsyncFn() -> Arc<dyn Bank>) {
    put_get_replace(&*fresh().await).await;
    any_bytes_come_back(&*fresh().await).await;
    keys_of_every_kind(&*fresh().await).await;
    put_new_refuses_what_is_there(&*fresh().await).await;
    put_new_has_one_winner(fresh().await).await;
    ranges_are_exact(&*fresh().await).await;
    delete_may_be_repeated(&*fresh().await).await;
    a_failed_name_clash_hurts_nobody(&*fresh().await).await;
    listing_is_sorted_by_byte(&*fresh().await).await;
    listing_pages_do_not_skip_or_repeat(&*fresh().await).await;
    listing_prefixes_are_whole_parts(&*fresh().await).await;
    listing_all_pages_through(&*fresh().await).await;
    readers_see_whole_objects(fresh().await).await;
    writers_and_deleters_do_not_trip_each_other(fresh().await).await;
    leases_exclude(&*fresh().await).await;
    leases_end(&*fresh().await).await;
    leases_are_released(&*fresh().await).await;
    leases_are_listed(&*fresh().await).await;
    leases_have_one_winner(fresh().await).await;
    sections_keep_to_themselves(fresh().await).await;
}

async fn missing(bank: &dyn Bank, name: &str) {
    let key = key(name);
    let wanted = |error: &BankError| matches!(error, BankError::NotFound(named) if *named == key);
    assert!(wanted(&bank.get(&key).await.unwrap_err()), "get {name}");
    assert!(wanted(&bank.stat(&key).await.unwrap_err()), "stat {name}");
    let range = bank.get_range(&key, 0, 1).await.unwrap_err();
    assert!(wanted(&range), "get_range {name}: {range}");
}

/// An object is what was put last, and absent before and after.
pub async fn put_get_replace(bank: &dyn Bank) {
    let key = key("a/b");
    missing(bank, "a/b").await;
    bank.put(&key, bytes("one")).await.unwrap();
    assert_eq!(bank.get(&key).await.unwrap(), "one");
    assert_eq!(bank.stat(&key).await.unwrap().size, 3);
    bank.put(&key, bytes("a longer one")).await.unwrap();
    assert_eq!(bank.get(&key).await.unwrap(), "a longer one");
    bank.put(&key, bytes("2")).await.unwrap();
    assert_eq!(bank.get(&key).await.unwrap(), "2");
    let info = bank.stat(&key).await.unwrap();
    assert_eq!((info.key, info.size), (key, 1));
    missing(bank, "a").await;
    missing(bank, "a/b/c").await;
}

/// Empty, binary and large objects. The original's banks could not store binary data.
pub async fn any_bytes_come_back(bank: &dyn Bank) {
    let large: Vec<u8> = (0..20_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let binary: Vec<u8> = (0..=255).chain([0xff, 0xfe, 0, 0]).collect();
    for (name, data) in [("empty", vec![]), ("binary", binary), ("large", large)] {
        let data = Bytes::from(data);
        bank.put(&key(name), data.clone()).await.unwrap();
        assert!(bank.get(&key(name)).await.unwrap() == data, "{name}");
        let stat = bank.stat(&key(name)).await.unwrap();
        assert_eq!(stat.size, data.len() as u64, "{name}");
    }
}

/// Every key that parses can be used: with `@` and dots, long, deep.
pub async fn keys_of_every_kind(bank: &dyn Bank) {
    let long = "n".repeat(255);
    let deep = "d/".repeat(120) + "end";
    let longest = ["o", "p", "q", "r"].map(|part| part.repeat(255)).join("/");
    let names = [
        "indices/by-date/2026-11-22/a01/1795342839@dab50f80-49be-4b87-acf1-8343f4abdb4a",
        "..a",
        "b..",
        ".hidden",
        "@",
        "-dash",
        "_",
        "UPPER",
        "upper",
        "a.tmp",
        "lock",
        &long,
        &deep,
        &longest,
    ];
    for name in names {
        bank.put(&key(name), bytes(name)).await.unwrap();
    }
    for name in names {
        assert_eq!(bank.get(&key(name)).await.unwrap(), name);
    }
    let all = bank.list(&ListRequest::default()).await.unwrap();
    let wanted: BTreeSet<_> = names.iter().map(|name| key(name)).collect();
    let listed: Vec<_> = all.into_iter().map(|info| info.key).collect();
    assert_eq!(listed, wanted.into_iter().collect::<Vec<_>>());
}

/// `put_new` never replaces.
pub async fn put_new_refuses_what_is_there(bank: &dyn Bank) {
    if !bank.capabilities().conditional_put {
        return;
    }
    let key = key("x/once");
    bank.put_new(&key, bytes("first")).await.unwrap();
    let error = bank.put_new(&key, bytes("second")).await.unwrap_err();
    assert!(
        matches!(&error, BankError::AlreadyExists(named) if *named == key),
        "{error}"
    );
    assert_eq!(bank.get(&key).await.unwrap(), "first");
    bank.delete(&key).await.unwrap();
    bank.put_new(&key, bytes("third")).await.unwrap();
    assert_eq!(bank.get(&key).await.unwrap(), "third");
}

/// Of many `put_new` of one key at once exactly one succeeds, and its object stays.
pub async fn put_new_has_one_winner(bank: Arc<dyn Bank>) {
    if !bank.capabilities().conditional_put {
        return;
    }
    for round in 0..20 {
        let key = key(&format!("race/{round}/object"));
        let mut racers = JoinSet::new();
        for racer in 0..16 {
            let (bank, key) = (bank.clone(), key.clone());
            racers.spawn(async move {
                let text = format!("racer {racer}");
                match bank.put_new(&key, bytes(&text)).await {
                    Ok(()) => Some(text),
                    Err(BankError::AlreadyExists(_)) => None,
                    Err(other) => panic!("{other}"),
                }
            });
        }
        let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(bank.get(&key).await.unwrap(), winners[0]);
    }
}

/// A range is what was asked, or an error: never a short answer.
pub async fn ranges_are_exact(bank: &dyn Bank) {
    let key = key("range");
    bank.put(&key, bytes("0123456789")).await.unwrap();
    for (offset, length, wanted) in [
        (0, 10, "0123456789"),
        (3, 4, "3456"),
        (9, 1, "9"),
        (0, 0, ""),
        (10, 0, ""),
    ] {
        assert_eq!(bank.get_range(&key, offset, length).await.unwrap(), wanted);
    }
    for (offset, length) in [
        (0, 11),
        (9, 2),
        (10, 1),
        (11, 0),
        (1 << 40, 1),
        (5, u64::MAX),
        (u64::MAX, 1),
    ] {
        let error = bank.get_range(&key, offset, length).await.unwrap_err();
        assert!(
            matches!(&error, BankError::Corrupt { key: named, .. } if *named == key),
            "{offset} {length}: {error}"
        );
    }
}

/// Deleting what is not there is no error; what was beside it stays.
pub async fn delete_may_be_repeated(bank: &dyn Bank) {
    for name in ["d/one", "d/two", "d/deep/three"] {
        bank.put(&key(name), bytes(name)).await.unwrap();
    }
    for _ in 0..3 {
        bank.delete(&key("d/one")).await.unwrap();
        bank.delete(&key("d/deep/three")).await.unwrap();
        bank.delete(&key("never/there")).await.unwrap();
        bank.delete(&key("d")).await.unwrap();
        bank.delete(&key("d/two/below")).await.unwrap();
    }
    missing(bank, "d/one").await;
    assert_eq!(bank.get(&key("d/two")).await.unwrap(), "d/two");
    bank.put(&key("d/deep/three"), bytes("again"))
        .await
        .unwrap();
    assert_eq!(bank.get(&key("d/deep/three")).await.unwrap(), "again");
}

/// A key below another object may be refused (not every store can), but harms neither.
pub async fn a_failed_name_clash_hurts_nobody(bank: &dyn Bank) {
    let (file, below) = (key("clash/a"), key("clash/a/b"));
    for (first, second) in [(&file, &below), (&below, &file)] {
        bank.put(first, bytes("first")).await.unwrap();
        match bank.put(second, bytes("second")).await {
            Ok(()) => assert_eq!(bank.get(second).await.unwrap(), "second"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("clash/a"), "the error names the key: {text}");
                missing(bank, second.as_str()).await;
            }
        }
        assert_eq!(bank.get(first).await.unwrap(), "first");
        bank.delete(second).await.unwrap();
        assert_eq!(bank.get(first).await.unwrap(), "first");
        bank.delete(first).await.unwrap();
        // Nothing that is left of the one is in the way of the other.
        bank.put(second, bytes("alone")).await.unwrap();
        bank.delete(second).await.unwrap();
    }
}

/// While an object is replaced over and over, each reader sees one of the objects, whole.
pub async fn readers_see_whole_objects(bank: Arc<dyn Bank>) {
    const SIZE: usize = 100_000;
    let key = key("whole/object");
    bank.put(&key, vec![0; SIZE].into()).await.unwrap();
    let mut tasks = JoinSet::new();
    for writer in 1..=4_u8 {
        let (bank, key) = (bank.clone(), key.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                // Each writer's objects have a length of their own.
                let data = vec![writer; SIZE + usize::from(writer)];
                bank.put(&key, data.into()).await.unwrap();
            }
        });
    }
    for _ in 0..4 {
        let (bank, key) = (bank.clone(), key.clone());
        tasks.spawn(async move {
            for _ in 0..40 {
                let data = bank.get(&key).await.unwrap();
                let wanted = SIZE + usize::from(data[0]);
                assert_eq!(data.len(), wanted, "cut short or mixed");
                assert!(data.iter().all(|byte| *byte == data[0]), "mixed");
            }
        });
    }
    tasks.join_all().await;
    let left = bank.list(&ListRequest::default()).await.unwrap();
    assert_eq!(left.len(), 1, "nothing unfinished is left: {left:?}");
}

/// Objects come and go beside each other; what is put stays until it is deleted.
pub async fn writers_and_deleters_do_not_trip_each_other(bank: Arc<dyn Bank>) {
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let bank = bank.clone();
        tasks.spawn(async move {
            for round in 0..25 {
                let own = key(&format!("busy/{}/{task}", round % 2));
                bank.put(&own, bytes("here")).await.unwrap();
                assert_eq!(bank.get(&own).await.unwrap(), "here");
                bank.list(&ListRequest::default()).await.unwrap();
                bank.delete(&own).await.unwrap();
                missing(&*bank, own.as_str()).await;
            }
        });
    }
    tasks.join_all().await;
    let left = bank.list(&ListRequest::default()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// A section shows its own part under relative names, and no other.
pub async fn sections_keep_to_themselves(bank: Arc<dyn Bank>) {
    let section = BankSection::new(bank.clone(), key("part"));
    let beside = BankSection::new(bank.clone(), key("part-2"));
    section.put(&key("a"), bytes("mine")).await.unwrap();
    section.put(&key("b/c"), bytes("mine too")).await.unwrap();
    beside.put(&key("a"), bytes("other")).await.unwrap();
    assert_eq!(bank.get(&key("part/a")).await.unwrap(), "mine");
    let read: ReadSection = section.read_only();
    let all = read.list(&ListRequest::default()).await.unwrap();
    let listed: Vec<_> = all.iter().map(|info| info.key.as_str()).collect();
    assert_eq!(listed, ["a", "b/c"]);
    let sub = read.sub_section("b").unwrap();
    assert_eq!(sub.get(&key("c")).await.unwrap(), "mine too");

    let lease = section.acquire_lease(&key("x"), "one", LONG).await.unwrap();
    assert_eq!(lease.name, "x");
    assert_held(section.acquire_lease(&key("x"), "two", LONG).await, "one");
    beside.acquire_lease(&key("x"), "two", LONG).await.unwrap();
    let listed = section.leases().await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&lease));
    let lease = section.renew_lease(&lease, LONG).await.unwrap();
    section.release_lease(&lease).await.unwrap();
    assert!(section.leases().await.unwrap().is_empty());
    assert_eq!(bank.leases(&key("part-2")).await.unwrap().len(), 1);
}
