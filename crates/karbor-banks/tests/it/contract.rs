//! The contract of banks, kept by each.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use karbor_banks::file_system::FileSystemBank;
use karbor_model::{GivenOption, Options};
use karbor_plugin::{Bank, contract, layers};
use karbor_testkit::{FaultyBank, MemoryBank};

#[tokio::test(flavor = "multi_thread")]
async fn memory_bank() {
    contract::bank::suite(async || Arc::new(MemoryBank::new()) as Arc<dyn Bank>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_bank_without_faults() {
    let fresh = async || Arc::new(FaultyBank::new(MemoryBank::new())) as Arc<dyn Bank>;
    contract::bank::suite(fresh).await;
}

/// Each layer by itself, then all of them as a bank that is opened gets them.
#[tokio::test(flavor = "multi_thread")]
async fn layers_around_a_bank() {
    let memory = || Arc::new(MemoryBank::new()) as Arc<dyn Bank>;
    contract::bank::suite(async || layers::retry(memory())).await;
    contract::bank::suite(async || layers::timeout(memory(), Duration::from_secs(60))).await;
    contract::bank::suite(async || layers::concurrency(memory(), 1)).await;
    contract::bank::suite(async || layers::metrics(memory()).0).await;
    let defaults = layers::OPTIONS
        .iter()
        .map(|option| GivenOption::from(*option));
    let limits = layers::Limits::of(&Options::check(defaults).unwrap()).unwrap();
    let all = async || layers::layered(memory(), limits).0;
    contract::bank::suite(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_system_bank() {
    let kept = Mutex::new(Vec::new());
    contract::bank::suite(async || {
        let directory = tempfile::tempdir().unwrap();
        let bank = FileSystemBank::open(directory.path()).unwrap();
        kept.lock().unwrap().push(directory);
        Arc::new(bank) as Arc<dyn Bank>
    })
    .await;
    for directory in kept.into_inner().unwrap() {
        let areas = std::fs::read_dir(directory.path().join("karbor/+tmp"));
        for area in areas.into_iter().flatten().flatten() {
            let files = std::fs::read_dir(area.path()).unwrap().count();
            assert_eq!(files, 1, "only its lock is in {}", area.path().display());
        }
    }
}
