//! Applications: what the operator declares may be protected.
//!
//! Each file `applications.d/*.toml` declares one application and its components: directories,
//! and databases (`host::kinds` lists every kind). Someone who uses the API names a component by its id and
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
//!
//! [[mariadb]]
//! name = "stock"
//! database = "stock"
//! socket = "/run/mysqld/mysqld.sock"  # or host and port; ssl_ca, ssl_cert, ssl_key
//! user = "karbor"
//! password_file = "/etc/karbor/mariadb-password"   # the password and nothing else, mode 0600
//! accounts = true                     # accounts and their rights too (asks for SELECT on mysql.*)
//! lock_timeout = 60                   # seconds that it waits for one lock; 60 unless given
//! ```

mod checks;
mod load;
pub(crate) mod obeyed;
mod raw;
mod store;
mod validate;

use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use karbor_model::Resource;
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use checks::{ComponentChecks, sixty};
pub(crate) use store::ApplicationStore;
pub use validate::{Protector, Surroundings};

/// Type of an application: the parent of its components.
pub const APPLICATION: &str = "Host::Application";
/// The plugin that protects applications.
pub(crate) const APPLICATION_PLUGIN: &str = "karbor-host-application-plugin";

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

/// What distinguishes a kind of component from others, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindNames {
    /// As declarations name it: `[[directory]]`.
    pub(crate) name: &'static str,
    /// The resource type of its components.
    pub(crate) resource_type: &'static str,
    /// The plugin that protects them.
    pub(crate) plugin: &'static str,
}

/// What a declaration says of one component; each kind has its own.
#[async_trait]
pub(crate) trait Source: Any + fmt::Debug + Send + Sync {
    /// The place of its files, for a kind that consists of files.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// A file that nothing may read but the component itself: a directory that holds it leaves it out.
    fn exclusive_file(&self) -> Option<&Path> {
        None
    }

    /// The programs, passwords, keys and authorities that the declaration names, by its fields.
    fn trusted_files(&self) -> Vec<(&'static str, &Path)> {
        Vec::new()
    }

    /// Looks whether it is there and can be read; blocks, changes nothing.
    fn look(&self, _: &Look<'_>) -> Vec<Finding> {
        Vec::new()
    }

    /// Asks the server that holds it whether it can be protected; changes nothing.
    async fn ask(&self) -> Vec<Finding> {
        Vec::new()
    }
}

/// What a look at a component has to know of its surroundings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) all: &'a Applications,
    pub(crate) application: &'a Application,
    pub(crate) component: &'a Component,
    /// The service's own places.
    pub(crate) off_limits: &'a [PathBuf],
    /// The program that becomes a process for SQLite.
    pub(crate) sqlite_worker: &'a Path,
}

/// What a look at a component found to be wrong.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The field of the declaration; empty for the component as a whole.
    pub(crate) field: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn error(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field,
            severity: Severity::Error,
            message: message.into(),
        }
    }

    pub(crate) fn warning(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(field, message)
        }
    }
}

/// A part of an application.
#[derive(Debug, Clone)]
pub struct Component {
    /// Id of its resource.
    pub id: Uuid,
    /// Name, unique in its application.
    pub name: String,
    /// What it is.
    pub(crate) kind: KindNames,
    /// Where it is, and how it is to be protected.
    pub(crate) source: Arc<dyn Source>,
}

impl Component {
    /// Its place in the application's file, e.g. `directory.uploads`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.kind.name, self.name)
    }

    /// What its declaration says, if it is of the kind that has such sources.
    pub(crate) fn source<S: Source>(&self) -> Option<&S> {
        let source: &dyn Any = &*self.source;
        source.downcast_ref()
    }
}

/// One declared application.
#[derive(Debug, Clone)]
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
                component.kind.resource_type,
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
                    "type": component.kind.resource_type,
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
#[derive(Debug, Clone, Default)]
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
            .find(|(_, c)| c.id == id && c.kind.resource_type == resource_type)
    }
}
