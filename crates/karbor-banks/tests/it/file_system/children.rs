//! Processes that the tests start, to kill them or to watch them: this test binary again, with one
//! of the ignored tests below.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use karbor_banks::file_system::FileSystemBank;
use karbor_plugin::{Bank, BankError};

use super::{key, keys};

const DIRECTORY: &str = "KARBOR_TEST_BANK";

/// Objects that [`writes_until_killed`] replaces.
pub const OBJECTS: usize = 6;

/// Adds the arguments that make this binary run one of the children.
pub fn with_child<'a>(command: &'a mut Command, name: &str, directory: &Path) -> &'a mut Command {
    command
        .arg(format!("file_system::children::{name}"))
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
}

fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY)
        .expect("only started by another test")
        .into()
}

/// The bytes of a version of an object: they say which it is and betray a mixture.
pub fn content(version: u64) -> Bytes {
    let size = 200_000 + usize::try_from(version % 7).unwrap() * 400_000;
    version.to_be_bytes().repeat(size / 8).into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child of other tests"]
async fn writes_until_killed() {
    let bank = FileSystemBank::open(&directory()).unwrap();
    let writers = (0..OBJECTS).map(|object| {
        let bank = bank.clone();
        tokio::spawn(async move {
            let own = key(&format!("objects/{object}/data"));
            let passing = key(&format!("passing/{object}/data"));
            for version in 1_u64.. {
                bank.put(&own, content(version)).await.unwrap();
                // One write, so that the lines of several writers do not mix.
                let line = format!("wrote {object} {version}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
                bank.put_new(&passing, content(version)).await.unwrap();
                bank.delete(&passing).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
}

#[tokio::test]
#[ignore = "a child of other tests"]
async fn leases_until_killed() {
    let bank = FileSystemBank::open(&directory()).unwrap();
    let (name, ttl) = (key("thing"), std::time::Duration::from_secs(3600));
    loop {
        let lease = bank.acquire_lease(&name, "child", ttl).await.unwrap();
        let lease = bank.renew_lease(&lease, ttl).await.unwrap();
        std::io::stdout().write_all(b"wrote 0 1\n").unwrap();
        bank.release_lease(&lease).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "a child of other tests"]
async fn writes_a_little() {
    let bank = FileSystemBank::open(&directory()).unwrap();
    bank.put(&key("new/dir/object"), "one".into())
        .await
        .unwrap();
    bank.put(&key("new/dir/object"), "two".into())
        .await
        .unwrap();
    bank.put_new(&key("new/dir/fresh"), "three".into())
        .await
        .unwrap();
    bank.delete(&key("new/dir/object")).await.unwrap();
}

/// On a file system of two megabytes.
#[tokio::test]
#[ignore = "a child of other tests"]
async fn fills_the_disk() {
    let bank = FileSystemBank::open(&directory()).unwrap();
    let old = Bytes::from(vec![1; 500_000]);
    let large = Bytes::from(vec![2; 4_000_000]);
    bank.put(&key("a/object"), old.clone()).await.unwrap();
    for name in ["a/object", "b/new"] {
        let error = bank.put(&key(name), large.clone()).await.unwrap_err();
        assert!(matches!(error, BankError::Full(_)), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = bank.put_new(&key("b/new"), large).await.unwrap_err();
    assert!(matches!(error, BankError::Full(_)), "{error}");
    // What was there is there, what is not whole is not, and the space is free again.
    assert_eq!(bank.get(&key("a/object")).await.unwrap(), old);
    assert_eq!(keys(&bank).await, ["a/object"]);
    bank.put(&key("c/next"), vec![3; 900_000].into())
        .await
        .unwrap();
    ends_what_it_began(&bank).await;
}

/// When not a page is left, what was begun can be ended, what is there can be deleted, and nothing new comes.
async fn ends_what_it_began(bank: &FileSystemBank) {
    let (record, lease) = (key("d/index.json"), key("checkpoints/d/delete-1"));
    bank.put(&record, "protecting".into()).await.unwrap();
    let mut fillers = 0;
    for size in [65_536, 4096, 1] {
        let filler = Bytes::from(vec![4; size]);
        while bank
            .put(&key(&format!("e/{fillers}")), filler.clone())
            .await
            .is_ok()
        {
            fillers += 1;
        }
    }
    for round in 0..3 {
        let status = Bytes::from(format!("error, told {round} times"));
        bank.put(&record, status.clone()).await.unwrap();
        assert_eq!(bank.get(&record).await.unwrap(), status);
        let minute = std::time::Duration::from_secs(60);
        let held = bank.acquire_lease(&lease, "us", minute).await.unwrap();
        bank.release_lease(&held).await.unwrap();
        let error = bank.put(&key("d/new"), "x".into()).await.unwrap_err();
        assert!(matches!(error, BankError::Full(_)), "{error}");
    }
    for number in 0..fillers {
        bank.delete(&key(&format!("e/{number}"))).await.unwrap();
    }
    bank.delete(&record).await.unwrap();
}

/// On a file system that is mounted read-only after [`fills_the_disk`].
#[tokio::test]
#[ignore = "a child of other tests"]
async fn reads_from_a_read_only_disk() {
    let bank = FileSystemBank::open(&directory()).unwrap();
    assert_eq!(keys(&bank).await, ["a/object", "c/next"]);
    assert_eq!(bank.get(&key("a/object")).await.unwrap().len(), 500_000);
    for error in [
        bank.put(&key("a/object"), "x".into()).await.unwrap_err(),
        bank.delete(&key("a/object")).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("mount it writable"), "{error}");
    }
}
