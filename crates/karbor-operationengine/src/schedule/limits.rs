//! What a trigger may ask for.

use karbor_manager::{Config, ConfigError};
use karbor_model::ApiError;
use serde_json::Value;

use super::invalid::invalid;

/// What is wrong with the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One of them cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The windows do not fit together.
    #[error(
        "min_window_time ({min_window}) must not be negative, and max_window_time ({max_window}) \
         must be more than it"
    )]
    Windows {
        /// `min_window_time`, seconds.
        min_window: i64,
        /// `max_window_time`, seconds.
        max_window: i64,
    },
    /// The windows of two times of one trigger could meet.
    #[error("min_interval ({min_interval}) must be at least twice max_window_time ({max_window})")]
    Interval {
        /// `min_interval`, seconds.
        min_interval: i64,
        /// `max_window_time`, seconds.
        max_window: i64,
    },
}

/// The configured limits of triggers; see [`OPTIONS`](crate::OPTIONS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleLimits {
    /// How close two times may be at the closest, in seconds.
    pub min_interval: i64,
    /// The shortest window, in seconds; also that of a trigger that names none.
    pub min_window: i64,
    /// The longest window, in seconds.
    pub max_window: i64,
}

impl ScheduleLimits {
    /// From a configuration with [`OPTIONS`](crate::OPTIONS).
    ///
    /// # Errors
    /// An option is missing, or they do not fit together.
    pub fn from_config(config: &Config) -> Result<Self, LimitsError> {
        let limits = Self {
            min_interval: config.int("DEFAULT", "min_interval")?,
            min_window: config.int("DEFAULT", "min_window_time")?,
            max_window: config.int("DEFAULT", "max_window_time")?,
        };
        let Self {
            min_interval,
            min_window,
            max_window,
        } = limits;
        if min_window < 0 || min_window >= max_window {
            return Err(LimitsError::Windows {
                min_window,
                max_window,
            });
        }
        if max_window > min_interval / 2 {
            return Err(LimitsError::Interval {
                min_interval,
                max_window,
            });
        }
        Ok(limits)
    }

    /// The window that a trigger asks for, in seconds: a whole number, or a text of one.
    pub(super) fn window(&self, given: Option<&Value>) -> Result<i64, ApiError> {
        let window = match given {
            None | Some(Value::Null) => Some(self.min_window),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        window.ok_or_else(|| {
            let given = given.unwrap_or(&Value::Null);
            let given = given
                .as_str()
                .map_or_else(|| given.to_string(), str::to_owned);
            invalid(format!("The trigger windows({given}) is not integer"))
        })
    }

    pub(super) fn check_window(&self, window: i64) -> Result<(), ApiError> {
        if (self.min_window..=self.max_window).contains(&window) {
            return Ok(());
        }
        Err(invalid(format!(
            "The trigger windows {window} must be between {} and {}",
            self.min_window, self.max_window
        )))
    }
}
