//! What a plugin says of itself: its name, its options, how it is opened.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use karbor_model::{ConfigError, OptionDef, Options};

use crate::{Bank, ProtectionPlugin};

/// Why a plugin cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// It refuses its options: what is wrong with them and what to do.
    #[error("{0}")]
    Config(String),
    /// Its options are good, but what it stands on cannot be reached now: why, and what to do.
    #[error("{0}")]
    Away(String),
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

/// A plugin that is being opened.
pub type Opening<T> = BoxFuture<'static, Result<Arc<T>, OpenError>>;

/// Opens a plugin of one kind with the checked values of its options. Called once for each provider that names it, and
/// again for a bank that was away.
#[derive(Clone)]
pub enum Open {
    /// A bank.
    Bank(Arc<dyn Fn(Options) -> Opening<dyn Bank> + Send + Sync>),
    /// A protection plugin.
    Protection(Arc<dyn Fn(Options) -> Opening<dyn ProtectionPlugin> + Send + Sync>),
}

/// What a plugin says of itself.
#[derive(Clone)]
pub struct PluginSpec {
    /// Its name in configuration: nobody else's.
    pub name: &'static str,
    /// The options that a provider's file may give it, in sections of its own.
    pub options: &'static [OptionDef],
    /// The places of this host that it keeps what is its own in, as its options say. They are never protected (a bank
    /// that holds itself grows for ever) and never restored into.
    pub places: fn(&Options) -> Vec<PathBuf>,
    /// Opens it.
    pub open: Open,
}

impl PluginSpec {
    /// A bank.
    pub fn bank<F>(
        name: &'static str,
        options: &'static [OptionDef],
        open: impl Fn(Options) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Arc<dyn Bank>, OpenError>> + Send + 'static,
    {
        Self {
            name,
            options,
            places: |_| Vec::new(),
            open: Open::Bank(Arc::new(move |options| open(options).boxed())),
        }
    }

    /// A protection plugin that needs no options: every provider has the same.
    pub fn protection(name: &'static str, plugin: Arc<dyn ProtectionPlugin>) -> Self {
        let open = move |_| {
            let plugin = plugin.clone();
            async { Ok(plugin) }.boxed()
        };
        Self {
            name,
            options: &[],
            places: |_| Vec::new(),
            open: Open::Protection(Arc::new(open)),
        }
    }

    /// Which kind of plugin it is, in a word.
    #[must_use]
    pub fn kind(&self) -> PluginKind {
        match self.open {
            Open::Bank(_) => PluginKind::Bank,
            Open::Protection(_) => PluginKind::Protection,
        }
    }
}

/// The kinds of plugins that a provider names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginKind {
    /// Where data go.
    Bank,
    /// How resources of some types are protected.
    Protection,
}

impl std::fmt::Display for PluginKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bank => "bank",
            Self::Protection => "protection",
        })
    }
}
