//! The snapshot before: what has not changed since is not read again.

use std::{path::Path, sync::Arc};

use rustix::fs::Stat;

use crate::{
    VaultError,
    engine::Decoder,
    fsio,
    id::Id,
    node::{Node, NodeKind},
    pack::BlobKind,
    reader::BlobReader,
    repository::read,
    time::Time,
};

pub(super) struct ParentTrees {
    reader: Arc<BlobReader>,
    decoder: Decoder,
    root: Id,
    time: Time,
}

impl ParentTrees {
    pub(super) fn new(reader: Arc<BlobReader>, root: Id, time: Time) -> Result<Self, VaultError> {
        Ok(Self {
            reader,
            decoder: Decoder::new()?,
            root,
            time,
        })
    }

    /// A tree; nothing if it is damaged: then everything in it is read again.
    pub(super) fn load_or_nothing(&mut self, tree: &Id) -> Result<Vec<Node>, VaultError> {
        match self.reader.tree(tree, &mut self.decoder) {
            Err(error @ VaultError::Damaged { .. }) => {
                tracing::warn!(%error, "the parent snapshot cannot be read; reading the files again");
                Ok(Vec::new())
            }
            done => done,
        }
    }

    /// The entry at an absolute path in the snapshot before; `None`: it had none.
    pub(super) fn find(&mut self, path: &Path) -> Result<Option<Node>, VaultError> {
        use std::os::unix::ffi::OsStrExt;
        let mut tree = self.root;
        let mut found = None;
        for component in path.components() {
            let std::path::Component::Normal(name) = component else {
                continue;
            };
            if let Some(before) = &found {
                let before: &Node = before;
                match before.subtree {
                    Some(subtree) => tree = subtree,
                    None => return Ok(None),
                }
            }
            let nodes = self.load_or_nothing(&tree)?;
            found = nodes.into_iter().find(|node| node.name == name.as_bytes());
            if found.is_none() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// Is a file as it was, going by what the file system says, and is its content still there?
    ///
    /// A file whose `ctime` is not well before the parent snapshot's time may have been changed after it was
    /// read without its time stamps showing it: they are coarse, up to 2 seconds on some file systems. It is
    /// read again.
    pub(super) fn is_unmodified(&self, before: &Node, stat: &Stat) -> bool {
        let same = before.kind == NodeKind::File
            && before.size == fsio::size_of(stat)
            && before.mtime == fsio::mtime(stat)
            && before.ctime == fsio::ctime(stat)
            && before.inode == stat.st_ino
            && is_settled(before.ctime, self.time);
        same && self.has_content(before)
    }

    /// All blobs are in packs that are in the bank, and they are as long as the file.
    fn has_content(&self, node: &Node) -> bool {
        for blob in &node.content {
            if let Err(error) = self.reader.look_for(BlobKind::Data, blob) {
                tracing::warn!(%error, "a pack could not be looked for; reading the file again");
                return false;
            }
        }
        let index = read(&self.reader.repository().index);
        let mut size = 0;
        for blob in &node.content {
            match index.find(BlobKind::Data, blob) {
                Some(at) if index.has(BlobKind::Data, blob) => size += u64::from(at.plain_length()),
                _ => return false,
            }
        }
        size == node.size
    }
}

/// What file systems' time stamps are off by, at worst (FAT's).
pub(super) const COARSEST: i64 = 2;

/// Would a change after `read` show in the time stamps of what had this one then?
pub(super) fn is_settled(ctime: Time, read: Time) -> bool {
    let (secs, nanos) = (ctime.secs.saturating_add(COARSEST), ctime.nanos);
    (secs, nanos) < (read.secs, read.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_just_before_is_not_settled() {
        let read = Time::new(100, 5);
        for (secs, nanos, settled) in [(97, 0, true), (98, 4, true), (98, 5, false), (99, 0, false)]
        {
            assert_eq!(
                is_settled(Time::new(secs, nanos), read),
                settled,
                "{secs}.{nanos}"
            );
        }
    }
}
