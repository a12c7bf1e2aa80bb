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

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

pub use build::ConfigBuilder;
use karbor_model::ApiError;
pub use known::{IdleOptions, closest};
pub use reference::reference;
use serde_json::{Map, Value, json};

/// What an option's value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text. Empty counts as unset.
    Str,
    /// A whole number.
    Int,
    /// `true`, `yes`, `on`, `1` or their opposites.
    Bool,
    /// A number.
    Float,
    /// Texts, separated by commas; the option may be repeated.
    List,
    /// A path.
    Path,
    /// A length of time in seconds; fractions are allowed, negative numbers are not.
    Seconds,
}

impl OptionKind {
    /// What is expected, in words.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Str => "a text",
            Self::Int => "a whole number",
            Self::Bool => "true or false",
            Self::Float => "a number",
            Self::List => "texts separated by commas",
            Self::Path => "a path",
            Self::Seconds => "a number of seconds, 0 or more",
        }
    }
}

/// An option, as a crate declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionDef {
    /// Group, e.g. `DEFAULT` or `database`.
    pub group: &'static str,
    /// Name.
    pub name: &'static str,
    /// What its value must look like.
    pub kind: OptionKind,
    /// Value when nobody gives one, as it would stand in a file; empty for none.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Never shown.
    pub secret: bool,
}

/// What is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("the configuration file {} cannot be read: {reason}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is not INI.
    #[error("the configuration file {} cannot be understood: {reason}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A value is not what the option wants.
    #[error("option '{name}' in group [{group}] ({source_}): {reason}")]
    BadValue {
        /// Where the value came from.
        source_: String,
        /// Group.
        group: String,
        /// Option.
        name: String,
        /// What was expected, and what was found unless it is secret.
        reason: String,
    },
    /// Asked for by code, or given on the command line, but declared by nobody.
    #[error("there is no option '{name}' in group [{group}]")]
    Undeclared {
        /// Group.
        group: String,
        /// Option.
        name: String,
    },
    /// Two crates declare the same option differently.
    #[error("option '{name}' in group [{group}] is declared twice, differently")]
    DeclaredTwice {
        /// Group.
        group: String,
        /// Option.
        name: String,
    },
    /// Code wants a value, and there is none.
    #[error("option '{name}' in group [{group}] is not set; set it in the configuration file")]
    Unset {
        /// Group.
        group: String,
        /// Option.
        name: String,
    },
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        ApiError::internal(error)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The declaration.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// The command line, or code.
    Override,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "file {}", file.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Override => f.write_str("override"),
        }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Checked {
    Unset,
    Text(String),
    Int(i64),
    Bool(bool),
    Float(f64),
    List(Vec<String>),
    Seconds(Duration),
}

#[derive(Clone)]
pub(crate) struct Entry {
    def: OptionDef,
    value: Checked,
    source: Source,
}

type Entries = BTreeMap<&'static str, BTreeMap<&'static str, Entry>>;

/// The effective configuration. Cheap to clone; never changes.
#[derive(Clone, Default)]
pub struct Config {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    version: Option<String>,
    entries: Entries,
    unknown: Vec<String>,
    idle: Vec<String>,
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

    fn entry(&self, group: &str, name: &str) -> Result<&Entry, ConfigError> {
        self.inner
            .entries
            .get(group)
            .and_then(|options| options.get(name))
            .ok_or_else(|| ConfigError::Undeclared {
                group: group.to_owned(),
                name: name.to_owned(),
            })
    }

    fn get<'a, T>(
        &'a self,
        group: &str,
        name: &str,
        pick: impl FnOnce(&'a Checked) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let entry = self.entry(group, name)?;
        pick(&entry.value).ok_or_else(|| {
            let (group, name) = (group.to_owned(), name.to_owned());
            match entry.value {
                Checked::Unset => ConfigError::Unset { group, name },
                _ => ConfigError::BadValue {
                    source_: "code".to_owned(),
                    group,
                    name,
                    reason: format!("it is declared as {}", entry.def.kind.expected()),
                },
            }
        })
    }

