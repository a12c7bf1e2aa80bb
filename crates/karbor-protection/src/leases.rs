//! Leases on checkpoints: who is at work on one, across services and hosts.
//!
//! An operation claims `checkpoints/<checkpoint>/<operation>-<run>` first and looks at the other
//! claims second. Of two operations that exclude each other at least one sees the other, so never
//! do both go on. If both see the other, the one that only reads stays, or else the one whose name
//! comes first; the other withdraws its claim while it waits. So one of them goes on.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use karbor_manager::Clock;
use karbor_model::{CheckpointId, OperationId};
use karbor_plugin::{Bank, BankError, BankKey, Lease};
use tokio_util::sync::CancellationToken;

/// How long a claim lives if nobody renews it.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(60);

/// Why work whose claim lapsed came to its end.
pub(crate) const LOST: &str = "The claim on the checkpoint could not be kept: the bank did not answer for too long, or another \
                               service took the checkpoint. Try again when the bank is there.";

/// How often to look whether the holder that is in the way of a new claim has gone, and at what pace.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// What a checkpoint is claimed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Protect,
    Restore,
    Verify,
    /// Being copied; one copy of it is made at a time.
    Copy,
    /// Being made as a copy of another.
    Copied,
    Delete,
    /// Setting its state by hand.
    Reset,
}

impl Purpose {
    const ALL: [Self; 7] = [
        Self::Protect,
        Self::Restore,
        Self::Verify,
        Self::Copy,
        Self::Copied,
        Self::Delete,
        Self::Reset,
    ];

    /// What names of leases begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Copy => "copy",
            Self::Copied => "copied",
            Self::Delete => "delete",
            Self::Reset => "reset",
        }
    }

    /// What is being done, in words.
    fn doing(self) -> &'static str {
        match self {
            Self::Protect => "is being made",
            Self::Restore => "is being restored",
            Self::Verify => "is being verified",
            Self::Copy => "is being copied",
            Self::Copied => "is being made as a copy",
            Self::Delete => "is being deleted",
            Self::Reset => "is having its status set",
        }
    }

    /// The purpose of a lease; nothing for one that we cannot read.
    fn of(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or_default();
        Self::ALL.into_iter().find(|purpose| {
            name.strip_prefix(purpose.name())
                .is_some_and(|rest| rest.starts_with('-'))
        })
    }

    /// Does it have the checkpoint alone? What has not only reads it.
    pub(crate) fn is_exclusive(self) -> bool {
        !matches!(self, Self::Restore | Self::Verify | Self::Copy)
    }

    /// A lease whose purpose we cannot read we do not share with.
    fn excludes(self, lease: &Lease) -> bool {
        let other = Self::of(&lease.name);
        let both_copy = self == Self::Copy && other == Some(Self::Copy);
        both_copy || self.is_exclusive() || other.is_none_or(Self::is_exclusive)
    }

    /// Who stays when two are in each other's way: readers first.
    fn rank(lease: &Lease) -> (bool, &str) {
        let purpose = Self::of(&lease.name);
        (purpose.is_none_or(Self::is_exclusive), &lease.name)
    }
}

/// What is going on under a lease, and what to do about it.
pub(crate) fn told(name: &str, owner: &str) -> String {
    let mut parts = name.rsplit('/');
    let checkpoint = parts.nth(1).unwrap_or(name);
    let doing = Purpose::of(name).map_or("is in use", Purpose::doing);
    format!(
        "Checkpoint {checkpoint} {doing} by another operation (of the service at {owner}). Wait until \
         that has ended, then try again."
    )
}

/// A claim on a checkpoint, to be renewed while the work goes on.
#[derive(Debug)]
pub(crate) struct CheckpointLease {
    bank: Arc<dyn Bank>,
    place: BankKey,
    purpose: Purpose,
    lease: Lease,
    /// It lapsed, and it is not known yet whether somebody else came meanwhile.
    must_look: bool,
}

impl CheckpointLease {
    /// Claims a checkpoint for one run. A run that is in the way has a moment to go: what a run did can
    /// be seen just before it lets go of its claim, and a user may act on it at once.
    ///
    /// # Errors
    /// [`BankError::LeaseHeld`] names who is at work on it; or whatever the bank fails with.
    pub(crate) async fn acquire(
        bank: Arc<dyn Bank>,
        clock: &dyn Clock,
        checkpoint: CheckpointId,
        purpose: Purpose,
        run: OperationId,
        owner: &str,
    ) -> Result<Self, BankError> {
        let place = BankKey::parse(&format!("checkpoints/{checkpoint}"))?;
        let name = place.join(&format!("{}-{run}", purpose.name()))?;
        let lease = bank.acquire_lease(&name, owner, LEASE_TTL).await?;
        let mut claim = Self {
            bank,
            place,
            purpose,
            lease,
            must_look: false,
        };
        let mut is_held = true;
        let mut looks = 1;
        loop {
            match claim.in_the_way().await {
                Ok(None) if is_held => return Ok(claim),
                // Withdrawn; it counts only if nobody comes in between.
                Ok(None) => {
                    claim.lease = claim.bank.acquire_lease(&name, owner, LEASE_TTL).await?;
                    is_held = true;
                }
                Ok(Some(other)) if looks < LOOKS => {
                    if is_held && Purpose::rank(&other) < Purpose::rank(&claim.lease) {
                        claim.bank.release_lease(&claim.lease).await?;
                        is_held = false;
                    }
                    looks += 1;
                    clock.sleep(PAUSE).await;
                }
                Ok(Some(other)) => {
                    claim.release().await;
                    return Err(held_by(other));
                }
                Err(error) => {
                    claim.release().await;
                    return Err(error);
                }
            }
        }
    }

