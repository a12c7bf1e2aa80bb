//! What can be configured, and the sinks that it makes.

use std::sync::Arc;

use karbor_manager::{Config, ConfigError, OptionDef, OptionKind};

use crate::{LogSink, Sink, WebhookSink, webhook::Webhook};

macro_rules! option {
    ($name:literal, $kind:ident, $default:literal, $secret:literal, $help:literal) => {
        OptionDef {
            group: "notifications",
            name: $name,
            kind: OptionKind::$kind,
            default: $default,
            help: $help,
            secret: $secret,
        }
    };
}

/// The options of this crate.
pub const OPTIONS: &[OptionDef] = &[
    option!(
        "log",
        Bool,
        "true",
        false,
        "Whether notifications are written to the log."
    ),
    option!(
        "webhook_url",
        Str,
        "",
        true,
        "Where notifications are sent, as an HTTP POST of JSON; not set: nowhere. A secret, as such URLs \
         often carry one."
    ),
    option!(
        "webhook_secret",
        Str,
        "",
        true,
        "The key of the signature (HMAC-SHA256) that goes with each notification; needed with \
         webhook_url."
    ),
    option!(
        "webhook_timeout",
        Seconds,
        "10",
        false,
        "How long the webhook may take to answer, in seconds."
    ),
    option!(
        "max_age",
        Seconds,
        "86400",
        false,
        "How long a notification that cannot be delivered is tried again, in seconds; then it is \
         given up with an error in the log."
    ),
];

/// What is wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// They are not declared.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The webhook cannot be used.
    #[error("option 'webhook_{option}' in group [notifications]: {reason}")]
    Webhook {
        /// Which.
        option: &'static str,
        /// What it should be.
        reason: String,
    },
}

/// The sinks that the configuration asks for.
///
/// # Errors
/// [`SetupError`] names the option that is wrong.
pub fn sinks(config: &Config) -> Result<Vec<Arc<dyn Sink>>, SetupError> {
    const GROUP: &str = "notifications";
    let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
    if config.bool(GROUP, "log")? {
        sinks.push(Arc::new(LogSink));
    }
    if config.is_set(GROUP, "webhook_url")? {
        let secret = match config.is_set(GROUP, "webhook_secret")? {
            true => config.str(GROUP, "webhook_secret")?.to_owned(),
            false => String::new(),
        };
        sinks.push(Arc::new(WebhookSink::new(Webhook {
            url: config.str(GROUP, "webhook_url")?.to_owned(),
            secret: secret.into(),
            timeout: config.seconds(GROUP, "webhook_timeout")?,
        })?));
    }
    Ok(sinks)
}