    /// Group and name of every option whose value is another than in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, &'static str)> {
        let options = |(group, options): (&&'static str, &BTreeMap<&'static str, Entry>)| {
            let group = *group;
            let names: Vec<_> = options
                .iter()
                .filter(|(name, entry)| {
                    let same = other.entry(group, name);
                    same.map_or(true, |other| other.value != entry.value)
                })
                .map(|(name, _)| (group, *name))
                .collect();
            names
        };
        self.inner.entries.iter().flat_map(options).collect()
    }

    /// Has the option a value?
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`].
    pub fn is_set(&self, group: &str, name: &str) -> Result<bool, ConfigError> {
        Ok(!matches!(self.entry(group, name)?.value, Checked::Unset))
    }

    /// The value of a text; empty when unset.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`].
    pub fn str(&self, group: &str, name: &str) -> Result<&str, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Text(text) => Some(text.as_str()),
            Checked::Unset => Some(""),
            _ => None,
        })
    }

    /// The value of a whole number.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`] or [`ConfigError::Unset`].
    pub fn int(&self, group: &str, name: &str) -> Result<i64, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Int(number) => Some(*number),
            _ => None,
        })
    }

    /// The value of a truth.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`] or [`ConfigError::Unset`].
    pub fn bool(&self, group: &str, name: &str) -> Result<bool, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Bool(truth) => Some(*truth),
            _ => None,
        })
    }

    /// The value of a number.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`] or [`ConfigError::Unset`].
    pub fn float(&self, group: &str, name: &str) -> Result<f64, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Float(number) => Some(*number),
            _ => None,
        })
    }

    /// The texts of a list; none when unset.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`].
    pub fn list(&self, group: &str, name: &str) -> Result<Vec<String>, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::List(texts) => Some(texts.clone()),
            Checked::Unset => Some(Vec::new()),
            _ => None,
        })
    }

    /// The value of a length of time.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`] or [`ConfigError::Unset`].
    pub fn seconds(&self, group: &str, name: &str) -> Result<Duration, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Seconds(length) => Some(*length),
            _ => None,
        })
    }

    /// The value of a path.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`] or [`ConfigError::Unset`].
    pub fn path(&self, group: &str, name: &str) -> Result<PathBuf, ConfigError> {
        self.get(group, name, |value| match value {
            Checked::Text(text) => Some(PathBuf::from(text)),
            _ => None,
        })
    }

    /// Each option's `value` and `source`, by group and name. Secrets are `***`, and so are
    /// passwords in URLs.
    #[must_use]
    pub fn effective(&self) -> Value {
        let shown =
            |entry: &Entry| json!({ "value": entry.shown(), "source": entry.source.to_string() });
        let groups: Map<String, Value> = self
            .inner
            .entries
            .iter()
            .map(|(group, options)| {
                let options: Map<String, Value> = options
                    .iter()
                    .map(|(name, entry)| ((*name).to_owned(), shown(entry)))
                    .collect();
                ((*group).to_owned(), Value::Object(options))
            })
            .collect();
        Value::Object(groups)
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

    /// Where the value of an option came from.
    ///
    /// # Errors
    /// [`ConfigError::Undeclared`].
    pub fn source(&self, group: &str, name: &str) -> Result<&Source, ConfigError> {
        Ok(&self.entry(group, name)?.source)
    }
}

impl Entry {
    fn shown(&self) -> Value {
        match &self.value {
            Checked::Unset => Value::Null,
            _ if self.def.secret => json!("***"),
            Checked::Text(text) => json!(without_password(text)),
            Checked::Int(number) => json!(number),
            Checked::Bool(truth) => json!(truth),
            Checked::Float(number) => json!(number),
            Checked::List(texts) => texts.iter().map(|text| without_password(text)).collect(),
            Checked::Seconds(length) => json!(length.as_secs_f64()),
        }
    }
}

/// `scheme://user:password@host` with the password as `***`.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let credentials = rest[..end].rsplit_once('@').map(|(user, _)| user);
    match credentials.and_then(|both| both.split_once(':')) {
        Some((user, _)) => {
            let host = &rest[rest[..end].rfind('@').unwrap_or(0)..];
            format!("{scheme}://{user}:***{host}")
        }
        None => text.to_owned(),
    }
}
