//! Reads regular files.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    dir::Content,
    intake::IntakeError,
    walk::{Look, Open, Walker, is_gone},
};
use crate::{
    VaultError, chunker,
    engine::Sink,
    fsio,
    id::Id,
    node::{Kind, Node},
};

/// What was found at the root path.
pub(super) struct RootNode {
    pub(super) above: Vec<Node>,
    pub(super) node: Node,
    /// Of a file: its blobs, once they have arrived.
    pub(super) content: Option<Arc<Content>>,
}

/// Opens a file to read it, leaving its access time alone if that is allowed. Does not wait for the
/// other end if it is a pipe.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for it.
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        done => done,
    }
}

fn shrank(found: u64, size: u64) -> String {
    format!("it was cut short while it was read: {found} of {size} bytes were there")
}

impl Walker {
    /// A regular file. `stat` is known if the file may be as it was before.
    pub(super) fn file(
        &mut self,
        open: &Open<'_>,
        relative: &Path,
        name: &OsStr,
        stat: Option<Stat>,
        before: Option<&Node>,
    ) -> Result<Look, VaultError> {
        if let (Some(stat), Some(before), Some(parent)) = (&stat, before, &self.parent)
            && parent.is_unmodified(before, stat)
        {
            self.unmodified(open, name, stat, before);
            return Ok(Look::Done);
        }
        let fd = match open_file(open.fd, name) {
            Ok(fd) => fd,
            Err(error) if is_gone(error) => return Ok(Look::Gone),
            // A link or a socket by now.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(Look::Again),
            Err(error) => return Err(self.error(relative, error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(relative, error))?;
        if fsio::kind_of(&stat) != Some(Kind::File) {
            return Ok(Look::Again);
        }
        let mut node = fsio::node_of(name, Kind::File, &stat, &self.names);
        node.xattrs = self.fd_xattrs(fd.as_fd(), relative)?;
        let node = open.dir.add(node);
        let file = File::from(fd);
        let size = self
            .content(
                &open.dir,
                || open.dir.next_blob(node),
                &file,
                fsio::size_of(&stat),
            )
            .map_err(|error| error.of(|reason| self.error(relative, reason)))?;
        open.dir.update(node, |node| node.size = size);
        let after = rustix::fs::fstat(&file).map_err(|error| self.error(relative, error))?;
        if (after.st_size, fsio::mtime(&after)) != (stat.st_size, fsio::mtime(&stat)) {
            self.summary.changed += 1;
        }
        self.count_file(size);
        Ok(Look::Done)
    }

    fn unmodified(&mut self, open: &Open<'_>, name: &OsStr, stat: &Stat, before: &Node) {
        let mut node = fsio::node_of(name, Kind::File, stat, &self.names);
        node.content.clone_from(&before.content);
        node.xattrs.clone_from(&before.xattrs);
        self.count_file(node.size);
        self.summary.unmodified += 1;
        self.intake.writer.control.progress.add_bytes(node.size);
        open.dir.add(node);
    }

    fn count_file(&mut self, size: u64) {
        self.summary.files += 1;
        self.summary.bytes += size;
    }

    /// Reads what a file holds; answers with its size.
    fn content<S: Sink + 'static>(
        &mut self,
        sink: &Arc<S>,
        mut next_slot: impl FnMut() -> usize,
        mut file: &File,
        size: u64,
    ) -> Result<u64, IntakeError> {
        let Self { intake, buffer, .. } = self;
        if size == 0 {
            // Mostly it is just empty: no need for the large buffer.
            let mut probe = [0; 256];
            let n = file.read(&mut probe).map_err(IntakeError::Read)?;
            return match n {
                0 => Ok(0),
                n => intake.cut(probe[..n].chain(file), buffer, sink, next_slot),
            };
        }
        let found = if size <= chunker::MIN as u64 {
            let mut chunk = Vec::with_capacity(size as usize);
            file.take(size)
                .read_to_end(&mut chunk)
                .map_err(IntakeError::Read)?;
            let found = chunk.len() as u64;
            intake
                .blob(chunk, sink.clone(), next_slot())
                .map_err(IntakeError::Vault)?;
            found
        } else {
            intake.cut(file.take(size), buffer, sink, next_slot)?
        };
        match found < size {
            true => Err(IntakeError::Read(io::Error::other(shrank(found, size)))),
            false => Ok(found),
        }
    }

    /// Reads what the root path names: a directory with all below, or one file.
    pub(super) fn read_root(
        &mut self,
        tree: &Arc<Mutex<Option<Id>>>,
    ) -> Result<RootNode, VaultError> {
        let path = self.root_path.clone();
        let nowhere = Path::new("");
        let stat = rustix::fs::stat(&path).map_err(|error| self.error(nowhere, error))?;
        let above = super::nodes_above(&path, &self.names)?;
        match fsio::kind_of(&stat) {
            Some(Kind::Dir) => {
                let before = self.tree_before(&path)?;
                let node = self.walk(before, tree.clone())?;
                Ok(RootNode {
                    above,
                    node,
                    content: None,
                })
            }
            Some(Kind::File) => self.root_file(&path, above),
            _ => Err(self.error(nowhere, "it is neither a directory nor a file")),
        }
    }

    /// The tree that the parent snapshot has at a path.
    fn tree_before(&mut self, path: &Path) -> Result<Option<Id>, VaultError> {
        let Some(parent) = &mut self.parent else {
            return Ok(None);
        };
        match path.file_name() {
            None => Ok(Some(parent.root())),
            Some(_) => Ok(parent.find(path)?.and_then(|node| node.subtree)),
        }
    }

    fn root_file(&mut self, path: &Path, above: Vec<Node>) -> Result<RootNode, VaultError> {
        let nowhere = Path::new("");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| self.error(nowhere, error))?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| self.error(nowhere, error))?;
        if fsio::kind_of(&stat) != Some(Kind::File) {
            return Err(self.error(nowhere, "it changes its kind while it is read"));
        }
        let name = path.file_name().unwrap_or_default();
        let mut node = fsio::node_of(name, Kind::File, &stat, &self.names);
        node.xattrs = self.fd_xattrs(fd.as_fd(), nowhere)?;
        let content = Arc::new(Content::default());
        let sink = content.clone();
        let size = fsio::size_of(&stat);
        node.size = self
            .content(&sink, || content.next_blob(), &File::from(fd), size)
            .map_err(|error| error.of(|reason| self.error(nowhere, reason)))?;
        self.count_file(node.size);
        Ok(RootNode {
            above,
            node,
            content: Some(content),
        })
    }
}
