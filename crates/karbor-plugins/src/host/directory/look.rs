//! Looking at a directory as it is declared: is it there, is it sensible?

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::FileType;

use super::{
    databases_inside::DatabasesInside,
    globs::{Filter, LEAVE_OUT_ALL},
    own_places::{is_kernels, refuse_own},
    source::DirectorySource,
};
use crate::host::{
    applications::{Finding, Look, Source},
    places::{describe, resolved},
};

impl Source for DirectorySource {
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn look(&self, look: &Look<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Ok(dir) = karbor_fs::Dir::open(&self.path)
            && let Some(reason) = is_kernels(&dir)
        {
            findings.push(Finding::warning("path", reason));
        }
        match is_usable(self, look.off_limits) {
            Err(reason) => findings.push(Finding::error("path", reason)),
            Ok(()) => unused_patterns(self, &mut findings),
        }
        if let Ok(filter) = Filter::new(self) {
            databases_of_others(self, look, &filter, &mut findings);
            directories_inside(self, look, &filter, &mut findings);
        }
        findings
    }
}

fn is_usable(source: &DirectorySource, off_limits: &[PathBuf]) -> Result<(), String> {
    let path = &source.path;
    let dir = karbor_fs::Dir::open(path).map_err(|refused| match refused.errno() {
        Some(errno) => describe(path, &errno.into()),
        None => refused.to_string(),
    })?;
    let filter = Filter::new(source)?;
    let own: Vec<_> = off_limits.iter().map(|place| resolved(place)).collect();
    refuse_own(source, dir.path(), &own, &filter, |inside| {
        format!("add exclude = [\"/{}\"]", inside.display())
    })
}

/// So many entries of a directory are looked at in search of what its patterns match.
const MOST_ENTRIES: usize = 200_000;

/// Patterns that match nothing, of which nobody else would tell.
fn unused_patterns(source: &DirectorySource, findings: &mut Vec<Finding>) {
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
        findings.push(Finding::warning("", LEAVE_OUT_ALL));
    }
    let mut tell = |field, pattern: &str| {
        let message = format!("the pattern '{pattern}' matches nothing that is there now");
        findings.push(Finding::warning(field, message));
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

/// Databases in the directory that a protect of it would lose.
fn databases_of_others(
    source: &DirectorySource,
    look: &Look<'_>,
    filter: &Filter,
    findings: &mut Vec<Finding>,
) {
    let inside = DatabasesInside::find(look.all, look.application, source, filter);
    for (owner, database, path) in inside.foreign {
        let message = match path.as_os_str().is_empty() {
            true => format!(
                "the application '{}' declares the same place as its database '{}': one of the two is wrong",
                owner.name, database.name
            ),
            false => format!(
                "it holds the database '{}' of the application '{}', which would not be protected with it: add exclude = [\"/{}*\"] or declare the database in this application",
                database.name,
                owner.name,
                path.display()
            ),
        };
        findings.push(Finding::error("", message));
    }
}

/// A directory in a directory: no fault, but seldom meant.
fn directories_inside(
    source: &DirectorySource,
    look: &Look<'_>,
    filter: &Filter,
    findings: &mut Vec<Finding>,
) {
    let (outer, outer_path) = (look.component, resolved(&source.path));
    let components = look.all.all().iter().flat_map(|other| &other.components);
    for inner in components.filter(|inner| inner.id != outer.id) {
        let Some(other) = inner.source::<DirectorySource>() else {
            continue;
        };
        let path = resolved(&other.path);
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
        findings.push(Finding::warning("", message));
    }
}
