//! Sets what a node says besides content: owner, extended attributes, mode, times. In this order: a new
//! owner takes away setuid bits and capabilities, an access list changes the mode, and all of it the times.
//!
//! A file never gets attributes after it has its name: it gets them while it is being made, where nobody else can
//! have it open. What a file system or the service's account cannot do is warned of.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use karbor_fs::Dir;
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::run::{Restoring, is_refusal};
use crate::{VaultError, fsio, node::Node, time::Time};

/// Attributes that are removed if the snapshot does not have them. Others, such as security labels, are
/// the system's affair.
fn is_ours(name: &str) -> bool {
    name.starts_with("user.") || name.starts_with("system.posix_acl_")
}

/// The setuid and setgid bits.
const SET_ID: u32 = 0o6000;
const CAPABILITIES: &str = "security.capability";

fn times(node: &Node) -> Timestamps {
    let time = |time: Time| Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time(node.atime),
        last_modification: time(node.mtime),
    }
}

/// Does a file run with other rights than those of the account that runs it?
pub(super) fn is_privileged(node: &Node) -> bool {
    node.mode & SET_ID != 0 || node.xattrs.iter().any(|(name, _)| name == CAPABILITIES)
}

/// The extended attributes of an open file or directory; none where they cannot be read.
pub(super) fn xattrs_of(fd: BorrowedFd<'_>) -> Vec<(String, Vec<u8>)> {
    fsio::xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
    .unwrap_or_default()
}

impl Restoring {
    /// Is what is there other than its node says, content aside?
    pub(super) fn attributes_differ(
        &self,
        node: &Node,
        stat: &Stat,
        xattrs: &[(String, Vec<u8>)],
    ) -> bool {
        let owner = (stat.st_uid, stat.st_gid) != (node.uid, node.gid);
        let lost = |xattr: &(String, Vec<u8>)| !xattrs.contains(xattr);
        let added = |(name, _): &(String, Vec<u8>)| {
            is_ours(name) && !node.xattrs.iter().any(|(wanted, _)| wanted == name)
        };
        stat.st_mode & 0o7777 != node.mode
            || fsio::mtime(stat) != node.mtime
            || (owner && self.is_root)
            || node.xattrs.iter().any(lost)
            || xattrs.iter().any(added)
    }

    /// The mode after the owner was set. Without its owner, a file must not run as the one who has it now.
    fn mode_if(
        &self,
        owned: Result<(), Errno>,
        node: &Node,
        path: &Path,
    ) -> Result<Mode, VaultError> {
        match owned {
            Ok(()) => Ok(Mode::from_raw_mode(node.mode)),
            Err(error) if is_refusal(error) => {
                self.warn(path, "its owner", error);
                Ok(Mode::from_raw_mode(node.mode & !SET_ID))
            }
            Err(error) => Err(VaultError::target(path.to_string_lossy(), error)),
        }
    }

    /// That something was done, or is not done here.
    fn could(&self, done: Result<(), Errno>, what: &str, path: &Path) -> Result<(), VaultError> {
        match done {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(error) => {
                self.warn(path, what, error);
                Ok(())
            }
            Err(error) => Err(VaultError::target(path.to_string_lossy(), error)),
        }
    }

    /// For files that are being made, and directories.
    pub(super) fn set_attributes(
        &self,
        fd: BorrowedFd<'_>,
        node: &Node,
        path: &Path,
    ) -> Result<(), VaultError> {
        let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        let owned = rustix::fs::fchown(fd, owner.0, owner.1);
        let mode = self.mode_if(owned, node, path)?;
        self.set_xattrs(fd, node, path)?;
        self.could(rustix::fs::fchmod(fd, mode), "its mode", path)?;
        self.could(rustix::fs::futimens(fd, &times(node)), "its times", path)
    }

    fn set_xattrs(&self, fd: BorrowedFd<'_>, node: &Node, path: &Path) -> Result<(), VaultError> {
        let present = xattrs_of(fd);
        for (name, _) in &present {
            if is_ours(name)
                && !node.xattrs.iter().any(|(wanted, _)| wanted == name)
                && let Err(error) = rustix::fs::fremovexattr(fd, name.as_str())
            {
                let what = format!("the absence of the extended attribute '{name}'");
                self.warn(path, &what, error);
            }
        }
        for xattr in &node.xattrs {
            if !present.contains(xattr) {
                let (name, value) = xattr;
                let set = rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty());
                self.xattr_set(set, name, path)?;
            }
        }
        Ok(())
    }

    fn xattr_set(&self, set: Result<(), Errno>, name: &str, path: &Path) -> Result<(), VaultError> {
        let what = format!("its extended attribute '{name}'");
        match set {
            // There is room for little of them in an inode, whatever is left on the disk.
            Err(error @ (Errno::NOSPC | Errno::TOOBIG)) => {
                self.warn(path, &what, error);
                Ok(())
            }
            set => self.could(set, &what, path),
        }
    }

    /// For links and special files, which cannot be opened. `dir` is closed to others: nobody can
    /// exchange what is named.
    pub(super) fn set_attributes_at(
        &self,
        dir: &Dir,
        name: &OsStr,
        node: &Node,
        path: &Path,
    ) -> Result<(), VaultError> {
        let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        let owned = rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
        let mode = self.mode_if(owned, node, path)?;
        let by_path = fsio::proc_path(dir.as_fd(), name);
        for (name, value) in &node.xattrs {
            let set = rustix::fs::lsetxattr(&by_path, name.as_str(), value, XattrFlags::empty());
            self.xattr_set(set, name, path)?;
        }
        if node.kind != crate::node::NodeKind::Symlink {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let changed = rustix::fs::openat(dir, name, flags, Mode::empty()).and_then(|fd| {
                let by_fd = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
                rustix::fs::chmod(by_fd, mode)
            });
            self.could(changed, "its mode", path)?;
        }
        let set = rustix::fs::utimensat(dir, name, &times(node), AtFlags::SYMLINK_NOFOLLOW);
        self.could(set, "its times", path)
    }
}
