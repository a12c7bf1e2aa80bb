//! Looking at what is declared: is it there, may we read it, does the server answer? For
//! `karbor config validate`; nothing is changed.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::FileType;

use super::{
    APPLICATION, Application, Applications, Component, DirectorySource, PostgresqlSource, Problem,
    Source,
};
use crate::host::directory::{
    globs::{Filter, LEAVE_OUT_ALL},
    own_places::{is_kernels, refuse_own},
};
use crate::host::{
    PostgresqlClient, Workers, blocking, look_at_database, plugin_for, postgresql_shortcomings,
};

/// What the declarations have to get along with.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The service's own places: its state directory, its banks.
    pub off_limits: Vec<PathBuf>,
    /// The providers.
    pub protectors: Vec<Protector>,
    /// The program that becomes a process for SQLite (see [`HostOptions`](crate::HostOptions)).
    pub sqlite_worker: PathBuf,
}

/// A provider, and what of applications it protects.
#[derive(Debug, Clone)]
pub struct Protector {
    /// Name and file.
    pub label: String,
    /// Of [`TYPES`](super::TYPES), those that it has a plugin for; none when it is for other things.
    pub types: BTreeSet<&'static str>,
}

impl Applications {
    /// Looks at everything that is declared. Empty: all is well.
    pub async fn validate(&self, surroundings: &Surroundings) -> Vec<Problem> {
        let Surroundings {
            off_limits,
            protectors,
            sqlite_worker,
        } = surroundings.clone();
        let this = self.clone();
        let looked = blocking(move || {
            let mut problems = Vec::new();
            let workers = Workers::new(sqlite_worker);
            for application in &this.list {
                look_at(application, &off_limits, &workers, &mut problems);
            }
            overlaps(&this, &mut problems);
            unprotected(&this, &protectors, &mut problems);
            Ok(problems)
        });
        let mut problems = match looked.await {
            Ok(problems) => problems,
            Err(error) => vec![Problem::error("", "", error.message)],
        };
        for application in &self.list {
            for component in &application.components {
                if let Source::Postgresql(source) = &component.source
                    && component.obeyed().is_ok()
                {
                    let key = component.key();
                    problems.extend(ask(application, &key, source).await);
                }
            }
        }
        problems.sort_by(|a, b| (&a.file, &a.key).cmp(&(&b.file, &b.key)));
        problems
    }
}

fn look_at(
    application: &Application,
    off_limits: &[PathBuf],
    workers: &Workers,
    problems: &mut Vec<Problem>,
) {
    let file = &application.file;
    let hooks = &application.hooks;
    let commands = [
        ("quiesce", &hooks.quiesce),
        ("resume", &hooks.resume),
        ("before_restore", &hooks.before_restore),
        ("after_restore", &hooks.after_restore),
    ];
    for (key, hook) in commands {
        let Some(hook) = hook else { continue };
        let key = format!("{key}.command");
        if let Err(reason) = executable(hook.program()).and_then(|()| hook.obeyed()) {
            problems.push(Problem::error(file, &key, reason));
        }
        for reason in hook.open_arguments() {
            let message = format!("{reason}; if the command runs it, it runs what they wrote");
            problems.push(Problem::warning(file, &key, message));
        }
    }
    for (one, other, key) in [
        (&hooks.quiesce, &hooks.resume, "quiesce"),
        (
            &hooks.before_restore,
            &hooks.after_restore,
            "before_restore",
        ),
    ] {
        if one.is_some() && other.is_none() {
            let message =
                "there is no command that undoes it: is the application to stay like that?";
            problems.push(Problem::warning(file, key, message));
        }
    }
    for root in &application.restore_roots {
        if let Err(problem) = restore_root(root, off_limits) {
            problems.push(Problem {
                file: file.clone(),
                ..problem
            });
        }
    }
    for component in &application.components {
        let key = format!("{}.path", component.key());
        if let Err((field, reason)) = component.obeyed() {
            let key = format!("{}.{field}", component.key());
            problems.push(Problem::error(file, key, reason));
        }
        if let Source::Directory(directory) = &component.source
            && let Ok(dir) = karbor_fs::Dir::open(&directory.path)
            && let Some(reason) = is_kernels(&dir)
        {
            problems.push(Problem::warning(file, &key, reason));
        }
        let found = match &component.source {
            Source::Directory(directory) => look_at_directory(directory, off_limits),
            Source::Sqlite(path) => look_at_database(workers, path),
            Source::Postgresql(_) => Ok(()),
        };
        if let Err(reason) = found {
            problems.push(Problem::error(file, key, reason));
        } else if let Source::Directory(directory) = &component.source {
            unused_patterns(file, &component.key(), directory, problems);
        }
    }
}

fn executable(program: &Path) -> Result<(), String> {
    let found = fs::metadata(program).map_err(|e| describe(program, &e))?;
    match found.is_file() && found.mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(format!("'{}' is not a program", program.display())),
    }
}

