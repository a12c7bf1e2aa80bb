//! What the system tells of files, as nodes of a tree.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::Read as _,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, Stat},
    io::{Errno, Result},
};

use crate::{
    node::{Node, NodeKind},
    time::Time,
};

/// The file that marks a cache directory, and how it begins (<https://bford.info/cachedir/>).
pub(crate) const CACHE_TAG: (&str, &[u8]) = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55",
);

/// Is it marked as a cache, whose content can be made again?
pub(crate) fn is_cache(dir: BorrowedFd<'_>) -> bool {
    let mut found = [0; CACHE_TAG.1.len()];
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(tag) = rustix::fs::openat(dir, CACHE_TAG.0, flags, Mode::empty()) else {
        return false;
    };
    let is_file = rustix::fs::fstat(&tag).is_ok_and(|stat| kind_of(&stat) == Some(NodeKind::File));
    is_file && File::from(tag).read_exact(&mut found).is_ok() && found == CACHE_TAG.1
}

/// A path that stands for an entry of an open directory, for calls that take no directory.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

/// Names of users and groups, from this host's files.
#[derive(Default)]
pub(crate) struct Names {
    users: HashMap<u32, Arc<str>>,
    groups: HashMap<u32, Arc<str>>,
    nobody: Option<Arc<str>>,
}

impl Names {
    pub(crate) fn load() -> Self {
        let read = |path| {
            // An id without a name is no failure.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let names = text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
                Some((id, Arc::from(name)))
            });
            names.collect()
        };
        Self {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
            nobody: Some(Arc::from("")),
        }
    }

    fn get(&self, names: &HashMap<u32, Arc<str>>, id: u32) -> Arc<str> {
        let name = names.get(&id).or(self.nobody.as_ref());
        name.cloned().unwrap_or_else(|| Arc::from(""))
    }
}

/// What kind of node `st_mode` speaks of.
pub(crate) fn kind_of(stat: &Stat) -> Option<NodeKind> {
    use rustix::fs::FileType;
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::Dev,
        FileType::CharacterDevice => NodeKind::Chardev,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => return None,
    })
}

pub(crate) fn mtime(stat: &Stat) -> Time {
    Time::new(
        stat.st_mtime,
        i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    )
}

pub(crate) fn ctime(stat: &Stat) -> Time {
    Time::new(
        stat.st_ctime,
        i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
    )
}

pub(crate) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// A node with all that `stat` tells.
pub(crate) fn node_of(name: &OsStr, kind: NodeKind, stat: &Stat, names: &Names) -> Node {
    let mut node = Node::new(name.as_bytes().to_vec(), kind);
    node.mode = stat.st_mode & 0o7777;
    node.mtime = mtime(stat);
    node.ctime = ctime(stat);
    node.atime = Time::new(
        stat.st_atime,
        i64::try_from(stat.st_atime_nsec).unwrap_or(0),
    );
    node.uid = stat.st_uid;
    node.gid = stat.st_gid;
    node.user = names.get(&names.users, stat.st_uid);
    node.group = names.get(&names.groups, stat.st_gid);
    node.inode = stat.st_ino;
    node.device_id = stat.st_dev;
    match kind {
        NodeKind::File => {
            node.size = size_of(stat);
            node.links = stat.st_nlink;
        }
        NodeKind::Symlink => node.links = stat.st_nlink,
        NodeKind::Dev | NodeKind::Chardev => {
            node.device = stat.st_rdev;
            node.links = stat.st_nlink;
        }
        NodeKind::Dir | NodeKind::Fifo | NodeKind::Socket => {}
    }
    node
}

/// The extended attributes that `list` and `get` give; or why one of them, or all, cannot be read.
pub(crate) fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&str, &mut [u8]) -> Result<usize>,
) -> std::result::Result<Vec<(String, Vec<u8>)>, String> {
    match read_xattrs(list, get) {
        (found, None) => Ok(found),
        (_, Some(trouble)) => Err(trouble),
    }
}

/// Those extended attributes that can be read, and why the first that cannot cannot.
pub(crate) fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&str, &mut [u8]) -> Result<usize>,
) -> (Vec<(String, Vec<u8>)>, Option<String>) {
    let mut found = Vec::new();
    let names = match grow(&list) {
        Ok(names) => names,
        // A file system without them.
        Err(Errno::NOTSUP | Errno::NOENT | Errno::NOSYS) => return (found, None),
        Err(error) => {
            let trouble = format!("its extended attributes cannot be listed: {error}");
            return (found, Some(trouble));
        }
    };
    let mut trouble = None;
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Ok(name) = std::str::from_utf8(name) else {
            trouble.get_or_insert_with(|| {
                "the name of one of its extended attributes is not UTF-8".to_owned()
            });
            continue;
        };
        match grow(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_owned(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA | Errno::NOENT) => {}
            Err(error) => {
                trouble.get_or_insert_with(|| {
                    format!("its extended attribute '{name}' cannot be read: {error}")
                });
            }
        }
    }
    (found, trouble)
}

fn grow(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    // What fits into the first buffer is nearly always all; the kernel's limit is 64 KiB.
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(size) => return Ok(small[..size].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; 64 << 10];
    let size = read(&mut large)?;
    large.truncate(size);
    Ok(large)
}
