//! Listing: the tree is walked in the order of the keys, and only where the page lies.

use std::{cmp::Ordering, os::fd::OwnedFd, sync::Arc};

use karbor_plugin::{BankKey, ListRequest, ObjectInfo, SortDirection};
use rustix::{
    fs::{AtFlags, Dir, FileType},
    io::Errno,
};

use super::dirs::{Dirs, kind, open_directory};

pub(super) fn list(dirs: &Dirs, request: &ListRequest) -> Result<Vec<ObjectInfo>, Errno> {
    let (prefix, path) = match &request.prefix {
        Some(prefix) => (prefix.as_str(), format!("{prefix}/")),
        None => ("", String::new()),
    };
    let mut walk = Walk {
        marker: request.marker.as_ref().map(BankKey::as_str),
        limit: request.limit.unwrap_or(usize::MAX),
        sort: request.sort,
        found: Vec::new(),
    };
    if let Some(directory) = dirs.find(prefix)? {
        walk.visit(directory, &path)?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    marker: Option<&'a str>,
    limit: usize,
    sort: SortDirection,
    found: Vec<ObjectInfo>,
}

impl Walk<'_> {
    fn visit(&mut self, directory: Arc<OwnedFd>, path: &str) -> Result<(), Errno> {
        for key in self.children(&directory, path)? {
            if self.found.len() >= self.limit {
                return Ok(());
            }
            let name = key.trim_end_matches('/').rsplit('/').next().unwrap_or(&key);
            if key.ends_with('/') {
                match open_directory(&directory, name) {
                    Ok(below) => self.visit(Arc::new(below), &key)?,
                    // Pruned meanwhile.
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(errno) => return Err(errno),
                }
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Deleted meanwhile.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if let Ok(key) = BankKey::parse(&key) {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.found.push(ObjectInfo { key, size });
            }
        }
        Ok(())
    }

    /// Keys of the objects, and of the directories (ending in `/`), in `directory` that the page
    /// may hold, in order. That order is the one of all keys: a directory sorts by its name and
    /// the `/` that follows in each of its keys.
    fn children(&self, directory: &OwnedFd, path: &str) -> Result<Vec<String>, Errno> {
        let mut keys = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            // Not a key: `.`, `..`, what is ours, and what somebody else put there.
            if BankKey::parse(name).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind(directory, name),
                known => Some(known),
            };
            let key = match kind {
                Some(FileType::RegularFile) => format!("{path}{name}"),
                Some(FileType::Directory) => format!("{path}{name}/"),
                _ => continue,
            };
            if self.may_hold(&key) {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        if self.sort == SortDirection::Descending {
            keys.reverse();
        }
        Ok(keys)
    }

    /// Can the object, or any object below the directory, come after the marker?
    fn may_hold(&self, key: &str) -> bool {
        let Some(marker) = self.marker else {
            return true;
        };
        let wanted = match self.sort {
            SortDirection::Ascending => Ordering::Greater,
            SortDirection::Descending => Ordering::Less,
        };
        (key.ends_with('/') && marker.starts_with(key)) || key.cmp(marker) == wanted
    }
}
