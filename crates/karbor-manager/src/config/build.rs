//! Layers, and checking them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use ini::{Ini, ParseOption};

use karbor_model::{ConfigError, GivenOption, OptionDef, Options, Source};

use super::{
    Config, Inner,
    known::{IdleOptions, Names},
    substitute::substitute,
};

/// Gathers options and layers; see [`Config::builder`].
#[derive(Default)]
pub struct ConfigBuilder {
    version: Option<String>,
    options: Vec<OptionDef>,
    idle: &'static [IdleOptions],
    files: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    overrides: Vec<(String, String, String)>,
}

type Raws = BTreeMap<(&'static str, &'static str), GivenOption>;

/// What stands in files and in the environment and is read by nobody.
#[derive(Default)]
struct Unread {
    unknown: Vec<String>,
    idle: Vec<String>,
    /// The values, because others may refer to them.
    values: BTreeMap<(String, String), String>,
}

impl Unread {
    fn add(&mut self, names: &Names<'_>, (group, name): (&str, &str), place: &str) {
        match names.idle(group, name) {
            Some(why) => self.idle.push(format!(
                "[{group}] {name} {place}: no effect, because {why}"
            )),
            None => self.unknown.push(format!(
                "[{group}] {name} {place}{}",
                names.guess(group, name)
            )),
        }
    }
}

impl ConfigBuilder {
    /// Says which version of the application is configured: what its services answer when they are
    /// asked for theirs.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Declares options.
    #[must_use]
    pub fn options(mut self, options: &[OptionDef]) -> Self {
        self.options.extend_from_slice(options);
        self
    }

    /// Names options that do nothing here, so that they are told apart from misspelt ones. An option
    /// that is declared too does what it is declared for.
    #[must_use]
    pub fn idle(mut self, options: &'static [IdleOptions]) -> Self {
        self.idle = options;
        self
    }

    /// Adds a configuration file; what it says wins over the files before it.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.files.push(path.as_ref().to_owned());
        self
    }

    /// Adds the environment, e.g. `std::env::vars()`; only `OS_<GROUP>__<OPTION>` counts.
    #[must_use]
    pub fn env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Sets an option, over everything else; setting it again adds to a list.
    #[must_use]
    pub fn set(mut self, group: &str, name: &str, value: impl Into<String>) -> Self {
        self.overrides
            .push((group.to_owned(), name.to_owned(), value.into()));
        self
    }

    /// Reads the files and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut raws = declare(&self.options)?;
        let names = Names::new(&self.options, self.idle);
        let mut unread = Unread::default();
        for file in &self.files {
            for (group, name, values) in read(file)? {
                if let Some(raw) = find(&mut raws, &group, &name) {
                    raw.values = values;
                    raw.source = Source::File(file.clone());
                    continue;
                }
                unread.add(&names, (&group, &name), &format!("in {}", file.display()));
                let value = values.into_iter().next_back().unwrap_or_default();
                unread.values.insert((group, name), value);
            }
        }
        environment(&mut raws, self.environment, &names, &mut unread);
        for (group, name, value) in self.overrides {
            let Some(raw) = find(&mut raws, &group, &name) else {
                return Err(ConfigError::Undeclared { group, name });
            };
            if raw.source != Source::Override {
                raw.values.clear();
                raw.source = Source::Override;
            }
            raw.values.push(value);
        }
        let options = check_all(&raws, &unread.values)?;
        Ok(Config {
            inner: Arc::new(Inner {
                version: self.version,
                options,
                unknown: unread.unknown,
                idle: unread.idle,
            }),
        })
    }
}

fn declare(options: &[OptionDef]) -> Result<Raws, ConfigError> {
    let mut raws = Raws::new();
    for def in options {
        match raws.insert((def.group, def.name), GivenOption::from(*def)) {
            Some(other) if other.def != *def => {
                return Err(ConfigError::DeclaredTwice {
                    group: def.group.to_owned(),
                    name: def.name.to_owned(),
                });
            }
            _ => {}
        }
    }
    Ok(raws)
}

fn find<'a>(raws: &'a mut Raws, group: &str, name: &str) -> Option<&'a mut GivenOption> {
    raws.iter_mut()
        .find(|((g, n), _)| *g == group && *n == name)
        .map(|(_, raw)| raw)
}

/// A file's options with every value that each was given, in order.
fn read(file: &Path) -> Result<Vec<(String, String, Vec<String>)>, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| ConfigError::Unreadable {
        file: file.to_owned(),
        reason: error.to_string(),
    })?;
    let syntax = |reason: String| ConfigError::Syntax {
        file: file.to_owned(),
        reason,
    };
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        enabled_indented_mutiline_value: true,
        ..ParseOption::default()
    };
    let ini = Ini::load_from_str_opt(&text, options).map_err(|error| syntax(error.to_string()))?;
    let mut found: Vec<(String, String, Vec<String>)> = Vec::new();
    for (section, properties) in &ini {
        for (name, value) in properties {
            // The parser takes a line without `=` for the beginning of the next line's name.
            if let Some((line, _)) = name.split_once('\n') {
                return Err(syntax(format!("'{line}' is not of the form name = value")));
            }
            let Some(group) = section else {
                let reason = format!("'{name}' stands before the first group: add [DEFAULT]");
                return Err(syntax(reason));
            };
            let same = |(g, n, _): &&mut (String, String, Vec<String>)| g == group && n == name;
            match found.iter_mut().find(same) {
                Some((_, _, values)) => values.push(value.to_owned()),
                None => found.push((group.to_owned(), name.to_owned(), vec![value.to_owned()])),
            }
        }
    }
    Ok(found)
}

fn environment(
    raws: &mut Raws,
    variables: Vec<(String, String)>,
    names: &Names<'_>,
    unread: &mut Unread,
) {
    for (variable, value) in variables {
        let Some((group, name)) = variable
            .strip_prefix("OS_")
            .and_then(|rest| rest.split_once("__"))
        else {
            continue;
        };
        let matches =
            |(g, n): &(&str, &str)| g.eq_ignore_ascii_case(group) && n.eq_ignore_ascii_case(name);
        if let Some((_, raw)) = raws.iter_mut().find(|(key, _)| matches(key)) {
            raw.values = vec![value];
            raw.source = Source::Environment(variable);
        } else if let Some((group, _)) = raws.keys().find(|(g, _)| g.eq_ignore_ascii_case(group)) {
            // Variables under other groups belong to other programs.
            let place = format!("in the environment ({variable})");
            unread.add(names, (group, &name.to_ascii_lowercase()), &place);
        }
    }
}

fn check_all(
    raws: &Raws,
    unread: &BTreeMap<(String, String), String>,
) -> Result<Options, ConfigError> {
    let declared = raws
        .iter()
        .map(|(key, raw)| (*key, raw.values.last().cloned().unwrap_or_default()));
    let unread = unread
        .iter()
        .map(|((group, name), value)| ((group.as_str(), name.as_str()), value.clone()));
    let plain: BTreeMap<(&str, &str), String> = unread.chain(declared).collect();
    let substituted = raws.values().map(|raw| {
        let values = raw.values.iter();
        let values = values.map(|value| substitute(value, raw.def.group, &plain));
        let values = values.collect::<Result<_, _>>();
        Ok(GivenOption {
            values: values.map_err(|reason| raw.bad(reason))?,
            ..raw.clone()
        })
    });
    Options::check(substituted.collect::<Result<Vec<_>, ConfigError>>()?)
}
