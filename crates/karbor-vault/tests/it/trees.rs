//! Random trees come back as they were, also with a parent.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use karbor_vault::{Control, RestoreOptions, SnapshotMeta, TreeOptions, VerifyLevel};
use proptest::prelude::*;

use crate::support::*;

#[derive(Debug, Clone)]
enum Entry {
    File { seed: u64, size: usize, mode: u32 },
    Link(Vec<u8>),
    Dir(Vec<(Vec<u8>, Entry)>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..20),
    ]
    .prop_map(|mut name| {
        name.iter_mut()
            .filter(|byte| matches!(byte, b'/' | 0))
            .for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." {
            name.push(b'x');
        }
        name
    })
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![10 => 0_usize..5000, 2 => 500_000_usize..600_000, 1 => 1_000_000_usize..6_000_000]
}

fn entry() -> impl Strategy<Value = Entry> {
    let target = prop::collection::vec(1_u8..=255, 1..30);
    let leaf = prop_oneof![
        6 => (0_u64..20, size(), 0_u32..0o10000).prop_map(|(seed, size, mode)| Entry::File { seed, size, mode }),
        1 => target.prop_map(Entry::Link),
    ];
    leaf.prop_recursive(5, 24, 6, |inner| {
        prop::collection::vec((name(), inner), 0..6).prop_map(Entry::Dir)
    })
}

fn make(at: &Path, entry: &Entry) {
    match entry {
        Entry::File { seed, size, mode } => {
            let half = size / 2;
            let mut data = noise(*seed, half);
            data.resize(*size, *seed as u8 % 3);
            fs::write(at, data).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(*mode | 0o400)).unwrap();
        }
        Entry::Link(target) => symlink(OsStr::from_bytes(target), at).unwrap(),
        Entry::Dir(entries) => {
            fs::create_dir(at).unwrap();
            for (name, entry) in entries {
                let path = at.join(OsStr::from_bytes(name));
                if fs::symlink_metadata(&path).is_err() {
                    make(&path, entry);
                }
            }
        }
    }
}

async fn round_trip(first: Entry, second: Entry) {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    make(&root.join("first"), &first);
    let stored = store(&vault, &root).await.unwrap();
    make(&root.join("second"), &second);
    let meta = SnapshotMeta {
        parent: Some(stored.id),
        time: time(1),
        ..meta()
    };
    let stored = store_with(&vault, &root, meta, TreeOptions::default())
        .await
        .unwrap();
    let level = VerifyLevel::Data { percent: 100 };
    vault
        .verify(&stored.id, level, Control::default())
        .await
        .unwrap();
    let target = dir.path().join("target");
    let options = RestoreOptions {
        subpath: subpath(&root),
        ..Default::default()
    };
    vault
        .restore_tree(&stored.id, found_at(&target), options, Control::default())
        .await
        .unwrap();
    assert_same(&describe(&root), &describe(&target));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(first in entry(), second in entry()) {
        tokio::runtime::Runtime::new().unwrap().block_on(round_trip(first, second));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_deeper_than_any_path_comes_back() {
    let (_, vault) = memory().await;
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    // 40 × 200 bytes: twice what a path may have, so it is made and compared step by step.
    let name = "d".repeat(200);
    let depth = 40;
    let open =
        |at: &Path| rustix::fs::open(at, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty());
    let mut at = open(&top).unwrap();
    let next = |at: &std::os::fd::OwnedFd| {
        rustix::fs::openat(
            at,
            &name,
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap()
    };
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = next(&at);
    }
    rustix::fs::symlinkat("bottom", &at, "link").unwrap();
    let stored = store(&vault, &top).await.unwrap();
    assert_eq!((stored.files, stored.left_out.total), (1, 0));
    let target = dir.path().join("target");
    let options = RestoreOptions {
        subpath: subpath(&top),
        ..Default::default()
    };
    vault
        .restore_tree(&stored.id, found_at(&target), options, Control::default())
        .await
        .unwrap();
    let mut at = open(&target).unwrap();
    for _ in 0..depth {
        at = next(&at);
    }
    let link = rustix::fs::readlinkat(&at, "link", Vec::new()).unwrap();
    assert_eq!(link.to_bytes(), b"bottom");
}
