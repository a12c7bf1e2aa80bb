//! SQLite databases in a directory that nobody declared.
//!
//! A file that is copied while a database writes to it is a broken database, or lacks what is in its log. The
//! directory's plugin takes it along as any file, for it may be a copy that nobody uses; but it says so. A
//! database is known by how it begins (<https://www.sqlite.org/fileformat.html>), and only a file as long as
//! whole pages is looked into.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use karbor_fs::Dir;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat},
    io::Errno,
};

const HEADER: &[u8; 16] = b"SQLite format 3\0";
/// The smallest page.
const PAGE: i64 = 512;
/// So many are named; all are counted.
const NAMED: usize = 10;

/// What was found.
#[derive(Debug)]
pub(crate) struct Undeclared {
    root: Dir,
    found: Mutex<(Vec<String>, usize)>,
}

impl Undeclared {
    pub(crate) fn new(root: Dir) -> Self {
        Self {
            root,
            found: Mutex::default(),
        }
    }

    /// Looks at a file of the directory, by its path in it. What cannot be looked at is no database: those
    /// who read it tell.
    pub(crate) fn look(&self, relative: &Path) {
        if !self.is_database(relative) {
            return;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.1 += 1;
        if found.0.len() < NAMED {
            found.0.push(relative.display().to_string());
        }
    }

    fn is_database(&self, relative: &Path) -> bool {
        let Ok(stat) = statat(&self.root, relative, AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || stat.st_size < PAGE || stat.st_size % PAGE != 0 {
            return false;
        }
        let mut header = [0; HEADER.len()];
        self.open(relative)
            .is_some_and(|file| file.read_exact_at(&mut header, 0).is_ok() && header == *HEADER)
    }

    /// Neither waits nor follows a link nor leaves a trace.
    fn open(&self, relative: &Path) -> Option<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = |flags| openat2(&self.root, relative, flags, Mode::empty(), below);
        let opened = match open(flags | OFlags::NOATIME) {
            // Only its owner may.
            Err(Errno::PERM) => open(flags),
            opened => opened,
        };
        opened.ok().map(File::from)
    }

    /// What to tell of them, if there are any.
    pub(crate) fn warning(&self) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (names, total) = &*found;
        let more = match total - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = names
            .iter()
            .map(|name| format!("'{}'", name.escape_debug()));
        let names: Vec<_> = names.collect();
        (*total > 0).then(|| {
            format!(
                "{}{more}: an SQLite database that is written to while it is copied as a file comes back broken; declare it as [[sqlite]], or exclude it",
                names.join(", ")
            )
        })
    }
}
