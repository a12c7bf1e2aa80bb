//! Whether only trusted accounts can change a file that the service obeys.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, Stat},
    io::Errno,
};

use crate::{
    Refused,
    walk::{Parents, trusted, walk},
};

/// Checks that nobody but root and the service's own account can change what is at `path`, or exchange
/// it: the file or directory itself and every directory above belong to one of the two and are not open
/// to others (as `StrictModes` of sshd_config(5) asks of a user's keys). A sticky directory above, such
/// as `/tmp`, may be open; and so may what lies in a directory that only its owner can enter, such as a
/// home of mode 0700 where the umask is 002.
///
/// # Errors
/// [`Refused::Open`] names the first that others can change, [`Refused::Link`] a link that they could
/// have put there, [`Refused::System`] what is not there or cannot be looked at.
pub fn closed(path: &Path) -> Result<(), Refused> {
    let arrived = walk(path, Parents::Walked)?;
    for left in &arrived.left {
        way_is_closed(left, Step::OnTheWay)?;
    }
    let mut straight = arrived.path;
    straight.extend(arrived.rest);
    way_is_closed(&straight, Step::Last)
}

/// Makes a directory that is [closed], and those that lead to it, if they are not there: for their owner only (0700).
/// Nothing is made where others could lead the path elsewhere.
///
/// # Errors
/// As [`closed`]; [`Refused::System`] also what cannot be made.
pub fn make_closed(path: &Path) -> Result<(), Refused> {
    let straight = closed_way(&without_parents(path))?;
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&straight);
    made.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Refused::system(&straight, errno)
    })?;
    closed(&straight)
}

/// Looks at all that a path without links and `..` leads through, and at what it leads to, which is `last`.
fn way_is_closed(path: &Path, last: Step) -> Result<(), Refused> {
    let names: Vec<_> = path.iter().skip(1).collect();
    let mut at = PathBuf::from("/");
    let mut place = Step::OnTheWay;
    for left in (0..=names.len()).rev() {
        if left == 0 && place == Step::OnTheWay {
            place = last;
        }
        let stat = look(&at, place)?;
        if stat.st_mode & 0o011 == 0 {
            place = Step::Sheltered;
        }
        if let Some(name) = names.get(names.len() - left) {
            at.push(name);
        }
    }
    Ok(())
}

/// The same path without `..` in it: each leads to the directory above the one that is there, or would be. A path that
/// others could lead elsewhere on the way to one stays as it is, for [`closed`] to refuse.
#[must_use]
pub fn without_parents(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for component in path.components() {
        if component != Component::ParentDir {
            straight.push(component);
            continue;
        }
        match closed_way(&straight) {
            Ok(way) => straight = way,
            Err(_) => return path.to_owned(),
        }
        straight.pop();
    }
    straight
}

/// The path without links, if nobody else can exchange what is on it.
fn closed_way(path: &Path) -> Result<PathBuf, Refused> {
    let arrived = walk(path, Parents::Walked)?;
    let mut walked = arrived.left.iter().chain([&arrived.path]);
    walked.try_for_each(|walked| way_is_closed(walked, Step::OnTheWay))?;
    Ok(arrived.path.join(arrived.rest.iter().collect::<PathBuf>()))
}

/// Where on the path one of them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A directory above, whose sticky bit protects the next, which is looked at in its turn.
    OnTheWay,
    /// What is obeyed.
    Last,
    /// Below a directory that nobody else can enter: what its mode allows others is out of their reach.
    Sheltered,
}

fn look(path: &Path, place: Step) -> Result<Stat, Refused> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(CWD, path, flags, Mode::empty()).and_then(rustix::fs::fstat);
    let stat = found.map_err(|errno| Refused::system(path, errno))?;
    match reason(path, &stat, place) {
        None => Ok(stat),
        Some(reason) => Err(Refused::Open {
            path: path.to_owned(),
            reason,
        }),
    }
}

