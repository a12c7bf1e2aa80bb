//! What a rule asks, and what comes of it.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use crate::compat::python_texts;

/// How many rules may be gone through by reference before an answer is refused. The references of
/// [`Rules`](super::Rules) have no cycle, so this is more than any chain that a person writes.
const MAX_DEPTH: usize = 64;

/// What a rule asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `@`: everybody.
    Always,
    /// `!`: nobody.
    Never,
    /// `not …`.
    Not(Box<Check>),
    /// `… and …`.
    All(Vec<Check>),
    /// `… or …`.
    Any(Vec<Check>),
    /// `rule:name`: as that rule says.
    Rule(String),
    /// `role:name`: who asks has the role; case does not matter.
    Role(Template),
    /// `attribute:value`: an attribute of who asks, or a constant, is the value.
    Equal(Subject, Template),
}

/// The left side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A constant, as it stood in the rule and as its text.
    Constant {
        /// As it stood: `'member'`, `True`, `5`.
        written: String,
        /// `member`, `True`, `5`.
        text: String,
    },
    /// A path into the credentials, e.g. `project_id`.
    Credential(Vec<String>),
}

/// The right side: text with places that the target fills, `%(name)s`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub(super) Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Key(String),
}

/// What a rule may ask about the thing that is acted upon.
pub trait Target {
    /// The attribute as text, the way Python prints it; `None` if there is no such attribute.
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Target for Map<String, Value> {
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(printed)
    }
}

/// A value as Python's `str` prints it, whole.
pub(super) fn printed(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => match python_texts::parameter(other.clone()) {
            Value::String(text) => Cow::Owned(text),
            _ => Cow::Borrowed(""),
        },
    }
}

/// What a check is decided by.
pub(super) struct Facts<'a> {
    /// Every rule by its name.
    pub(super) rule: &'a dyn Fn(&str) -> Option<&'a Check>,
    pub(super) credentials: &'a Map<String, Value>,
    pub(super) target: &'a dyn Target,
}

impl Check {
    /// The decision; `None` if there is none, because a rule is missing or refers to itself. The
    /// caller must refuse then: taken for a "no" it would turn into a "yes" under `not`.
    pub(super) fn decide(&self, facts: &Facts<'_>, depth: usize) -> Option<bool> {
        match self {
            Self::Always => Some(true),
            Self::Never => Some(false),
            Self::Not(check) => Some(!check.decide(facts, depth)?),
            Self::All(checks) => {
                for check in checks {
                    if !check.decide(facts, depth)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            Self::Any(checks) => {
                for check in checks {
                    if check.decide(facts, depth)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
            Self::Rule(_) if depth >= MAX_DEPTH => None,
            Self::Rule(name) => (facts.rule)(name)?.decide(facts, depth + 1),
            Self::Role(wanted) => Some(has_role(facts, wanted)),
            Self::Equal(subject, value) => Some(is_equal(facts, subject, value)),
        }
    }

    /// The names of the rules that this one refers to.
    pub(super) fn references(&self) -> Vec<&str> {
        match self {
            Self::Rule(name) => vec![name],
            Self::Not(check) => check.references(),
            Self::All(checks) | Self::Any(checks) => {
                checks.iter().flat_map(Self::references).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn has_role(facts: &Facts<'_>, wanted: &Template) -> bool {
    let Some(wanted) = wanted.fill(facts.target) else {
        return false;
    };
    let wanted = wanted.to_lowercase();
    let roles = facts.credentials.get("roles").and_then(Value::as_array);
    let mut roles = roles.into_iter().flatten().filter_map(Value::as_str);
    roles.any(|role| role.to_lowercase() == wanted)
}

fn is_equal(facts: &Facts<'_>, subject: &Subject, value: &Template) -> bool {
    let Some(value) = value.fill(facts.target) else {
        return false;
    };
    match subject {
        Subject::Constant { text, .. } => *text == value,
        Subject::Credential(path) => within(facts.credentials, path, &value),
    }
}

/// Is what `path` leads to in `map` the `value`? A list on the way stands for each of its items.
fn within(map: &Map<String, Value>, path: &[String], value: &str) -> bool {
    let Some((key, rest)) = path.split_first() else {
        return false;
    };
    match map.get(key) {
        None => false,
        Some(Value::Array(items)) => items.iter().any(|item| ends_at(item, rest, value)),
        Some(found) => ends_at(found, rest, value),
    }
}

fn ends_at(found: &Value, path: &[String], value: &str) -> bool {
    match (path, found) {
        ([], found) => printed(found) == value,
        (path, Value::Object(map)) => within(map, path, value),
        _ => false,
    }
}

impl Template {
    /// The text with the target's attributes in it; `None` if it lacks one of them.
    fn fill(&self, target: &dyn Target) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Key(key) => out.push_str(&target.attribute(key)?),
            }
        }
        Some(out)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(&text.replace('%', "%%"))?,
                Part::Key(key) => write!(f, "%({key})s")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant { written, .. } => f.write_str(written),
            Self::Credential(path) => f.write_str(&path.join(".")),
        }
    }
}

/// The rule language, fully parenthesised.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, checks: &[Self], word: &str| {
            for (at, check) in checks.iter().enumerate() {
                f.write_str(if at == 0 { "(" } else { word })?;
                write!(f, "{check}")?;
            }
            f.write_str(")")
        };
        match self {
            Self::Always => f.write_str("@"),
            Self::Never => f.write_str("!"),
            Self::Not(check) => write!(f, "not {check}"),
            Self::All(checks) => join(f, checks, " and "),
            Self::Any(checks) => join(f, checks, " or "),
            Self::Rule(name) => write!(f, "rule:{name}"),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Equal(subject, value) => write!(f, "{subject}:{value}"),
        }
    }
}
