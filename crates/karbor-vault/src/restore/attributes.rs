//! Sets what a node says besides content: owner, extended attributes, mode, times. In this order: a new
//! owner takes away setuid bits and capabilities, an access list changes the mode, and all of it the times.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::Run;
use crate::{VaultError, fsio, node::Node, time::Time};

/// Attributes that are removed if the snapshot does not have them. Others, such as security labels, are
/// the system's affair.
fn is_ours(name: &str) -> bool {
    name.starts_with("user.") || name.starts_with("system.posix_acl_")
}

/// The setuid and setgid bits.
const SET_ID: u32 = 0o6000;

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

impl Run {
    /// Is an existing file or directory other than its node says?
    pub(super) fn attributes_differ(&self, node: &Node, stat: &Stat) -> bool {
        let owner = (stat.st_uid, stat.st_gid) != (node.uid, node.gid);
        stat.st_mode & 0o7777 != node.mode
            || fsio::mtime(stat) != node.mtime
            || (owner && self.is_root)
    }

    /// The mode after the owner was set. Without its owner, a file must not run as whoever has it now.
    fn mode_if(
        &self,
        owned: Result<(), Errno>,
        node: &Node,
        path: &Path,
    ) -> Result<Mode, VaultError> {
        match owned {
            Ok(()) => Ok(Mode::from_raw_mode(node.mode)),
            Err(Errno::PERM) => {
                self.warn(path, "its owner", Errno::PERM);
                Ok(Mode::from_raw_mode(node.mode & !SET_ID))
            }
            Err(error) => Err(VaultError::target(path.to_string_lossy(), error)),
        }
    }

    /// For files and directories.
    pub(super) fn set_attributes(
        &self,
        fd: BorrowedFd<'_>,
        node: &Node,
        path: &Path,
    ) -> Result<(), VaultError> {
        let failed = |error: Errno| VaultError::target(path.to_string_lossy(), error);
        let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        let owned = rustix::fs::fchown(fd, owner.0, owner.1);
        let mode = self.mode_if(owned, node, path)?;
        self.set_xattrs(fd, node, path)?;
        rustix::fs::fchmod(fd, mode).map_err(failed)?;
        rustix::fs::futimens(fd, &times(node)).map_err(failed)
    }

    fn set_xattrs(&self, fd: BorrowedFd<'_>, node: &Node, path: &Path) -> Result<(), VaultError> {
        let failed = |reason: String| VaultError::target(path.to_string_lossy(), reason);
        let present = fsio::xattrs(
            |buffer| rustix::fs::flistxattr(fd, buffer),
            |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
        )
        .map_err(failed)?;
        for (name, _) in &present {
            if is_ours(name)
                && !node.xattrs.iter().any(|(wanted, _)| wanted == name)
                && let Err(error) = rustix::fs::fremovexattr(fd, name.as_str())
            {
                self.warn(path, "the absence of an extended attribute", error);
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

    /// Attributes that this file system or this user may not have are counted, not failed for.
    fn xattr_set(&self, set: Result<(), Errno>, name: &str, path: &Path) -> Result<(), VaultError> {
        match set {
            Ok(()) => Ok(()),
            Err(error @ (Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL)) => {
                self.warn(path, "an extended attribute", error);
                Ok(())
            }
            Err(error) => Err(VaultError::target(
                path.to_string_lossy(),
                format!("extended attribute '{name}': {error}"),
            )),
        }
    }

    /// For links and special files, which cannot be opened.
    pub(super) fn set_attributes_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        node: &Node,
        path: &Path,
    ) -> Result<(), VaultError> {
        let failed = |error: Errno| VaultError::target(path.to_string_lossy(), error);
        let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        let owned = rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
        let mode = self.mode_if(owned, node, path)?;
        let by_path = fsio::proc_path(dir, name);
        for (name, value) in &node.xattrs {
            let set = rustix::fs::lsetxattr(&by_path, name.as_str(), value, XattrFlags::empty());
            self.xattr_set(set, name, path)?;
        }
        if node.kind != crate::node::Kind::Symlink {
            // Through a descriptor, so that a link put in its place meanwhile is not followed.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            let by_fd = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
            rustix::fs::chmod(by_fd, mode).map_err(failed)?;
        }
        rustix::fs::utimensat(dir, name, &times(node), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }
}
