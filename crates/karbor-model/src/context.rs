//! Who asks, and under which request.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ScheduledOperationId;

/// `req-<uuid>`: ties an answer, the log lines and the RPC messages of one request together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// A new one.
    #[must_use]
    #[allow(
        clippy::new_without_default,
        reason = "a random default would surprise"
    )]
    pub fn new() -> Self {
        Self(format!("req-{}", Uuid::new_v4()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who asks for something, carried along every call. It holds no secret: what a service needs to
/// act for the user (a token, a trust) travels by other ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    /// The request this belongs to.
    pub request_id: RequestId,
    /// The user, if one was authenticated.
    pub user_id: Option<String>,
    /// The project that the request acts in.
    pub project_id: String,
    /// Roles in that project.
    #[serde(default)]
    pub roles: Vec<String>,
    /// May act on every project.
    #[serde(default)]
    pub is_admin: bool,
    /// Is the project one whose administrators administer everything? So is every project where the
    /// identity service sets none apart.
    #[serde(default = "yes")]
    pub is_admin_project: bool,
    /// The scheduled operation that asks, if one does: what it sets off is recorded as its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_operation_id: Option<ScheduledOperationId>,
}

fn yes() -> bool {
    true
}

impl RequestContext {
    /// The service's own context: administrator, no user, no project.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            request_id: RequestId::new(),
            user_id: None,
            project_id: String::new(),
            roles: vec!["admin".to_owned()],
            is_admin: true,
            is_admin_project: true,
            scheduled_operation_id: None,
        }
    }

    /// A context for `user` in `project`.
    #[must_use]
    pub fn for_project(user: &str, project: &str, is_admin: bool) -> Self {
        let role = if is_admin { "admin" } else { "member" };
        Self {
            request_id: RequestId::new(),
            user_id: Some(user.to_owned()),
            project_id: project.to_owned(),
            roles: vec![role.to_owned()],
            is_admin,
            is_admin_project: true,
            scheduled_operation_id: None,
        }
    }

    /// May this context see and act on what belongs to `project`?
    #[must_use]
    pub fn may_access(&self, project: &str) -> bool {
        self.is_admin || self.project_id == project
    }
}
