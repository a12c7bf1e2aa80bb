//! Who asks: from the token of a request to its context.

mod local;
mod strategy;
mod tokens;

use std::sync::Arc;

use axum::http::HeaderMap;
use karbor_db::TokenStore;
use karbor_identity::{Keystone, Known};
use karbor_manager::Clock;
use karbor_model::{ApiError, RequestContext, RequestId, Secret};

use self::local::LocalTokens;
pub use self::{
    local::REVOCATION_LAG,
    strategy::AuthStrategy,
    tokens::{NewToken, create_token, ensure_admin_token, list_tokens, revoke_token, token_hash},
};
use crate::settings::{Settings, SettingsError};

/// What came of a token.
pub(crate) enum Identity {
    /// Somebody.
    Known {
        context: RequestContext,
        /// What a trust can be made with. Beside the context, which is written into records.
        token: Option<UserToken>,
    },
    /// Nobody: 401.
    Unknown,
    /// No token where none is checked: the client is told what to use, as the original told it.
    Offered {
        /// `user:project`.
        token: String,
        project: String,
    },
}

/// The token of keystone that a request came with.
#[derive(Debug, Clone)]
pub(crate) struct UserToken(pub(crate) Secret);

/// Finds out who asks.
pub(crate) enum Authenticator {
    Noauth,
    Local(LocalTokens),
    Keystone(Box<Keystone>),
}

impl Authenticator {
    pub(crate) fn new(
        settings: &Settings,
        tokens: TokenStore,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SettingsError> {
        Ok(match (settings.auth_strategy, &settings.identity) {
            (AuthStrategy::Noauth, _) => Self::Noauth,
            (_, Some(identity)) => {
                Self::Keystone(Box::new(Keystone::new(identity.clone(), clock)?))
            }
            (_, None) => Self::Local(LocalTokens::new(tokens, clock)),
        })
    }

    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        request_id: RequestId,
    ) -> Result<Identity, ApiError> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().ok());
        let Some(token) = header("x-auth-token") else {
            return Ok(match self {
                Self::Noauth => offer(
                    header("x-auth-user").flatten(),
                    header("x-auth-project-id").flatten(),
                ),
                _ => Identity::Unknown,
            });
        };
        // A value that is not ASCII is no token.
        let token = token.unwrap_or_default();
        if token.is_empty() {
            return Ok(Identity::Unknown);
        }
        let mut user_token = None;
        let known = match self {
            Self::Noauth => unchecked(token, request_id),
            Self::Local(tokens) => tokens.context(token, request_id).await?,
            Self::Keystone(keystone) => {
                let token = UserToken(Secret::new(token.to_owned()));
                let known = bearer(keystone, &token.0, request_id).await?;
                user_token = Some(token);
                known
            }
        };
        Ok(known.map_or(Identity::Unknown, |context| Identity::Known {
            context,
            token: user_token,
        }))
    }

    /// Keystone, where users come from there.
    pub(crate) fn keystone(&self) -> Option<&Keystone> {
        match self {
            Self::Keystone(keystone) => Some(keystone),
            _ => None,
        }
    }

    /// Where those are sent who come without a good token; `None` is to this API.
    pub(crate) fn challenge(&self) -> Option<&str> {
        self.keystone().map(Keystone::www_authenticate_uri)
    }
}

async fn bearer(
    keystone: &Keystone,
    secret: &Secret,
    request_id: RequestId,
) -> Result<Option<RequestContext>, ApiError> {
    let Known::Bearer(token) = keystone.identify(secret).await? else {
        return Ok(None);
    };
    let context = token.context(request_id);
    let context = context.ok_or_else(|| {
        ApiError::forbidden(
            "Forbidden",
            "The token is for no project. Get one that is scoped to a project.",
        )
    })?;
    Ok(Some(context))
}

fn unchecked(token: &str, request_id: RequestId) -> Option<RequestContext> {
    let (user, project) = token.split_once(':').unwrap_or((token, ""));
    let project = if project.is_empty() { user } else { project };
    if project.is_empty() {
        return None;
    }
    let mut context = RequestContext::for_project(user, project, true);
    context.request_id = request_id;
    Some(context)
}

fn offer(user: Option<&str>, project: Option<&str>) -> Identity {
    let user = user.unwrap_or("admin");
    let project = project.unwrap_or("admin");
    Identity::Offered {
        token: format!("{user}:{project}"),
        project: project.to_owned(),
    }
}
