//! Going through a tree of directories, however deep it is.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use crate::{
    Dir, Refused,
    dir::{Movers, shown_way},
    identity::{Identity, Known},
};

/// So many directories on the way are held open. Those further up are opened again from below.
const HELD: usize = 32;

/// A place in a tree: a directory, and the way to it from the tree's top. Each step costs the same, and
/// no more than a few directories are held open, whatever the depth.
///
/// Where the way leads back to a directory that was not held open, it must be the same as before: of what
/// somebody moved elsewhere meanwhile, nothing outside the tree is reached.
#[derive(Debug)]
pub struct Trail {
    top: Dir,
    levels: Vec<Level>,
    /// The last of the levels, innermost last.
    held: VecDeque<Dir>,
}

#[derive(Debug)]
struct Level {
    name: OsString,
    identity: Identity,
    movers: Movers,
}

impl Trail {
    /// Begins at the top.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn new(top: Dir) -> Result<Self, Refused> {
        Ok(Self {
            top,
            levels: Vec::new(),
            held: VecDeque::new(),
        })
    }

    /// How many levels below the top this is.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The directory at this place.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        self.held.back().unwrap_or(&self.top)
    }

    /// The way from the top. For messages: of a deep one the middle is left out.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        shown_way(self.levels.iter().map(|level| level.name.as_os_str()))
    }

    /// Goes down into a directory. No link is followed. If `expected` is given, it must be that one.
    ///
    /// # Errors
    /// [`Refused`]: `ENOENT`, `ENOTDIR` for a link, [`Refused::Exchanged`].
    pub fn enter(&mut self, name: &OsStr, expected: Option<Known>) -> Result<(), Refused> {
        let dir = self.dir().step(name)?;
        let known = dir.known()?;
        if expected.is_some_and(|expected| !expected.is(known)) {
            return Err(Refused::Exchanged(dir.path().to_owned()));
        }
        self.levels.push(Level {
            name: name.to_owned(),
            identity: known.identity(),
            movers: dir.movers(),
        });
        self.held.push_back(dir);
        if self.held.len() > HELD {
            self.held.pop_front();
        }
        Ok(())
    }

    /// Goes back up; answers with the name of the directory that was left, or `None` at the top.
    ///
    /// # Errors
    /// [`Refused::Exchanged`] if the directory has been moved elsewhere meanwhile.
    pub fn leave(&mut self) -> Result<Option<OsString>, Refused> {
        let Some(left) = self.levels.pop() else {
            return Ok(None);
        };
        let below = self.held.pop_back();
        if let (Some(below), Some(level), true) = (below, self.levels.last(), self.held.is_empty())
        {
            let above = below.step(OsStr::new(".."))?;
            let path = self.top.path().join(self.path());
            if Identity::of(&above.stat()?) != level.identity {
                return Err(Refused::Exchanged(path));
            }
            self.held.push_back(above.named(path, level.movers));
        }
        Ok(Some(left.name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    /// Directories in each other.
    fn deep(levels: usize) -> (tempfile::TempDir, Dir) {
        let keep = tempfile::tempdir().unwrap();
        let top = Dir::open(&keep.path().canonicalize().unwrap()).unwrap();
        let mut at = top.clone();
        for _ in 0..levels {
            at = at.make_dir("d".as_ref()).unwrap();
        }
        (keep, top)
    }

    fn open_files() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_deep_tree_is_gone_down_and_up_with_few_descriptors() {
        let (_keep, top) = deep(1000);
        let before = open_files();
        let mut trail = Trail::new(top.clone()).unwrap();
        for _ in 0..1000 {
            trail.enter("d".as_ref(), None).unwrap();
        }
        // Other tests of this process have files open too.
        assert!(open_files() < before + HELD + 100);
        assert_eq!(trail.depth(), 1000);
        for _ in 0..1000 {
            assert_eq!(trail.leave().unwrap().unwrap(), "d");
        }
        assert_eq!(trail.leave().unwrap(), None);
        assert_eq!(trail.dir().known().unwrap(), top.known().unwrap());
        top.remove_all("d".as_ref()).unwrap();
        assert!(top.names().unwrap().is_empty());
    }

    #[test]
    fn the_path_of_a_deep_directory_is_shortened() {
        let mut path = PathBuf::from("/srv");
        for number in 0..10_000 {
            path = crate::dir::shown(&path, format!("directory-{number}").as_ref());
            assert!(path.as_os_str().len() <= 4096);
        }
        assert!(path.starts_with("/srv/directory-0"));
        assert!(path.ends_with("directory-9999"));
        assert!(path.iter().any(|name| name == "…"));
        let way = vec![OsStr::new("directory"); 10_000];
        let path = shown_way(way.into_iter());
        assert!(path.as_os_str().len() <= 4096);
        assert!(path.ends_with("directory/…/directory"), "{path:?}");
        let way = ["a", "b", "c"].map(OsStr::new);
        assert_eq!(shown_way(way.into_iter()), PathBuf::from("a/b/c"));
        assert_eq!(shown_way(std::iter::empty()), PathBuf::new());
    }

    #[test]
    fn what_was_moved_away_does_not_lead_back_to_elsewhere() {
        let (keep, top) = deep(HELD + 10);
        let mut trail = Trail::new(top).unwrap();
        for _ in 0..HELD + 10 {
            trail.enter("d".as_ref(), None).unwrap();
        }
        // The sixth, whose parent is not held open any more.
        let moved: PathBuf = std::iter::repeat_n("d", 11).collect();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(keep.path().join(moved), elsewhere.path().join("d")).unwrap();
        let refused = loop {
            if let Err(refused) = trail.leave() {
                break refused;
            }
        };
        assert!(matches!(refused, Refused::Exchanged(_)), "{refused}");
    }

    #[test]
    fn another_directory_than_the_expected_is_not_entered() {
        let (keep, top) = deep(1);
        let expected = top.open_dir("d".as_ref()).unwrap().known().unwrap();
        let mut trail = Trail::new(top).unwrap();
        trail.enter("d".as_ref(), Some(expected)).unwrap();
        trail.leave().unwrap();
        fs::rename(keep.path().join("d"), keep.path().join("old")).unwrap();
        fs::create_dir(keep.path().join("d")).unwrap();
        let refused = trail.enter("d".as_ref(), Some(expected)).unwrap_err();
        assert!(matches!(refused, Refused::Exchanged(_)), "{refused}");
        assert_eq!(trail.depth(), 0);
    }

    /// ext4 gives a new directory the number of the one that was removed just before.
    #[test]
    fn a_directory_that_was_made_anew_is_another_though_it_has_the_same_number() {
        let (keep, top) = deep(1);
        let path = keep.path().join("d");
        let number = || fs::metadata(&path).unwrap().ino();
        let made = || fs::metadata(&path).unwrap().created();
        let (expected, before) = (
            top.open_dir("d".as_ref()).unwrap().known().unwrap(),
            number(),
        );
        let Ok(born) = made() else {
            eprintln!("SKIPPED: this file system does not say when a directory was made");
            return;
        };
        // The clock of a file system is coarse.
        while made().unwrap() == born {
            fs::remove_dir(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        if number() != before {
            eprintln!("SKIPPED: this file system gives a new directory a new number");
        }
        let mut trail = Trail::new(top).unwrap();
        let refused = trail.enter("d".as_ref(), Some(expected)).unwrap_err();
        assert!(matches!(refused, Refused::Exchanged(_)), "{refused}");
    }

    #[test]
    fn removing_a_tree_follows_no_link() {
        let (keep, top) = deep(2);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), keep.path().join("d/d/link")).unwrap();
        fs::write(keep.path().join("d/file"), "").unwrap();
        top.remove_all("d".as_ref()).unwrap();
        assert!(top.names().unwrap().is_empty());
        assert!(elsewhere.path().join("file").exists());
        std::os::unix::fs::symlink(elsewhere.path(), keep.path().join("link")).unwrap();
        top.remove_all("link".as_ref()).unwrap();
        assert!(elsewhere.path().join("file").exists());
        top.remove_all("missing".as_ref()).unwrap();
        fs::create_dir_all(keep.path().join("d/logs/old")).unwrap();
        fs::create_dir_all(keep.path().join("d/other")).unwrap();
        for name in ["d/logs/old/log", "d/logs/file", "d/other/file"] {
            fs::write(keep.path().join(name), "").unwrap();
        }
        let is_wanted = |path: &std::path::Path, _| path != "d/logs/old/log";
        top.remove_wanted("d".as_ref(), is_wanted).unwrap();
        assert!(keep.path().join("d/logs/old/log").exists());
        assert!(!keep.path().join("d/logs/file").exists());
        assert!(!keep.path().join("d/other").exists());
    }
}
