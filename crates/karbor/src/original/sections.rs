//! Sections of providers' files.

use std::collections::BTreeMap;

use karbor_manager::{OptionDef, config::closest};
use karbor_plugin::ProviderConfig;

const LEASES: [&str; 3] = [
    "lease_expire_window",
    "lease_renew_window",
    "lease_validity_window",
];

/// The section that says what a provider is.
const PROVIDER: &str = "provider";

/// Sections of the original's files for plugins that are not here, with their options; no options stand for any.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "swift_bank_plugin",
        &[
            "bank_swift_object_container",
            LEASES[0],
            LEASES[1],
            LEASES[2],
        ],
    ),
    (
        "s3_bank_plugin",
        &[
            "bank_s3_lease_bucket",
            "bank_s3_object_bucket",
            LEASES[0],
            LEASES[1],
            LEASES[2],
        ],
    ),
    (
        "swift_client",
        &[
            "swift_auth_insecure",
            "swift_auth_url",
            "swift_ca_cert_file",
            "swift_catalog_info",
            "swift_endpoint",
            "swift_key",
            "swift_project_domain_name",
            "swift_retry_attempts",
            "swift_retry_backoff",
            "swift_tenant_name",
            "swift_user",
            "swift_user_domain_name",
        ],
    ),
    (
        "s3_client",
        &[
            "s3_access_key",
            "s3_endpoint",
            "s3_retry_attempts",
            "s3_retry_backoff",
            "s3_secret_key",
        ],
    ),
    (
        "k8s_client",
        &[
            "k8s_cert_file",
            "k8s_host",
            "k8s_key_file",
            "k8s_ssl_ca_cert",
        ],
    ),
    (
        "eisoo_client",
        &["eisoo_app_id", "eisoo_app_secret", "eisoo_endpoint"],
    ),
    ("nova_backup_protection_plugin", &["poll_interval"]),
    ("database_backup_plugin", &["poll_interval"]),
    ("manila_snapshot_plugin", &["poll_interval"]),
    ("neutron_backup_protection_plugin", &["poll_interval"]),
    ("pod_backup_protection_plugin", &["poll_interval"]),
    ("volume_snapshot_plugin", &["poll_interval"]),
    (
        "image_backup_plugin",
        &[
            "backup_image_object_size",
            "enable_server_snapshot",
            "poll_interval",
        ],
    ),
    (
        "volume_glance_plugin",
        &[
            "backup_from_snapshot",
            "backup_image_object_size",
            "poll_interval",
        ],
    ),
    (
        "cinder_backup_protection_plugin",
        &["backup_from_snapshot", "poll_interval"],
    ),
    (
        "freezer_protection_plugin",
        &[
            "access_key",
            "container",
            "endpoint",
            "poll_interval",
            "scheduler_client_id",
            "secret_key",
            "ssh_host",
            "ssh_key",
            "ssh_port",
            "ssh_username",
            "storage",
        ],
    ),
    ("cinder_client", &[]),
    ("freezer_client", &[]),
    ("glance_client", &[]),
    ("manila_client", &[]),
    ("neutron_client", &[]),
    ("nova_client", &[]),
    ("trove_client", &[]),
];

/// What a provider's file says that means nothing, neither as one of the options that are `known` nor in the original:
/// of one that is not enabled, only what is said of itself, as `enabled` may be what is misspelt.
pub(crate) fn unknown_options(provider: &ProviderConfig, known: &[OptionDef]) -> Vec<String> {
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, options) in SECTIONS {
        sections.entry(name).or_default().extend(*options);
    }
    for option in known {
        sections.entry(option.group).or_default().push(option.name);
    }
    let mut unknown = Vec::new();
    let filled = provider.sections.iter();
    let filled = filled.filter(|(_, options)| !options.is_empty());
    for (section, options) in filled.filter(|(name, _)| provider.enabled || *name == PROVIDER) {
        // The copy bank has sections of its own.
        let of_bank = section.strip_prefix("copy.").unwrap_or(section);
        let Some(names) = sections.get(of_bank) else {
            let guess = guess(section, sections.keys().copied());
            unknown.push(format!("[{section}]{guess}"));
            continue;
        };
        for option in options.keys() {
            if !names.is_empty() && !names.contains(&option.as_str()) {
                let guess = guess(option, names.iter().copied());
                unknown.push(format!("[{section}] {option}{guess}"));
            }
        }
    }
    unknown
}

fn guess<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    closest(wanted, names).map_or_else(String::new, |name| format!(" (did you mean '{name}'?)"))
}
