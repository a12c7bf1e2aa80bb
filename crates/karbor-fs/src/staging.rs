//! Where something is made before it gets its name.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{FlockOperation, Gid, Mode, Stat, Uid},
    io::Errno,
};

use crate::{Dir, Refused, Replace, write::is_dir};

/// Who may do what with a directory that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits (`0o7777`), whatever the umask says.
    pub mode: u32,
    /// User and group; the service's own unless given, or where it may not give away.
    pub owner: Option<(u32, u32)>,
}

/// The parts of an [`Access`] that a new directory could not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotGiven {
    /// The directory.
    pub path: PathBuf,
    /// "its owner" or "its mode".
    pub what: &'static str,
    /// Why not: the file system has none, the account may not, or the ids mean nothing here.
    pub errno: Errno,
}

/// A directory in which something is to be made, and where it is made until it is whole: in the directory
/// itself if it is closed to others, else in a directory of the service's own in it (0700), which is made when it
/// is needed and removed in the end. So nobody can open, link or exchange what is being made, and it gets its
/// name in one step.
#[derive(Debug)]
pub struct Staging {
    dir: Dir,
    is_apart: bool,
    name: OsString,
    made: Mutex<Option<Dir>>,
}

impl Staging {
    /// For a directory. `name` is that of the service's own directory in it, if one has to be made:
    /// nobody else's, and one that [`remove_stale`](Self::remove_stale) knows.
    #[must_use]
    pub fn of(dir: Dir, name: OsString) -> Self {
        Self {
            is_apart: false,
            dir,
            name,
            made: Mutex::new(None),
        }
    }

    /// As [`of`](Self::of), but always in a directory of the service's own: for what cannot be locked itself, and
    /// would stay for ever if the service died.
    #[must_use]
    pub fn apart(dir: Dir, name: OsString) -> Self {
        Self {
            is_apart: true,
            dir,
            name,
            made: Mutex::new(None),
        }
    }

    /// The directory where things get their names.
    #[must_use]
    pub fn place(&self) -> &Dir {
        &self.dir
    }

    /// Is it closed now? It may be given away at any time, also by the service itself.
    fn is_closed(&self) -> Result<bool, Refused> {
        Ok(!self.is_apart && self.dir.is_closed()?)
    }

    /// Where to make something now.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn dir(&self) -> Result<Dir, Refused> {
        if self.is_closed()? {
            return Ok(self.dir.clone());
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*made {
            return Ok(dir.clone());
        }
        let dir = self.dir.make_dir(&self.name)?;
        if !is_own(&dir.stat()?) && has_owners(&dir, &self.name)? {
            return Err(Refused::Exchanged(dir.path().to_owned()));
        }
        // So that it is not taken for one that was left behind; not every file system has locks.
        let _ = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive);
        *made = Some(dir.clone());
        Ok(dir)
    }

    /// Is [`dir`](Self::dir) closed to all others? On a file system without owners (vfat, some network file
    /// systems) nothing is: there, only what was opened when it was made is certain to be one's own.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn is_private(&self) -> Result<bool, Refused> {
        match self.is_closed()? {
            true => Ok(true),
            false => Ok(is_own(&self.dir()?.stat()?)),
        }
    }

    /// Makes a directory and opens it; it is the service's own and closed (0700) to begin with.
    ///
    /// # Errors
    /// [`Refused::System`], `EEXIST` if there is something of this name.
    pub fn make_dir(&self, temporary: &OsStr, name: &OsStr) -> Result<Dir, Refused> {
        if self.is_closed()? {
            let made = self.dir.make_dir(name)?;
            // Else somebody may have put another there before it was opened.
            return match self.is_closed()? {
                true => Ok(made),
                false => Err(Refused::Exchanged(made.path().to_owned())),
            };
        }
        let within = self.dir()?;
        let made = within.make_dir(temporary)?;
        match self.finish(&within, temporary, name, Replace::No) {
            Ok(()) => self.dir.adopt(made, name),
            Err(error) => {
                // The error that is told is the first.
                let _ = within.remove_dir(temporary);
                Err(error)
            }
        }
    }

    /// Gives what was made `within` a [`dir`](Self::dir) its name.
    ///
    /// # Errors
    /// [`Refused::System`], as of [`Dir::rename`].
    pub fn finish(
        &self,
        within: &Dir,
        made: &OsStr,
        name: &OsStr,
        replace: Replace,
    ) -> Result<(), Refused> {
        within.rename(made, &self.dir, name, replace)
    }

    /// Removes the service's own directories that a run which died left in a directory. `is_ours` knows
    /// their names, and those of what is made in them; whatever else is there stays.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn remove_stale(
        dir: &Dir,
        name: &OsStr,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<(), Refused> {
        let Ok(left) = dir.step(name) else {
            return Ok(());
        };
        let stat = left.stat()?;
        let lock = FlockOperation::NonBlockingLockExclusive;
        if !is_own(&stat) || rustix::fs::flock(&left, lock).is_err() {
            return Ok(());
        }
        for name in left.names()? {
            let found = left.look(&name)?;
            match found.filter(|_| is_ours(&name)) {
                Some(stat) if is_dir(&stat) => left.remove_dir(&name)?,
                Some(_) => left.remove_file(&name)?,
                None => {}
            }
        }
        dir.remove_dir(name)
    }
}

