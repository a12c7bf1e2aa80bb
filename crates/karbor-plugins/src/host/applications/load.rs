//! Reading `applications.d`: every problem of every file at once. A file with a problem makes its own
//! application unusable, and no other.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Component as PathPart, Path, PathBuf},
    time::Duration,
};

use toml::de::{DeTable, DeValue};
use uuid::Uuid;

use super::{
    Application, Applications, BrokenApplication, Component, DirectorySource, HookCommand, Hooks,
    NAMESPACE, PostgresqlSource, Problem, SSL_MODES, Source,
    obeyed::obeyed,
    raw::{RawApplication, RawCommand, RawDirectory, RawPostgresql, RawSqlite},
};
use crate::host::directory::globs::Globs;

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
        for kind in ["directory", "sqlite", "postgresql"] {
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
        let named = self.name.clone().filter(|name| plain_name(name));
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

fn application_id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

fn component_id(application: Uuid, kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&application, format!("{kind}/{name}").as_bytes())
}

/// The files that declare something, sorted.
pub(super) fn declaration_files(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let refuse = |error: io::Error| {
        Problem::error(dir, "", format!("the directory cannot be read: {error}"))
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refuse(error)),
    };
    // Who may write here may declare anything.
    obeyed(dir).map_err(|reason| Problem::error(dir, "", reason))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(refuse)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
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

    fn application(&mut self, raw: RawApplication) -> Application {
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
        let mut components = Vec::new();
        for directory in raw.directory {
            components.push(self.directory(id, directory));
        }
        for sqlite in raw.sqlite {
            components.push(self.sqlite(id, sqlite));
        }
        for postgresql in raw.postgresql {
            components.push(self.postgresql(id, postgresql));
        }
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
            self.problem(
                "",
                "it has no component: add a [[directory]], [[sqlite]] or [[postgresql]]",
            );
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

    fn directory(&mut self, application: Uuid, raw: RawDirectory) -> Component {
        let source = Source::Directory(DirectorySource {
            path: raw.path,
            include: raw.include,
            exclude: raw.exclude,
            one_file_system: raw.one_file_system,
            exclude_caches: raw.exclude_caches,
            on_unreadable: raw.on_unreadable,
        });
        let component = self.component(application, raw.name, raw.id, source);
        if let Source::Directory(directory) = &component.source {
            self.path(&format!("{}.path", component.key()), &directory.path);
            for (key, patterns) in [
                ("include", &directory.include),
                ("exclude", &directory.exclude),
            ] {
                if let Err(message) = Globs::new(patterns, &directory.path) {
                    self.problem(format!("{}.{key}", component.key()), message);
                }
            }
        }
        component
    }

    fn sqlite(&mut self, application: Uuid, raw: RawSqlite) -> Component {
        let path = raw.path.clone();
        let component = self.component(application, raw.name, raw.id, Source::Sqlite(raw.path));
        self.path(&format!("{}.path", component.key()), &path);
        component
    }

    fn postgresql(&mut self, application: Uuid, raw: RawPostgresql) -> Component {
        let source = PostgresqlSource {
            database: raw.database,
            host: raw.host,
            port: raw.port,
            user: raw.user,
            passfile: raw.passfile,
            bin_dir: raw.bin_dir,
            globals: raw.globals,
            sslmode: raw.sslmode,
            sslrootcert: raw.sslrootcert,
            sslcert: raw.sslcert,
            sslkey: raw.sslkey,
            maintenance_database: raw.maintenance_database,
            lock_timeout: Duration::from_secs(raw.lock_timeout),
            no_owner: raw.no_owner,
            no_tablespaces: raw.no_tablespaces,
        };
        let key = format!("postgresql.{}", raw.name);
        let databases = [
            ("database", &source.database),
            ("maintenance_database", &source.maintenance_database),
        ];
        for (name, database) in databases {
            if let Err(message) = database_name(database) {
                self.problem(format!("{key}.{name}"), message);
            }
        }
        if !(1..=86_400).contains(&source.lock_timeout.as_secs()) {
            self.problem(
                format!("{key}.lock_timeout"),
                "a timeout is 1 to 86400 seconds",
            );
        }
        let unknown = |mode: &&String| !SSL_MODES.contains(&mode.as_str());
        if source.sslmode.as_ref().filter(unknown).is_some() {
            let message = format!("it is one of {}", SSL_MODES.join(", "));
            self.problem(format!("{key}.sslmode"), message);
        }
        let texts = [("host", &source.host), ("user", &source.user)];
        for (name, text) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() || text.chars().any(char::is_control) {
                self.problem(
                    format!("{key}.{name}"),
                    "it must be a text without control characters",
                );
            }
        }
        if source.port == 0 {
            self.problem(format!("{key}.port"), "a port is 1 to 65535");
        }
        let paths = [
            ("passfile", &source.passfile),
            ("bin_dir", &source.bin_dir),
            ("sslrootcert", &source.sslrootcert),
            ("sslcert", &source.sslcert),
            ("sslkey", &source.sslkey),
        ];
        for (name, path) in paths {
            if let Some(path) = path {
                self.path(&format!("{key}.{name}"), path);
            }
        }
        self.component(application, raw.name, raw.id, Source::Postgresql(source))
    }

    fn component(
        &mut self,
        application: Uuid,
        name: String,
        id: Option<Uuid>,
        source: Source,
    ) -> Component {
        self.name(&format!("{}.name", source.kind()), &name);
        Component {
            id: id.unwrap_or_else(|| component_id(application, source.kind(), &name)),
            name,
            source,
        }
    }

    /// Names become parts of paths (restores) and of names in the vault.
    fn name(&mut self, key: &str, name: &str) {
        if !plain_name(name) {
            self.problem(
                key,
                format!(
                    "'{}' is not a name: 1 to 100 bytes without '/', '\\' and control characters, \
                     not starting with '.', '-' or a space",
                    name.escape_debug()
                ),
            );
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
        if !(1..=86_400).contains(&raw.timeout) {
            self.problem(format!("{key}.timeout"), "a timeout is 1 to 86400 seconds");
        }
        Some(HookCommand {
            argv: raw.command,
            timeout: Duration::from_secs(raw.timeout),
        })
    }
}

fn plain_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || c == '/' || c == '\\';
    (1..=100).contains(&name.len()) && !name.starts_with(['.', '-', ' ']) && !name.contains(bad)
}

fn plain_absolute(path: &Path) -> Result<(), String> {
    if !path.is_absolute() {
        return Err(format!("'{}' is not an absolute path", path.display()));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("a path cannot hold a NUL character".to_owned());
    }
    if path
        .components()
        .any(|part| matches!(part, PathPart::ParentDir))
    {
        return Err(format!(
            "'{}' has a '..' in it: write it out",
            path.display()
        ));
    }
    Ok(())
}

/// Is this a name that PostgreSQL takes as it is, without cutting it short?
pub(crate) fn database_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
        return Err("a database's name is 1 to 63 bytes without control characters".to_owned());
    }
    Ok(())
}
