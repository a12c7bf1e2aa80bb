//! A small command line for measuring the vault against other tools; without arguments it shows
//! a round trip of its own sources in a temporary directory:
//!
//! ```text
//! vault
//! vault init    BANK
//! vault backup  BANK PATH [--parent latest]
//! vault restore BANK TARGET
//! vault verify  BANK [PERCENT]
//! ```
//!
//! The repository is `BANK/karbor/vault`; `restic -r BANK/karbor/vault` opens it with the same password,
//! which is in the environment variable `VAULT_PASSWORD`.
#![allow(clippy::print_stdout)]

use std::{path::Path, sync::Arc, time::Instant};

use chrono::Utc;
use karbor_banks::file_system::FileSystemBank;
use karbor_fs::Dir;
use karbor_plugin::{BankKey, BankSection, Secret};
use karbor_vault::{
    Control, Overwrite, RestoreOptions, Snapshot, SnapshotId, SnapshotMeta, TreeOptions, Vault,
    VaultOptions, VerifyLevel,
};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: vault init BANK | backup BANK PATH [--parent latest] | \
                     restore BANK TARGET | verify BANK [PERCENT]";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Instant::now();
    match arguments[..] {
        ["init", bank] => drop(open(bank).await?),
        ["backup", bank, path] => backup(bank, path, false).await?,
        ["backup", bank, path, "--parent", "latest"] => backup(bank, path, true).await?,
        ["restore", bank, target] => restore(bank, target).await?,
        ["verify", bank] => verify(bank, VerifyLevel::Metadata).await?,
        ["verify", bank, percent] => {
            let percent = percent.parse()?;
            verify(bank, VerifyLevel::Data { percent }).await?;
        }
        [] => round_trip().await?,
        _ => return Err(USAGE.into()),
    }
    println!("{:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Backs up this crate's sources, verifies them, restores them and compares one.
async fn round_trip() -> Result<(), Failure> {
    let place = tempfile::tempdir()?;
    let (bank, target) = (place.path().join("bank"), place.path().join("restored"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let vault = open_with(&bank, "a password".to_owned()).await?;
    backup_into(&vault, &source, None).await?;
    verify_in(&vault, VerifyLevel::Data { percent: 100 }).await?;
    restore_from(&vault, &target).await?;
    let find = |folder: &Path| std::fs::read(folder.join("lib.rs"));
    let restored = target.join(source.strip_prefix("/")?);
    assert_eq!(find(&source)?, find(&restored).or_else(|_| find(&target))?);
    Ok(())
}

async fn open(bank: &str) -> Result<Vault, Failure> {
    let password = std::env::var("VAULT_PASSWORD").map_err(|_| "VAULT_PASSWORD is not set")?;
    open_with(Path::new(bank), password).await
}

async fn open_with(bank: &Path, password: String) -> Result<Vault, Failure> {
    let bank = Arc::new(FileSystemBank::open(bank)?);
    let section = BankSection::new(bank, BankKey::parse("vault")?);
    Ok(Vault::open_or_init(section, &Secret::new(password), VaultOptions::default()).await?)
}

async fn latest(vault: &Vault) -> Result<Snapshot, Failure> {
    let snapshots = vault.snapshots().await?;
    Ok(snapshots.into_iter().next().ok_or("there is no snapshot")?)
}

async fn backup(bank: &str, path: &str, with_parent: bool) -> Result<(), Failure> {
    let vault = open(bank).await?;
    let parent = match with_parent {
        true => Some(latest(&vault).await?.id),
        false => None,
    };
    backup_into(&vault, Path::new(path), parent).await
}

async fn backup_into(
    vault: &Vault,
    path: &Path,
    parent: Option<SnapshotId>,
) -> Result<(), Failure> {
    let meta = SnapshotMeta {
        hostname: "bench".to_owned(),
        username: "bench".to_owned(),
        time: Utc::now(),
        tags: Vec::new(),
        parent,
    };
    let mut writer = vault.writer(meta, Control::default()).await?;
    let source = karbor_fs::Dir::open(path)?;
    writer.add_tree(&source, TreeOptions::default()).await?;
    println!("{:?}", writer.commit().await?);
    Ok(())
}

async fn restore(bank: &str, target: &str) -> Result<(), Failure> {
    restore_from(&open(bank).await?, Path::new(target)).await
}

async fn restore_from(vault: &Vault, target: &Path) -> Result<(), Failure> {
    let snapshot = latest(vault).await?;
    let options = RestoreOptions {
        overwrite: Overwrite::Always,
        ..RestoreOptions::default()
    };
    let done = vault
        .restore_tree(
            &snapshot.id,
            Dir::find(target)?,
            options,
            Control::default(),
        )
        .await?;
    println!("{done:?}");
    Ok(())
}

async fn verify(bank: &str, level: VerifyLevel) -> Result<(), Failure> {
    verify_in(&open(bank).await?, level).await
}

async fn verify_in(vault: &Vault, level: VerifyLevel) -> Result<(), Failure> {
    let snapshot = latest(vault).await?;
    let found = vault
        .verify(&snapshot.id, level, Control::default())
        .await?;
    println!("{found:?}");
    Ok(())
}