impl Dir {
    /// Makes the directories of a path below this one, outermost first, and opens the last; answers with
    /// it, and whether it was made: one that somebody else made meanwhile is taken as it is. `temporary`
    /// gives names for [`Staging`], `access` what the directory of a number becomes; what they could not be given
    /// goes to `not_given`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn make_dirs(
        &self,
        names: &[OsString],
        temporary: impl Fn() -> OsString,
        access: impl Fn(usize) -> Access,
        mut not_given: impl FnMut(NotGiven),
    ) -> Result<(Self, bool), Refused> {
        // What is left of a run that died is in nobody's way, if it cannot be removed.
        let _ = self.names().and_then(|there| self.remove_stale(&there));
        let mut dir = self.clone();
        let mut is_new = false;
        for (number, name) in names.iter().enumerate() {
            let made = Staging::of(dir.clone(), temporary()).make_dir(&temporary(), name);
            dir = match made {
                Ok(made) => {
                    is_new = true;
                    made.give(access(number), &mut not_given)?;
                    dir.sync()?;
                    made
                }
                Err(refused) if refused.errno() == Some(Errno::EXIST) => {
                    is_new = false;
                    dir.step(name)?
                }
                Err(refused) => return Err(refused),
            };
        }
        Ok((dir, is_new))
    }

    /// Sets owner and mode, as far as the service may and the file system can. Without its owner it runs nothing as
    /// the one who has it now.
    fn give(&self, access: Access, mut not_given: impl FnMut(NotGiven)) -> Result<(), Refused> {
        let mut could = |done: Result<(), Errno>, what| match done {
            Ok(()) => Ok(true),
            // The last two: of ids that a user namespace does not know.
            Err(
                errno @ (Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::ACCESS),
            ) => {
                let path = self.path().to_owned();
                not_given(NotGiven { path, what, errno });
                Ok(false)
            }
            Err(errno) => Err(Refused::system(self.path(), errno)),
        };
        let mut mode = access.mode;
        if let Some((user, group)) = access.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            let owned = rustix::fs::fchown(self, Some(user), Some(group));
            if !could(owned, "its owner")? {
                mode &= !SET_ID;
            }
        }
        let mode = Mode::from_raw_mode(mode);
        could(rustix::fs::fchmod(self, mode), "its mode").map(|_| ())
    }
}

/// The setuid and setgid bits.
const SET_ID: u32 = 0o6000;

/// Does it belong to the service, and to nobody else?
fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0
}

/// Does what the service makes belong to it here? A file is open from the moment that it is made, so it
/// cannot be exchanged for another as a directory can.
fn has_owners(dir: &Dir, name: &OsStr) -> Result<bool, Refused> {
    let file = dir.create_file(name)?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| Refused::system(dir.path(), errno))?;
    dir.remove_file(name)?;
    Ok(is_own(&stat))
}

