//! Opened vaults: opening one derives a key on purpose slowly, so each is opened once, and again only
//! when another is in its place or it is gone; a verification opens its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use karbor_plugin::{BankKey, PluginError, VaultAccess};
use karbor_vault::{Vault, VaultError, VaultOptions};

/// A bank, and where in it.
type RepositoryId = (usize, BankKey);

fn repository(access: &VaultAccess) -> RepositoryId {
    let (bank, place) = access.section.identity();
    (bank, place.clone())
}

/// The vaults that were opened, by bank and the place of their repository in it.
#[derive(Default)]
pub(crate) struct Vaults {
    open: Mutex<HashMap<RepositoryId, Arc<Slot>>>,
}

/// The vault of one place.
#[derive(Default)]
struct Slot {
    vault: Mutex<Option<Vault>>,
    /// Held while a run opens it: the others that wait find it open and do not open it again.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    fn vault(&self) -> Option<Vault> {
        lock(&self.vault).clone()
    }

    /// The vault that is open, if it is the one in the bank still.
    async fn in_place(&self) -> Result<Option<Vault>, VaultError> {
        match self.vault() {
            Some(vault) if vault.is_in_place().await? => Ok(Some(vault)),
            _ => Ok(None),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vaults {
    fn slot(&self, access: &VaultAccess) -> Arc<Slot> {
        lock(&self.open)
            .entry(repository(access))
            .or_default()
            .clone()
    }

    /// The vault that is open, if it is the one in the bank still; else opens it. Of several who find that
    /// it is not, one opens it: two open vaults of one repository would not know what the other stores.
    async fn current<F>(
        &self,
        access: &VaultAccess,
        open: impl FnOnce() -> F,
    ) -> Result<Vault, VaultError>
    where
        F: Future<Output = Result<Vault, VaultError>>,
    {
        let slot = self.slot(access);
        if let Some(vault) = slot.in_place().await? {
            return Ok(vault);
        }
        let _one_at_a_time = slot.opening.lock().await;
        if let Some(vault) = slot.in_place().await? {
            return Ok(vault);
        }
        if let Some(vault) = slot.vault() {
            tracing::warn!(
                ?vault,
                "the vault in the bank is not the one that was opened"
            );
        }
        let opened = open().await?;
        *lock(&slot.vault) = Some(opened.clone());
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
        match (self.current(access, open).await, self.slot(access).vault()) {
            (Err(error), Some(vault)) => {
                tracing::warn!(?vault, %error, "the vault cannot be opened anew: it is read as long as it is open");
                Ok(Some(vault))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use karbor_plugin::{Bank, BankSection, Secret};
    use karbor_testkit::MemoryBank;

    use super::*;

    #[tokio::test]
    async fn of_several_who_find_an_exchanged_vault_one_opens_it() {
        let bank: Arc<dyn Bank> = Arc::new(MemoryBank::new());
        let access = VaultAccess {
            section: BankSection::new(bank.clone(), BankKey::parse("vaults/p/q").unwrap()),
            password: Secret::new("correct horse".to_owned()),
        };
        let vaults = Vaults::default();
        vaults.open_or_init(&access).await.unwrap();
        access
            .section
            .delete(&BankKey::parse("config").unwrap())
            .await
            .unwrap();
        let opened = AtomicUsize::new(0);
        let open = || async {
            opened.fetch_add(1, Ordering::Relaxed);
            // The others come meanwhile.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let options = VaultOptions::default();
            Vault::open_or_init(access.section.clone(), &access.password, options).await
        };
        let all = futures::future::join_all((0..4).map(|_| vaults.current(&access, open)));
        for vault in all.await {
            assert!(vault.unwrap().is_in_place().await.unwrap());
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }
}
