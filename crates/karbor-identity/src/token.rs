//! What keystone says of a token.

use std::fmt;

use chrono::{DateTime, Utc};
use karbor_model::{RequestContext, RequestId};
use serde::Deserialize;

use crate::Catalog;

/// The body of an answer about a token.
#[derive(Deserialize)]
pub(crate) struct Envelope {
    pub(crate) token: Token,
}

/// Whose a token is and what it opens; not the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Token {
    /// When it ends, UTC.
    pub expires_at: DateTime<Utc>,
    /// Whose it is; the trustor's, when it was taken by an impersonating trust.
    pub user: Named,
    /// The project it is for; none for tokens of a domain, of the system, or of nothing.
    #[serde(default)]
    pub project: Option<Named>,
    /// The user's roles there.
    #[serde(default)]
    pub roles: Vec<Named>,
    /// Is the project the one whose administrators administer everything? `None` when keystone knows no
    /// such project.
    #[serde(default)]
    pub is_admin_project: Option<bool>,
    /// Where the other services are.
    #[serde(default)]
    pub catalog: Catalog,
}

/// A user, project, domain or role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The domain it is in; roles mostly have none.
    #[serde(default)]
    pub domain: Option<Domain>,
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Domain {
    /// Its id.
    pub id: String,
}

impl Token {
    /// The names of its roles.
    #[must_use]
    pub fn role_names(&self) -> Vec<String> {
        self.roles.iter().map(|role| role.name.clone()).collect()
    }

    /// The context of its bearer; `None` unless it is for a project.
    #[must_use]
    pub fn context(&self, request_id: RequestId) -> Option<RequestContext> {
        let project = self.project.as_ref()?;
        let roles = self.role_names();
        Some(RequestContext {
            request_id,
            user_id: Some(self.user.id.clone()),
            project_id: project.id.clone(),
            is_admin: roles.iter().any(|role| role.eq_ignore_ascii_case("admin")),
            roles,
            is_admin_project: self.is_admin_project.unwrap_or(true),
            scheduled_operation_id: None,
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn context(changes: Value) -> Option<RequestContext> {
        let mut token = json!({
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "user": {"id": "u", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": "r", "name": "member"}],
            "methods": ["password"],
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            token[key] = value.clone();
        }
        let token: Token = serde_json::from_value(token).unwrap();
        token.context(RequestId::new())
    }

    #[test]
    fn only_what_keystone_sets_apart_is_no_administrators_project() {
        for (said, meant) in [
            (Value::Null, true),
            (json!(true), true),
            (json!(false), false),
        ] {
            let context = context(json!({ "is_admin_project": said })).unwrap();
            assert_eq!(context.is_admin_project, meant);
        }
    }

    #[test]
    fn a_token_for_no_project_has_no_context() {
        assert_eq!(context(json!({ "project": null })), None);
        assert!(context(json!({})).is_some_and(|context| !context.is_admin));
    }
}
