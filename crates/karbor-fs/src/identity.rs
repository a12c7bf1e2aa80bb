//! Which file or directory it is, whatever becomes of its name.

use rustix::fs::{AtFlags, Stat, StatxFlags};

use crate::{Dir, Refused};

/// Which file or directory of the system it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what was looked at.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// Which directory it is, whatever becomes of its name. A number of the file system alone does not tell: the next
/// directory may get that of one that was removed, so the time when it was made does, too, where it is known. That
/// is so of directories that the caller made: see [`of_old`](Self::of_old).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    identity: Identity,
    /// Seconds and nanoseconds.
    born: Option<(i64, u32)>,
}

impl Known {
    /// The same, of a directory that was there before: by its numbers alone. In a layered file system (overlayfs) one
    /// of a lower layer is copied when something in it is changed for the first time, which is when it was made then.
    #[must_use]
    pub fn of_old(self) -> Self {
        Self { born: None, ..self }
    }

    pub(crate) fn identity(self) -> Identity {
        self.identity
    }

    /// Is the one that was `found` the one that is known?
    #[must_use]
    pub fn is(self, found: Self) -> bool {
        self.identity == found.identity && (self.born.is_none() || self.born == found.born)
    }
}

impl Dir {
    /// What this directory is: owner, mode, times.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn stat(&self) -> Result<Stat, Refused> {
        rustix::fs::fstat(self).map_err(|errno| Refused::system(self.path(), errno))
    }

    /// Which directory this is.
    ///
    /// # Errors
    /// [`Refused::System`].
    pub fn known(&self) -> Result<Known, Refused> {
        let wanted = StatxFlags::BTIME;
        let born = rustix::fs::statx(self, "", AtFlags::EMPTY_PATH, wanted).ok();
        let born = born.filter(|found| found.stx_mask & wanted.bits() != 0);
        Ok(Known {
            identity: Identity::of(&self.stat()?),
            born: born.map(|found| (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
        })
    }
}
