//! Applications: what the operator declares may be protected.
//!
//! Each file `applications.d/*.toml` declares one application and its components: directories,
//! SQLite databases, PostgreSQL databases. Someone who uses the API names a component by its id and
//! nothing else. Paths, commands and connections come from these files only, so that a project can
//! never make the service read or write what its operator did not put there.
//!
//! * **Reading is strict.** An unknown key, a relative path or a name used twice is a [`Problem`]
//!   that names file and key. A broken file makes its own application unusable until it is mended: it is
//!   shown as broken, and a lookup of it or of its components fails, since one that left them out would
//!   shrink a backup in silence. The others go on.
//! * **Nobody else is obeyed.** A declaration, a program or a password file that accounts other than root
//!   and the service's own may change, or exchange, is refused (`obeyed`), as sshd does with StrictModes.
//! * **Ids are stable.** An application's id is the version 5 UUID of its name in the namespace
//!   [`NAMESPACE`], unless the file gives an `id`; a component's is the version 5 UUID of
//!   `<kind>/<name>` in the namespace of its application's id, unless it gives an `id` of its own.
//!   So the same file on another machine finds the checkpoints made here, and an application with an
//!   `id` may be renamed.
//! * **The declaration governs where a restore may write**: the place of a component as it is
//!   declared today, or a place under a declared restore root. What a checkpoint remembers is never
//!   enough (see `host`).
//!
//! ```toml
//! name = "shop"
//! description = "The web shop"
//! projects = ["default"]              # who may see it
//! restore_roots = ["/srv/restore"]    # where else it may be restored to
//!
//! [quiesce]                           # before the components are protected
//! command = ["/usr/bin/systemctl", "stop", "shop"]
//! timeout = 60                        # seconds; 60 unless given
//! [resume]                            # after, whatever happened
//! command = ["/usr/bin/systemctl", "start", "shop"]
//! [before_restore]
//! command = ["/usr/bin/systemctl", "stop", "shop"]
//! [after_restore]
//! command = ["/usr/bin/systemctl", "start", "shop"]
//!
//! [[directory]]
//! name = "uploads"
//! path = "/srv/shop/uploads"
//! exclude = ["*.tmp", "/cache"]
//! one_file_system = true
//! exclude_caches = true               # of directories with a CACHEDIR.TAG, that file only
//! on_unreadable = "leave-out"         # or "fail": no checkpoint rather than one without some files
//!
//! [[sqlite]]
//! name = "sessions"
//! path = "/srv/shop/sessions.db"
//!
//! [[postgresql]]
//! name = "orders"
//! database = "shop"
//! host = "/run/postgresql"            # a socket's directory, or a host name
//! user = "shop"
//! passfile = "/etc/karbor/pgpass"     # libpq's format, mode 0600
//! globals = true                      # roles and tablespaces too (asks for a superuser)
//! sslmode = "verify-full"             # and sslrootcert, sslcert, sslkey: as libpq's
//! lock_timeout = 60                   # seconds that it waits for one lock; 60 unless given
//! maintenance_database = "postgres"   # where it connects to make a database
//! no_owner = false                    # restores leave owners and grants out, unless they say otherwise
//! no_tablespaces = false              # restores leave tablespaces out, unless they say otherwise
//! ```

mod load;
pub(crate) mod obeyed;
mod raw;
mod store;
mod validate;

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use karbor_model::Resource;
use karbor_vault::OnUnreadable;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use load::database_name;
pub use store::ApplicationStore;
pub use validate::{Protector, Surroundings};

/// Type of an application: the parent of its components.
pub const APPLICATION: &str = "Host::Application";
/// Type of a tree of files.
pub const DIRECTORY: &str = "Host::Directory";
/// Type of an SQLite database.
pub const SQLITE: &str = "Host::SQLite::Database";
/// Type of a PostgreSQL database.
pub const POSTGRESQL: &str = "Host::PostgreSQL::Database";
/// Every type there is on this host.
pub const TYPES: [&str; 4] = [APPLICATION, DIRECTORY, SQLITE, POSTGRESQL];

/// The namespace of applications' ids.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6b61_7262_6f72_5d0e_9d63_6170_706c_6963);

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and should be looked at.
    Warning,
    /// It cannot work.
    Error,
}

/// Something wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Where in it, e.g. `directory.uploads.path`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
}

