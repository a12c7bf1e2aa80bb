//! What every [`Bank`] must do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    Bank, BankError, BankKey, BankSection, Lease, ListRequest, ReadSection, SortDirection, list_all,
};

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

/// Keys around `/`: `-` and `.` sort before it, digits and letters after it.
const ORDERED: [&str; 12] = [
    "a", "b-c/x", "b.c", "b/1", "b/2/x", "b/2/y", "b/20", "b0/z", "b@/a", "bb", "c/c/c", "d",
];

async fn fill(bank: &dyn Bank) {
    for name in ORDERED.iter().rev() {
        bank.put(&key(name), bytes(name)).await.unwrap();
    }
}

async fn names(bank: &dyn Bank, request: &ListRequest) -> Vec<String> {
    let page = bank.list(request).await.unwrap();
    for info in &page {
        assert_eq!(info.size, info.key.as_str().len() as u64, "{}", info.key);
    }
    page.into_iter().map(|info| info.key.to_string()).collect()
}

/// Both ways, in byte order of the whole key.
pub async fn listing_is_sorted_by_byte(bank: &dyn Bank) {
    assert_eq!(
        names(bank, &ListRequest::default()).await,
        Vec::<String>::new()
    );
    fill(bank).await;
    assert_eq!(names(bank, &ListRequest::default()).await, ORDERED);
    let descending = ListRequest {
        sort: SortDirection::Descending,
        ..ListRequest::default()
    };
    let mut wanted = ORDERED;
    wanted.reverse();
    assert_eq!(names(bank, &descending).await, wanted);
}

/// Whatever the marker (there or not), the limit and the direction, the page is that part of the
/// whole. The original's file system bank ignored marker and direction.
pub async fn listing_pages_do_not_skip_or_repeat(bank: &dyn Bank) {
    fill(bank).await;
    let strangers = [
        "0", "b", "b-", "b/15", "b/2", "b/2/x/y", "b/3", "b0", "c", "c/c/c/c", "z",
    ];
    for sort in [SortDirection::Ascending, SortDirection::Descending] {
        let mut whole: Vec<&str> = ORDERED.to_vec();
        if sort == SortDirection::Descending {
            whole.reverse();
        }
        for marker in ORDERED.into_iter().chain(strangers) {
            let after = |name: &&str| match sort {
                SortDirection::Ascending => **name > *marker,
                SortDirection::Descending => **name < *marker,
            };
            let wanted: Vec<&str> = whole.iter().copied().filter(after).collect();
            for limit in [None, Some(0), Some(1), Some(3), Some(100)] {
                let request = ListRequest {
                    prefix: None,
                    marker: Some(key(marker)),
                    limit,
                    sort,
                };
                let cut = limit.unwrap_or(wanted.len()).min(wanted.len());
                assert_eq!(names(bank, &request).await, wanted[..cut], "{request:?}");
            }
        }
    }
}

/// `a` finds `a/b`, not `ab`, `a-b` or `a` itself.
pub async fn listing_prefixes_are_whole_parts(bank: &dyn Bank) {
    fill(bank).await;
    for (prefix, wanted) in [
        ("b", &["b/1", "b/2/x", "b/2/y", "b/20"][..]),
        ("b/2", &["b/2/x", "b/2/y"]),
        ("c/c", &["c/c/c"]),
        ("a", &[]),
        ("d", &[]),
        ("nothing/here", &[]),
    ] {
        let mut request = ListRequest {
            prefix: Some(key(prefix)),
            ..ListRequest::default()
        };
        assert_eq!(names(bank, &request).await, wanted, "{prefix}");
        request.sort = SortDirection::Descending;
        let reverse: Vec<_> = wanted.iter().rev().copied().collect();
        assert_eq!(names(bank, &request).await, reverse, "{prefix}");
    }
    let request = ListRequest {
        prefix: Some(key("b")),
        marker: Some(key("b/2/x")),
        limit: Some(1),
        sort: SortDirection::Ascending,
    };
    assert_eq!(names(bank, &request).await, ["b/2/y"]);
    // A marker outside of the prefix only says where the page begins.
    for (marker, wanted) in [("a", 4), ("c", 0)] {
        let request = ListRequest {
            marker: Some(key(marker)),
            limit: None,
            ..request.clone()
        };
        assert_eq!(names(bank, &request).await.len(), wanted, "{marker}");
    }
}

/// [`list_all`] finds what is more than a page.
pub async fn listing_all_pages_through(bank: &dyn Bank) {
    const OBJECTS: usize = 1205;
    for n in 0..OBJECTS {
        let key = key(&format!("many/{}/{n:05}", n % 7));
        bank.put(&key, Bytes::new()).await.unwrap();
    }
    bank.put(&key("other"), Bytes::new()).await.unwrap();
    let all = list_all(bank, &key("many")).await.unwrap();
    assert_eq!(all.len(), OBJECTS);
    assert!(all.is_sorted_by(|a, b| a.key < b.key));
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

fn assert_held(answer: Result<Lease, BankError>, by: &str) {
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