/// What lets others change it, and what to do.
fn reason(path: &Path, stat: &Stat, place: Step) -> Option<String> {
    let path = path.display();
    if !trusted(stat.st_uid) {
        let own = rustix::process::geteuid().as_raw();
        let wanted = match own {
            0 => "root".to_owned(),
            own => format!("root or the service's account ({own})"),
        };
        return Some(format!(
            "belongs to the account {}, not to {wanted}: run karbor as that account, or chown {own} {path}",
            stat.st_uid
        ));
    }
    let open = stat.st_mode & 0o022;
    let is_protected = match place {
        Step::OnTheWay => stat.st_mode & 0o1000 != 0,
        Step::Last => false,
        Step::Sheltered => true,
    };
    (open != 0 && !is_protected).then(|| {
        let others = if open & 0o002 != 0 {
            "everybody"
        } else {
            "its group"
        };
        format!(
            "may be changed by {others} (mode {:04o}): chmod go-w {path}",
            stat.st_mode & 0o7777
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic)]

    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn open_one(path: &Path) -> Option<PathBuf> {
        match closed(path) {
            Ok(()) => None,
            Err(Refused::Open { path, .. }) => Some(path),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_is_closed_if_all_that_leads_to_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        mode(&top, 0o755);
        let inner = top.join("inner");
        fs::create_dir(&inner).unwrap();
        mode(&inner, 0o755);
        let file = inner.join("shop.toml");
        fs::write(&file, "").unwrap();
        mode(&file, 0o644);
        assert_eq!(open_one(&file), None);
        for bits in [0o664, 0o646] {
            mode(&file, bits);
            assert_eq!(open_one(&file).as_deref(), Some(file.as_path()));
        }
        mode(&file, 0o600);
        assert_eq!(open_one(&inner.join("../inner/shop.toml")), None);
        mode(&inner, 0o775);
        assert_eq!(open_one(&file).as_deref(), Some(inner.as_path()));
        // Sticky: others cannot exchange the file, which is ours; but as the last one they can add to it.
        mode(&inner, 0o1777);
        assert_eq!(open_one(&file), None);
        assert_eq!(open_one(&inner).as_deref(), Some(inner.as_path()));
    }

    #[test]
    fn a_path_goes_straight_where_nobody_can_lead_it_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        symlink("a/b", top.join("link")).unwrap();
        let straight = |path: &str| without_parents(&top.join(path));
        assert_eq!(straight("a/b"), top.join("a/b"));
        assert_eq!(straight("a/../new/state"), top.join("new/state"));
        assert_eq!(straight("link/../state"), top.join("a/state"));
        assert_eq!(straight("link/.."), top.join("a"));
        assert_eq!(straight("new/../state"), top.join("state"));
    }

    /// Debian's umask for people is 002, and their homes are 0700.
    #[test]
    fn what_nobody_else_can_reach_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let inner = top.join("inner");
        fs::create_dir(&inner).unwrap();
        mode(&inner, 0o777);
        let file = inner.join("shop.toml");
        fs::write(&file, "").unwrap();
        mode(&file, 0o666);
        mode(&top, 0o700);
        assert_eq!(open_one(&file), None);
        assert_eq!(open_one(&inner), None);
        for bits in [0o710, 0o701] {
            mode(&top, bits);
            assert_eq!(open_one(&file).as_deref(), Some(inner.as_path()));
        }
        // It does not shelter itself.
        mode(&top, 0o722);
        assert_eq!(open_one(&top).as_deref(), Some(top.as_path()));
    }

    #[test]
    fn nothing_is_made_where_another_account_leads_to() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        mode(&top, 0o755);
        let hers = top.join("hers");
        fs::create_dir(&hers).unwrap();
        fs::create_dir_all(top.join("elsewhere/dir")).unwrap();
        symlink(top.join("elsewhere/dir"), hers.join("link")).unwrap();
        chown(&hers, Some(1234), None).unwrap();
        let elsewhere = || fs::read_dir(top.join("elsewhere")).unwrap().count();
        let inside = || fs::read_dir(top.join("elsewhere/dir")).unwrap().count();
        for path in [
            "link/../state/deep",
            "link/state/deep",
            "new/../state",
            "new",
        ] {
            make_closed(&hers.join(path)).unwrap_err();
            assert_eq!((elsewhere(), inside()), (1, 0), "{path}");
            assert_eq!(fs::read_dir(&hers).unwrap().count(), 1, "{path}");
        }
        for path in ["state/deep", "new/../state/other", "state/deep"] {
            make_closed(&top.join(path)).unwrap();
        }
        for made in ["state", "state/deep", "state/other"] {
            let found = fs::metadata(top.join(made)).unwrap();
            assert_eq!(found.permissions().mode() & 0o7777, 0o700, "{made}");
        }
        assert!(!top.join("new").exists());
        fs::write(top.join("file"), "").unwrap();
        make_closed(&top.join("file")).unwrap_err();
        // Sticky: it can be made there, and is not one itself.
        mode(&top, 0o1777);
        make_closed(&top.join("own")).unwrap();
        make_closed(&top).unwrap_err();
    }

    #[test]
    fn what_belongs_to_another_account_is_open() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        mode(&top, 0o755);
        let inner = top.join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("hook");
        fs::write(&file, "").unwrap();
        chown(&file, Some(1234), None).unwrap();
        assert_eq!(open_one(&file).as_deref(), Some(file.as_path()));
        chown(&file, Some(0), None).unwrap();
        chown(&inner, Some(1234), None).unwrap();
        assert_eq!(open_one(&file).as_deref(), Some(inner.as_path()));
        // Its owner can exchange it for a link to elsewhere at any time, and so what comes after `..`.
        let policy = top.join("policy");
        fs::write(&policy, "").unwrap();
        fs::create_dir(inner.join("dir")).unwrap();
        let by_way = inner.join("dir/../../policy");
        assert_eq!(open_one(&by_way).as_deref(), Some(inner.as_path()));
        assert_eq!(without_parents(&by_way), by_way);
        assert_eq!(open_one(&policy), None);
        fs::create_dir_all(top.join("elsewhere/dir")).unwrap();
        fs::write(top.join("elsewhere/policy"), "").unwrap();
        symlink(top.join("elsewhere/dir"), inner.join("there")).unwrap();
        let by_link = inner.join("there/../policy");
        assert_eq!(closed(&by_link), Err(Refused::Link(inner.join("there"))));
        assert_eq!(without_parents(&by_link), by_link);
        fs::remove_file(inner.join("there")).unwrap();
        // Its owner can exchange the link at any time.
        symlink("/etc/passwd", inner.join("link")).unwrap();
        let refused = closed(&inner.join("link"));
        assert_eq!(refused, Err(Refused::Link(inner.join("link"))));
    }
}