fn restore_root(root: &Path, off_limits: &[PathBuf]) -> Result<(), Problem> {
    let error = |message: String| Problem::error("", "restore_roots", message);
    let found = fs::metadata(root).map_err(|e| error(describe(root, &e)))?;
    if !found.is_dir() {
        return Err(error(format!("'{}' is not a directory", root.display())));
    }
    let resolved = resolve(root);
    if off_limits
        .iter()
        .any(|place| resolved.starts_with(resolve(place)))
    {
        return Err(error(format!(
            "'{}' belongs to the service itself: choose another directory",
            root.display()
        )));
    }
    // An account that can put a link there while a restore runs can lead it elsewhere.
    if found.permissions().mode() & 0o022 != 0 {
        return Err(Problem::warning(
            "",
            "restore_roots",
            format!(
                "'{}' can be written by others: let only the service's account write there",
                root.display()
            ),
        ));
    }
    Ok(())
}

fn look_at_directory(source: &DirectorySource, off_limits: &[PathBuf]) -> Result<(), String> {
    let path = &source.path;
    let dir = karbor_fs::Dir::open(path).map_err(|refused| match refused.errno() {
        Some(errno) => describe(path, &errno.into()),
        None => refused.to_string(),
    })?;
    let filter = Filter::new(source)?;
    let own: Vec<_> = off_limits.iter().map(|place| resolve(place)).collect();
    refuse_own(source, dir.path(), &own, &filter, |inside| {
        format!("add exclude = [\"/{}\"]", inside.display())
    })
}

/// So many entries of a directory are looked at in search of what its patterns match.
const MOST_ENTRIES: usize = 200_000;

/// Patterns that match nothing, of which nobody else would tell.
fn unused_patterns(file: &Path, key: &str, source: &DirectorySource, problems: &mut Vec<Problem>) {
    if source.include.is_empty() && source.exclude.is_empty() {
        return;
    }
    let Ok(filter) = Filter::new(source) else {
        return;
    };
    // Of what is too large, or cannot be looked into, nothing is known.
    let seen = karbor_fs::Dir::open(&source.path).map(|dir| visit(&dir, &filter));
    let Ok(Seen {
        all: true,
        has_file,
        has_dir,
        left_out,
    }) = seen
    else {
        return;
    };
    // Those that lead to what is included are nothing that is protected.
    let has_dir = has_dir && source.include.is_empty();
    if left_out && !has_file && !has_dir {
        problems.push(Problem::warning(file, key, LEAVE_OUT_ALL));
    }
    let mut tell = |name: &str, pattern: &str| {
        let message = format!("the pattern '{pattern}' matches nothing that is there now");
        problems.push(Problem::warning(file, format!("{key}.{name}"), message));
    };
    for pattern in filter.unused_includes() {
        tell("include", pattern);
    }
    for pattern in filter.unused_excludes() {
        tell("exclude", pattern);
    }
}

/// What there was to see in a directory.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// This is all.
    all: bool,
    /// A file is taken, or a link.
    has_file: bool,
    /// A directory is taken.
    has_dir: bool,
    /// The patterns leave something out.
    left_out: bool,
}

/// Shows everything in a directory to a filter.
fn visit(root: &karbor_fs::Dir, filter: &Filter) -> Seen {
    let mut found = Seen {
        all: true,
        ..Seen::default()
    };
    let mut seen = 0;
    let mut ahead = vec![PathBuf::new()];
    while let Some(at) = ahead.pop() {
        let Ok(dir) = root.open_dir(&at) else {
            found.all = false;
            continue;
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&dir) else {
            found.all = false;
            continue;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                found.all = false;
                break;
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            seen += 1;
            if seen > MOST_ENTRIES {
                found.all = false;
                return found;
            }
            let path = at.join(name);
            let is_dir = match entry.file_type() {
                FileType::Unknown => dir.open_dir(Path::new(name)).is_ok(),
                kind => kind == FileType::Directory,
            };
            match filter.takes_here(&path, is_dir) {
                false => found.left_out = true,
                true if is_dir => {
                    found.has_dir = true;
                    ahead.push(path);
                }
                true => found.has_file = true,
            }
        }
    }
    found
}

/// Does the server answer, do its programs fit, and may the role do what is asked of it?
async fn ask(application: &Application, key: &str, source: &PostgresqlSource) -> Vec<Problem> {
    let problem = |key: String, message: String| Problem::error(&application.file, key, message);
    let client = PostgresqlClient::new(source);
    let needed = ["psql", "pg_dump", "pg_restore", "pg_dumpall"];
    for program in needed.iter().take(if source.globals { 4 } else { 3 }) {
        if let Err(error) = client.program(program) {
            return vec![problem(format!("{key}.bin_dir"), error.message)];
        }
    }
    let files = [
        ("sslrootcert", &source.sslrootcert),
        ("sslcert", &source.sslcert),
        ("sslkey", &source.sslkey),
    ];
    for (name, file) in files {
        if let Some(Err(error)) = file.as_ref().map(fs::metadata) {
            let file = file.as_deref().unwrap_or(Path::new(""));
            return vec![problem(format!("{key}.{name}"), describe(file, &error))];
        }
    }
    if let Some(passfile) = &source.passfile {
        match fs::metadata(passfile) {
            Err(error) => {
                return vec![problem(
                    format!("{key}.passfile"),
                    describe(passfile, &error),
                )];
            }
            Ok(found) if found.mode() & 0o077 != 0 => {
                let message = format!(
                    "PostgreSQL ignores '{}' while others may read it: chmod 600",
                    passfile.display()
                );
                return vec![problem(format!("{key}.passfile"), message)];
            }
            Ok(_) => {}
        }
    }
    let sql = "SELECT current_setting('server_version_num')::int / 10000;";
    match client.ask(&source.database, &[], sql).await {
        Err(error) => vec![problem(key.to_owned(), error.message)],
        Ok(server) => match client.version().await {
            Ok(ours) if server.parse::<u32>().is_ok_and(|server| server > ours) => {
                let message = format!(
                    "the server has version {server} and the programs found have {ours}: install client programs of the server's version and declare bin_dir"
                );
                vec![problem(format!("{key}.bin_dir"), message)]
            }
            Ok(_) => may(application, key, source).await,
            Err(error) => vec![problem(format!("{key}.bin_dir"), error.message)],
        },
    }
}