impl Drop for Staging {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap_or_else(PoisonError::into_inner);
        if made.take().is_some() {
            // What is left behind is removed the next time.
            let _ = self.dir.remove_dir(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic)]

    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        path::Path,
        process::Command,
    };

    use super::*;

    const ALICE: u32 = 12_345;

    fn place() -> Option<(tempfile::TempDir, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make files of another account");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir(top.join("hers")).unwrap();
        chown(top.join("hers"), Some(ALICE), Some(ALICE)).unwrap();
        Some((dir, top))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_made_in_a_directory_of_others_is_closed_until_it_has_its_name() {
        let Some((_keep, top)) = place() else { return };
        let hers = Dir::open(&top.join("hers")).unwrap();
        let staging = Staging::of(hers, OsString::from(".ours"));
        let made = staging.dir().unwrap();
        assert!(staging.is_private().unwrap());
        assert_eq!(mode(&top.join("hers/.ours")), 0o700);
        assert_eq!(fs::metadata(top.join("hers/.ours")).unwrap().uid(), 0);
        made.create_file("new".as_ref()).unwrap();
        assert!(!top.join("hers/new").exists());
        let finish = |replace| staging.finish(&made, "new".as_ref(), "file".as_ref(), replace);
        finish(Replace::No).unwrap();
        assert_eq!(mode(&top.join("hers/file")), 0o600);
        made.create_file("new".as_ref()).unwrap();
        assert_eq!(finish(Replace::No).unwrap_err().errno(), Some(Errno::EXIST));
        finish(Replace::Yes).unwrap();
        drop(staging);
        assert!(!top.join("hers/.ours").exists());
    }

    #[test]
    fn in_a_closed_directory_nothing_more_is_made() {
        let Some((_keep, top)) = place() else { return };
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        let dir = Dir::open(&top).unwrap();
        let staging = Staging::of(dir, OsString::from(".ours"));
        assert_eq!(staging.dir().unwrap().path(), top);
        // One that was given away since is closed no more.
        fs::set_permissions(&top, fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(staging.dir().unwrap().path(), top.join(".ours"));
        drop(staging);
        let staging = Staging::of(Dir::open(&top).unwrap(), OsString::from(".ours"));
        assert_eq!(staging.dir().unwrap().path(), top.join(".ours"));
    }

    #[test]
    fn what_died_is_removed_and_what_is_alive_or_anothers_stays() {
        let Some((_keep, top)) = place() else { return };
        let hers = Dir::open(&top.join("hers")).unwrap();
        let is_ours = |name: &OsStr| name == "ours" || name == "temporary";
        let remove = || Staging::remove_stale(&hers, "ours".as_ref(), is_ours);
        let alive = Staging::of(hers.clone(), OsString::from("ours"));
        alive
            .dir()
            .unwrap()
            .create_file("temporary".as_ref())
            .unwrap();
        remove().unwrap();
        assert!(top.join("hers/ours/temporary").exists());
        // Drop cannot remove what is not empty: as after a crash.
        drop(alive);
        remove().unwrap();
        assert!(!top.join("hers/ours").exists());
        // She makes one that looks like ours.
        fs::create_dir(top.join("hers/ours")).unwrap();
        fs::set_permissions(top.join("hers/ours"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(top.join("hers/ours/temporary"), "hers").unwrap();
        chown(top.join("hers/ours"), Some(ALICE), None).unwrap();
        remove().unwrap();
        assert!(top.join("hers/ours/temporary").exists());
        fs::remove_dir_all(top.join("hers/ours")).unwrap();
        fs::create_dir(top.join("elsewhere")).unwrap();
        fs::write(top.join("elsewhere/temporary"), "root's").unwrap();
        symlink(top.join("elsewhere"), top.join("hers/ours")).unwrap();
        remove().unwrap();
        assert!(top.join("elsewhere/temporary").exists());
    }

    #[test]
    fn directories_on_the_way_are_as_they_are_wanted_whatever_the_umask() {
        let Some((_keep, top)) = place() else { return };
        let hers = Dir::open(&top.join("hers")).unwrap();
        let number = std::cell::Cell::new(0);
        let temporary = || {
            number.set(number.get() + 1);
            OsString::from(format!(".t{}", number.get()))
        };
        let access = |number| Access {
            mode: [0o700, 0o2775][number],
            owner: Some([(0, 0), (ALICE, 7)][number]),
        };
        let names = ["a".into(), "b".into()];
        let none = |left| panic!("{left:?}");
        let (made, is_new) = hers.make_dirs(&names, temporary, access, none).unwrap();
        assert!(is_new);
        assert_eq!(made.path(), top.join("hers/a/b"));
        assert_eq!(mode(&top.join("hers/a")), 0o700);
        assert_eq!(mode(&top.join("hers/a/b")), 0o2775);
        let found = fs::metadata(top.join("hers/a/b")).unwrap();
        assert_eq!((found.uid(), found.gid()), (ALICE, 7));
        assert_eq!(hers.names().unwrap(), ["a"]);
        let (again, is_new) = hers.make_dirs(&names, temporary, access, none).unwrap();
        assert_eq!((again.path(), is_new), (made.path(), false));
        assert_eq!(hers.names().unwrap(), ["a"]);
    }

    /// In a user namespace that knows no account but root's.
    #[test]
    fn what_a_directory_cannot_be_given_is_told_and_the_rest_is_done() {
        const ALONE: &str = "KARBOR_FS_TEST_NAMESPACE";
        if std::env::var_os(ALONE).is_none() {
            let test =
                "staging::tests::what_a_directory_cannot_be_given_is_told_and_the_rest_is_done";
            let done = Command::new("unshare")
                .args(["-U", "--map-root-user"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(ALONE, "yes")
                .output();
            match done {
                Ok(done) if !String::from_utf8_lossy(&done.stdout).contains("running 1 test") => {
                    eprintln!("SKIPPED: user namespaces cannot be made here");
                }
                Err(_) => eprintln!("SKIPPED: there is no unshare(1)"),
                Ok(done) => assert!(done.status.success(), "{done:?}"),
            }
            return;
        }
        let keep = tempfile::tempdir().unwrap();
        let top = keep.path().canonicalize().unwrap();
        let access = |_| Access {
            mode: 0o6751,
            owner: Some((ALICE, ALICE)),
        };
        let mut told = Vec::new();
        let temporary = || OsString::from(".t");
        let not_given = |left| told.push(left);
        let dir = Dir::open(&top).unwrap();
        dir.make_dirs(&["made".into()], temporary, access, not_given)
            .unwrap();
        let what = NotGiven {
            path: top.join("made"),
            what: "its owner",
            errno: Errno::INVAL,
        };
        assert_eq!(told, [what]);
        assert_eq!(mode(&top.join("made")), 0o751);
    }
}
