//! A small command line for measuring the vault against other tools:
//!
//! ```text
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
use karbor_plugin::{BankKey, BankSection, Secret};
use karbor_plugins::banks::file_system::FileSystemBank;
use karbor_vault::{
    Control, Overwrite, RestoreOptions, Snapshot, SnapshotMeta, TreeOptions, Vault, VaultOptions,
    VerifyLevel,
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
        _ => return Err(USAGE.into()),
    }
    println!("{:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}

async fn open(bank: &str) -> Result<Vault, Failure> {
    let bank = Arc::new(FileSystemBank::open(Path::new(bank))?);
    let section = BankSection::new(bank, BankKey::parse("vault")?);
    let password = std::env::var("VAULT_PASSWORD").map_err(|_| "VAULT_PASSWORD is not set")?;
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
    let meta = SnapshotMeta {
        hostname: "bench".to_owned(),
        username: "bench".to_owned(),
        time: Utc::now(),
        tags: Vec::new(),
        parent,
    };
    let mut writer = vault.writer(meta, Control::default()).await?;
    writer
        .add_tree(Path::new(path), TreeOptions::default())
        .await?;
    println!("{:?}", writer.commit().await?);
    Ok(())
}

async fn restore(bank: &str, target: &str) -> Result<(), Failure> {
    let vault = open(bank).await?;
    let snapshot = latest(&vault).await?;
    let options = RestoreOptions {
        overwrite: Overwrite::Always,
        ..RestoreOptions::default()
    };
    let target = Path::new(target);
    let done = vault
        .restore_tree(&snapshot.id, target, options, Control::default())
        .await?;
    println!("{done:?}");
    Ok(())
}

async fn verify(bank: &str, level: VerifyLevel) -> Result<(), Failure> {
    let vault = open(bank).await?;
    let snapshot = latest(&vault).await?;
    println!(
        "{:?}",
        vault
            .verify(&snapshot.id, level, Control::default())
            .await?
    );
    Ok(())
}
