//! Who asks: from the token of a request to its context.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use karbor_db::{Db, TokenRecord};
use karbor_manager::Clock;
use karbor_model::{ApiError, RequestContext, RequestId};
use subtle::ConstantTimeEq as _;

use crate::tokens::token_hash;

/// How long a revoked token may still be taken: good tokens are remembered for so long, which
/// spares the database a question per request.
pub const REVOCATION_LAG: Duration = Duration::from_secs(5);

/// A longer token is none of ours; it is not even hashed.
const LONGEST_TOKEN: usize = 512;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStrategy {
    /// Anybody who can reach the port, as an administrator: the token is `user:project`, unchecked.
    /// For development; the server refuses to serve it beyond the loopback address.
    Noauth,
    /// Bearers of a token that this service made (see [`create_token`](crate::create_token)).
    Local,
}

impl FromStr for AuthStrategy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "noauth" => Ok(Self::Noauth),
            "local" => Ok(Self::Local),
            _ => Err(()),
        }
    }
}

/// What came of a token.
pub(crate) enum Identity {
    /// Somebody.
    Known(RequestContext),
    /// Nobody: 401.
    Unknown,
    /// No token where none is checked: the client is told what to use, as the original told it.
    Offered {
        /// `user:project`.
        token: String,
        project: String,
    },
}

/// Finds out who asks.
pub(crate) struct Authenticator {
    strategy: AuthStrategy,
    db: Db,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, (Duration, Arc<TokenRecord>)>>,
}

impl Authenticator {
    pub(crate) fn new(strategy: AuthStrategy, db: Db, clock: Arc<dyn Clock>) -> Self {
        Self {
            strategy,
            db,
            clock,
            known: Mutex::default(),
        }
    }

    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        request_id: RequestId,
    ) -> Result<Identity, ApiError> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().ok());
        let Some(token) = header("x-auth-token") else {
            return Ok(match self.strategy {
                AuthStrategy::Local => Identity::Unknown,
                AuthStrategy::Noauth => offer(
                    header("x-auth-user").flatten(),
                    header("x-auth-project-id").flatten(),
                ),
            });
        };
        // A value that is not ASCII is no token.
        let token = token.unwrap_or_default();
        if token.is_empty() || token.len() > LONGEST_TOKEN {
            return Ok(Identity::Unknown);
        }
        match self.strategy {
            AuthStrategy::Noauth => Ok(unchecked(token, request_id)),
            AuthStrategy::Local => {
                let record = self.find(token_hash(token)).await?;
                Ok(record.map_or(Identity::Unknown, |record| {
                    Identity::Known(RequestContext {
                        request_id,
                        user_id: Some(record.user_id.clone()),
                        project_id: record.project_id.clone(),
                        roles: record.roles.clone(),
                        is_admin: record.is_admin,
                    })
                }))
            }
        }
    }

    async fn find(&self, hash: String) -> Result<Option<Arc<TokenRecord>>, ApiError> {
        let now = self.clock.monotonic();
        if let Some(record) = self.remembered(&hash, now) {
            return Ok(Some(record));
        }
        let Some(record) = self.db.token_find(&hash).await? else {
            return Ok(None);
        };
        // The lookup went by an index over hashes, whose timing tells nothing of the token; the
        // decision is made in constant time all the same.
        if !bool::from(record.hash.as_bytes().ct_eq(hash.as_bytes())) {
            return Ok(None);
        }
        let record = Arc::new(record);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Only good tokens are remembered, so nobody can fill this with bad ones.
        known.retain(|_, (since, _)| now.saturating_sub(*since) < REVOCATION_LAG);
        known.insert(hash, (now, record.clone()));
        Ok(Some(record))
    }

    fn remembered(&self, hash: &str, now: Duration) -> Option<Arc<TokenRecord>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, record) = known.get(hash)?;
        (now.saturating_sub(*since) < REVOCATION_LAG).then(|| record.clone())
    }
}

fn unchecked(token: &str, request_id: RequestId) -> Identity {
    let (user, project) = token.split_once(':').unwrap_or((token, ""));
    let project = if project.is_empty() { user } else { project };
    if project.is_empty() {
        return Identity::Unknown;
    }
    let mut context = RequestContext::for_project(user, project, true);
    context.request_id = request_id;
    Identity::Known(context)
}

fn offer(user: Option<&str>, project: Option<&str>) -> Identity {
    let user = user.unwrap_or("admin");
    let project = project.unwrap_or("admin");
    Identity::Offered {
        token: format!("{user}:{project}"),
        project: project.to_owned(),
    }
}
