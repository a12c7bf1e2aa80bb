//! Keystone, a fake whose clock the test turns and a real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod fake;
mod real;

use std::sync::Arc;

use karbor_identity::{Keystone, OPTIONS, Settings};
use karbor_manager::{Clock, Config};

/// A client with the service's own user, and what else is set.
pub fn keystone(url: &str, clock: Arc<dyn Clock>, options: &[(&str, &str, &str)]) -> Keystone {
    let mut config = Config::builder()
        .options(OPTIONS)
        .set("keystone_authtoken", "auth_url", url)
        .set("keystone_authtoken", "username", "karbor")
        .set("keystone_authtoken", "password", "secret");
    for (group, name, value) in options {
        config = config.set(group, name, *value);
    }
    let settings = Settings::read(&config.build().unwrap()).unwrap();
    Keystone::new(settings, clock).unwrap()
}
