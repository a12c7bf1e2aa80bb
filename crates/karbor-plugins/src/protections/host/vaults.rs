//! Opened vaults: opening one derives a key on purpose slowly, so each is opened once; a verification
//! opens its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use karbor_plugin::{BankKey, PluginError, VaultAccess};
use karbor_vault::{Vault, VaultError, VaultOptions};
use tokio::sync::OnceCell;

/// A bank, and where in it.
type Place = (usize, BankKey);

/// The vaults that were opened, by bank and the place of their repository in it.
#[derive(Default)]
pub(crate) struct Vaults {
    open: Mutex<HashMap<Place, Arc<OnceCell<Vault>>>>,
}

impl Vaults {
    fn cell(&self, access: &VaultAccess) -> Arc<OnceCell<Vault>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (bank, place) = access.section.identity();
        open.entry((bank, place.clone())).or_default().clone()
    }

    /// The vault, made if there is none yet. Two callers never make it twice.
    pub(crate) async fn open_or_init(&self, access: &VaultAccess) -> Result<Vault, PluginError> {
        let cell = self.cell(access);
        let open = || async {
            let options = VaultOptions::default();
            Vault::open_or_init(access.section.clone(), &access.password, options).await
        };
        Ok(cell.get_or_try_init(open).await?.clone())
    }

    /// The vault, made if there is none yet, for copies from `like`.
    pub(crate) async fn open_or_init_like(
        &self,
        access: &VaultAccess,
        like: &Vault,
    ) -> Result<Vault, PluginError> {
        let cell = self.cell(access);
        let open = || async {
            let options = VaultOptions::default();
            let section = access.section.clone();
            Vault::open_or_init_like(section, &access.password, options, like).await
        };
        Ok(cell.get_or_try_init(open).await?.clone())
    }

    /// The vault, or `None` when nothing was ever put into it.
    pub(crate) async fn existing(
        &self,
        access: &VaultAccess,
    ) -> Result<Option<Vault>, PluginError> {
        let cell = self.cell(access);
        let open = || async {
            let options = VaultOptions::default();
            Vault::open(access.section.clone(), &access.password, options).await
        };
        found(cell.get_or_try_init(open).await.cloned())
    }

    /// As [`existing`](Self::existing), but opened now: its config and keys have to be there and whole.
    pub(crate) async fn afresh(access: &VaultAccess) -> Result<Option<Vault>, PluginError> {
        let options = VaultOptions::default();
        found(Vault::open(access.section.clone(), &access.password, options).await)
    }
}

/// A repository that is not there is no error.
fn found(opened: Result<Vault, VaultError>) -> Result<Option<Vault>, PluginError> {
    match opened {
        Ok(vault) => Ok(Some(vault)),
        Err(VaultError::NotARepository(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
