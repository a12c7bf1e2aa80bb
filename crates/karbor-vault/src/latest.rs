//! Looks at the bank that serve all who asked for them before they began.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::VaultError;

/// A look that is taken by one at a time, and answers with no less than what was there when it was asked for.
#[derive(Default)]
pub(crate) struct Latest {
    /// How many looks have begun.
    begun: AtomicU64,
    /// The latest that ended well.
    ended: tokio::sync::Mutex<u64>,
}

impl Latest {
    /// Takes a look, unless one ended well meanwhile that began after this call.
    ///
    /// # Errors
    /// The look's own.
    pub(crate) async fn look<F>(&self, look: impl FnOnce() -> F) -> Result<(), VaultError>
    where
        F: Future<Output = Result<(), VaultError>>,
    {
        let asked = self.begun.load(SeqCst);
        let mut ended = self.ended.lock().await;
        if *ended > asked {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, SeqCst) + 1;
        look().await?;
        *ended = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn one_look_serves_all_who_asked_before_it_began() {
        let (latest, taken, go) = (
            Latest::default(),
            AtomicUsize::new(0),
            tokio::sync::Semaphore::new(0),
        );
        let look = || async {
            taken.fetch_add(1, SeqCst);
            go.acquire().await.unwrap().forget();
            Ok(())
        };
        let first = latest.look(look);
        tokio::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
        // It may have passed what these ask for.
        let others = futures::future::join_all((0..3).map(|_| latest.look(look)));
        tokio::pin!(others);
        assert!(futures::poll!(&mut others).is_pending());
        go.add_permits(2);
        first.await.unwrap();
        for other in others.await {
            other.unwrap();
        }
        assert_eq!(taken.load(SeqCst), 2);
        go.add_permits(1);
        latest.look(look).await.unwrap();
        assert_eq!(taken.load(SeqCst), 3);
    }

    #[tokio::test]
    async fn a_look_that_failed_serves_nobody() {
        let latest = Latest::default();
        let failed = latest.look(|| async { Err(VaultError::Cancelled) });
        failed.await.unwrap_err();
        let taken = AtomicUsize::new(0);
        let look = || async {
            taken.fetch_add(1, SeqCst);
            Ok(())
        };
        latest.look(look).await.unwrap();
        assert_eq!(taken.load(SeqCst), 1);
    }
}