/// What the role cannot do.
async fn may(application: &Application, key: &str, source: &PostgresqlSource) -> Vec<Problem> {
    let file = &application.file;
    match postgresql_shortcomings(source).await {
        Err(error) => vec![Problem::error(file, key, error.message)],
        Ok(found) => found
            .into_iter()
            .map(|(name, severity, message)| Problem {
                severity,
                ..Problem::error(file, format!("{key}.{name}"), message)
            })
            .collect(),
    }
}

/// What a plan may name and a provider that is for applications has no plugin for.
fn unprotected(all: &Applications, protectors: &[Protector], problems: &mut Vec<Problem>) {
    let meant = protectors.iter().filter(|one| !one.types.is_empty());
    let meant: Vec<_> = meant.collect();
    for application in all.all() {
        let file = &application.file;
        if meant.is_empty() {
            let message = "no provider protects applications: name the karbor-host-… plugins in a \
                           provider's file, or take the files away to use the built-in provider";
            problems.push(Problem::warning(file, "", message));
        }
        let components = application.components.iter();
        let components = components.map(|one| (one.key(), one.source.resource_type()));
        let parts = std::iter::once((String::new(), APPLICATION)).chain(components);
        for (key, resource_type) in parts {
            let lacking = meant
                .iter()
                .filter(|one| !one.types.contains(resource_type));
            for Protector { label, .. } in lacking {
                let plugin = plugin_for(resource_type);
                let message = format!(
                    "{label} cannot protect it: add 'plugin = {plugin}' to its [provider] section, or leave it out of plans with that provider"
                );
                problems.push(Problem::warning(file, &key, message));
            }
        }
    }
}

/// Directories that hold other components.
fn overlaps(all: &Applications, problems: &mut Vec<Problem>) {
    for application in all.all() {
        for component in &application.components {
            let Source::Directory(directory) = &component.source else {
                continue;
            };
            let Ok(filter) = Filter::new(directory) else {
                continue;
            };
            let key = component.key();
            let inside = all.databases_inside(application, directory, &filter);
            for (owner, database, path) in inside.foreign {
                if path.as_os_str().is_empty() {
                    let message = format!(
                        "the application '{}' declares the same place as its database '{}': one of the two is wrong",
                        owner.name, database.name
                    );
                    problems.push(Problem::error(&application.file, &key, message));
                    continue;
                }
                let message = format!(
                    "it holds the database '{}' of the application '{}', which would not be protected with it: add exclude = [\"/{}*\"] or declare the database in this application",
                    database.name,
                    owner.name,
                    path.display()
                );
                problems.push(Problem::error(&application.file, &key, message));
            }
            directories_inside(all, (application, component), directory, &filter, problems);
        }
    }
}

/// A directory in a directory: no fault, but seldom meant.
fn directories_inside(
    all: &Applications,
    (application, outer): (&Application, &Component),
    directory: &DirectorySource,
    filter: &Filter,
    problems: &mut Vec<Problem>,
) {
    let outer_path = resolve(&directory.path);
    let components = all.all().iter().flat_map(|other| &other.components);
    for inner in components.filter(|inner| inner.id != outer.id) {
        let Source::Directory(other) = &inner.source else {
            continue;
        };
        let path = resolve(&other.path);
        let Ok(inside) = path.strip_prefix(&outer_path) else {
            continue;
        };
        let same = inside.as_os_str().is_empty();
        // Two components with the same place are reported once.
        if (same && inner.id < outer.id) || !(same || filter.takes(inside, true)) {
            continue;
        }
        let message = format!(
            "it holds the directory '{}' too: both will be protected",
            inner.name
        );
        problems.push(Problem::warning(&application.file, outer.key(), message));
    }
}

fn resolve(path: &Path) -> PathBuf {
    crate::host::resolve(path).unwrap_or_else(|_| path.to_owned())
}

fn describe(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("'{}' is not there", path.display()),
        io::ErrorKind::PermissionDenied => {
            format!(
                "the service's account may not look into '{}'",
                path.display()
            )
        }
        _ => format!("'{}': {error}", path.display()),
    }
}
