//! The rules there are, with the original's names and defaults.

use std::{borrow::Cow, sync::LazyLock};

use karbor_model::OperationType;

/// A rule that the API asks, or that others are made of.
#[derive(Debug, Clone)]
pub struct RuleDefault {
    /// Name, as in the policy file.
    pub name: Cow<'static, str>,
    /// What it asks when no file says otherwise.
    pub check: &'static str,
    /// What it is for.
    pub help: Cow<'static, str>,
}

const fn rule(name: &'static str, check: &'static str, help: &'static str) -> RuleDefault {
    RuleDefault {
        name: Cow::Borrowed(name),
        check,
        help: Cow::Borrowed(help),
    }
}

const OWNER: &str = "rule:admin_or_owner";
const ADMIN: &str = "rule:admin_api";

/// Every rule, in the order of the sample.
pub static DEFAULTS: LazyLock<Vec<RuleDefault>> = LazyLock::new(|| {
    let mut all = FIXED.to_vec();
    all.extend(OperationType::readbacks().flat_map(|(_, names)| {
        let (one, many) = (names.one, names.many);
        let rule = |what: &str, help| RuleDefault {
            name: format!("{one}:{what}").into(),
            check: OWNER,
            help: Cow::Owned(help),
        };
        [
            rule("create", format!("POST /{many}")),
            rule("get", format!("GET /{many}/{{{one}_id}}")),
            rule("get_all", format!("GET /{many}")),
        ]
    }));
    all
});

/// Those of everything but what reads checkpoints back.
const FIXED: &[RuleDefault] = &[
    rule(
        "context_is_admin",
        "role:admin",
        "Who is an administrator, that is, has is_admin:True in all other rules.",
    ),
    rule(
        "admin_or_owner",
        "is_admin:True or (role:admin and is_admin_project:True) or project_id:%(project_id)s",
        "Administrators and members of the project that the thing belongs to.",
    ),
    rule(
        "default",
        OWNER,
        "Kept for files that refer to it; no request asks it.",
    ),
    rule(
        "admin_api",
        "is_admin:True or (role:admin and is_admin_project:True)",
        "Administrators.",
    ),
    rule("plan:create", OWNER, "POST /plans"),
    rule("plan:update", OWNER, "PUT /plans/{plan_id}"),
    rule("plan:delete", OWNER, "DELETE /plans/{plan_id}"),
    rule("plan:get", OWNER, "GET /plans/{plan_id}"),
    rule("plan:get_all", OWNER, "GET /plans"),
    rule(
        "restore:update",
        OWNER,
        "Kept from the original, where no request could update a restore.",
    ),
    rule("protectable:get", OWNER, "GET /protectables/{type}"),
    rule("protectable:get_all", OWNER, "GET /protectables"),
    rule(
        "protectable:instance_get",
        OWNER,
        "GET /protectables/{type}/instances/{resource_id}",
    ),
    rule(
        "protectable:instance_get_all",
        OWNER,
        "GET /protectables/{type}/instances",
    ),
    rule("provider:get", OWNER, "GET /providers/{provider_id}"),
    rule("provider:get_all", OWNER, "GET /providers"),
    rule(
        "provider:checkpoint_get",
        OWNER,
        "GET /providers/{provider_id}/checkpoints/{checkpoint_id}",
    ),
    rule(
        "provider:checkpoint_get_all",
        OWNER,
        "GET /providers/{provider_id}/checkpoints",
    ),
    rule(
        "provider:checkpoint_create",
        OWNER,
        "POST /providers/{provider_id}/checkpoints",
    ),
    rule(
        "provider:checkpoint_delete",
        OWNER,
        "DELETE /providers/{provider_id}/checkpoints/{checkpoint_id}",
    ),
    rule(
        "provider:checkpoint_update",
        OWNER,
        "PUT /providers/{provider_id}/checkpoints/{checkpoint_id}",
    ),
    rule("trigger:create", OWNER, "POST /triggers"),
    rule("trigger:update", OWNER, "PUT /triggers/{trigger_id}"),
    rule("trigger:delete", OWNER, "DELETE /triggers/{trigger_id}"),
    rule("trigger:get", OWNER, "GET /triggers/{trigger_id}"),
    rule("trigger:list", OWNER, "GET /triggers"),
    rule(
        "scheduled_operation:create",
        OWNER,
        "POST /scheduled_operations",
    ),
    rule(
        "scheduled_operation:update",
        OWNER,
        "PATCH /scheduled_operations/{scheduled_operation_id}, which the original did not have",
    ),
    rule(
        "scheduled_operation:delete",
        OWNER,
        "DELETE /scheduled_operations/{scheduled_operation_id}",
    ),
    rule(
        "scheduled_operation:get",
        OWNER,
        "GET /scheduled_operations/{scheduled_operation_id}",
    ),
    rule(
        "scheduled_operation:list",
        OWNER,
        "GET /scheduled_operations",
    ),
    rule(
        "operation_log:get",
        OWNER,
        "GET /operation_logs/{operation_log_id}",
    ),
    rule("operation_log:list", OWNER, "GET /operation_logs"),
    rule(
        "service:get_all",
        ADMIN,
        "GET /os-services and /os-services/{service_id}/detail",
    ),
    rule("service:update", ADMIN, "PUT /os-services/{service_id}"),
    rule("quota:update", ADMIN, "PUT /quotas/{project_id}"),
    rule("quota:delete", ADMIN, "DELETE /quotas/{project_id}"),
    rule(
        "quota:get",
        OWNER,
        "GET /quotas/{project_id} and /quotas/{project_id}/detail",
    ),
    rule(
        "quota:get_default",
        OWNER,
        "GET /quotas/{project_id}/defaults",
    ),
    rule(
        "quota_class:update",
        ADMIN,
        "PUT /quota_classes/{class_name}",
    ),
    rule("quota_class:get", OWNER, "GET /quota_classes/{class_name}"),
    rule(
        "copy:create",
        OWNER,
        "POST /providers/{provider_id}/checkpoints/action",
    ),
];

/// A policy file with every rule and its default, commented out.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Who may do what. Uncomment a rule to change it; what is not here keeps its default.\n",
    );
    for RuleDefault { name, check, help } in DEFAULTS.iter() {
        out.push_str(&format!("\n# {help}\n#\"{name}\": \"{check}\"\n"));
    }
    out
}
