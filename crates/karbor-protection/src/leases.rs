//! Leases on checkpoints: who is at work on one, across services and hosts.
//!
//! An operation claims `checkpoints/<checkpoint>/<operation>-<run>` first and looks at the other
//! claims second. Of two operations that exclude each other at least one sees the other, so never
//! do both go on; at worst neither does, and both say who was in the way.

use std::{sync::Arc, time::Duration};

use karbor_model::{CheckpointId, OperationId, OperationType};
use karbor_plugin::{Bank, BankError, BankKey, Lease};
use tokio_util::sync::CancellationToken;

/// How long a claim lives if nobody renews it.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(60);

/// A claim on a checkpoint, to be renewed while the operation runs.
#[derive(Debug)]
pub(crate) struct CheckpointLease {
    bank: Arc<dyn Bank>,
    lease: Lease,
}

impl CheckpointLease {
    /// Claims a checkpoint for one run of an operation. Restores and verifications share a
    /// checkpoint; protect and delete have it alone.
    ///
    /// # Errors
    /// [`BankError::LeaseHeld`] names who is at work on it; or whatever the bank fails with.
    pub(crate) async fn acquire(
        bank: Arc<dyn Bank>,
        checkpoint: CheckpointId,
        operation: OperationType,
        run: OperationId,
        owner: &str,
    ) -> Result<Self, BankError> {
        let place = BankKey::parse(&format!("checkpoints/{checkpoint}"))?;
        let name = place.join(&format!("{operation}-{run}"))?;
        let lease = bank.acquire_lease(&name, owner, LEASE_TTL).await?;
        let claim = Self { bank, lease };
        let others = claim.bank.leases(&place).await;
        let blocking = others.map(|others| {
            others.into_iter().find(|other| {
                other.name != claim.lease.name
                    && (is_exclusive(operation) || exclusive_name(&other.name))
            })
        });
        match blocking {
            Ok(None) => Ok(claim),
            Ok(Some(Lease {
                name,
                owner,
                expires_at,
            })) => {
                claim.release().await;
                Err(BankError::LeaseHeld {
                    name,
                    owner,
                    expires_at,
                })
            }
            Err(error) => {
                claim.release().await;
                Err(error)
            }
        }
    }

    /// Renews the claim until `done`; cancels `run` when it is lost or cannot be renewed in time,
    /// since somebody else may then be at work on the same checkpoint.
    pub(crate) async fn keep(mut self, done: CancellationToken, run: CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = done.cancelled() => break,
                () = tokio::time::sleep(LEASE_TTL / 4) => {}
            }
            match self.bank.renew_lease(&self.lease, LEASE_TTL).await {
                Ok(lease) => {
                    self.lease = lease;
                    renewed = tokio::time::Instant::now();
                }
                Err(error) => {
                    tracing::error!(lease = self.lease.name, %error, "a lease could not be renewed");
                    let lost = matches!(error, BankError::LeaseLost(_));
                    if lost || renewed.elapsed() > LEASE_TTL * 3 / 4 {
                        run.cancel();
                        done.cancelled().await;
                        break;
                    }
                }
            }
        }
        self.release().await;
    }

    /// Gives the claim up. What cannot be given up ends by itself.
    pub(crate) async fn release(self) {
        if let Err(error) = self.bank.release_lease(&self.lease).await {
            tracing::warn!(lease = self.lease.name, %error, "a lease could not be released; it ends by itself");
        }
    }
}

/// Is anybody at work on the checkpoint?
///
/// # Errors
/// Whatever the bank fails with.
pub(crate) async fn holder(
    bank: &dyn Bank,
    checkpoint: CheckpointId,
) -> Result<Option<Lease>, BankError> {
    let place = BankKey::parse(&format!("checkpoints/{checkpoint}"))?;
    Ok(bank.leases(&place).await?.into_iter().next())
}

fn is_exclusive(operation: OperationType) -> bool {
    matches!(operation, OperationType::Protect | OperationType::Delete)
}

fn exclusive_name(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    [OperationType::Protect, OperationType::Delete]
        .iter()
        .any(|operation| {
            name.strip_prefix(operation.as_str())
                .is_some_and(|rest| rest.starts_with('-'))
        })
}
