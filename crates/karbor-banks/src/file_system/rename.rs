//! Renaming that never replaces.

use std::{os::fd::BorrowedFd, path::Path};

use rustix::{fs::AtFlags, io::Errno};

/// Renames a file, each path in its directory; `EEXIST` if there is something at the new place.
pub(crate) fn rename_new_at(
    from_dir: BorrowedFd<'_>,
    from: &Path,
    to_dir: BorrowedFd<'_>,
    to: &Path,
) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from_dir, from, to_dir, to, flags) {
            // Not every file system can (NFS cannot); those that cannot can link.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return done,
        }
    }
    link_new(from_dir, from, to_dir, to)
}

fn link_new(
    from_dir: BorrowedFd<'_>,
    from: &Path,
    to_dir: BorrowedFd<'_>,
    to: &Path,
) -> Result<(), Errno> {
    rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty())?;
    rustix::fs::unlinkat(from_dir, from, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::fd::AsFd};

    use super::*;

    #[test]
    fn neither_way_replaces() {
        for way in [rename_new_at, link_new] {
            let dir = tempfile::tempdir().unwrap();
            let fd = fs::File::open(dir.path()).unwrap();
            for (content, wanted) in [("first", Ok(())), ("second", Err(Errno::EXIST))] {
                fs::write(dir.path().join("new"), content).unwrap();
                let done = way(fd.as_fd(), "new".as_ref(), fd.as_fd(), "object".as_ref());
                assert_eq!(done, wanted);
                assert_eq!(dir.path().join("new").exists(), wanted.is_err());
                assert_eq!(fs::read(dir.path().join("object")).unwrap(), b"first");
            }
        }
    }
}
