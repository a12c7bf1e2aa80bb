//! Tokens that this service made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use karbor_db::{TokenRecord, TokenStore};
use karbor_manager::Clock;
use karbor_model::{ApiError, RequestContext, RequestId};
use subtle::ConstantTimeEq as _;

use super::tokens::token_hash;

/// How long a revoked token may still be taken: good tokens are remembered for so long, which
/// spares the database a question per request.
pub const REVOCATION_LAG: Duration = Duration::from_secs(5);

/// A longer token is none of ours; it is not even hashed.
const LONGEST_TOKEN: usize = 512;

/// Knows the bearers of our own tokens.
pub(crate) struct LocalTokens {
    tokens: TokenStore,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, (Duration, Arc<TokenRecord>)>>,
}

impl LocalTokens {
    pub(crate) fn new(tokens: TokenStore, clock: Arc<dyn Clock>) -> Self {
        Self {
            tokens,
            clock,
            known: Mutex::default(),
        }
    }

    /// The context of a token's bearer.
    pub(crate) async fn context(
        &self,
        token: &str,
        request_id: RequestId,
    ) -> Result<Option<RequestContext>, ApiError> {
        if token.len() > LONGEST_TOKEN {
            return Ok(None);
        }
        let record = self.find(token_hash(token)).await?;
        Ok(record.map(|record| RequestContext {
            request_id,
            user_id: Some(record.user_id.clone()),
            project_id: record.project_id.clone(),
            roles: record.roles.clone(),
            is_admin: record.is_admin,
            is_admin_project: true,
            scheduled_operation_id: None,
        }))
    }

    async fn find(&self, hash: String) -> Result<Option<Arc<TokenRecord>>, ApiError> {
        let now = self.clock.monotonic();
        if let Some(record) = self.remembered(&hash, now) {
            return Ok(Some(record));
        }
        let Some(record) = self.tokens.find(&hash).await? else {
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
