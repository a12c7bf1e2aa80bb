//! Takes over a snapshot of another repository, blob by blob.
//!
//! Ids are hashes of what is inside, so trees and data keep theirs: what the repository has already is
//! not read again, the rest is read, compared with its hash and sealed anew with this repository's key.
//! A copy that died goes on with what had reached an index file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{SnapshotWriter, intake::Intake};
use crate::{
    Snapshot, SnapshotId, TreeSummary, Vault, VaultError,
    engine::{Decoder, Known},
    id::Id,
    index::IdSet,
    node::{Node, NodeKind, tree_from_json},
    pack::BlobKind,
    reader::BlobReader,
    repository::{blocking, read},
};

/// The walk through the trees of the snapshot.
struct Copier {
    source: BlobReader,
    intake: Intake,
    decoder: Decoder,
    sink: Arc<Known>,
    seen: [IdSet; 2],
    summary: TreeSummary,
}

impl SnapshotWriter {
    /// Takes over a whole snapshot of `source` (or of this same vault), with its paths and under its own
    /// id as `original`; tags, time and host are this writer's. It is the only thing in the snapshot.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] names what cannot be read in the source and a file that needs it;
    /// [`VaultError::NoSuchSnapshot`], [`VaultError::Cancelled`], failures of either bank.
    pub async fn add_snapshot(
        &mut self,
        source: &Vault,
        id: &SnapshotId,
    ) -> Result<TreeSummary, VaultError> {
        let repository = &source.inner.repository;
        let done = match source.inner.locks.for_reading(repository).await {
            Ok(held) => {
                let done = self.try_add_snapshot(source, id).await;
                if let Some(held) = held {
                    held.release().await;
                }
                done
            }
            Err(error) => Err(error),
        };
        self.settle(done)
    }

    async fn try_add_snapshot(
        &mut self,
        source: &Vault,
        id: &SnapshotId,
    ) -> Result<TreeSummary, VaultError> {
        self.intake.writer.check()?;
        if !self.layout.is_empty() {
            return Err(VaultError::Invalid(
                "a snapshot is taken over whole, and there is something in this one already"
                    .to_owned(),
            ));
        }
        let snapshot = source.snapshot(id).await?;
        let repository = source.inner.repository.clone();
        repository.refresh_index().await?;
        let mut copier = Copier {
            source: BlobReader::new(repository),
            intake: self.intake.clone(),
            decoder: Decoder::new()?,
            sink: Arc::new(Known),
            seen: [IdSet::default(), IdSet::default()],
            summary: TreeSummary::default(),
        };
        let numbers = snapshot.numbers.as_ref();
        if let Some(numbers) = numbers {
            let progress = &self.intake.writer.control.progress;
            progress.expect_bytes(numbers.total_bytes_processed);
        }
        let tree = snapshot.tree;
        let summary = blocking(move || {
            copier.snapshot(tree)?;
            Ok(copier.summary)
        })
        .await?;
        self.intake.writer.until_idle().await;
        self.intake.writer.check()?;
        self.take_over(&snapshot);
        self.totals.add(&summary);
        Ok(summary)
    }

    fn take_over(&mut self, snapshot: &Snapshot) {
        self.paths.extend(snapshot.paths.iter().cloned());
        self.excludes.extend(snapshot.excludes.iter().cloned());
        self.original = Some(snapshot.original.unwrap_or(snapshot.id.0));
        self.layout.insert_whole(snapshot.tree);
    }
}

impl Copier {
    fn snapshot(&mut self, tree: Id) -> Result<(), VaultError> {
        let mut pending = vec![(tree, PathBuf::from("/"))];
        while let Some((tree, path)) = pending.pop() {
            for node in self.tree(&tree, &path)? {
                self.intake.writer.check()?;
                let path = path.join(node.os_name());
                match (node.kind, node.subtree) {
                    (NodeKind::Dir, Some(subtree)) => {
                        self.summary.dirs += 1;
                        pending.push((subtree, path));
                    }
                    (NodeKind::Dir, None) => {}
                    (NodeKind::File, _) => self.file(&node, &path)?,
                    _ => self.summary.files += 1,
                }
            }
        }
        Ok(())
    }

    /// Copies a tree; answers with what is in it, if it was not seen before.
    fn tree(&mut self, tree: &Id, path: &Path) -> Result<Vec<Node>, VaultError> {
        if !self.seen[BlobKind::Tree as usize].insert(*tree) {
            return Ok(Vec::new());
        }
        let named = |error: VaultError| error.for_file(&path.to_string_lossy());
        let json = self.source.load(BlobKind::Tree, tree, &mut self.decoder);
        let json = json.map_err(named)?;
        let nodes = tree_from_json(&json)
            .map_err(|reason| named(VaultError::damaged(format!("tree {tree}"), reason)))?;
        if !self.is_there(BlobKind::Tree, tree)? {
            self.submit(BlobKind::Tree, json)?;
        }
        Ok(nodes)
    }

    fn file(&mut self, node: &Node, path: &Path) -> Result<(), VaultError> {
        for blob in &node.content {
            self.blob(blob)
                .map_err(|error| error.for_file(&path.to_string_lossy()))?;
        }
        self.summary.files += 1;
        self.summary.bytes += node.size;
        self.intake.writer.control.progress.add_bytes(node.size);
        Ok(())
    }

    fn blob(&mut self, blob: &Id) -> Result<(), VaultError> {
        let is_new = self.seen[BlobKind::Data as usize].insert(*blob);
        if !is_new || self.is_there(BlobKind::Data, blob)? {
            return Ok(());
        }
        self.intake.writer.check()?;
        let data = self.source.load(BlobKind::Data, blob, &mut self.decoder)?;
        self.submit(BlobKind::Data, data)
    }

    /// Does the target have it, in a pack that is in its bank?
    fn is_there(&self, kind: BlobKind, blob: &Id) -> Result<bool, VaultError> {
        let shared = &self.intake.shared;
        shared.wait_for(shared.repository.look_for(kind, blob))?;
        Ok(read(&shared.repository.index).has(kind, blob))
    }

    fn submit(&self, kind: BlobKind, data: Vec<u8>) -> Result<(), VaultError> {
        let Intake { shared, writer, .. } = &self.intake;
        shared.submit(kind, data, self.sink.clone(), 0, writer)
    }
}
