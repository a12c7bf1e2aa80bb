//! A user of ours and its token.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use karbor_manager::Clock;
use tokio::sync::Mutex;

use crate::{
    error::IdentityError,
    settings::Credentials,
    wire::{Issued, Scope, Wire},
};

/// A token that ends sooner is not used any more: it must live through what it is used for.
const LEAST_LIFE: TimeDelta = TimeDelta::seconds(120);

/// Refused credentials are not tried again before: keystone may lock a user that errs too often.
const AFTER_REFUSAL: Duration = Duration::from_secs(5);

/// Nor is a keystone that gives no answer asked again before: those who waited for it together learn it
/// together, not one after another.
const AFTER_SILENCE: Duration = Duration::from_secs(1);

/// A user of ours.
pub(crate) struct Account {
    credentials: Credentials,
    state: Mutex<LastLogin>,
}

#[derive(Default)]
struct LastLogin {
    issued: Option<Arc<Issued>>,
    /// Until when the last failure holds, and what it was.
    failed: Option<(Duration, IdentityError)>,
}

impl Account {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            state: Mutex::default(),
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Its token, made now if there is none that lives long enough. Only one caller at a time makes one.
    pub(crate) async fn token(
        &self,
        wire: &Wire,
        clock: &dyn Clock,
    ) -> Result<Arc<Issued>, IdentityError> {
        let mut state = self.state.lock().await;
        if let Some(issued) = &state.issued
            && issued.token.expires_at - clock.now() > LEAST_LIFE
        {
            return Ok(issued.clone());
        }
        self.renew(&mut state, wire, clock).await
    }

    /// A token other than `stale`, which keystone refused: somebody else may have made it already.
    pub(crate) async fn instead_of(
        &self,
        stale: &Arc<Issued>,
        wire: &Wire,
        clock: &dyn Clock,
    ) -> Result<Arc<Issued>, IdentityError> {
        let mut state = self.state.lock().await;
        if let Some(issued) = &state.issued
            && !Arc::ptr_eq(issued, stale)
        {
            return Ok(issued.clone());
        }
        self.renew(&mut state, wire, clock).await
    }

    /// A token made just now: do the credentials still hold?
    pub(crate) async fn renewed(
        &self,
        wire: &Wire,
        clock: &dyn Clock,
    ) -> Result<Arc<Issued>, IdentityError> {
        let mut state = self.state.lock().await;
        self.renew(&mut state, wire, clock).await
    }

    async fn renew(
        &self,
        state: &mut LastLogin,
        wire: &Wire,
        clock: &dyn Clock,
    ) -> Result<Arc<Issued>, IdentityError> {
        if let Some((until, error)) = &state.failed
            && clock.monotonic() < *until
        {
            return Err(error.clone());
        }
        state.issued = None;
        let outcome = match wire.authenticate(&self.credentials, Scope::Own).await {
            Ok(Ok(issued)) => Ok(Arc::new(issued)),
            Ok(Err(refusal)) => Err(IdentityError::Credentials(refusal.told)),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(issued) => {
                state.issued = Some(issued.clone());
                state.failed = None;
            }
            Err(error) => {
                tracing::error!("the service cannot log in: {error}");
                let refused = matches!(error, IdentityError::Credentials(_));
                let pause = if refused {
                    AFTER_REFUSAL
                } else {
                    AFTER_SILENCE
                };
                state.failed = Some((clock.monotonic() + pause, error.clone()));
            }
        }
        outcome
    }
}
