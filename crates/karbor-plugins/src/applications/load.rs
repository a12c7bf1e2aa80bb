//! Reading `applications.d`: every problem of every file at once.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Component as PathPart, Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Application, Applications, Component, DirectorySource, HookCommand, Hooks, NAMESPACE,
    PostgresqlSource, Problem, SSL_MODES, Source,
    globs::Globs,
    obeyed::obeyed,
    raw::{RawApplication, RawCommand, RawDirectory, RawPostgresql, RawSqlite},
};

/// Files are a few kilobytes; something larger was put there by mistake.
const MAX_FILE: u64 = 1024 * 1024;

impl Applications {
    /// Reads every `*.toml` in `dir`. A directory that is not there declares nothing.
    ///
    /// # Errors
    /// Every problem found, by file.
    pub fn load(dir: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut list = Vec::new();
        for file in declaration_files(dir).map_err(|problem| vec![problem])? {
            match read(&file) {
                Ok(raw) => list.push(Checker::new(&file, &mut problems).application(raw)),
                Err(problem) => problems.push(problem),
            }
        }
        unique(&list, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { list })
    }
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

fn read(file: &Path) -> Result<RawApplication, Problem> {
    let unreadable =
        |error: io::Error| Problem::error(file, "", format!("the file cannot be read: {error}"));
    if fs::metadata(file).map_err(unreadable)?.len() > MAX_FILE {
        return Err(Problem::error(file, "", "the file is larger than 1 MiB"));
    }
    obeyed(file).map_err(|reason| Problem::error(file, "", reason))?;
    let text = fs::read_to_string(file).map_err(unreadable)?;
    toml::from_str(&text).map_err(|error| {
        let key = error
            .span()
            .map(|span| place(&text, span.start))
            .unwrap_or_default();
        Problem::error(file, key, error.message().to_owned())
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

/// Names and ids that two files use.
fn unique(list: &[Application], problems: &mut Vec<Problem>) {
    let mut names: HashMap<&str, &Path> = HashMap::new();
    let mut ids: HashMap<Uuid, &Path> = HashMap::new();
    for application in list {
        if let Some(other) = names.insert(&application.name, &application.file) {
            let message = format!(
                "'{}' is also the name of the application in {}: give one of them another name",
                application.name,
                other.display()
            );
            problems.push(Problem::error(&application.file, "name", message));
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
            if let Some(other) = ids.insert(id, &application.file) {
                let message = format!("the id {id} is used twice (also in {})", other.display());
                problems.push(Problem::error(&application.file, key, message));
            }
        }
    }
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
        let id = raw
            .id
            .unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, raw.name.as_bytes()));
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
        let text = format!("{}/{name}", source.kind());
        Component {
            id: id.unwrap_or_else(|| Uuid::new_v5(&application, text.as_bytes())),
            name,
            source,
        }
    }

    /// Names become parts of paths (restores) and of names in the vault.
    fn name(&mut self, key: &str, name: &str) {
        let bad = |c: char| c.is_control() || c == '/' || c == '\\';
        if name.is_empty()
            || name.len() > 100
            || name.starts_with(['.', '-', ' '])
            || name.contains(bad)
        {
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
