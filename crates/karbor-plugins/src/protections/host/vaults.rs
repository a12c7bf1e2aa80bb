//! Opened vaults: opening one derives a key on purpose slowly, so each is opened once, and again only
//! when another is in its place or it is gone; a verification opens its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use karbor_plugin::{BankKey, PluginError, VaultAccess};
use karbor_vault::{Vault, VaultError, VaultOptions};
use tokio::sync::OnceCell;

/// A bank, and where in it.
type Place = (usize, BankKey);

fn place(access: &VaultAccess) -> Place {
    let (bank, place) = access.section.identity();
    (bank, place.clone())
}

/// The vaults that were opened, by bank and the place of their repository in it.
#[derive(Default)]
pub(crate) struct Vaults {
    open: Mutex<HashMap<Place, Arc<OnceCell<Vault>>>>,
}

impl Vaults {
    fn open(&self) -> MutexGuard<'_, HashMap<Place, Arc<OnceCell<Vault>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, access: &VaultAccess) -> Arc<OnceCell<Vault>> {
        self.open().entry(place(access)).or_default().clone()
    }

    /// The vault that is open, if it is the one in the bank still; else opens it.
    async fn current<F>(
        &self,
        access: &VaultAccess,
        open: impl FnOnce() -> F,
    ) -> Result<Vault, VaultError>
    where
        F: Future<Output = Result<Vault, VaultError>>,
    {
        let cell = self.cell(access);
        let Some(vault) = cell.get() else {
            return cell.get_or_try_init(open).await.cloned();
        };
        if vault.is_in_place().await? {
            return Ok(vault.clone());
        }
        tracing::warn!(
            ?vault,
            "the vault in the bank is not the one that was opened"
        );
        let opened = open().await?;
        let cell = Arc::new(OnceCell::new_with(Some(opened.clone())));
        self.open().insert(place(access), cell);
        Ok(opened)
    }

    /// The vault, made if there is none yet. Two callers never make it twice.
    pub(crate) async fn open_or_init(&self, access: &VaultAccess) -> Result<Vault, PluginError> {
        let open = || async {
            let options = VaultOptions::default();
            Vault::open_or_init(access.section.clone(), &access.password, options).await
        };
        Ok(self.current(access, open).await?)
    }

    /// The vault, made if there is none yet, for copies from `like`.
    pub(crate) async fn open_or_init_like(
        &self,
        access: &VaultAccess,
        like: &Vault,
    ) -> Result<Vault, PluginError> {
        let open = || async {
            let options = VaultOptions::default();
            let section = access.section.clone();
            Vault::open_or_init_like(section, &access.password, options, like).await
        };
        Ok(self.current(access, open).await?)
    }

    /// The vault, or `None` when nothing was ever put into it. One whose config or key is lost can be read
    /// as long as it is open.
    pub(crate) async fn existing(
        &self,
        access: &VaultAccess,
    ) -> Result<Option<Vault>, PluginError> {
        let open = || async {
            let options = VaultOptions::default();
            Vault::open(access.section.clone(), &access.password, options).await
        };
        match (self.current(access, open).await, self.cell(access).get()) {
            (Err(error), Some(vault)) => {
                tracing::warn!(?vault, %error, "the vault cannot be opened anew: it is read as long as it is open");
                Ok(Some(vault.clone()))
            }
            (opened, _) => found(opened),
        }
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
