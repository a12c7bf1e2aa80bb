//! SQLite databases that lie in a declared directory.
//!
//! Reading a database's files while it is in use gives a torn copy. It does worse: SQLite's locks are
//! POSIX locks, and a process that closes any handle of a file gives up every lock that it has on
//! it, so the directory's reader would take away those of our own online backup. A database is
//! therefore never read as a file: its own component protects it.

use std::path::{Path, PathBuf};

use super::{globs::Filter, source::DirectorySource};
use crate::host::{
    applications::{Application, Applications, Component},
    places::resolved,
};

/// Which declared databases a directory would take along.
#[derive(Debug, Default)]
pub(crate) struct DatabasesInside<'a> {
    /// Of the directory's own application: left to their components. Name, and path in the directory.
    pub(crate) own: Vec<(&'a str, PathBuf)>,
    /// Of other applications: a protect of this directory alone would lose them.
    pub(crate) foreign: Vec<(&'a Application, &'a Component, PathBuf)>,
}

impl<'a> DatabasesInside<'a> {
    /// Finds the databases below `directory` of `application` that its patterns do not leave out.
    pub(crate) fn find(
        all: &'a Applications,
        application: &Application,
        directory: &DirectorySource,
        filter: &Filter,
    ) -> Self {
        let root = resolved(&directory.path);
        let mut inside = Self::default();
        for owner in all.all() {
            for component in &owner.components {
                let Some(path) = component.source.exclusive_file() else {
                    continue;
                };
                let path = resolved(path);
                let Ok(relative) = path.strip_prefix(&root) else {
                    continue;
                };
                if !filter.takes(relative, false) {
                    continue;
                }
                let relative = relative.to_owned();
                if owner.id == application.id {
                    inside.own.push((&component.name, relative));
                } else {
                    inside.foreign.push((owner, component, relative));
                }
            }
        }
        inside
    }
}

/// The file itself, or one that SQLite keeps beside it (<https://www.sqlite.org/tempfiles.html>).
pub(crate) fn is_file_of(database: &Path, path: &Path) -> bool {
    if path == database {
        return true;
    }
    ["-wal", "-shm", "-journal"].iter().any(|suffix| {
        let mut beside = database.as_os_str().to_owned();
        beside.push(suffix);
        path.as_os_str() == beside
    })
}
