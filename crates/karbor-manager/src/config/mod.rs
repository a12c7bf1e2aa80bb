//! Configuration: options that crates declare, and where their values came from.
//!
//! A crate says what options it has in `pub const OPTIONS: &[OptionDef]`. The binary gathers those
//! of every crate into one [`ConfigBuilder`] and adds the layers, each of which wins over the one
//! before: the declared default, the configuration files in their order (INI, as oslo.config reads
//! it: repeated keys, values that go on over indented lines, `$option` and `${group.option}`), the
//! environment (`OS_<GROUP>__<OPTION>`), the command line. Everything is checked in
//! [`ConfigBuilder::build`]: a service that starts has only good values, and a bad one is told
//! with its place and what was expected. A name that nobody declared is no error (files are shared
//! between versions) but is reported: by [`Config::idle`] when it is known to do nothing here, by
//! [`Config::unknown`], with a guess at what was meant, otherwise.

mod build;
mod known;
mod reference;
mod substitute;

use std::{ops::Deref, sync::Arc};

pub use build::ConfigBuilder;
pub use karbor_model::{ConfigError, OptionDef, OptionKind, Options, Source};
pub use known::{IdleOptions, closest};
pub use reference::{Places, reference};

/// The effective configuration: the [`Options`], and what is known of where they came from. Cheap to clone; never
/// changes.
#[derive(Clone, Default)]
pub struct Config {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    version: Option<String>,
    options: Options,
    unknown: Vec<String>,
    idle: Vec<String>,
}

impl Deref for Config {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.inner.options
    }
}

impl Config {
    /// Gathers options and layers.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The version of the application that this configures, `unknown` when it did not say.
    #[must_use]
    pub fn version(&self) -> &str {
        self.inner.version.as_deref().unwrap_or("unknown")
    }

    /// Options in files, or in the environment under a group of ours, that nobody declared: to be
    /// warned about.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.inner.unknown
    }

    /// Options that are known to do nothing here, each with its place and why.
    #[must_use]
    pub fn idle(&self) -> &[String] {
        &self.inner.idle
    }
}