    /// Who else is at work on the checkpoint and may not be.
    async fn in_the_way(&self) -> Result<Option<Lease>, BankError> {
        let others = self.bank.leases(&self.place).await?;
        let excluded =
            |other: &Lease| other.name != self.lease.name && self.purpose.excludes(other);
        Ok(others.into_iter().find(excluded))
    }

    /// Renews the claim until `done`, then gives it up; tells `run` when it is lost or cannot be renewed in time,
    /// since somebody else may then be at work on the same checkpoint.
    pub(crate) async fn keep(
        mut self,
        clock: &dyn Clock,
        done: CancellationToken,
        run: CancellationToken,
    ) {
        self.renew_until(clock, &done, &run).await;
        self.release().await;
    }

    /// Does some work under claims, which are renewed meanwhile. `None`: one was lost, and the work was given up, as
    /// somebody else may be at work on the same checkpoint.
    pub(crate) async fn during<T>(
        claims: &mut [Self],
        clock: &dyn Clock,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (done, lost) = (CancellationToken::new(), CancellationToken::new());
        let work = async {
            let worked = tokio::select! {
                biased;
                worked = work => Some(worked),
                () = lost.cancelled() => None,
            };
            done.cancel();
            worked
        };
        let renewals = claims.iter_mut();
        let renewals = renewals.map(|claim| claim.renew_until(clock, &done, &lost));
        tokio::join!(work, join_all(renewals)).0
    }

    async fn renew_until(
        &mut self,
        clock: &dyn Clock,
        done: &CancellationToken,
        run: &CancellationToken,
    ) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = clock.sleep(self.pause(clock)) => {}
            }
            // One that could not be renewed before its end is not tried again after it.
            let mut is_over = is_failing && self.has_lapsed(clock);
            if !is_over {
                let Err(error) = self.renew(clock).await else {
                    is_failing = false;
                    continue;
                };
                tracing::error!(lease = self.lease.name, %error, "a lease could not be renewed");
                let lost = matches!(error, BankError::LeaseLost(_) | BankError::LeaseHeld { .. });
                is_over = lost || self.has_lapsed(clock);
                is_failing = true;
            }
            if is_over {
                run.cancel();
                return done.cancelled().await;
            }
        }
    }

    /// How long to wait for the next renewal, and for its answer: a claim that ends is noticed when it does.
    fn pause(&self, clock: &dyn Clock) -> Duration {
        let left = (self.lease.expires_at - clock.now()).to_std();
        match left {
            Ok(left) if !left.is_zero() => left.min(LEASE_TTL / 4),
            _ => LEASE_TTL / 4,
        }
    }

    fn has_lapsed(&self, clock: &dyn Clock) -> bool {
        self.lease.expires_at <= clock.now()
    }

    /// A claim that lapsed (a machine that slept, a bank that hung) may be taken up again only if
    /// nobody relied on its absence meanwhile. Until that is known it is not made to last longer.
    async fn renew(&mut self, clock: &dyn Clock) -> Result<(), BankError> {
        let patience = self.pause(clock);
        if !self.must_look {
            self.must_look = self.has_lapsed(clock);
            let renewing = self.bank.renew_lease(&self.lease, LEASE_TTL);
            self.lease = in_time(clock, patience, renewing).await?;
        }
        if self.must_look {
            if let Some(other) = in_time(clock, patience, self.in_the_way()).await? {
                return Err(held_by(other));
            }
            self.must_look = false;
        }
        Ok(())
    }

    /// Gives the claim up. What cannot be given up ends by itself.
    pub(crate) async fn release(self) {
        if let Err(error) = self.bank.release_lease(&self.lease).await {
            tracing::warn!(lease = self.lease.name, %error, "a lease could not be released; it ends by itself");
        }
    }
}

async fn in_time<T>(
    clock: &dyn Clock,
    patience: Duration,
    asked: impl Future<Output = Result<T, BankError>>,
) -> Result<T, BankError> {
    let answer = karbor_manager::timeout(clock, patience, asked).await;
    answer.map_err(|elapsed| BankError::Other {
        message: elapsed.to_string(),
        at: None,
        retryable: true,
    })?
}

fn held_by(lease: Lease) -> BankError {
    BankError::LeaseHeld {
        name: lease.name,
        owner: lease.owner,
        expires_at: lease.expires_at,
    }
}

