//! Reading `applications.d`: every problem of every file at once. A file with a problem makes its own
//! application unusable, and no other.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::{DeTable, DeValue};
use uuid::Uuid;

use super::{
    Application, Applications, BrokenApplication, Component, HookCommand, Hooks, Problem,
    checks::{plain_absolute, plain_name, timeout},
    obeyed::obeyed,
    raw::{RawApplication, RawCommand, application_id, component_id},
    store::declaration_files,
};
use crate::host::kinds::KINDS;

/// Files are a few kilobytes; something larger was put there by mistake.
const MAX_FILE: u64 = 1024 * 1024;

impl Applications {
    /// Reads every `*.toml` in `dir`. A directory that is not there declares nothing. What has a problem is
    /// among the [`broken`](Self::broken).
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(dir: &Path) -> Result<Self, Problem> {
        let mut loaded = Self::default();
        for file in declaration_files(dir)? {
            match read(&file) {
                Ok(raw) => {
                    let mut problems = Vec::new();
                    let application = Checker::new(&file, &mut problems).application(raw);
                    match problems.is_empty() {
                        true => loaded.list.push(application),
                        false => loaded
                            .broken
                            .push(Outline::of(&application).broken(problems)),
                    }
                }
                Err(broken) => loaded.broken.push(*broken),
            }
        }
        loaded.set_apart_ambiguous();
        loaded.list.sort_by(|a, b| a.name.cmp(&b.name));
        loaded.broken.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(loaded)
    }

    /// Which of two applications with one name or id is meant, nobody can tell: neither can be used.
    fn set_apart_ambiguous(&mut self) {
        let mut problems: HashMap<PathBuf, Vec<Problem>> = HashMap::new();
        for problem in doubled(&self.list) {
            problems
                .entry(problem.file.clone())
                .or_default()
                .push(problem);
        }
        for application in std::mem::take(&mut self.list) {
            match problems.remove(&application.file) {
                Some(problems) => self.broken.push(Outline::of(&application).broken(problems)),
                None => self.list.push(application),
            }
        }
    }
}

/// Who an application is, as far as its file tells.
#[derive(Debug, Default)]
struct Outline {
    file: PathBuf,
    name: Option<String>,
    id: Option<Uuid>,
    projects: Option<BTreeSet<String>>,
    components: BTreeSet<Uuid>,
}

impl Outline {
    fn of(application: &Application) -> Self {
        Self {
            file: application.file.clone(),
            name: Some(application.name.clone()),
            id: Some(application.id),
            projects: Some(application.projects.clone()),
            components: application.components.iter().map(|one| one.id).collect(),
        }
    }

    /// What can be read of a text that is not as it should be.
    fn guess(file: &Path, text: &str) -> Self {
        let (table, _) = DeTable::parse_recoverable(text);
        let table = table.get_ref();
        let name = text_of(table, "name").map(str::to_owned);
        let id = text_of(table, "id").and_then(|id| Uuid::try_parse(id).ok());
        let projects = table.get("projects").and_then(|list| {
            let list = list.get_ref().as_array()?.iter();
            let names: Option<BTreeSet<_>> = list
                .map(|project| Some(project.get_ref().as_str()?.to_owned()))
                .collect();
            names.filter(|names| !names.is_empty())
        });
        let mut outline = Self {
            file: file.to_owned(),
            name,
            id,
            projects,
            components: BTreeSet::new(),
        };
        let application = outline.id();
        for kind in KINDS.iter().map(|kind| kind.names.name) {
            let components = table.get(kind).and_then(|list| list.get_ref().as_array());
            for component in components.into_iter().flatten() {
                let DeValue::Table(component) = component.get_ref() else {
                    continue;
                };
                let given = text_of(component, "id").map(Uuid::try_parse);
                let named =
                    text_of(component, "name").map(|name| component_id(application, kind, name));
                outline
                    .components
                    .extend(given.and_then(Result::ok).or(named));
            }
        }
        outline
    }

    /// As it is named, or as its file is.
    fn name(&self) -> String {
        let stem = || {
            let stem = self.file.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        };
        let named = self.name.clone().filter(|name| plain_name(name).is_ok());
        named.unwrap_or_else(stem)
    }

    fn id(&self) -> Uuid {
        self.id.unwrap_or_else(|| application_id(&self.name()))
    }

    fn broken(self, problems: Vec<Problem>) -> BrokenApplication {
        BrokenApplication {
            id: self.id(),
            name: self.name(),
            file: self.file,
            projects: self.projects,
            components: self.components,
            problems,
        }
    }
}

fn text_of<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    table.get(key)?.get_ref().as_str()
}

