//! Options that a crate or a plugin declares, and their checked values. Data: the texts come from files and
//! from the environment, which others read.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use crate::ApiError;

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

/// An option and the texts that stand for its value, in the order in which they were given; only a list has several.
#[derive(Debug, Clone)]
pub struct GivenOption {
    /// The option.
    pub def: OptionDef,
    /// The texts.
    pub values: Vec<String>,
    /// Where they came from.
    pub source: Source,
}

impl From<OptionDef> for GivenOption {
    /// Nobody gave it: its default.
    fn from(def: OptionDef) -> Self {
        let values = match def.default {
            "" => Vec::new(),
            text => vec![text.to_owned()],
        };
        Self {
            def,
            values,
            source: Source::Default,
        }
    }
}

impl GivenOption {
    /// That its value cannot be used, and why.
    #[must_use]
    pub fn bad(&self, reason: String) -> ConfigError {
        ConfigError::BadValue {
            source_: self.source.to_string(),
            group: self.def.group.to_owned(),
            name: self.def.name.to_owned(),
            reason,
        }
    }

    fn checked(self) -> Result<Entry, ConfigError> {
        let value = check(self.def.kind, &self.values).ok_or_else(|| {
            let expected = self.def.kind.expected();
            self.bad(match self.values.last() {
                Some(value) if !self.def.secret => format!("expected {expected}, found '{value}'"),
                _ => format!("expected {expected}"),
            })
        })?;
        Ok(Entry {
            def: self.def,
            value,
            source: self.source,
        })
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
enum Checked {
    Unset,
    Text(String),
    Int(i64),
    Bool(bool),
    Float(f64),
    List(Vec<String>),
    Seconds(Duration),
}

#[derive(Debug, Clone)]
struct Entry {
    def: OptionDef,
    value: Checked,
    source: Source,
}

type Entries = BTreeMap<&'static str, BTreeMap<&'static str, Entry>>;

/// Checked values of options, by group and name.
#[derive(Debug, Clone, Default)]
pub struct Options {
    entries: Entries,
}

impl Options {
    /// Checks what was given.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`], the first.
    pub fn check(given: impl IntoIterator<Item = GivenOption>) -> Result<Self, ConfigError> {
        let mut entries = Entries::new();
        for given in given {
            let (group, name) = (given.def.group, given.def.name);
            let group = entries.entry(group).or_default();
            group.insert(name, given.checked()?);
        }
        Ok(Self { entries })
    }

    fn entry(&self, group: &str, name: &str) -> Result<&Entry, ConfigError> {
        self.entries
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
        self.entries.iter().flat_map(options).collect()
    }

    /// That the value of an option cannot be used, and why.
    #[must_use]
    pub fn refused(&self, group: &str, name: &str, reason: impl Into<String>) -> ConfigError {
        match self.entry(group, name) {
            Ok(entry) => ConfigError::BadValue {
                source_: entry.source.to_string(),
                group: group.to_owned(),
                name: name.to_owned(),
                reason: reason.into(),
            },
            Err(undeclared) => undeclared,
        }
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

/// The value that texts stand for; `None` when they do not. An empty text unsets the option.
fn check(kind: OptionKind, values: &[String]) -> Option<Checked> {
    if kind == OptionKind::List {
        let items = values.iter().flat_map(|value| value.split([',', '\n']));
        let items = items.map(str::trim).filter(|item| !item.is_empty());
        return Some(Checked::List(items.map(str::to_owned).collect()));
    }
    let text = match values.last().map(|value| value.trim()) {
        None | Some("") => return Some(Checked::Unset),
        Some(text) => text,
    };
    match kind {
        OptionKind::Str | OptionKind::Path => Some(Checked::Text(text.to_owned())),
        OptionKind::List => None,
        OptionKind::Int => text.parse().ok().map(Checked::Int),
        OptionKind::Float => {
            let number: f64 = text.parse().ok()?;
            number.is_finite().then_some(Checked::Float(number))
        }
        OptionKind::Seconds => {
            let seconds = text.parse().ok()?;
            Duration::try_from_secs_f64(seconds)
                .ok()
                .map(Checked::Seconds)
        }
        OptionKind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Checked::Bool(true)),
            "false" | "no" | "off" | "0" => Some(Checked::Bool(false)),
            _ => None,
        },
    }
}