/// Every live claim of `owner` in the bank, with the run it is for.
///
/// # Errors
/// Whatever the bank fails with.
pub(crate) async fn claims_of(
    bank: &dyn Bank,
    owner: &str,
) -> Result<Vec<(OperationId, Lease)>, BankError> {
    let all = bank.leases(&BankKey::parse("checkpoints")?).await?;
    let ours = all.into_iter().filter(|lease| lease.owner == owner);
    Ok(ours
        .filter_map(|lease| {
            let name = lease.name.rsplit('/').next()?;
            let run = name.split_once('-')?.1.parse().ok()?;
            Some((run, lease))
        })
        .collect())
}

/// Is anybody at work on the checkpoint?
///
/// # Errors
/// Whatever the bank fails with.
pub(crate) async fn is_held(bank: &dyn Bank, checkpoint: CheckpointId) -> Result<bool, BankError> {
    let place = BankKey::parse(&format!("checkpoints/{checkpoint}"))?;
    Ok(!bank.leases(&place).await?.is_empty())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use karbor_testkit::{FakeClock, Fault, FaultyBank, MemoryBank, Verb};

    use super::*;

    struct Scene {
        bank: Arc<FaultyBank<MemoryBank>>,
        clock: FakeClock,
        checkpoint: CheckpointId,
    }

    impl Scene {
        fn new() -> Self {
            let clock = FakeClock::new();
            clock.set_time_of_day(Utc::now());
            Self {
                bank: Arc::new(FaultyBank::new(MemoryBank::new())),
                clock,
                checkpoint: CheckpointId::new(),
            }
        }

        async fn claim(&self, purpose: Purpose) -> CheckpointLease {
            let (bank, run) = (self.bank.clone(), OperationId::new());
            CheckpointLease::acquire(bank, &self.clock, self.checkpoint, purpose, run, "owner")
                .await
                .unwrap()
        }

        /// Everybody sleeps until all claims have ended.
        fn lapse(&self) {
            let while_ = LEASE_TTL + Duration::from_secs(1);
            self.bank.inner().advance(while_);
            self.clock.turn(while_);
        }
    }

    #[tokio::test]
    async fn a_lapsed_claim_is_carried_on_only_after_a_look_that_found_nobody() {
        let scene = Scene::new();
        let mut claim = scene.claim(Purpose::Delete).await;
        scene.lapse();
        let other = scene.claim(Purpose::Restore).await;
        scene
            .bank
            .inject(Fault::Fail, 1, |call| call.verb == Verb::Leases);
        claim.renew(&scene.clock).await.unwrap_err();
        for _ in 0..2 {
            let error = claim.renew(&scene.clock).await.unwrap_err();
            assert!(matches!(error, BankError::LeaseHeld { .. }), "{error}");
        }
        other.release().await;
        claim.renew(&scene.clock).await.unwrap();
        // What is known is not looked at again.
        let looks = scene.bank.count(Verb::Leases);
        claim.renew(&scene.clock).await.unwrap();
        assert_eq!(scene.bank.count(Verb::Leases), looks);
    }

    /// Others may begin from then on.
    #[tokio::test]
    async fn a_claim_that_ends_is_noticed_when_it_does() {
        let scene = Scene::new();
        let claim = scene.claim(Purpose::Delete).await;
        for (fault, times) in [(Fault::Fail, 3), (Fault::Hang, usize::MAX)] {
            scene
                .bank
                .inject(fault, times, |call| call.verb == Verb::RenewLease);
        }
        let (done, run) = (CancellationToken::new(), CancellationToken::new());
        let keep = tokio::spawn({
            let (clock, done, run) = (scene.clock.clone(), done.clone(), run.clone());
            async move { claim.keep(&clock, done, run).await }
        });
        let begun = scene.clock.monotonic();
        while !run.is_cancelled() {
            scene.clock.wait_for_sleepers(1).await;
            scene.clock.advance(Duration::from_secs(1)).await;
        }
        let took = scene.clock.monotonic() - begun;
        assert!(took <= LEASE_TTL + Duration::from_secs(2), "{took:?}");
        done.cancel();
        keep.await.unwrap();
    }

    #[tokio::test]
    async fn a_run_does_not_go_on_for_long_without_knowing_whether_somebody_came() {
        let scene = Scene::new();
        let claim = scene.claim(Purpose::Delete).await;
        scene.lapse();
        scene
            .bank
            .inject(Fault::Fail, usize::MAX, |call| call.verb == Verb::Leases);
        let (done, run) = (CancellationToken::new(), CancellationToken::new());
        let keep = tokio::spawn({
            let (clock, done, run) = (scene.clock.clone(), done.clone(), run.clone());
            async move { claim.keep(&clock, done, run).await }
        });
        scene.clock.wait_for_sleepers(1).await;
        for _ in 0..8 {
            scene.bank.inner().advance(LEASE_TTL / 4);
            scene.clock.advance(LEASE_TTL / 4).await;
        }
        assert!(run.is_cancelled());
        done.cancel();
        keep.await.unwrap();
    }
}