impl Problem {
    pub(crate) fn error(
        file: impl Into<PathBuf>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            key: key.into(),
            message: message.into(),
            severity: Severity::Error,
        }
    }

    pub(crate) fn warning(
        file: impl Into<PathBuf>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, key, message)
        }
    }

    /// The problem with the file's name only: for people who need not know the operator's paths.
    #[must_use]
    pub fn brief(&self) -> String {
        let file = self.file.file_name().unwrap_or_default().to_string_lossy();
        self.text(&file)
    }

    fn text(&self, file: &str) -> String {
        match self.key.as_str() {
            "" => format!("{file}: {}", self.message),
            key => format!("{file}: {key}: {}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&self.file.to_string_lossy()))
    }
}

/// A program that the operator wants run; never through a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommand {
    /// Program (an absolute path) and arguments.
    pub argv: Vec<String>,
    /// It is killed after that long, and has failed.
    pub timeout: Duration,
}

/// The programs around an application's protect and restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the components are protected.
    pub quiesce: Option<HookCommand>,
    /// After, whatever happened.
    pub resume: Option<HookCommand>,
    /// Before the components are restored.
    pub before_restore: Option<HookCommand>,
    /// After, whatever happened.
    pub after_restore: Option<HookCommand>,
}

/// A tree of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorySource {
    /// Where it is.
    pub path: PathBuf,
    /// If any: only files that one of these matches.
    pub include: Vec<String>,
    /// What to leave out.
    pub exclude: Vec<String>,
    /// Do not follow into other file systems mounted below.
    pub one_file_system: bool,
    /// Leave out what is in directories that a `CACHEDIR.TAG` marks as caches.
    pub exclude_caches: bool,
    /// What to do about files that cannot be read.
    pub on_unreadable: OnUnreadable,
}

/// A PostgreSQL database and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresqlSource {
    /// Name of the database.
    pub database: String,
    /// Host name, or the directory of the server's socket; libpq's default unless given.
    pub host: Option<String>,
    /// Port.
    pub port: u16,
    /// Role to connect as; libpq's default unless given.
    pub user: Option<String>,
    /// A file with the password, in libpq's format.
    pub passfile: Option<PathBuf>,
    /// Where `pg_dump` and the others are; found by themselves unless given.
    pub bin_dir: Option<PathBuf>,
    /// Keep roles and tablespaces too.
    pub globals: bool,
    /// How a connection is encrypted, in libpq's words ([`SSL_MODES`]); libpq's default unless given.
    pub sslmode: Option<String>,
    /// The authority that signed the server's certificate.
    pub sslrootcert: Option<PathBuf>,
    /// The role's own certificate.
    pub sslcert: Option<PathBuf>,
    /// The key of that.
    pub sslkey: Option<PathBuf>,
    /// The database to connect to for making and renaming others.
    pub maintenance_database: String,
    /// How long a protect or restore waits for one lock.
    pub lock_timeout: Duration,
    /// Unless a restore says otherwise: all belongs to the role that restores it.
    pub no_owner: bool,
    /// Unless a restore says otherwise: all lies in the default tablespace.
    pub no_tablespaces: bool,
}

/// libpq's `sslmode`, as its documentation lists it.
pub const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// What a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A tree of files.
    Directory(DirectorySource),
    /// An SQLite database: its file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgresql(PostgresqlSource),
}

impl Source {
    /// The kind as the files name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::Sqlite(_) => "sqlite",
            Self::Postgresql(_) => "postgresql",
        }
    }

    /// The resource type.
    #[must_use]
    pub fn resource_type(&self) -> &'static str {
        match self {
            Self::Directory(_) => DIRECTORY,
            Self::Sqlite(_) => SQLITE,
            Self::Postgresql(_) => POSTGRESQL,
        }
    }
}

/// A part of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Id of its resource.
    pub id: Uuid,
    /// Name, unique in its application.
    pub name: String,
    /// What it is.
    pub source: Source,
}

impl Component {
    /// Its place in the application's file, e.g. `directory.uploads`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.source.kind(), self.name)
    }
}

/// One declared application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The file that declares it.
    pub file: PathBuf,
    /// Id of its resource.
    pub id: Uuid,
    /// Name, unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// The projects that may see it.
    pub projects: BTreeSet<String>,
    /// Where else it may be restored to.
    pub restore_roots: Vec<PathBuf>,
    /// Programs around its protect and restore.
    pub hooks: Hooks,
    /// Its parts.
    pub components: Vec<Component>,
}

impl Application {
    /// The resource that stands for the application.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let mut resource = Resource::new(APPLICATION, self.id.to_string(), &self.name);
        if !self.description.is_empty() {
            resource.extra_info = Some(json!({"description": self.description}));
        }
        resource
    }

    /// The resource that stands for one of its components.
    #[must_use]
    pub fn component_resource(&self, component: &Component) -> Resource {
        Resource {
            extra_info: Some(json!({"application": self.name})),
            ..Resource::new(
                component.source.resource_type(),
                component.id.to_string(),
                &component.name,
            )
        }
    }

    /// What a checkpoint keeps of the declaration, for people: no connection, no command.
    #[must_use]
    pub fn describe(&self) -> Value {
        let components: Vec<Value> = self
            .components
            .iter()
            .map(|component| {
                json!({
                    "type": component.source.resource_type(),
                    "id": component.id.to_string(),
                    "name": component.name,
                })
            })
            .collect();
        json!({"name": self.name, "description": self.description, "components": components})
    }
}

