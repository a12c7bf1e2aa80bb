//! How the API is set up: the options, read once and checked.

use std::{net::IpAddr, time::Duration};

use karbor_db::QuotaDefaults;
use karbor_manager::{Config, ConfigError, ServiceOptions, config::Source};

use crate::auth::AuthStrategy;

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not declared: [`OPTIONS`](crate::OPTIONS) were not given to the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What [`AuthStrategy::Keystone`] needs is missing or cannot be used.
    #[error(transparent)]
    Identity(#[from] karbor_identity::SettingsError),
    /// Its value cannot be used.
    #[error("option '{name}' in group [{group}] is '{value}': {reason}")]
    Value {
        /// Group.
        group: &'static str,
        /// Option.
        name: &'static str,
        /// What it is set to.
        value: String,
        /// What it should be.
        reason: &'static str,
    },
}

/// How much longer a request may take than a call to a service within it, at least.
const ROOM: Duration = Duration::from_secs(5);

/// The options of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on.
    pub listen: IpAddr,
    /// Port to listen on; 0 for a free one.
    pub port: u16,
    /// Who may ask.
    pub auth_strategy: AuthStrategy,
    /// How keystone is asked; with [`AuthStrategy::Keystone`] only.
    pub(crate) identity: Option<karbor_identity::Settings>,
    pub(crate) noauth_on_any_address: bool,
    pub(crate) max_limit: u64,
    pub(crate) base_url: Option<String>,
    pub(crate) max_body: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) client_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_peer: usize,
    /// How services run, as they correct it themselves.
    pub(crate) services: ServiceOptions,
    pub(crate) quotas: QuotaDefaults,
}

impl Settings {
    /// Reads the options.
    ///
    /// # Errors
    /// [`SettingsError`] names the option that is wrong.
    pub fn read(config: &Config) -> Result<Self, SettingsError> {
        let text = |name: &'static str| config.str("DEFAULT", name);
        let listen = text("osapi_karbor_listen")?;
        let strategy = text("auth_strategy")?;
        let auth_strategy = strategy.parse().map_err(|()| {
            let reason = "give 'keystone', 'local' or 'noauth'";
            wrong("DEFAULT", "auth_strategy", strategy, reason)
        })?;
        let with_keystone = auth_strategy == AuthStrategy::Keystone;
        let identity = with_keystone.then(|| karbor_identity::Settings::read(config));
        let base_url = text("osapi_karbor_base_URL")?.trim_end_matches('/');
        Ok(Self {
            listen: listen.parse().map_err(|_| {
                let reason = "give an IP address, such as 127.0.0.1";
                wrong("DEFAULT", "osapi_karbor_listen", listen, reason)
            })?,
            port: number(config, "DEFAULT", "osapi_karbor_listen_port", 0..=65_535)?,
            auth_strategy,
            identity: identity.transpose()?,
            noauth_on_any_address: config.bool("DEFAULT", "noauth_on_any_address")?,
            max_limit: number(config, "DEFAULT", "osapi_max_limit", 1..=100_000)?,
            base_url: (!base_url.is_empty()).then(|| base_url.to_owned()),
            max_body: number(
                config,
                "oslo_middleware",
                "max_request_body_size",
                1..=1 << 30,
            )?,
            request_timeout: request_timeout(config)?,
            client_timeout: config.seconds("DEFAULT", "client_socket_timeout")?,
            max_connections: number(config, "DEFAULT", "osapi_max_connections", 1..=1_000_000)?,
            max_connections_per_peer: number(
                config,
                "DEFAULT",
                "osapi_max_connections_per_peer",
                1..=1_000_000,
            )?,
            services: ServiceOptions::from_config(config)?.checked().0,
            quotas: QuotaDefaults::read(config)?,
        })
    }

    /// Must nobody beyond this machine reach the API?
    pub(crate) fn only_this_machine(&self) -> bool {
        self.auth_strategy == AuthStrategy::Noauth && !self.noauth_on_any_address
    }
}

/// A request that waits for a service must see it time out: the default gives way, what somebody
/// chose does not.
fn request_timeout(config: &Config) -> Result<Duration, ConfigError> {
    let given = config.seconds("DEFAULT", "osapi_request_timeout")?;
    if *config.source("DEFAULT", "osapi_request_timeout")? != Source::Default {
        return Ok(given);
    }
    Ok(given.max(config.seconds("DEFAULT", "rpc_response_timeout")? + ROOM))
}

fn number<T: TryFrom<i64>>(
    config: &Config,
    group: &'static str,
    name: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<T, SettingsError> {
    let value = config.int(group, name)?;
    let fits = range.contains(&value).then(|| T::try_from(value).ok());
    fits.flatten().ok_or_else(|| {
        let reason = "that is out of range";
        wrong(group, name, &value.to_string(), reason)
    })
}

fn wrong(
    group: &'static str,
    name: &'static str,
    value: &str,
    reason: &'static str,
) -> SettingsError {
    SettingsError::Value {
        group,
        name,
        value: value.to_owned(),
        reason,
    }
}
