//! Directories that are none of an application's: the service's own places, and what the kernel only shows.

use std::path::{Path, PathBuf};

use karbor_fs::Dir;

use super::{globs::Filter, source::DirectorySource};

/// <https://man7.org/linux/man-pages/man2/statfs.2.html>
const PROC: u32 = 0x9fa0;
const SYSFS: u32 = 0x6265_6572;

/// Why a directory of the kernel's should not be declared: its files hold no data of anybody, some act when they are read,
/// and none can be restored.
pub(crate) fn is_kernels(dir: &Dir) -> Option<String> {
    let found = rustix::fs::fstatfs(dir).ok()?;
    let what = match u32::try_from(found.f_type) {
        Ok(PROC) => "/proc",
        Ok(SYSFS) => "/sys",
        _ => return None,
    };
    Some(format!(
        "'{}' is a part of {what}, where the kernel shows its state: there are no data to protect, and none can be restored; declare another directory",
        dir.path().display()
    ))
}

/// Refuses a directory that holds one of the service's own places, or lies in one. `root` is the directory without links.
pub(crate) fn refuse_own(
    source: &DirectorySource,
    root: &Path,
    own: &[PathBuf],
    filter: &Filter,
    advice: impl Fn(&Path) -> String,
) -> Result<(), String> {
    let path = source.path.display();
    for place in own {
        if root.starts_with(place) {
            return Err(format!(
                "'{path}' belongs to the service itself (its state or a bank): declare another directory"
            ));
        }
        let Ok(inside) = place.strip_prefix(root) else {
            continue;
        };
        if filter.takes(inside, true) {
            return Err(format!(
                "'{path}' holds the service's own state or bank and would grow for ever: {}",
                advice(inside)
            ));
        }
    }
    Ok(())
}
