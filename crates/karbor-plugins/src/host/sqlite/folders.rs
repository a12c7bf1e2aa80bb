//! The folders above a database: a lost one comes back as it was, or its application could not use it.

use karbor_fs::{Access, Dir};
use rustix::{
    fs::{Mode, OFlags, Stat, fstat, openat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::super::places::FilePlace;

/// Where a database comes from, and whose the folders above it were.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DatabasePlace {
    #[serde(flatten)]
    pub(super) file: FilePlace,
    /// The nearest first; none in checkpoints of before.
    #[serde(default)]
    pub(super) above: Vec<Folder>,
}

/// Whose a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    mode: u32,
    owner: (u32, u32),
}

impl From<Stat> for Folder {
    fn from(stat: Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
        }
    }
}

/// Looks at a directory and those above it, the nearest first, by its descriptor; as far as the service may.
pub(super) fn above(dir: &Dir) -> Result<Vec<Folder>, Errno> {
    let levels = dir.path().components().count().saturating_sub(1);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut found = Vec::new();
    let mut at = openat(dir, ".", flags, Mode::empty())?;
    for _ in 0..levels {
        found.push(Folder::from(fstat(&at)?));
        match openat(&at, "..", flags, Mode::empty()) {
            Ok(next) => at = next,
            Err(_) => break,
        }
    }
    Ok(found)
}

/// What lost folders above a database become.
#[derive(Debug)]
pub(super) enum Folders {
    /// What they were.
    Known(Vec<Folder>),
    /// The checkpoint does not say: the nearest is closed to all but the owner of the database.
    Unknown(Option<(u32, u32)>),
    /// Folders of the service's own, below a restore root.
    Own,
}

impl Folders {
    /// For a database that goes back to its place, or to another.
    pub(super) fn of(place: &DatabasePlace, goes_back: bool) -> Self {
        match (goes_back, place.above.is_empty()) {
            (false, _) => Self::Own,
            (true, false) => Self::Known(place.above.clone()),
            (true, true) => Self::Unknown(place.file.owner),
        }
    }

    /// What the folder becomes that is so many levels above the one that the database lies in.
    pub(super) fn access(&self, levels: usize) -> Access {
        let own = Access {
            mode: 0o755,
            owner: None,
        };
        match self {
            Self::Known(above) => above.get(levels).map_or(own, |folder| Access {
                mode: folder.mode,
                owner: Some(folder.owner),
            }),
            Self::Unknown(owner) if levels == 0 => Access {
                mode: 0o700,
                owner: *owner,
            },
            Self::Unknown(_) | Self::Own => own,
        }
    }

    /// What a person should know of folders that were made.
    pub(super) fn warning(&self) -> Option<String> {
        matches!(self, Self::Unknown(_)).then(|| {
            "the folder of the database was not there, and the checkpoint does not say whose it was: it belongs to the owner of the database, and nobody else can enter it: see that its application can".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn of_a_checkpoint_of_before_the_nearest_folder_is_the_owner_s_alone() {
        let text =
            r#"{"path": "/srv/a/s.db", "resolved": "/srv/a/s.db", "mode": 384, "owner": [7, 8]}"#;
        let place: DatabasePlace = serde_json::from_str(text).unwrap();
        let folders = Folders::of(&place, true);
        let nearest = folders.access(0);
        assert_eq!((nearest.mode, nearest.owner), (0o700, Some((7, 8))));
        assert_eq!(folders.access(1).mode, 0o755);
        assert!(folders.warning().unwrap().contains("nobody else"));
        assert!(Folders::of(&place, false).warning().is_none());
    }
}
