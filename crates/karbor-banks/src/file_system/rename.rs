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
    match rustix::fs::linkat(from_dir, from, to_dir, to, AtFlags::empty()) {
        // NFS: the answer was lost, and what was asked again found what the first had made.
        Err(Errno::EXIST) if is_same(from_dir, from, to_dir, to)? => {}
        done => done?,
    }
    rustix::fs::unlinkat(from_dir, from, AtFlags::empty())
}

/// Do the paths, each in its directory, name the same file?
fn is_same(
    from_dir: BorrowedFd<'_>,
    from: &Path,
    to_dir: BorrowedFd<'_>,
    to: &Path,
) -> Result<bool, Errno> {
    let from = rustix::fs::statat(from_dir, from, AtFlags::SYMLINK_NOFOLLOW)?;
    let to = rustix::fs::statat(to_dir, to, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((from.st_dev, from.st_ino) == (to.st_dev, to.st_ino))
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

    #[test]
    fn a_link_that_was_made_and_asked_for_again_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        fs::write(dir.path().join("new"), "first").unwrap();
        fs::hard_link(dir.path().join("new"), dir.path().join("object")).unwrap();
        link_new(fd.as_fd(), "new".as_ref(), fd.as_fd(), "object".as_ref()).unwrap();
        assert!(!dir.path().join("new").exists());
        assert_eq!(fs::read(dir.path().join("object")).unwrap(), b"first");
    }
}
