//! Plugins that the original had.

/// The original's plugins that are not here, and what each needs or protects.
const PLUGINS: &[(&str, &str)] = &[
    ("karbor-swift-bank-plugin", "a bank in OpenStack Swift"),
    ("karbor-s3-bank-plugin", "a bank in an S3 object store"),
    ("karbor-volume-freezer-plugin", "volumes by Freezer"),
    (
        "karbor-volume-protection-plugin",
        "volumes by Cinder backups",
    ),
    (
        "karbor-volume-snapshot-plugin",
        "volumes by Cinder snapshots",
    ),
    ("karbor-volume-glance-plugin", "volumes by Glance images"),
    ("karbor-image-protection-plugin", "images"),
    ("karbor-server-protection-plugin", "servers"),
    ("karbor-share-protection-plugin", "shares"),
    ("karbor-network-protection-plugin", "networks"),
    ("karbor-database-protection-plugin", "database instances"),
    ("karbor-pod-protection-plugin", "Kubernetes pods"),
];

/// What a plugin of the original is for; nothing for a name that the original does not know either.
pub(crate) fn missing_plugin(name: &str) -> Option<&'static str> {
    PLUGINS
        .iter()
        .find(|(plugin, _)| *plugin == name)
        .map(|(_, what)| *what)
}
