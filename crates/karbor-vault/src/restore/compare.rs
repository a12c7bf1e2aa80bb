//! Compares what is there with what the snapshot has. Size and time say nothing: a file may be damaged, or put
//! there by somebody, with both as they should be.

use std::{
    io::Read as _,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering},
};

use karbor_fs::{Dir, File, Staging};
use rustix::fs::Stat;

use super::{
    attributes::{is_privileged, xattrs_of},
    file::{Batch, Writing},
    run::{Job, Restoring},
};
use crate::{
    ChangeKind, Overwrite, VaultError,
    engine::Decoder,
    fsio,
    id::Id,
    node::{Node, NodeKind},
    pack::BlobKind,
};

/// A file that has the size and time that the snapshot says: is it the same?
pub(super) struct Check {
    pub(super) staging: Arc<Staging>,
    pub(super) node: Node,
}

/// What was found.
enum Found {
    /// All is right.
    Same(Box<File>),
    /// The content is.
    Content,
    /// It is another file.
    Other,
}

impl Job for Check {
    /// Compares the file, and writes it anew where it differs.
    fn carry_out(
        self: Box<Self>,
        run: &Restoring,
        batch: &mut Batch,
        decoder: &mut Decoder,
    ) -> Result<(), VaultError> {
        let found = self.look(run)?;
        let is_never = run.options.overwrite == Overwrite::Never;
        match found {
            Found::Same(file) => {
                if self.node.links > 1 && !run.is_dry() {
                    run.stash(&file.file, &self.node)?;
                }
                run.unchanged.fetch_add(1, Ordering::Relaxed);
                run.control.progress.add_bytes(self.node.size);
                return Ok(());
            }
            // It came into the place while it was being restored.
            Found::Other if is_never => {
                run.skip(&self.path());
                return Ok(());
            }
            Found::Content => run.note(&self.path(), ChangeKind::Metadata),
            Found::Other => run.note(&self.path(), ChangeKind::Overwrite),
        }
        if run.is_dry() {
            return Ok(());
        }
        for segment in Writing::begin(run, self.staging, self.node, true)? {
            if let Some(file) = segment.write(run, decoder)? {
                batch.add(run, file)?;
            }
        }
        Ok(())
    }
}

impl Check {
    fn path(&self) -> std::path::PathBuf {
        self.staging.place().path_of(&self.node.os_name())
    }

    fn look(&self, run: &Restoring) -> Result<Found, VaultError> {
        // What cannot be opened or read is replaced.
        let Ok(mut file) = self.staging.place().open_file(&self.node.os_name()) else {
            return Ok(Found::Other);
        };
        if !has_content(run, &self.node, &mut file)? {
            return Ok(Found::Other);
        }
        let xattrs = xattrs_of(file.file.as_fd());
        let differs = run.attributes_differ(&self.node, &file.stat, &xattrs);
        Ok(match differs || is_privileged(&self.node) {
            true => Found::Content,
            false => Found::Same(Box::new(file)),
        })
    }
}

pub(super) fn has_content(
    run: &Restoring,
    node: &Node,
    file: &mut File,
) -> Result<bool, VaultError> {
    let mut buffer = Vec::new();
    let mut size = 0;
    for blob in &node.content {
        run.check()?;
        // A blob that no index knows: to write the file tells of the damage.
        let Ok(at) = run.reader.locate(BlobKind::Data, blob) else {
            return Ok(false);
        };
        size += u64::from(at.plain_length());
        buffer.resize(at.plain_length() as usize, 0);
        if file.file.read_exact(&mut buffer).is_err() || Id::of(&buffer) != *blob {
            return Ok(false);
        }
    }
    Ok(size == node.size && fsio::size_of(&file.stat) == size)
}

/// May a file be the same, by what a look tells?
pub(super) fn may_be_same(node: &Node, present: &Stat) -> bool {
    fsio::kind_of(present) == Some(NodeKind::File)
        && fsio::size_of(present) == node.size
        && fsio::mtime(present) == node.mtime
}

/// Is a link or special file as the snapshot says?
pub(super) fn is_same_special(run: &Restoring, dir: &Dir, node: &Node, present: &Stat) -> bool {
    let name = node.os_name();
    let is_same = fsio::kind_of(present) == Some(node.kind)
        && match node.kind {
            NodeKind::Symlink => rustix::fs::readlinkat(dir, &name, Vec::new())
                .is_ok_and(|target| target.as_bytes() == node.target),
            NodeKind::Dev | NodeKind::Chardev => present.st_rdev == node.device,
            NodeKind::Fifo | NodeKind::Socket => true,
            NodeKind::Dir | NodeKind::File => false,
        };
    if !is_same {
        return false;
    }
    let path = fsio::proc_path(dir.as_fd(), &name);
    let xattrs = fsio::xattrs(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |name, buffer| rustix::fs::lgetxattr(&path, name, buffer),
    );
    !run.attributes_differ(node, present, &xattrs.unwrap_or_default())
}
