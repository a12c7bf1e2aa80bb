//! How a bank lists.

use bytes::Bytes;

use super::{bytes, key};
use crate::{Bank, ListRequest, SortDirection, list_all};

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
