//! What can be configured.

use std::time::Duration;

use karbor_db::{
    QUOTA_BYTES, QUOTA_CHECKPOINTS, QUOTA_PLANS, QuotaDefaults, USE_DEFAULT_QUOTA_CLASS,
};
use karbor_manager::{Config, ConfigError, OptionDef, OptionKind};

/// What was configured, as the manager works with it: read once, when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many operations may be at work at once; 0 is no limit.
    pub(crate) operations: usize,
    /// How many checkpoints may be copied at once.
    pub(crate) copies: usize,
    /// How many resources of one operation may be worked on at once.
    pub(crate) tasks: usize,
    /// How long one step of one resource may take.
    pub(crate) task_timeout: Duration,
    /// By which share a resource may shrink without being suspicious.
    pub(crate) suspicious_share: f64,
    /// Limits of projects that have none of their own.
    pub(crate) quotas: QuotaDefaults,
}

impl Settings {
    /// What is out of range is taken as the nearest that is in it; [`out_of_range`] tells of it.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let number = |group, name, least| -> Result<usize, ConfigError> {
            let given = config.int(group, name)?.max(least);
            Ok(usize::try_from(given).unwrap_or(usize::MAX))
        };
        Ok(Self {
            operations: number("DEFAULT", "max_concurrent_operations", 0)?,
            copies: number("protection", "max_parallel_copies", 1)?,
            tasks: number("protection", "max_parallel_tasks", 1)?,
            task_timeout: config.seconds("protection", "task_timeout")?,
            suspicious_share: config.float("protection", "suspicious_share")?,
            quotas: QuotaDefaults::read(config)?,
        })
    }
}

/// The options of the protection manager whose values are good as numbers and out of range all the same, for a person.
///
/// # Errors
/// When the configuration lacks one of [`OPTIONS`].
pub fn out_of_range(config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut found = Vec::new();
    if !(0.0..=1.0).contains(&config.float("protection", "suspicious_share")?) {
        found.push("suspicious_share in [protection] must be 0 to 1".to_owned());
    }
    for name in ["max_parallel_tasks", "max_parallel_copies"] {
        if config.int("protection", name)? < 1 {
            found.push(format!("{name} in [protection] must be at least 1"));
        }
    }
    if config.int("DEFAULT", "max_concurrent_operations")? < 0 {
        found.push("max_concurrent_operations must be 0 (no limit) or more".to_owned());
    }
    Ok(found)
}

/// The options of the protection manager.
pub const OPTIONS: &[OptionDef] = &[
    QUOTA_PLANS,
    QUOTA_CHECKPOINTS,
    QUOTA_BYTES,
    USE_DEFAULT_QUOTA_CLASS,
    OptionDef {
        group: "DEFAULT",
        name: "max_concurrent_operations",
        kind: OptionKind::Int,
        default: "8",
        help: "How many operations (protect, verify, copy, delete) may be at work at once, and as many \
               restores besides; 0 is no limit. Verifications are half of them at most. More wait for their \
               turn, which their record in the operation log says.",
        secret: false,
    },
    OptionDef {
        group: "DEFAULT",
        name: "provider_config_dir",
        kind: OptionKind::Path,
        default: "providers.d",
        help: "Folder of the providers' files (*.conf); relative to the state directory.",
        secret: false,
    },
    OptionDef {
        group: "protection",
        name: "max_parallel_copies",
        kind: OptionKind::Int,
        default: "2",
        help: "How many checkpoints may be copied to copy banks at once; at least 1. More wait for \
               their turn.",
        secret: false,
    },
    OptionDef {
        group: "protection",
        name: "max_parallel_tasks",
        kind: OptionKind::Int,
        default: "16",
        help: "How many resources of one operation may be worked on at once; at least 1.",
        secret: false,
    },
    OptionDef {
        group: "protection",
        name: "suspicious_share",
        kind: OptionKind::Float,
        default: "0.5",
        help: "A checkpoint is suspicious if a resource in it holds fewer files, or bytes, than the last good \
               one by more than this share (0 to 1); 1: only if it holds nothing any more.",
        secret: false,
    },
    OptionDef {
        group: "protection",
        name: "task_timeout",
        kind: OptionKind::Seconds,
        default: "86400",
        help: "How long one step of one resource may take, in seconds; then it is stopped and the \
               operation fails.",
        secret: false,
    },
];
