//! A section never reaches outside itself.

use std::{sync::Arc, time::Duration};

use karbor_plugin::{
    Bank, BankError, BankKey, BankSection, DataSection, Lease, ListRequest, ReadSection,
    SortDirection,
};
use karbor_testkit::{Fault, FaultyBank, MemoryBank};
use proptest::prelude::*;

fn key(text: &str) -> BankKey {
    BankKey::parse(text).unwrap()
}

fn bank_and_section(prefix: &BankKey) -> (Arc<FaultyBank<MemoryBank>>, BankSection) {
    let bank = Arc::new(FaultyBank::new(MemoryBank::new()));
    let section = BankSection::new(bank.clone(), prefix.clone());
    (bank, section)
}

/// What a plugin may try as a key: much of it made to lead out.
fn tried() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c./@+ -]{0,12}",
        "(/?(\\.\\.|\\.|a|b|a-b|))(/(\\.\\.|\\.|a|b|)){0,4}",
        proptest::collection::vec("[a-c]{1,3}", 1..4).prop_map(|parts| parts.join("/")),
    ]
}

fn parsed() -> impl Strategy<Value = BankKey> {
    tried().prop_filter_map("not a key", |text| BankKey::parse(&text).ok())
}

async fn do_everything(section: &BankSection, tried: &BankKey, marker: Option<BankKey>) {
    let hour = Duration::from_secs(3600);
    let _ = section.put(tried, "x".into()).await;
    let _ = section.put_new(tried, "x".into()).await;
    let _ = section.get(tried).await;
    let _ = section.get_range(tried, 0, 1).await;
    let _ = section.stat(tried).await;
    let _ = section.delete(tried).await;
    for prefix in [None, Some(tried.clone())] {
        let request = ListRequest {
            prefix,
            marker: marker.clone(),
            limit: None,
            sort: SortDirection::Descending,
        };
        let _ = section.list(&request).await;
    }
    let _ = section.acquire_lease(tried, "me", hour).await;
    // Anybody can make up a lease.
    for name in [tried.as_str(), "../out", "/prefix", ""] {
        let lease = Lease {
            name: name.to_owned(),
            owner: "me".to_owned(),
            expires_at: chrono::DateTime::UNIX_EPOCH,
        };
        let _ = section.renew_lease(&lease, hour).await;
        let _ = section.release_lease(&lease).await;
    }
    let _ = section.leases().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

proptest! {
    #[test]
    fn every_call_stays_below_the_prefix(
        prefix in parsed(),
        tried in parsed(),
        marker in proptest::option::of(parsed()),
        sub in tried(),
    ) {
        let (bank, section) = bank_and_section(&prefix);
        runtime().block_on(async {
            do_everything(&section, &tried, marker).await;
            if let Ok(smaller) = section.sub_section(&sub) {
                do_everything(&smaller, &tried, None).await;
            }
        });
        let below = format!("{prefix}/");
        for call in bank.calls() {
            // Only listings may name the section itself: what is below it is meant.
            let listing = matches!(call.verb, karbor_testkit::Verb::List | karbor_testkit::Verb::Leases);
            let inside = call.key.starts_with(&below) || (listing && call.key == prefix.as_str());
            prop_assert!(inside, "{:?} of the section '{}'", call, prefix);
            prop_assert!(!call.key.split('/').any(|part| part == ".."));
        }
    }

    #[test]
    fn what_is_beside_is_neither_seen_nor_changed(
        prefix in parsed(),
        others in proptest::collection::vec(parsed(), 0..8),
        tried in parsed(),
    ) {
        let (bank, section) = bank_and_section(&prefix);
        let below = format!("{prefix}/");
        runtime().block_on(async {
            for other in &others {
                bank.put(other, "other".into()).await.unwrap();
            }
            let outside = |bank: &MemoryBank| {
                let mut all = bank.contents();
                all.retain(|key, _| !key.as_str().starts_with(&below));
                all
            };
            let before = outside(bank.inner());
            let listed = section.list(&ListRequest::default()).await.unwrap();
            let inside = bank.inner().contents().len() - before.len();
            assert_eq!(listed.len(), inside);
            do_everything(&section, &tried, None).await;
            assert_eq!(outside(bank.inner()), before);
        });
    }
}

/// The same keys lead to the same objects through a read-only section.
#[tokio::test]
async fn a_read_only_section_shows_the_same() {
    let (_, section) = bank_and_section(&key("a/b"));
    section.put(&key("c/d"), "x".into()).await.unwrap();
    let read: ReadSection = section.read_only();
    let data = [DataSection::Writable(section), DataSection::ReadOnly(read)];
    for section in data {
        assert_eq!(section.get(&key("c/d")).await.unwrap(), "x");
        assert_eq!(
            section
                .sub_section("c")
                .unwrap()
                .stat(&key("d"))
                .await
                .unwrap()
                .key,
            key("d")
        );
        assert_eq!(section.prefix().as_str(), "a/b");
        assert!(section.sub_section("../b").is_err());
    }
}

/// A bank that answers with what was not asked for does not get it past the section.
#[tokio::test]
async fn an_answer_from_outside_is_an_error() {
    #[derive(Debug)]
    struct Liar(MemoryBank);

    #[async_trait::async_trait]
    impl Bank for Liar {
        fn capabilities(&self) -> karbor_plugin::BankCapabilities {
            self.0.capabilities()
        }
        async fn put(&self, key: &BankKey, data: bytes::Bytes) -> Result<(), BankError> {
            self.0.put(key, data).await
        }
        async fn put_new(&self, key: &BankKey, data: bytes::Bytes) -> Result<(), BankError> {
            self.0.put_new(key, data).await
        }
        async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<bytes::Bytes, BankError> {
            self.0.get_at_most(key, most).await
        }
        async fn get_range(
            &self,
            key: &BankKey,
            from: u64,
            n: u64,
        ) -> Result<bytes::Bytes, BankError> {
            self.0.get_range(key, from, n).await
        }
        async fn stat(&self, key: &BankKey) -> Result<karbor_plugin::ObjectInfo, BankError> {
            self.0.stat(key).await
        }
        async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
            self.0.delete(key).await
        }
        async fn list(&self, _: &ListRequest) -> Result<Vec<karbor_plugin::ObjectInfo>, BankError> {
            self.0.list(&ListRequest::default()).await
        }
        async fn acquire_lease(
            &self,
            _: &BankKey,
            owner: &str,
            ttl: Duration,
        ) -> Result<Lease, BankError> {
            self.0.acquire_lease(&key("elsewhere"), owner, ttl).await
        }
        async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
            self.0.renew_lease(lease, ttl).await
        }
        async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
            self.0.release_lease(lease).await
        }
        async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
            self.0.leases(name).await
        }
    }

    let bank = Arc::new(Liar(MemoryBank::new()));
    bank.put(&key("part-2/secret"), "x".into()).await.unwrap();
    let section = BankSection::new(bank, key("part"));
    let error = section.list(&ListRequest::default()).await.unwrap_err();
    assert!(error.to_string().contains("not below 'part'"), "{error}");
    let lease = section
        .acquire_lease(&key("x"), "me", Duration::from_secs(9))
        .await;
    assert!(lease.unwrap_err().to_string().contains("not below 'part'"));
}

/// Errors of leases name what the section's owner knows them by.
#[tokio::test]
async fn lease_errors_are_relative() {
    let (bank, section) = bank_and_section(&key("deep/part"));
    let hour = Duration::from_secs(3600);
    let lease = section.acquire_lease(&key("x"), "one", hour).await.unwrap();
    let error = section
        .acquire_lease(&key("x"), "two", hour)
        .await
        .unwrap_err();
    assert!(
        error.to_string().starts_with("'x' is held by one"),
        "{error}"
    );
    bank.inner().advance(hour * 2);
    section.acquire_lease(&key("x"), "two", hour).await.unwrap();
    let error = section.renew_lease(&lease, hour).await.unwrap_err();
    assert_eq!(error.to_string(), "the lease on 'x' was lost");
    bank.inject(Fault::Fail, 1, |_| true);
    assert!(section.leases().await.is_err());
}
