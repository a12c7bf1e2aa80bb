//! What a run that died left under names of [`temp_name`](crate::temp_name).
//!
//! What is made is locked (flock(2)) as long as its run is alive: a file itself, and whatever cannot be locked, such as links
//! and further names of files, by the [`Staging`] directory that it is made in. So all runs of all
//! services know whose is dead.

use std::ffi::{OsStr, OsString};

use rustix::fs::{FileType, FlockOperation};

use crate::{Dir, Refused, Staging, temp_name::is_temp_name};

impl Dir {
    /// Removes what runs that died left in this directory under names of [`temp_name`]. `names` are all that are
    /// there. What belongs to a run that is alive stays.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn remove_stale(&self, names: &[OsString]) -> Result<(), Refused> {
        let mut names = names.iter().filter(|name| is_temp_name(name));
        names.try_for_each(|name| self.remove_if_stale(name))
    }

    pub(crate) fn remove_if_stale(&self, name: &OsStr) -> Result<(), Refused> {
        let found = self.look(name)?;
        match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            None => Ok(()),
            Some(FileType::Directory) => Staging::remove_stale(self, name, is_temp_name),
            Some(FileType::RegularFile) => {
                let Ok(file) = self.open_file(name) else {
                    return Ok(());
                };
                match rustix::fs::flock(&file.file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => self.remove_file(name),
                    Err(_) => Ok(()),
                }
            }
            // Of a run that is alive, only files lie outside of its own directories.
            Some(_) => self.remove_file(name),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::temp_name;

    #[test]
    fn what_is_left_of_the_dead_goes_whatever_it_is_and_the_living_keep_theirs() {
        let keep = tempfile::tempdir().unwrap();
        let top = keep.path().canonicalize().unwrap();
        let dir = Dir::open(&top).unwrap();
        let dead = |number| top.join(temp_name(1, number));
        fs::write(top.join("restored"), "").unwrap();
        fs::hard_link(top.join("restored"), dead(1)).unwrap();
        symlink("/etc", dead(2)).unwrap();
        fs::write(dead(3), "half").unwrap();
        fs::write(top.join(".karbor-restore-notes"), "somebody's").unwrap();
        let file = dir.create_file(&temp_name(2, 1)).unwrap();
        let staging = Staging::apart(dir.clone(), temp_name(2, 2));
        let link = staging.dir().unwrap().path().join(temp_name(2, 3));
        symlink("/etc", &link).unwrap();
        dir.remove_stale(&dir.names().unwrap()).unwrap();
        let mut left = dir.names().unwrap();
        left.sort();
        let wanted = [
            temp_name(2, 1),
            temp_name(2, 2),
            ".karbor-restore-notes".into(),
            "restored".into(),
        ];
        assert_eq!(left, wanted);
        assert!(link.is_symlink());
        // As after the end of a process.
        drop((file, staging));
        dir.remove_stale(&dir.names().unwrap()).unwrap();
        assert_eq!(dir.names().unwrap().len(), 2);
    }

    #[test]
    fn removing_a_tree_leaves_what_is_being_made_in_it() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Dir::open(&keep.path().canonicalize().unwrap()).unwrap();
        let inner = dir.make_dir("extra".as_ref()).unwrap();
        for (run, name) in [(1, "file"), (2, "other")] {
            inner.create_file(name.as_ref()).unwrap();
            inner.create_file(&temp_name(run, 1)).unwrap();
        }
        let alive = inner.create_file(&temp_name(3, 1)).unwrap();
        dir.remove_all("extra".as_ref()).unwrap();
        assert_eq!(inner.names().unwrap(), [temp_name(3, 1)]);
        drop(alive);
        dir.remove_all("extra".as_ref()).unwrap();
        assert!(dir.names().unwrap().is_empty());
    }
}
