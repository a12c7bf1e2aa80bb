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
    option!(
        "trigger_poll_interval",
        Seconds,
        "15",
        "How long an operation engine may sleep without a look into the database for what is due, \
         in seconds. It wakes by itself when a trigger is due, and when it hears of a change."
    ),
    option!(
        "scheduling_strategy",
        Str,
        "multi_node",
        "Accepted as the original's; any number of engines share the work, whatever it says."
    ),
    option!(
        "retained_operation_log_number",
        Int,
        "5",
        "How many ended runs of a scheduled operation are kept in the table \
         scheduled_operation_logs."
    ),
    OptionDef {
        group: "operationengine",
        name: "lease_duration",
        kind: OptionKind::Seconds,
        default: "60",
        help: "How long, in seconds, an engine that was not heard of keeps the runs it has begun; \
               then any other goes on with them. At least 3.",
        secret: false,
    },
];