/// A declaration that cannot be used as it is, and who it is about, as far as that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenApplication {
    /// The file that declares it.
    pub file: PathBuf,
    /// Id of its resource.
    pub id: Uuid,
    /// Its name, or that of its file.
    pub name: String,
    /// The projects that may see it; `None` when that cannot be read.
    pub projects: Option<BTreeSet<String>>,
    /// Ids of components that can be read.
    pub components: BTreeSet<Uuid>,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl BrokenApplication {
    /// What is wrong, for people who need not know the operator's paths.
    #[must_use]
    pub fn reason(&self) -> String {
        let first = self.problems.first().map(Problem::brief);
        format!(
            "its declaration cannot be used ({}); `karbor config validate` lists every problem",
            first.unwrap_or_default()
        )
    }

    /// The resource that stands for it, marked as broken.
    #[must_use]
    pub fn resource(&self) -> Resource {
        Resource::new(APPLICATION, self.id.to_string(), &self.name).broken_because(&self.reason())
    }

    /// Is it a project's, as far as can be read?
    fn may_be_of(&self, project: &str) -> bool {
        let projects = self.projects.as_ref();
        projects.is_none_or(|projects| projects.contains(project))
    }

    /// May a project see it? Whose it is cannot always be read: administrators see it then.
    fn is_visible(&self, project: &str, is_admin: bool) -> bool {
        match &self.projects {
            Some(projects) => projects.contains(project),
            None => is_admin,
        }
    }
}

/// Every declared application, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applications {
    list: Vec<Application>,
    broken: Vec<BrokenApplication>,
}

impl Applications {
    /// All that can be used.
    #[must_use]
    pub fn all(&self) -> &[Application] {
        &self.list
    }

    /// Those that cannot.
    #[must_use]
    pub fn broken(&self) -> &[BrokenApplication] {
        &self.broken
    }

    /// What is wrong with any of them.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.broken.iter().flat_map(|broken| &broken.problems)
    }

    /// The broken ones that a project may see.
    pub(crate) fn visible_broken(
        &self,
        project: &str,
        is_admin: bool,
    ) -> impl Iterator<Item = &BrokenApplication> {
        self.broken
            .iter()
            .filter(move |broken| broken.is_visible(project, is_admin))
    }

    /// The broken one that an id is of, or of a component of, as far as a project may know.
    pub(crate) fn broken_of(&self, project: &str, id: &str) -> Option<&BrokenApplication> {
        let id = Uuid::try_parse(id).ok()?;
        let mut known = self
            .broken
            .iter()
            .filter(|broken| broken.may_be_of(project));
        known.find(|broken| broken.id == id || broken.components.contains(&id))
    }

    /// Why an application or component is not found, when it may be declared by a broken file.
    pub(crate) fn why_not_found(&self, project: &str, id: &str) -> Option<String> {
        if let Some(broken) = self.broken_of(project, id) {
            return Some(broken.reason());
        }
        let illegible = self
            .broken
            .iter()
            .find(|broken| broken.projects.is_none())?;
        let reason = illegible.reason();
        Some(format!(
            "it is not declared, unless by '{}': {reason}",
            illegible.name
        ))
    }

    /// Those that a project may see.
    pub fn visible<'a>(&'a self, project: &'a str) -> impl Iterator<Item = &'a Application> {
        self.list
            .iter()
            .filter(move |application| application.projects.contains(project))
    }

    /// An application that the project may see.
    #[must_use]
    pub fn application(&self, project: &str, id: &str) -> Option<&Application> {
        let id = Uuid::try_parse(id).ok()?;
        self.list
            .iter()
            .find(|application| application.id == id && application.projects.contains(project))
    }

    /// A component of an application that the project may see.
    #[must_use]
    pub fn component(
        &self,
        project: &str,
        resource_type: &str,
        id: &str,
    ) -> Option<(&Application, &Component)> {
        let id = Uuid::try_parse(id).ok()?;
        self.list
            .iter()
            .filter(|application| application.projects.contains(project))
            .flat_map(|application| application.components.iter().map(move |c| (application, c)))
            .find(|(_, c)| c.id == id && c.source.resource_type() == resource_type)
    }
}
