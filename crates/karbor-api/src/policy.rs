//! Who may do what: the original's rules by name.

use karbor_model::{ApiError, RequestContext};

/// Rules that need an administrator.
const ADMIN_API: &[&str] = &[
    "service:get_all",
    "service:update",
    "quota:update",
    "quota:delete",
    "quota_class:update",
];

/// The policy in force.
#[derive(Debug, Default)]
pub(crate) struct Policy;

impl Policy {
    /// May `context` do what `rule` names to something of `project`?
    ///
    /// # Errors
    /// `Policy doesn't allow <rule> to be performed.`
    pub(crate) fn enforce(
        &self,
        context: &RequestContext,
        rule: &str,
        project: &str,
    ) -> Result<(), ApiError> {
        let allowed = match ADMIN_API.contains(&rule) {
            true => context.is_admin,
            false => context.may_access(project),
        };
        if allowed {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "PolicyNotAuthorized",
            format!("Policy doesn't allow {rule} to be performed."),
        ))
    }
}