fn read(file: &Path) -> Result<RawApplication, Box<BrokenApplication>> {
    // Nothing else is known of it.
    let broken = |problem| {
        let outline = Outline {
            file: file.to_owned(),
            ..Outline::default()
        };
        Box::new(outline.broken(vec![problem]))
    };
    let unreadable = |error: io::Error| {
        let message = format!("the file cannot be read: {error}");
        broken(Problem::error(file, "", message))
    };
    if fs::metadata(file).map_err(unreadable)?.len() > MAX_FILE {
        let problem = Problem::error(file, "", "the file is larger than 1 MiB");
        return Err(broken(problem));
    }
    obeyed(file).map_err(|reason| broken(Problem::error(file, "", reason)))?;
    let text = fs::read_to_string(file).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        let key = error
            .span()
            .map(|span| place(&text, span.start))
            .unwrap_or_default();
        let problem = Problem::error(file, key, error.message().to_owned());
        Box::new(Outline::guess(file, &text).broken(vec![problem]))
    })
}

/// `key (line 7)` of an offset in a TOML text.
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let key = line.split('=').next().unwrap_or_default().trim();
    match key {
        "" => format!("line {number}"),
        key => format!("{key} (line {number})"),
    }
}

/// Names and ids that two applications use: a problem of each of them.
fn doubled(list: &[Application]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: HashMap<&str, &Path> = HashMap::new();
    let mut ids: HashMap<Uuid, (String, &Path)> = HashMap::new();
    for application in list {
        let file = application.file.as_path();
        if let Some(other) = names.insert(&application.name, file) {
            for (file, other) in [(file, other), (other, file)] {
                let message = format!(
                    "'{}' is also the name of the application in {}: give one of them another name",
                    application.name,
                    other.display()
                );
                problems.push(Problem::error(file, "name", message));
            }
            continue;
        }
        let components = application
            .components
            .iter()
            .map(|c| (c.key() + ".id", c.id));
        for (key, id) in [("id".to_owned(), application.id)]
            .into_iter()
            .chain(components)
        {
            let message =
                |other: &Path| format!("the id {id} is used twice (also in {})", other.display());
            if let Some((other_key, other)) = ids.insert(id, (key.clone(), file)) {
                problems.push(Problem::error(file, key, message(other)));
                if other != file {
                    problems.push(Problem::error(other, other_key, message(file)));
                }
            }
        }
    }
    problems
}

/// Turns one file's text into a declaration and notes what is wrong on the way.
struct Checker<'a> {
    file: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn new(file: &'a Path, problems: &'a mut Vec<Problem>) -> Self {
        Self { file, problems }
    }

    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::error(self.file, key, message));
    }

    fn application(&mut self, mut raw: RawApplication) -> Application {
        self.name("name", &raw.name);
        if raw.projects.iter().all(|project| project.trim().is_empty()) {
            self.problem(
                "projects",
                "no project may see it: name at least one, e.g. projects = [\"default\"]",
            );
        }
        for root in &raw.restore_roots {
            self.path("restore_roots", root);
            if root == Path::new("/") {
                self.problem(
                    "restore_roots",
                    "'/' would let a restore write anywhere: name a directory for restores",
                );
            }
        }
        let id = raw.id.unwrap_or_else(|| application_id(&raw.name));
        let components = raw.components(id, self.file, self.problems);
        self.components(&components);
        Application {
            file: self.file.to_owned(),
            id,
            name: raw.name,
            description: raw.description,
            projects: raw.projects.into_iter().collect(),
            restore_roots: raw.restore_roots,
            hooks: Hooks {
                quiesce: self.command("quiesce", raw.quiesce),
                resume: self.command("resume", raw.resume),
                before_restore: self.command("before_restore", raw.before_restore),
                after_restore: self.command("after_restore", raw.after_restore),
            },
            components,
        }
    }

    fn components(&mut self, components: &[Component]) {
        if components.is_empty() {
            let names = KINDS.iter().map(|kind| format!("[[{}]]", kind.names.name));
            let names: Vec<_> = names.collect();
            let message = format!("it has no component: add one of {}", names.join(", "));
            self.problem("", message);
        }
        let mut names = BTreeSet::new();
        for component in components {
            if !names.insert(component.name.as_str()) {
                self.problem(
                    component.key(),
                    "another component of this application has the same name",
                );
            }
        }
    }

    fn name(&mut self, key: &str, name: &str) {
        if let Err(message) = plain_name(name) {
            self.problem(key, message);
        }
    }

    fn path(&mut self, key: &str, path: &Path) {
        if let Err(message) = plain_absolute(path) {
            self.problem(key, message);
        }
    }

    fn command(&mut self, key: &str, raw: Option<RawCommand>) -> Option<HookCommand> {
        let raw = raw?;
        match raw.command.first() {
            None => self.problem(format!("{key}.command"), "it is empty: [program, argument, ...]"),
            Some(program) if !program.starts_with('/') => self.problem(
                format!("{key}.command"),
                format!("'{program}' is not an absolute path; programs are not searched for and no shell is used"),
            ),
            Some(_) => {}
        }
        if raw.command.iter().any(|argument| argument.contains('\0')) {
            self.problem(format!("{key}.command"), "an argument has a NUL character");
        }
        if let Err(message) = timeout(raw.timeout) {
            self.problem(format!("{key}.timeout"), message);
        }
        Some(HookCommand {
            argv: raw.command,
            timeout: Duration::from_secs(raw.timeout),
        })
    }
}
