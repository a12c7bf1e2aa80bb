//! What can be configured. Names and defaults are the original's where it had them.

use karbor_manager::{OptionDef, OptionKind};

macro_rules! option {
    ($name:literal, $kind:ident, $default:literal, $help:literal) => {
        OptionDef {
            group: "DEFAULT",
            name: $name,
            kind: OptionKind::$kind,
            default: $default,
            help: $help,
            secret: false,
        }
    };
}

/// The options of the operation engine.
pub const OPTIONS: &[OptionDef] = &[
    option!(
        "min_interval",
        Int,
        "3600",
        "How close two times of a trigger may be at the closest, in seconds; at least twice \
         max_window_time."
    ),
    option!(
        "min_window_time",
        Int,
        "900",
        "The shortest window of a trigger, in seconds, and the window of a trigger that names \
         none: how late an operation may still start."
    ),
    option!(
        "max_window_time",
        Int,
        "1800",
        "The longest window of a trigger, in seconds; more than min_window_time."
    ),
];
