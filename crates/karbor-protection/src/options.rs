//! What can be configured.

use karbor_db::{QUOTA_BYTES, QUOTA_CHECKPOINTS, QUOTA_PLANS, USE_DEFAULT_QUOTA_CLASS};
use karbor_manager::{OptionDef, OptionKind};

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
