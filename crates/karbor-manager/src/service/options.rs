//! Options of every service. Names and defaults are the original's where it had them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use karbor_model::ServiceRecord;

use crate::{Config, ConfigError, OptionDef, OptionKind};

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

/// The options of this crate.
pub const OPTIONS: &[OptionDef] = &[
    option!(
        "host",
        Str,
        "",
        "Name of this host in the services table and on RPC; must be unique among services of a \
         kind. This machine's name when not set."
    ),
    option!(
        "report_interval",
        Seconds,
        "10",
        "Time between heartbeats; 0 sends none."
    ),
    option!(
        "service_down_time",
        Seconds,
        "60",
        "A service whose last heartbeat is older than this shows as down. Must be more than \
         report_interval."
    ),
    option!(
        "service_start_timeout",
        Seconds,
        "300",
        "How long a service may take to register, to take up what was left from before and to begin \
         to answer, before it gives up with an error; 0: as long as it takes."
    ),
    option!(
        "periodic_interval",
        Seconds,
        "60",
        "Longest time between two looks at which periodic tasks are due; 0 runs none."
    ),
    option!(
        "periodic_fuzzy_delay",
        Seconds,
        "60",
        "Periodic tasks begin at a random moment within this time after the start, so that \
         services started together do not work in step."
    ),
    option!(
        "run_external_periodic_tasks",
        Bool,
        "true",
        "Run periodic tasks that another process could run."
    ),
    option!(
        "rpc_response_timeout",
        Seconds,
        "60",
        "How long to wait for the answer to an RPC call."
    ),
    option!(
        "graceful_shutdown_timeout",
        Seconds,
        "60",
        "How long calls and tasks may take to finish after SIGTERM before they are dropped."
    ),
];

/// How a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// Time between heartbeats; zero sends none.
    pub report_interval: Duration,
    /// After how long without heartbeat a service shows as down.
    pub service_down_time: Duration,
    /// How long the start may take; zero: as long as it takes.
    pub start_timeout: Duration,
    /// Longest time between two looks at the periodic tasks; zero runs none.
    pub periodic_interval: Duration,
    /// The first look is at a random moment within this time.
    pub periodic_fuzzy_delay: Duration,
    /// Run tasks that another process could run.
    pub run_external_periodic_tasks: bool,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(10),
            service_down_time: Duration::from_secs(60),
            start_timeout: Duration::from_secs(300),
            periodic_interval: Duration::from_secs(60),
            periodic_fuzzy_delay: Duration::from_secs(60),
            run_external_periodic_tasks: true,
        }
    }
}

impl ServiceOptions {
    /// From a configuration with [`OPTIONS`]. Take them through [`ServiceOptions::checked`] before use.
    ///
    /// # Errors
    /// [`ConfigError`] when they are not declared.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            report_interval: config.seconds("DEFAULT", "report_interval")?,
            service_down_time: config.seconds("DEFAULT", "service_down_time")?,
            start_timeout: config.seconds("DEFAULT", "service_start_timeout")?,
            periodic_interval: config.seconds("DEFAULT", "periodic_interval")?,
            periodic_fuzzy_delay: config.seconds("DEFAULT", "periodic_fuzzy_delay")?,
            run_external_periodic_tasks: config.bool("DEFAULT", "run_external_periodic_tasks")?,
        })
    }

    /// The options as they can be used, with a warning if something had to be changed (the
    /// original's `basic_config_check`): a service must not show as down between two heartbeats.
    #[must_use]
    pub fn checked(mut self) -> (Self, Option<String>) {
        if self.report_interval.is_zero() || self.service_down_time > self.report_interval {
            return (self, None);
        }
        let down_time = Duration::from_secs(
            (self.report_interval.saturating_mul(5) / 2)
                .as_secs()
                .max(1),
        );
        let warning = format!(
            "report_interval ({:?}) must be less than service_down_time ({:?}), or this service \
             shows as down; using {down_time:?} for service_down_time",
            self.report_interval, self.service_down_time
        );
        self.service_down_time = down_time;
        (self, Some(warning))
    }

    /// Did a service beat its heart lately? One whose clock is ahead, by no more than that, did.
    #[must_use]
    pub fn is_up(&self, service: &ServiceRecord, now: DateTime<Utc>) -> bool {
        let beat = service.updated_at.unwrap_or(service.created_at);
        let silence = now.signed_duration_since(beat).abs();
        silence
            .to_std()
            .is_ok_and(|silence| silence <= self.service_down_time)
    }
}
