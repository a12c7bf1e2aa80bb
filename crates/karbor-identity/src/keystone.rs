//! What the house asks of keystone.

use std::sync::Arc;

use karbor_manager::Clock;
use karbor_model::{RequestContext, RequestId, Secret};
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    Catalog, IdentityError, Settings, SettingsError, Token, TrustError,
    account::Account,
    cache::{Cache, key},
    settings::Credentials,
    wire::{Issued, Refusal, Scope, Wire},
};

/// A longer text is no token; keystone's own limit is far below.
const LONGEST: usize = 8192;

/// Keystone, asked by the service's own user.
pub struct Keystone {
    wire: Wire,
    clock: Arc<dyn Clock>,
    service: Account,
    /// `None`: the service's own user takes trusts.
    trustee: Option<Account>,
    cache: Cache,
    www_authenticate_uri: String,
}

/// What came of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Whose it is.
    Bearer(Arc<Token>),
    /// No token, or none any more.
    Nobody,
}

impl Keystone {
    /// Asks nothing yet: a service starts although keystone is away.
    ///
    /// # Errors
    /// When the certificate authorities cannot be read.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Ok(Self {
            wire: Wire::new(&settings)?,
            clock,
            service: Account::new(settings.service),
            trustee: settings.trustee.map(Account::new),
            cache: Cache::new(settings.token_cache_time),
            www_authenticate_uri: settings.www_authenticate_uri,
        })
    }

    /// Where clients are sent to for a token.
    #[must_use]
    pub fn www_authenticate_uri(&self) -> &str {
        &self.www_authenticate_uri
    }

    /// Whose token is it?
    ///
    /// # Errors
    /// When keystone gives no answer that we can use: nothing is known of the token then.
    pub async fn identify(&self, secret: &Secret) -> Result<Known, IdentityError> {
        let text = secret.expose();
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Known::Nobody);
        }
        let key = key(secret);
        if let Some(token) = self.cache.get(&key, &*self.clock) {
            return Ok(Known::Bearer(token));
        }
        if self.cache.is_bad(&key, &*self.clock) {
            return Ok(Known::Nobody);
        }
        match self.ask_for(secret).await? {
            Some(token) if token.expires_at > self.clock.now() => {
                let token = Arc::new(token);
                self.cache.insert(key, token.clone(), &*self.clock);
                Ok(Known::Bearer(token))
            }
            _ => {
                self.cache.insert_bad(key, &*self.clock);
                Ok(Known::Nobody)
            }
        }
    }

    async fn ask_for(&self, secret: &Secret) -> Result<Option<Token>, IdentityError> {
        let mut own = self.own(&self.service).await?;
        for may_renew in [true, false] {
            match self.wire.show_token(&own.secret, secret).await? {
                Ok(token) => return Ok(Some(token)),
                Err(refusal) if refusal.status == StatusCode::NOT_FOUND => return Ok(None),
                Err(refusal) if refusal.status == StatusCode::UNAUTHORIZED && may_renew => {
                    let (wire, clock) = (&self.wire, &*self.clock);
                    own = self.service.instead_of(&own, wire, clock).await?;
                }
                Err(refusal) => return Err(not_allowed(refusal)),
            }
        }
        Ok(None)
    }

    /// Where the other services are, as the service's own user sees them.
    ///
    /// # Errors
    /// When keystone gives no answer that we can use.
    pub async fn catalog(&self) -> Result<Catalog, IdentityError> {
        Ok(self.own(&self.service).await?.token.catalog.clone())
    }

    /// Lets the bearer of `secret`, whose token is `bearer`, trust us: we may act for that user in the
    /// token's project with its roles, until the trust is ended. Answers the trust's id.
    ///
    /// # Errors
    /// [`TrustError`].
    pub async fn create_trust(
        &self,
        secret: &Secret,
        bearer: &RequestContext,
    ) -> Result<String, TrustError> {
        let trustee = self.own(self.trustee()?).await?;
        let roles = bearer.roles.iter().map(|name| json!({ "name": name }));
        let trust = json!({
            "trustor_user_id": bearer.user_id,
            "trustee_user_id": trustee.token.user.id,
            "project_id": bearer.project_id,
            "impersonation": true,
            "roles": roles.collect::<Vec<_>>(),
        });
        let made = self.wire.create_trust(secret, &trust).await?;
        made.map_err(|refusal| TrustError::NotGiven(refusal.told))
    }

    /// Takes a trust: the context of its owner, as of now.
    ///
    /// # Errors
    /// [`TrustError::Gone`] when there is no such trust any more or its owner may do less than it says.
    pub async fn by_trust(
        &self,
        trust_id: &str,
        request_id: RequestId,
    ) -> Result<RequestContext, TrustError> {
        let issued = self.take(trust_id).await?;
        let context = issued.token.context(request_id);
        context.ok_or_else(|| TrustError::Gone {
            trust_id: trust_id.to_owned(),
            told: "it is for no project".to_owned(),
        })
    }

    /// Ends a trust. One that is gone already is as good.
    ///
    /// # Errors
    /// When keystone gives no answer that we can use: the trust may stay.
    pub async fn delete_trust(&self, trust_id: &str) -> Result<(), TrustError> {
        // The account that takes the trust is its owner, and owners may end their trusts.
        let issued = match self.take(trust_id).await {
            Err(TrustError::Gone { .. }) => return Ok(()),
            other => other?,
        };
        match self.wire.delete_trust(&issued.secret, trust_id).await? {
            Err(refusal) if refusal.status != StatusCode::NOT_FOUND => {
                Err(IdentityError::NotAllowed {
                    what: "end a trust",
                    told: refusal.told,
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    async fn take(&self, trust_id: &str) -> Result<Issued, TrustError> {
        let trustee = self.trustee()?;
        let scope = Scope::Trust(trust_id);
        let taken = self.wire.authenticate(trustee.credentials(), scope).await?;
        match taken {
            Ok(issued) => Ok(issued),
            Err(refusal) => {
                // The same answer tells of a trust that is gone and of a password that is wrong.
                trustee.renewed(&self.wire, &*self.clock).await?;
                Err(TrustError::Gone {
                    trust_id: trust_id.to_owned(),
                    told: refusal.told,
                })
            }
        }
    }

    fn trustee(&self) -> Result<&Account, TrustError> {
        let account = self.trustee.as_ref().unwrap_or(&self.service);
        match account.credentials() {
            Credentials::Password { .. } => Ok(account),
            Credentials::ApplicationCredential { .. } => Err(TrustError::NoTrustee),
        }
    }

    async fn own(&self, account: &Account) -> Result<Arc<Issued>, IdentityError> {
        account.token(&self.wire, &*self.clock).await
    }
}

fn not_allowed(refusal: Refusal) -> IdentityError {
    IdentityError::NotAllowed {
        what: "validate tokens",
        told: refusal.told,
    }
}
